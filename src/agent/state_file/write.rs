//! Writes one state file: beside the old one, to the disk, and then in its place.
//!
//! Whoever is killed at whatever step leaves the previous state or the next one, whole. The rename decides, and what comes
//! before it waits for the disk.

use super::{StateFile, text};
use crate::agent::now;
use crate::agent::upgrade::{PidFiles, Upgrade};
use crate::record::{Millis, Stamp};
use crate::store::control::Lease;
use crate::store::{Batch, Control, DumpPlace, StoreError, Zone};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes given to the system at once.
const SLICE: usize = 256 * 1024;
/// Who may read a file that wasn't there before: the user of the workers. One that was keeps what it had.
const MODE: u32 = 0o600;
/// Emptying the zone while it is written lets it begin anew, so often.
const BEGINNINGS: usize = 5;
/// A shard that is stuck is waited for so long in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// The end of the names of files that are being written.
const SUFFIX: &str = ".zmtmp";

/// Whether writing is still wanted.
#[derive(Clone)]
pub struct Licence {
    pub control: Control,
    pub lease: Lease,
    /// Where upgrades of nginx's binary show.
    pub pid_files: Option<PidFiles>,
    /// Set: it isn't any more.
    pub withdrawn: Arc<AtomicBool>,
}

impl Licence {
    /// Without the lease, or under an older configuration than the one in force, nothing may be written.
    pub fn holds(&self) -> bool {
        !self.withdrawn.load(Ordering::Acquire)
            && self.control.holds(&self.lease)
            && self.control.generation() == self.lease.generation
    }

    /// Whether it holds, and no new binary of nginx has taken over. Reads files.
    pub fn holds_at_last(&self) -> bool {
        self.holds() && self.pid_files.as_ref().is_none_or(|files| files.look() != Upgrade::Old)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub bytes: u64,
    pub took: Duration,
}

/// Why nothing was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It isn't wanted any more.
    #[error("it is others' to do")]
    Withdrawn,
    /// The system said so.
    #[error("{what} \"{path}\": {error}")]
    Io { what: &'static str, path: String, error: io::Error },
    /// A process holds a lock of the zone and doesn't go on.
    #[error(transparent)]
    Zone(#[from] StoreError),
}

/// Writes what the zone holds now. Blocks: not for the thread of an event loop.
///
/// # Errors
///
/// The file is as it was before.
pub fn write(file: &StateFile, licence: &Licence) -> Result<Saved, WriteError> {
    let began = Instant::now();
    let failed = |what: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |error| WriteError::Io { what, path, error }
    };
    let target = &*file.path;
    let new = Temporary(beside(target, std::process::id()));
    // One that is there is of a process of this number that was killed.
    let _ = fs::remove_file(&new.0);
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&new.0)
        .map_err(failed("can't make", &new.0))?;
    if let Ok(old) = fs::metadata(target) {
        let mode = old.permissions().mode() & 0o777;
        out.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("can't set the mode of", &new.0))?;
    }
    let mut written = fill(&file.zone, &mut out, &new.0, licence)?;
    for _ in 1..BEGINNINGS {
        if written.cleared == file.zone.cleared() {
            break;
        }
        out.set_len(0).and_then(|()| out.rewind()).map_err(failed("can't write", &new.0))?;
        written = fill(&file.zone, &mut out, &new.0, licence)?;
    }
    out.sync_all().map_err(failed("can't write", &new.0))?;
    drop(out);
    if !licence.holds_at_last() {
        return Err(WriteError::Withdrawn);
    }
    fs::rename(&new.0, target).map_err(failed("can't replace", target))?;
    let folder = folder_of(target);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("can't write the folder", folder))?;
    if !licence.holds() {
        return Err(WriteError::Withdrawn);
    }
    file.zone.state_saved(written.changes, now(), written.bytes);
    Ok(Saved { bytes: written.bytes, took: began.elapsed() })
}

/// Removes what writers left that were killed.
pub fn sweep(target: &Path) {
    let Some(name) = target.file_name() else { return };
    let own = beside(target, std::process::id());
    let Ok(entries) = fs::read_dir(folder_of(target)) else { return };
    for entry in entries.flatten() {
        let left_behind = entry.file_name();
        let number = left_behind
            .as_bytes()
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        if number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
            && entry.path() != own
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where process `pid` writes what becomes `target`.
fn beside(target: &Path, pid: u32) -> PathBuf {
    let mut name = target.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(format!(".{pid}{SUFFIX}").as_bytes());
    OsString::from_vec(name).into()
}

/// A file that is removed if it still has its first name in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct Written {
    changes: u64,
    cleared: Stamp,
    bytes: u64,
}

fn fill(zone: &Zone, file: &mut File, path: &Path, licence: &Licence) -> Result<Written, WriteError> {
    let (changes, cleared, now) = (zone.changes(), zone.cleared(), now());
    let shared = zone.params().sync;
    let mut out = Output { file, path, buffer: Vec::with_capacity(SLICE + SLICE / 2), bytes: 0 };
    let (mut place, mut batch, mut first) = (DumpPlace::default(), Batch::default(), !shared);
    text::opening(&mut out.buffer, shared.then_some(cleared));
    let mut stuck_since = None;
    loop {
        if !licence.holds() {
            return Err(WriteError::Withdrawn);
        }
        match zone.dump(&mut place, &mut batch) {
            Ok(true) => stuck_since = None,
            Ok(false) => break,
            Err(error) => {
                let since = *stuck_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        for dumped in batch.records().filter(|dumped| is_kept(dumped, shared, now)) {
            text::pair(&mut out.buffer, &dumped, std::mem::take(&mut first), shared);
            out.flush_from(SLICE)?;
        }
    }
    text::closing(&mut out.buffer);
    out.flush_from(0)?;
    Ok(Written { changes, cleared, bytes: out.bytes })
}

/// What has ended is of interest only where others may have something older of the key.
fn is_kept(dumped: &crate::store::Dumped<'_>, shared: bool, now: Millis) -> bool {
    shared || (dumped.record.value.is_some() && dumped.end.is_none_or(|end| end > now))
}

struct Output<'f> {
    file: &'f mut File,
    path: &'f Path,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Output<'_> {
    /// Gives the buffer to the system if it holds so many bytes.
    fn flush_from(&mut self, bytes: usize) -> Result<(), WriteError> {
        if self.buffer.len() >= bytes {
            let error = |error| WriteError::Io { what: "can't write", path: self.path.display().to_string(), error };
            self.file.write_all(&self.buffer).map_err(error)?;
            self.bytes += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}
