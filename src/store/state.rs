//! What the zone itself knows of its state file: whether that holds what the zone holds, and figures for who watches it.
//!
//! The file is written elsewhere. What is known of it stands in the zone, so that it outlives whoever writes.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Zone;
use super::layout::{header, shard};
use crate::record::{Millis, Stamp};

/// Of a state that no file holds.
const NOT_SAVED: u64 = u64::MAX;

/// Figures of a state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFigures {
    /// When it was last written, or what was loaded was; 0: never.
    pub written: Millis,
    /// Its bytes then.
    pub bytes: u64,
    /// How often it was written since the zone was made.
    pub writes: u64,
    /// How often that failed.
    pub errors: u64,
    /// The zone has changed since, and neither that nor the files of changes have it.
    pub pending: bool,
    /// Of the files of changes beside it.
    pub changes: StateChanges,
}

/// Figures of the files of changes that follow a state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// The number of the last one; 0: there is none.
    pub last: u64,
    /// How many there are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When something was last appended to one; 0: never.
    pub appended: Millis,
    /// How often, since the zone was made.
    pub appends: u64,
}

/// By which a state file is told from any other that may be in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// When it was modified, in nanoseconds since the epoch; not 0.
    pub modified: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The stamp of its pairs without a version: above every emptying before they were read, below every later one.
    pub stamp: Stamp,
}

impl Zone {
    /// A number that moves with every change of what the zone holds. Read before a walk over all records, it stands for
    /// what the walk finds: a change that the walk may have missed makes another number.
    pub fn changes(&self) -> u64 {
        let counted = [shard::WRITES, shard::DELETES, shard::EXPIRED, shard::EVICTED];
        let shards = (0..self.geometry.shards).map(|index| {
            let shard = self.shard_unlocked(index);
            counted.iter().fold(0, |sum: u64, field| sum.wrapping_add(shard.get(*field)))
        });
        // Each of them only grows, so that no two changes make up for each other.
        let others = [header::MERGED, header::CLEARED, header::RETIRED].map(|field| self.region.load64(field, SeqCst));
        shards.chain(others).fold(0, u64::wrapping_add)
    }

    /// Whether what is written is to be known elsewhere: the zone is shared, or has a state file.
    pub fn is_kept(&self) -> bool {
        self.region.load32(header::SYNC, Relaxed) != 0 || self.region.load64(header::STATE_FILE, SeqCst) != 0
    }

    /// The zone has a state file (not 0: a hash of its path) or has none any more. One that it had not before holds nothing
    /// of it yet.
    pub fn keep_state(&self, file: Option<u64>) {
        let file = file.unwrap_or(0);
        if self.region.load64(header::STATE_FILE, SeqCst) != file {
            self.state_lost();
            for field in [
                header::STATE_TIME,
                header::STATE_BYTES,
                header::STATE_WRITES,
                header::STATE_ERRORS,
                header::CHANGES_TIME,
                header::CHANGES_APPENDS,
            ] {
                self.region.store64(field, 0, SeqCst);
            }
            self.region.store64(header::STATE_FILE, file, SeqCst);
        }
    }

    /// All of the zone came from its state file, which was written at `written`; 0: there is no file yet.
    pub fn state_loaded(&self, written: Millis, bytes: u64) {
        self.region.store64(header::STATE_TIME, written, SeqCst);
        self.region.store64(header::STATE_BYTES, bytes, SeqCst);
        self.region.store64(header::STATE_SAVED, self.changes(), SeqCst);
    }

    /// The file holds what the zone held when [`Zone::changes`] said `changes`.
    pub fn state_saved(&self, changes: u64, now: Millis, bytes: u64) {
        self.region.store64(header::STATE_TIME, now, SeqCst);
        self.region.store64(header::STATE_BYTES, bytes, SeqCst);
        self.region.store64(header::STATE_SAVED, changes, SeqCst);
        self.count_state(header::STATE_WRITES);
    }

    /// The file and those of changes hold what the zone held when [`Zone::changes`] said `changes`.
    pub fn state_covers(&self, changes: u64) {
        self.region.store64(header::STATE_SAVED, changes, SeqCst);
    }

    /// The file holds something else than was known of it: no change can be appended to it.
    pub fn state_lost(&self) {
        self.region.store64(header::STATE_SAVED, NOT_SAVED, SeqCst);
        self.state_unfollow();
    }

    /// Changes are appended to the file `followed`, which holds all that was there when the trail stood where it stands, up
    /// to the emptying `cleared`; `changes` belong to it already.
    pub fn state_follow(&self, followed: &Followed, cleared: Stamp, changes: &StateChanges) {
        // Who is killed in between leaves a file that is none that is known: the next one writes all anew.
        self.region.store64(header::FOLLOWED_TIME, 0, SeqCst);
        self.region.store64(header::FOLLOWED_STAMP, followed.stamp.0, SeqCst);
        self.region.store64(header::FOLLOWED_BYTES, followed.bytes, SeqCst);
        self.state_appended(changes, cleared);
        self.region.store64(header::FOLLOWED_TIME, followed.modified, SeqCst);
    }

    /// The file that changes are appended to. `None`: they aren't.
    pub fn state_followed(&self) -> Option<Followed> {
        let get = |field| self.region.load64(field, SeqCst);
        let modified = get(header::FOLLOWED_TIME);
        (modified != 0 && self.trail_stands()).then(|| Followed {
            modified,
            bytes: get(header::FOLLOWED_BYTES),
            stamp: Stamp(get(header::FOLLOWED_STAMP)),
        })
    }

    /// Changes aren't appended any more.
    pub fn state_unfollow(&self) {
        self.region.store64(header::FOLLOWED_TIME, 0, SeqCst);
        let StateChanges { appended, appends, .. } = self.state_changes();
        self.state_appended(&StateChanges { appended, appends, ..StateChanges::default() }, Stamp::ZERO);
        self.trail_end();
    }

    /// Figures of the files of changes.
    pub fn state_changes(&self) -> StateChanges {
        let get = |field| self.region.load64(field, SeqCst);
        StateChanges {
            last: get(header::CHANGES_LAST),
            files: get(header::CHANGES_FILES),
            bytes: get(header::CHANGES_BYTES),
            appended: get(header::CHANGES_TIME),
            appends: get(header::CHANGES_APPENDS),
        }
    }

    /// The last emptying that the file or those of changes know of.
    pub fn state_cleared(&self) -> Stamp {
        Stamp(self.region.load64(header::CHANGES_CLEARED, SeqCst))
    }

    /// Something was appended; `cleared`: the last emptying that is in it.
    pub fn state_appended(&self, changes: &StateChanges, cleared: Stamp) {
        self.region.store64(header::CHANGES_LAST, changes.last, SeqCst);
        self.region.store64(header::CHANGES_FILES, changes.files, SeqCst);
        self.region.store64(header::CHANGES_BYTES, changes.bytes, SeqCst);
        self.region.store64(header::CHANGES_TIME, changes.appended, SeqCst);
        self.region.store64(header::CHANGES_APPENDS, changes.appends, SeqCst);
        self.region.store64(header::CHANGES_CLEARED, cleared.0, SeqCst);
    }

    /// The file could not be written.
    pub fn state_failed(&self) {
        self.count_state(header::STATE_ERRORS);
    }

    /// Whether the zone holds something else than its state file.
    pub fn state_is_stale(&self) -> bool {
        self.region.load64(header::STATE_SAVED, SeqCst) != self.changes()
    }

    /// What is known of the state file; `None`: the zone has none.
    pub fn state_figures(&self) -> Option<StateFigures> {
        let get = |field| self.region.load64(field, SeqCst);
        (get(header::STATE_FILE) != 0).then(|| StateFigures {
            written: get(header::STATE_TIME),
            bytes: get(header::STATE_BYTES),
            writes: get(header::STATE_WRITES),
            errors: get(header::STATE_ERRORS),
            pending: self.state_is_stale(),
            changes: self.state_changes(),
        })
    }

    /// A record is about to be merged. Under its shard's lock, and before it is published: who is killed between leaves a
    /// change that wasn't one, rather than one that nobody knows of.
    pub(super) fn count_merged(&self) {
        if let Some(word) = self.region.word64(header::MERGED) {
            word.fetch_add(1, SeqCst);
        }
    }

    fn count_state(&self, field: usize) {
        if let Some(word) = self.region.word64(field) {
            word.fetch_add(1, Relaxed);
        }
    }
}
