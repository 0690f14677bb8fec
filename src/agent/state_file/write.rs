//! Writes one state file: beside the old one, to the disk, and then in its place.
//!
//! Whoever is killed at whatever step leaves the previous state or the next one, whole. The rename decides, and what comes
//! before it waits for the disk. So does what was appended meanwhile (see `changes`).

use super::changes::{self, Journal, Round};
use super::{StateFile, folder_of, text};
use crate::agent::now;
use crate::agent::upgrade::{PidFiles, Upgrade};
use crate::record::{Millis, Stamp};
use crate::store::control::Lease;
use crate::store::failpoint::{Step, done};
use crate::store::{Batch, Control, DumpPlace, Followed, StateChanges, StoreError, Walk};
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
/// Bytes after which the disk is waited for, so that there is never much to wait for: not what is appended meanwhile either.
const SYNC: usize = 16 << 20;
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
    /// There is no state file that changes could be appended to.
    #[error("changes can't be appended")]
    Lost,
    /// The system said so.
    #[error("{what} \"{path}\": {error}")]
    Io { what: &'static str, path: String, error: io::Error },
    /// A process holds a lock of the zone and doesn't go on.
    #[error(transparent)]
    Zone(#[from] StoreError),
}

/// Writes what the zone holds now. Blocks: not for the thread of an event loop. What takes long is accompanied by `journal`, so
/// that changes don't wait for it: those since the last state file, which they are appended to, and at least those since this
/// began, which follow the new one.
///
/// # Errors
///
/// The file is as it was before.
pub fn write(state: &StateFile, licence: &Licence, journal: &mut Journal) -> Result<Saved, WriteError> {
    let zone = &state.zone;
    journal.close();
    let follows = zone.state_followed().is_some_and(|followed| changes::is_in_place(&state.path, &followed));
    if !follows {
        zone.state_unfollow();
    }
    let misses = zone.trail_misses();
    let mut mark = zone.trail_mark(now());
    if !follows && let Some(mark) = mark.take() {
        zone.trail_reach(mark, true);
    }
    let began = Instant::now();
    let (first, least) = match zone.state_changes().files {
        0 => (began + state.terms.slow, state.terms.follow),
        _ => (began, 0),
    };
    let round = zone.trail_stands().then_some(first);
    let mut whole = Whole { state, licence, journal, follows, bytes: 0, least, round, last: None };
    match whole.write() {
        Ok(written) => {
            let took = began.elapsed();
            whole.follow(&written, mark);
            zone.trail_mend(misses);
            zone.state_saved(whole.last.unwrap_or(written.changes), now(), written.followed.bytes);
            done(Step::FileSaved);
            changes::remove(&state.path, whole.journal.file().map(|(number, _)| number));
            Ok(Saved { bytes: written.followed.bytes, took })
        }
        Err(error) => {
            if let Some(mark) = mark {
                zone.trail_leave(mark);
            }
            if !follows {
                // What the journal has follows nothing.
                journal.close();
                zone.state_unfollow();
            }
            Err(error)
        }
    }
}

/// A state file in the making.
struct Whole<'a> {
    state: &'a StateFile,
    licence: &'a Licence,
    journal: &'a mut Journal,
    /// Changes are appended to the last state file, too.
    follows: bool,
    /// What the new file has by now, and with how much it is large enough for changes to be appended meanwhile.
    bytes: u64,
    least: u64,
    /// When what has changed meanwhile is appended next; `None`: it can't be.
    round: Option<Instant>,
    /// What [`Zone::changes`] said when all before it was appended.
    last: Option<u64>,
}

struct Written {
    changes: u64,
    cleared: Stamp,
    followed: Followed,
}

impl Whole<'_> {
    fn write(&mut self) -> Result<Written, WriteError> {
        let target = &*self.state.path;
        let new = Temporary(beside(target, std::process::id()));
        // One that is there is of a process of this number that was killed.
        let _ = fs::remove_file(&new.0);
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&new.0)
            .map_err(WriteError::of("can't make", &new.0))?;
        done(Step::NewFileMade);
        if let Ok(old) = fs::metadata(target) {
            let mode = fs::Permissions::from_mode(old.permissions().mode() & 0o777);
            out.set_permissions(mode).map_err(WriteError::of("can't set the mode of", &new.0))?;
        }
        let mut filled = self.fill(&mut out, &new.0)?;
        for _ in 1..BEGINNINGS {
            if filled.cleared == self.state.zone.cleared() {
                break;
            }
            out.set_len(0).and_then(|()| out.rewind()).map_err(WriteError::of("can't write", &new.0))?;
            filled = self.fill(&mut out, &new.0)?;
        }
        done(Step::NewFileWritten);
        out.sync_all().map_err(WriteError::of("can't write", &new.0))?;
        done(Step::NewFileSynced);
        let about = out.metadata().and_then(|about| changes::known_by(&about, filled.stamp));
        let followed = about.map_err(WriteError::of("can't write", &new.0))?;
        drop(out);
        self.meanwhile()?;
        if !self.licence.holds_at_last() {
            return Err(WriteError::Withdrawn);
        }
        self.journal.seal(self.state, &followed)?;
        fs::rename(&new.0, target).map_err(WriteError::of("can't replace", target))?;
        done(Step::Renamed);
        let folder = folder_of(target);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(WriteError::of("can't write the folder", folder))?;
        done(Step::FolderSynced);
        if !self.licence.holds() {
            return Err(WriteError::Withdrawn);
        }
        Ok(Written { changes: filled.changes, cleared: filled.cleared, followed })
    }

    /// The zone's records, once.
    fn fill(&mut self, file: &mut File, path: &Path) -> Result<Filled, WriteError> {
        let zone = &self.state.zone;
        zone.close(now());
        let (changes, cleared, stamp, now) = (zone.changes(), zone.cleared(), zone.closed().next(), now());
        let shared = zone.params().sync;
        let mut out = Output { file, path, buffer: Vec::with_capacity(SLICE + SLICE / 2), bytes: 0, unsynced: 0 };
        let (mut place, mut batch) = (DumpPlace::default(), Batch::default());
        let mut first = !text::opening(&mut out.buffer, zone.seed(), shared.then_some(cleared));
        done(Step::NewFileBegun);
        let mut stuck_since = None;
        loop {
            if !self.licence.holds() {
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
            self.bytes = out.bytes;
            self.meanwhile()?;
        }
        text::closing(&mut out.buffer);
        out.flush_from(0)?;
        self.bytes = out.bytes;
        Ok(Filled { changes, cleared, stamp })
    }

    /// Appends what has changed meanwhile, if it is time to.
    fn meanwhile(&mut self) -> Result<(), WriteError> {
        if self.bytes < self.least || self.round.is_none_or(|round| Instant::now() < round) {
            return Ok(());
        }
        match self.journal.append(self.state, self.licence) {
            Ok(Round { changes, all }) => {
                if all {
                    self.last = Some(changes);
                }
                if all && self.follows {
                    self.state.zone.state_covers(changes);
                }
                self.round = Some(Instant::now() + self.state.terms.rounds);
            }
            // The new file alone has to do.
            Err(WriteError::Lost) => (self.round, self.follows, self.last) = (None, false, None),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The file is in its place: what has changed since it was begun, and what will, follows it.
    fn follow(&mut self, written: &Written, mark: Option<Walk>) {
        let zone = &self.state.zone;
        let figures = zone.state_changes();
        if let Some((number, bytes)) = self.journal.file().filter(|_| zone.trail_stands()) {
            if let Some(mark) = mark {
                zone.trail_leave(mark);
            }
            let cleared = written.cleared.max(zone.state_cleared());
            zone.state_follow(&written.followed, cleared, &StateChanges { last: number, files: 1, bytes, ..figures });
        } else {
            self.journal.close();
            // Without one, the rounds that there were have found nothing.
            if let Some(mark) = mark {
                zone.trail_reach(mark, true);
            }
            done(Step::TrailMoved);
            if zone.trail_stands() && written.followed.bytes >= self.state.terms.follow {
                let none = StateChanges { last: 0, files: 0, bytes: 0, ..figures };
                zone.state_follow(&written.followed, written.cleared, &none);
            } else {
                zone.state_unfollow();
            }
        }
        done(Step::FileFollowed);
    }
}

impl WriteError {
    /// What the system said of this.
    pub fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError + use<> {
        let path = path.display().to_string();
        move |error| WriteError::Io { what, path, error }
    }
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

struct Filled {
    changes: u64,
    cleared: Stamp,
    /// Of pairs without a version.
    stamp: Stamp,
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
    unsynced: usize,
}

impl Output<'_> {
    /// Gives the buffer to the system if it holds so many bytes.
    fn flush_from(&mut self, bytes: usize) -> Result<(), WriteError> {
        if self.buffer.len() >= bytes {
            self.file.write_all(&self.buffer).map_err(WriteError::of("can't write", self.path))?;
            self.bytes += self.buffer.len() as u64;
            self.unsynced += self.buffer.len();
            self.buffer.clear();
            if self.unsynced >= SYNC {
                self.file.sync_data().map_err(WriteError::of("can't write", self.path))?;
                self.unsynced = 0;
            }
        }
        Ok(())
    }
}
