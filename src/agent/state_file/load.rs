//! Fills a new zone from its state file. In the master, while nginx reads its configuration.

use super::chain::{self, Chain, ChainError};
use super::read::{About, Item, Pair, ReadError, Reader};
use super::{Terms, changes, number};
use crate::record::{Kind, Millis, Record, Stamp, Version};
use crate::store::{Applied, Followed, MAX_KEY, Matching, Params, StateChanges, StoreError, Zone};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A version from so far ahead of the clock is a fault of a clock that was mended since: to keep it would let every later
/// write of the zone, here and elsewhere, be from the future too.
const TOO_FAR_AHEAD: Millis = 24 * 3_600_000;
/// How far ahead stamps are is of no interest otherwise: the records have been here before.
const ANY_DRIFT: Millis = Millis::MAX;
/// So often at most a file is read that is replaced again and again meanwhile.
const TRIES: usize = 10;

/// What was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Records that the zone has now.
    pub records: u64,
    /// Records whose end had come.
    pub ended: u64,
    /// Records that didn't fit, in a zone with `evict`.
    pub given_up: u64,
    /// Records with versions from the future, which were replaced.
    pub ahead: u64,
    /// Files of changes that follow the state file.
    pub changes: usize,
    /// Files of changes that follow another state file than the one that is there.
    pub left_out: usize,
}

/// Why a state file can't be loaded. The zone is of no use then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be opened or read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It isn't a state file, or not a whole one.
    #[error(
        "is damaged at byte {offset}: {why}; mend it, or move it away to begin with an empty zone (it is left as it is)"
    )]
    Damaged {
        /// Where, from 0.
        offset: u64,
        /// In words.
        why: String,
    },
    /// A file of changes that may follow it can't be read.
    #[error(
        "is followed by \"{path}\", which {error}; mend it, or move all files of changes away to begin with the state file \
         alone (they are left as they are)"
    )]
    Changes {
        /// Which one.
        path: String,
        /// What is wrong.
        error: ReadError,
    },
    /// Each time it was read, it was replaced.
    #[error("was replaced each time while it was read; does another nginx write it? Try again")]
    Restless,
    /// Not all of it fits.
    #[error(
        "has {records} records, of which {lost} don't fit into the zone; give the zone more memory, or add \"evict\" to \
         give up what doesn't fit"
    )]
    Full {
        /// So many.
        records: u64,
        /// Of them.
        lost: u64,
    },
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> LoadError {
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::Damaged { offset, why } => LoadError::Damaged { offset, why: why.into_owned() },
        }
    }
}

impl From<ChainError> for LoadError {
    fn from(ChainError { path, error }: ChainError) -> LoadError {
        LoadError::Changes { path: path.display().to_string(), error }
    }
}

/// Fills `zone`, which is new and which nobody else uses yet. `None`: there is no such file, and the zone stays empty.
///
/// Another nginx may be writing the file (this may be a test of its configuration, or its next binary): what was read of a file
/// that isn't in its place any more is of the past, and the files of changes beside it follow another one. It is read anew then.
///
/// # Errors
///
/// The file can't be read, is damaged, or has more than fits.
pub fn load(path: &Path, zone: &Zone, now: Millis) -> Result<Option<Loaded>, LoadError> {
    let (mut packed, mut failure) = (false, LoadError::Restless);
    for _ in 0..TRIES {
        let file = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                zone.keep_state(Some(number(path)));
                zone.state_loaded(0, 0);
                return Ok(None);
            }
            opened => opened?,
        };
        // While it is open, no other file can pass for it.
        let held = file.try_clone()?;
        failure = match load_once(file, path, zone, now, packed) {
            _ if is_replaced(path, &held)? => LoadError::Restless,
            // Maybe a zone had found room for all of it, in another order.
            Err(full @ LoadError::Full { .. }) if !packed => {
                packed = true;
                full
            }
            Ok(whole) => return Ok(Some(whole.keep(zone, now))),
            Err(error) => return Err(error),
        };
        if zone.begin_anew().is_err() {
            break;
        }
    }
    Err(failure)
}

fn is_replaced(path: &Path, held: &File) -> io::Result<bool> {
    let held = held.metadata()?;
    Ok(fs::metadata(path).map_or(true, |there| (there.dev(), there.ino()) != (held.dev(), held.ino())))
}

/// `packed`: as tightly as can be, the largest pairs first. All of them are in memory then.
fn load_once(file: File, path: &Path, zone: &Zone, now: Millis, packed: bool) -> Result<Whole, LoadError> {
    zone.keep_state(Some(number(path)));
    let mut found = changes::known_by(&file.metadata()?, Stamp::ZERO)?;
    let modified = found.modified / 1_000_000;
    let counters = zone.params().matching == Matching::Counter;
    let (chain, left_out) = chain::read(path, &found, counters)?;
    found.stamp = chain.as_ref().map_or(Stamp::at(modified.min(now)), |chain| chain.followed.stamp);
    let mut filling = Filling {
        zone,
        params: zone.params(),
        now,
        unversioned: found.stamp,
        lost: 0,
        lives: 0,
        loaded: Loaded {
            changes: chain.as_ref().map_or(0, |chain| chain.paths().count()),
            left_out,
            ..Loaded::default()
        },
        packed,
        waiting: Vec::new(),
    };
    let mut reader = Reader::new(file).with(counters);
    match &chain {
        None => filling.state(&mut reader, |_| false)?,
        Some(chain) => {
            // First of all, so that it takes none of what came after it.
            filling.clear(chain.cleared);
            filling.state(&mut reader, |key| chain.knows(key))?;
            filling.changes(chain)?;
        }
    }
    filling.settle()?;
    let Filling { mut loaded, lost, params, lives, .. } = filling;
    if lost > 0 && !params.evict {
        return Err(LoadError::Full { records: loaded.records + lost, lost });
    }
    loaded.given_up = lost + zone.stats().evicted;
    loaded.records -= zone.stats().evicted.min(loaded.records);
    // What the files say another time must be what the zone has now.
    let follow = loaded.ahead == 0 && lives == 0;
    Ok(Whole { loaded, modified, bytes: reader.offset(), follow, found, chain })
}

/// All that was read, of a file that is in its place.
struct Whole {
    loaded: Loaded,
    modified: Millis,
    bytes: u64,
    /// Changes may follow it.
    follow: bool,
    found: Followed,
    chain: Option<Chain>,
}

impl Whole {
    /// The zone has it, and stays as it is: what it gives its own writes from here on comes after all that was read.
    fn keep(self, zone: &Zone, now: Millis) -> Loaded {
        zone.state_loaded(self.modified, self.bytes);
        if self.follow {
            follow(zone, now, &self.found, self.chain.as_ref());
        }
        self.loaded
    }
}

/// What changes from now on can be appended to what was loaded.
fn follow(zone: &Zone, now: Millis, found: &Followed, chain: Option<&Chain>) {
    if chain.is_none() && found.bytes < Terms::ORDINARY.follow {
        return;
    }
    let Some(mark) = zone.trail_mark(now) else { return };
    zone.trail_reach(mark, true);
    let changes = chain.map(|chain| StateChanges {
        last: chain.last_number(),
        files: chain.paths().count() as u64,
        bytes: chain.bytes(),
        ..StateChanges::default()
    });
    zone.state_follow(found, zone.cleared(), &changes.unwrap_or_default());
}

/// The seed with which a zone holds whatever the one held whose file this is; `None`: any will do. What is wrong with the
/// file is for [`load`] to say.
pub fn seed(path: &Path) -> Option<[u8; 16]> {
    match Reader::new(open(path).ok()?).item() {
        Ok(Some(Item::About(about))) => about.seed,
        _ => None,
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe would let nginx wait for whoever writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

struct Filling<'z> {
    zone: &'z Zone,
    params: Params,
    now: Millis,
    /// The stamp of pairs without a version.
    unversioned: Stamp,
    lost: u64,
    /// Pairs that were given the zone's timeout.
    lives: u64,
    loaded: Loaded,
    packed: bool,
    /// What waits for larger ones.
    waiting: Vec<Pair>,
}

impl Filling<'_> {
    /// Takes all of a state file, but for keys that are known otherwise.
    fn state(&mut self, reader: &mut Reader<File>, known: impl Fn(&[u8]) -> bool) -> Result<(), LoadError> {
        while let Some(item) = reader.item()? {
            match item {
                Item::Pair(pair) if known(&pair.key) => {}
                Item::Pair(pair) => self.take(pair)?,
                Item::About(About { cleared, .. }) => self.clear(cleared.unwrap_or_default()),
            }
        }
        Ok(())
    }

    /// Takes the lines that count.
    fn changes(&mut self, chain: &Chain) -> Result<(), LoadError> {
        for (file, path) in chain.paths().enumerate() {
            let failed = |error| ChainError { path: path.to_path_buf(), error };
            let mut reader = chain.open(file).map_err(|error| failed(error.into()))?;
            while let Some(item) = reader.item().map_err(failed)? {
                if let Item::Pair(pair) = item
                    && chain.counts(file, &pair.key, pair.offset)
                {
                    self.take(pair).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn clear(&self, cleared: Stamp) {
        // Nobody holds a lock of a zone that nobody uses.
        let _ = self.zone.apply_clear(cleared, self.now, ANY_DRIFT);
    }

    fn take(&mut self, pair: Pair) -> Result<(), ReadError> {
        if self.packed {
            self.waiting.push(pair);
            return Ok(());
        }
        self.pair(&pair)
    }

    /// Takes what waits.
    fn settle(&mut self) -> Result<(), ReadError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|pair| std::cmp::Reverse(pair.key.len() + pair.value.as_ref().map_or(0, Vec::len)));
        waiting.iter().try_for_each(|pair| self.pair(pair))
    }

    fn pair(&mut self, pair: &Pair) -> Result<(), ReadError> {
        let damage = |why: String| Err(ReadError::Damaged { offset: pair.offset, why: why.into() });
        if self.zone.has_record(&pair.key, self.now) {
            return damage("the key was there before".to_owned());
        }
        let has_ended = pair.end.is_some_and(|end| end <= self.now);
        if has_ended {
            self.loaded.ended += u64::from(pair.value.is_some());
        }
        if !self.is_needed(pair) {
            return Ok(());
        }
        let record = Record {
            kind: if self.params.matching == Matching::Counter { Kind::Counter } else { Kind::Register },
            version: self.version(pair),
            key: &pair.key,
            value: pair.value.as_deref(),
            expires: match (&pair.value, pair.end) {
                (Some(_), None) => self.life(),
                (Some(_), end) => end,
                (None, _) => None,
            },
            shortened: pair.shortened,
        };
        let is_live = record.value.is_some() && !has_ended;
        match self.zone.restore(&record, self.now, self.packed) {
            Ok(Applied::Newer) => self.loaded.records += u64::from(is_live),
            Ok(Applied::Full) => self.lost += u64::from(is_live),
            Ok(Applied::Stale | Applied::Future) => {}
            Err(StoreError::BadKey) if pair.key.len() <= MAX_KEY => {
                return damage(format!("no key of a zone of type={}", self.params.matching.name()));
            }
            // Too long, for example.
            Err(error) => return damage(error.to_string()),
        }
        Ok(())
    }

    /// When a pair ends that doesn't say it.
    fn life(&mut self) -> Option<Millis> {
        let timeout = self.params.timeout?;
        self.lives += 1;
        Some(self.now.saturating_add(timeout))
    }

    /// Whether the zone needs to know. A shared one remembers deletes and what has ended, for a while.
    fn is_needed(&self, pair: &Pair) -> bool {
        match (&pair.value, pair.end) {
            (None, end) => self.params.sync && end.is_none_or(|end| end > self.now),
            (Some(_), Some(end)) if end <= self.now => {
                self.params.sync && pair.version.is_some() && end.saturating_add(self.params.retention) > self.now
            }
            _ => true,
        }
    }

    fn version(&mut self, pair: &Pair) -> Version {
        let latest = self.now.saturating_add(TOO_FAR_AHEAD);
        match pair.version {
            Some(version) if version.stamp.millis() <= latest => version,
            ahead => {
                self.loaded.ahead += u64::from(ahead.is_some());
                Version { stamp: self.unversioned, origin: self.params.node }
            }
        }
    }
}
