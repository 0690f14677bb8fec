//! Closed stamps: what this node promises of its own writes.

use std::sync::atomic::Ordering::SeqCst;

use super::layout::{header, shard};
use super::{ShardMask, Zone};
use crate::record::{Millis, Stamp};

impl Zone {
    /// This node's last closed stamp: it has announced that everything at or below it is in the feeds.
    pub fn closed(&self) -> Stamp {
        Stamp(self.region.load64(header::CLOSED, SeqCst))
    }

    /// No stamp was given here, or met, that is greater.
    pub fn last_stamp(&self) -> Stamp {
        let last = (0..self.geometry.shards).map(|index| Stamp(self.shard_unlocked(index).get(shard::LAST)));
        last.chain([self.closed(), self.cleared()]).max().unwrap_or_default()
    }

    /// Closes a stamp: every write of this node that begins after this gets a greater one. Those that began before are in
    /// the feeds once the shards of the returned mask have been walked to their end, besides those that the agent took
    /// with [`Zone::take_dirty`] before and hasn't walked yet.
    ///
    /// While records move between this zone and another, what may be promised is bounded (see `resize`), and so is the
    /// stamp that this returns.
    pub fn close(&self, now: Millis) -> (Stamp, ShardMask) {
        let (stamp, mask) = self.close_all(now);
        (self.within_limit(stamp), mask)
    }

    /// Closes a stamp without regard to what other memory may still hold of this node.
    pub(super) fn close_all(&self, now: Millis) -> (Stamp, ShardMask) {
        let given = (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::LAST_OWN)).max();
        let stamp = Stamp::at(now).max(Stamp(given.unwrap_or(0)));
        let before = self.region.word64(header::CLOSED).map_or(0, |word| word.fetch_max(stamp.0, SeqCst));
        // A writer that takes its lock after this look sees the closed stamp; one that has given it back has marked its
        // shard; one that holds it is waited for by the walk.
        let held = (0..self.geometry.shards)
            .filter(|index| self.shard_unlocked(*index).is_locked())
            .fold(0, |mask, index| mask | 1 << index);
        (stamp.max(Stamp(before)), held | self.region.load64(header::DIRTY, SeqCst))
    }

    /// How many writes and deletes this node has made in a shard: the difference tells how much a walker lags at most.
    pub fn writes(&self, shard: u32) -> u64 {
        let shard = self.shard_unlocked(shard);
        shard.get(shard::WRITES).wrapping_add(shard.get(shard::DELETES))
    }
}
