//! State files, as far as nginx has to do with them: where they are, whether workers can write there, and what a new zone
//! begins with.

use crate::agent::state_file::{self, Loaded};
use crate::nginx::conf::main::KeyvalZone;
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::{ffi, log};
use nginx_sys as sys;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io, ptr, thread};

/// Supplementary groups of a user that are asked for at most.
const MAX_GROUPS: usize = 1024;

/// The file that `state=text` names: relative to the prefix, and without symbolic links, so that what they lead to is
/// replaced and not they.
pub fn path(conf: &Conf, text: &str) -> Result<PathBuf, Fault> {
    let mut name = ffi::borrowed(text.as_bytes());
    // SAFETY: the cycle that is being configured; nginx reads the name, and puts one in its pool in its place.
    let name = unsafe {
        if sys::ngx_conf_full_name(conf.cycle(), &mut name, 0) != ffi::OK {
            return Err(Fault::new("no memory"));
        }
        PathBuf::from(OsStr::from_bytes(ffi::bytes(name)))
    };
    let name = std::path::absolute(&name).unwrap_or(name);
    if let Ok(there) = fs::canonicalize(&name) {
        return Ok(there);
    }
    let folder = name.parent().and_then(|folder| fs::canonicalize(folder).ok());
    Ok(folder.zip(name.file_name()).map_or_else(|| name.clone(), |(folder, file)| folder.join(file)))
}

/// The users of files can write them: each in a folder that the workers may write to.
///
/// # Safety
/// `cycle` is being configured, and nginx's own core module has its configuration complete.
pub unsafe fn check(cycle: *const sys::ngx_cycle_t, zones: &[Box<KeyvalZone>]) -> Result<(), Fault> {
    if zones.iter().all(|zone| zone.state.is_none()) {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let user = unsafe { User::of_workers(cycle) };
    for zone in zones {
        let Some(path) = &zone.state else { continue };
        let fault = |why: String| Fault::at(&zone.place, format!("\"keyval_zone\" \"{}\": {why}", zone.name));
        let folder = state_file::folder_of(path);
        let shown = folder.display();
        match user.can_write(folder) {
            Ok(()) if path.is_dir() => {
                return Err(fault(format!("its state file \"{}\" is a folder; name a file", path.display())));
            }
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(fault(format!(
                    "the folder \"{shown}\" of its state file is not there; run: mkdir -p {shown} && chown {} {shown}",
                    user.name
                )));
            }
            Err(error) => {
                return Err(fault(format!(
                    "the workers' user \"{0}\" can't write to the folder \"{shown}\" of its state file ({error}), where each \
                     new state is made; run: chown {0} {shown}",
                    user.name
                )));
            }
        }
    }
    Ok(())
}

/// Fills a zone in new memory from its state file.
pub fn load(zone: &KeyvalZone) -> Result<(), String> {
    let (Some(path), Some(store)) = (&zone.state, &zone.zone) else { return Ok(()) };
    let of = || format!("keyval_zone \"{}\" in {}", zone.name, zone.place);
    let loaded = state_file::load(path, store, ffi::now())
        .map_err(|error| format!("{}: the state file \"{}\" {error}", of(), path.display()))?;
    let Some(Loaded { records, ended, given_up, ahead, changes, left_out }) = loaded else { return Ok(()) };
    let path = path.display();
    log::cycle(log::NOTICE, format_args!("{}: {records} records were read from \"{path}\", {ended} had ended", of()));
    if changes > 0 {
        log::cycle(log::NOTICE, format_args!("{}: with the changes of {changes} files that follow \"{path}\"", of()));
    }
    if left_out > 0 {
        let text = "beside it follow another state file than the one that is there, and were left out";
        log::cycle(log::WARN, format_args!("{}: \"{path}\": {left_out} files of changes {text}", of()));
    }
    if given_up > 0 {
        log::cycle(log::WARN, format_args!("{}: {given_up} records of \"{path}\" didn't fit and were given up", of()));
    }
    if ahead > 0 {
        let text = "had versions from more than a day in the future, and are taken as written when the file was";
        log::cycle(log::WARN, format_args!("{}: {ahead} records of \"{path}\" {text}", of()));
    }
    Ok(())
}

/// Who the workers are.
struct User {
    name: String,
    /// User, group, further groups; `None`: the same as the master.
    other: Option<(libc::uid_t, libc::gid_t, Vec<libc::gid_t>)>,
}

impl User {
    unsafe fn of_workers(cycle: *const sys::ngx_cycle_t) -> User {
        // SAFETY: takes no pointers.
        let own = unsafe { libc::geteuid() };
        // SAFETY: the caller's promise; the name is null or a string of C that lives as long as the configuration.
        let (name, user, group) = unsafe {
            let core = *(*cycle).conf_ctx.add(sys::ngx_core_module.index);
            let core = &*core.cast::<sys::ngx_core_conf_t>();
            (core.username, core.user, core.group)
        };
        if own != 0 || name.is_null() || user == libc::uid_t::MAX {
            return User { name: own.to_string(), other: None };
        }
        let mut groups = vec![0; MAX_GROUPS];
        let mut count = MAX_GROUPS as libc::c_int;
        // SAFETY: `groups` has room for as many as `count` says; the name is a string of C.
        let (known, name) = unsafe {
            (libc::getgrouplist(name, group, groups.as_mut_ptr(), &mut count), CStr::from_ptr(name).to_string_lossy())
        };
        groups.truncate(if known < 0 { 0 } else { usize::try_from(count).unwrap_or(0) });
        User { name: name.into_owned(), other: Some((user, group, groups)) }
    }

    /// Whether this user may make files in a folder, and put them in the place of others.
    fn can_write(&self, folder: &Path) -> io::Result<()> {
        let folder = CString::new(folder.as_os_str().to_owned().into_vec())?;
        // The system keeps credentials for each thread; it is the C library that changes them for all. So a thread of its
        // own can be somebody else, and when it ends nothing has changed.
        let asked = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.other.as_ref().map_or(Ok(()), |(user, group, groups)| become_other(*user, *group, groups))?;
                    // SAFETY: a string of C; nothing is written.
                    done(unsafe { libc::faccessat(libc::AT_FDCWD, folder.as_ptr(), libc::W_OK | libc::X_OK, 0) }.into())
                })
                .join()
        });
        asked.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    }
}

/// Gives the calling thread, and no other, the rights of another user.
fn become_other(user: libc::uid_t, group: libc::gid_t, groups: &[libc::gid_t]) -> io::Result<()> {
    let list = if groups.is_empty() { ptr::null() } else { groups.as_ptr() };
    // SAFETY: the calls read the list of groups, and change nothing but the credentials of this thread.
    unsafe {
        done(libc::syscall(libc::SYS_setgroups, groups.len(), list))?;
        done(libc::syscall(libc::SYS_setresgid, group, group, group))?;
        done(libc::syscall(libc::SYS_setresuid, user, user, user))
    }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
