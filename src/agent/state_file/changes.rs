//! Files of changes: what changed since a state file was written, appended beside it, for zones that take long to write.
//!
//! `one.json` is followed by `one.json.1.changes` and so on, an object a line. Each begins with its number, and says what it
//! belongs to: the file of changes that it goes on from, or the state file that it follows. A state file is known by its time
//! and its length, so that one that somebody else put there is followed by nothing. A new state file is announced in the
//! file of changes that was begun when its making was, right before it takes its place: whichever of the two is found, that
//! file belongs to it.
//!
//! Each writer has a file of its own, and only its last line can be half there. Nothing is cut off or written over, but by who
//! wrote it. What is in a file twice, or in a state file already, does no harm: of each key the last line counts.

use super::write::{Licence, WriteError};
use super::{StateFile, folder_of, text};
use crate::agent::now;
use crate::store::failpoint::{Step, done};
use crate::store::{Batch, FeedEnd, Followed, StateChanges, Walk, Zone};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Bytes given to the system at once.
const SLICE: usize = 256 * 1024;
/// Bytes after which a round ends, so that what is written is soon on the disk.
const ROUND: u64 = 16 << 20;
/// Who may read a file where there is no state file yet whose mode it takes.
const MODE: u32 = 0o600;
/// The end of the names of these files.
const SUFFIX: &str = ".changes";

/// Writes the changes of one zone. The default has no file open: it begins one.
#[derive(Debug, Default)]
pub struct Journal {
    open: Option<Open>,
    /// The shard that the next round begins with: the one that the last didn't come to the end of.
    first: u32,
}

#[derive(Debug)]
struct Open {
    number: u64,
    path: PathBuf,
    file: File,
    /// What of it is on the disk.
    len: u64,
    /// Bytes behind that.
    ahead: u64,
    /// It counts in the zone's figures.
    counted: bool,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// What [`Zone::changes`] said before it.
    pub changes: u64,
    /// Everything that was changed before it is on the disk.
    pub all: bool,
}

impl Journal {
    /// Appends what has changed since the last round and waits for the disk. Blocks: not for the thread of an event loop.
    ///
    /// # Errors
    ///
    /// What has changed waits for the next round. `Lost`: there is nothing that could be appended to.
    pub fn append(&mut self, state: &StateFile, licence: &Licence) -> Result<Round, WriteError> {
        let zone = &state.zone;
        if let Some(followed) = zone.state_followed()
            && !is_in_place(&state.path, &followed)
        {
            zone.state_lost();
            return Err(WriteError::Lost);
        }
        let changes = zone.changes();
        let Some(mut walk) = zone.trail_walk(now()) else {
            zone.state_lost();
            return Err(WriteError::Lost);
        };
        match self.round(state, licence, &mut walk) {
            Ok(all) => {
                zone.trail_reach(walk, all);
                done(Step::ChangesReached);
                Ok(Round { changes, all })
            }
            Err(error) => {
                zone.trail_leave(walk);
                self.cut_back();
                Err(error)
            }
        }
    }

    /// Says that what was appended since this journal's file was begun follows a state file which is about to be put in its
    /// place.
    pub fn seal(&mut self, state: &StateFile, followed: &Followed) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut line = Vec::new();
        text::follows(&mut line, followed);
        let sealed = open.write(&line).and_then(|()| open.sync(&state.zone));
        if sealed.is_err() {
            self.cut_back();
        }
        done(Step::Sealed);
        sealed
    }

    /// The number and length of the file that is open.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.open.as_ref().map(|open| (open.number, open.len))
    }

    /// What comes next goes to a new file.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn round(&mut self, state: &StateFile, licence: &Licence, walk: &mut Walk) -> Result<bool, WriteError> {
        let zone = &state.zone;
        let (mut out, mut batch) = (Vec::new(), Batch::default());
        let (mut written, mut all) = (0, true);
        let cleared = zone.cleared();
        if cleared > zone.state_cleared() {
            text::cleared(&mut out, cleared);
        }
        let shards = zone.shard_count();
        let first = self.first;
        'shards: for shard in (0..shards).map(|n| (first + n) % shards) {
            loop {
                if !licence.holds() {
                    return Err(WriteError::Withdrawn);
                }
                match zone.trail_step(walk, shard, &mut batch) {
                    Ok(end) => {
                        for dumped in batch.records() {
                            text::line(&mut out, &dumped);
                            if out.len() >= SLICE {
                                written += self.put(state, &mut out)?;
                            }
                        }
                        if end == FeedEnd::Drained {
                            break;
                        }
                    }
                    // Its turn comes with the next round.
                    Err(_) => {
                        all = false;
                        break;
                    }
                }
                if written >= ROUND {
                    (self.first, all) = (shard, false);
                    break 'shards;
                }
            }
        }
        written += self.put(state, &mut out)?;
        if !licence.holds_at_last() {
            return Err(WriteError::Withdrawn);
        }
        if let Some(open) = self.open.as_mut().filter(|_| written > 0) {
            open.sync(zone)?;
            if !licence.holds() {
                return Err(WriteError::Withdrawn);
            }
            let changes = zone.state_changes();
            zone.state_appended(&StateChanges { appended: now(), appends: changes.appends + 1, ..changes }, cleared);
            done(Step::ChangesCounted);
        }
        Ok(all)
    }

    /// Gives text to the system; how many bytes.
    fn put(&mut self, state: &StateFile, out: &mut Vec<u8>) -> Result<u64, WriteError> {
        if out.is_empty() {
            return Ok(0);
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::new(state)?),
        };
        open.write(out)?;
        done(Step::ChangesWritten);
        let bytes = out.len() as u64;
        out.clear();
        Ok(bytes)
    }

    /// After a failure: a line may be half there, and nothing may come behind it.
    fn cut_back(&mut self) {
        if self.open.as_mut().is_some_and(|open| open.file.set_len(open.len).is_err()) {
            self.open = None;
        } else if let Some(open) = &mut self.open {
            open.ahead = 0;
        }
    }
}

impl Open {
    /// A new file, with what it belongs to.
    fn new(state: &StateFile) -> Result<Open, WriteError> {
        let (zone, target) = (&state.zone, &*state.path);
        let last = zone.state_changes().last;
        let there = list(target).map_err(WriteError::of("can't read the folder", folder_of(target)))?;
        let number = there.last().map_or(0, |(number, _)| *number).max(last) + 1;
        let path = path(target, number);
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).mode(MODE).open(&path);
        let file = file.map_err(WriteError::of("can't make", &path))?;
        done(Step::ChangesMade);
        let mut open = Open { number, path, file, len: 0, ahead: 0, counted: false };
        let begun = open.begin(target, zone, last);
        if begun.is_err() {
            // Nobody else knows of it.
            let _ = fs::remove_file(&open.path);
        }
        begun.map(|()| open)
    }

    fn begin(&mut self, target: &Path, zone: &Zone, last: u64) -> Result<(), WriteError> {
        if let Ok(about) = fs::metadata(target) {
            let mode = fs::Permissions::from_mode(about.permissions().mode() & 0o777);
            self.file.set_permissions(mode).map_err(WriteError::of("can't set the mode of", &self.path))?;
        }
        let mut head = Vec::new();
        text::changes(&mut head, self.number, (last > 0).then_some(last));
        if last == 0
            && let Some(followed) = zone.state_followed()
        {
            text::follows(&mut head, &followed);
        }
        self.write(&head)?;
        self.file.sync_data().map_err(WriteError::of("can't write", &self.path))?;
        let folder = folder_of(target);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(WriteError::of("can't write the folder", folder))?;
        done(Step::ChangesBegun);
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(text).map_err(WriteError::of("can't write", &self.path))?;
        self.ahead += text.len() as u64;
        Ok(())
    }

    /// Waits for the disk, and counts.
    fn sync(&mut self, zone: &Zone) -> Result<(), WriteError> {
        self.file.sync_data().map_err(WriteError::of("can't write", &self.path))?;
        done(Step::ChangesSynced);
        let changes = zone.state_changes();
        let files = changes.files + u64::from(!std::mem::replace(&mut self.counted, true));
        let bytes = changes.bytes + self.ahead;
        zone.state_appended(&StateChanges { last: self.number, files, bytes, ..changes }, zone.state_cleared());
        self.len += std::mem::take(&mut self.ahead);
        Ok(())
    }
}

/// The files of changes beside a state file, by their numbers.
pub fn list(target: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some(name) = target.file_name() else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for entry in fs::read_dir(folder_of(target))? {
        let entry = entry?;
        let number = number_in(entry.file_name().as_bytes(), name.as_bytes());
        all.extend(number.map(|number| (number, entry.path())));
    }
    all.sort_unstable();
    Ok(all)
}

/// Removes the files of changes beside a state file, but for one.
pub fn remove(target: &Path, but: Option<u64>) {
    for (number, path) in list(target).unwrap_or_default() {
        if Some(number) != but {
            // One that stays belongs to no state file that is there, or says what that says too.
            let _ = fs::remove_file(path);
            done(Step::OldChangesGone);
        }
    }
}

/// By which a state file is known; `stamp` is that of its pairs without one.
pub fn known_by(about: &Metadata, stamp: crate::record::Stamp) -> io::Result<Followed> {
    let modified = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Ok(Followed { modified, bytes: about.len(), stamp })
}

/// Whether the state file that changes follow is where it was put.
pub fn is_in_place(target: &Path, followed: &Followed) -> bool {
    let known = fs::metadata(target).and_then(|about| known_by(&about, followed.stamp));
    known.is_ok_and(|known| known == *followed)
}

fn number_in(name: &[u8], target: &[u8]) -> Option<u64> {
    let digits = name.strip_prefix(target)?.strip_prefix(b".")?.strip_suffix(SUFFIX.as_bytes())?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // As they are written, and not as somebody may have named a copy.
    (number > 0 && number < u64::MAX && number.to_string().as_bytes() == digits).then_some(number)
}

fn path(target: &Path, number: u64) -> PathBuf {
    let mut name = target.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(format!(".{number}{SUFFIX}").as_bytes());
    OsString::from_vec(name).into()
}
