//! What the zone itself knows of its state file: whether that holds what the zone holds, and figures for who watches it.
//!
//! The file is written elsewhere. What is known of it stands in the zone, so that it outlives whoever writes.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Zone;
use super::layout::{header, shard};
use crate::record::Millis;

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
    /// The zone has changed since.
    pub pending: bool,
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
        let others = [header::MERGED, header::CLEARED].map(|field| self.region.load64(field, SeqCst));
        shards.chain(others).fold(0, u64::wrapping_add)
    }

    /// The zone has a state file (not 0: a hash of its path) or has none any more. One that it had not before holds nothing
    /// of it yet.
    pub fn keep_state(&self, file: Option<u64>) {
        let file = file.unwrap_or(0);
        if self.region.load64(header::STATE_FILE, SeqCst) != file {
            self.state_lost();
            for field in [header::STATE_TIME, header::STATE_BYTES, header::STATE_WRITES, header::STATE_ERRORS] {
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

    /// The file holds something else than was known of it.
    pub fn state_lost(&self) {
        self.region.store64(header::STATE_SAVED, NOT_SAVED, SeqCst);
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
