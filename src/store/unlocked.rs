//! Shards looked at without their locks.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::fence;

use super::Zone;
use super::layout::shard;

/// A shard looked at without its lock.
pub struct UnlockedShard<'a> {
    zone: &'a Zone,
    base: usize,
}

impl Zone {
    /// A shard that nobody else can use yet or that is only read: not locked.
    pub(super) fn shard_unlocked(&self, index: u32) -> UnlockedShard<'_> {
        UnlockedShard { zone: self, base: self.geometry.shard(index) }
    }
}

impl UnlockedShard<'_> {
    /// A field of the shard, as of some moment.
    #[inline]
    pub fn get(&self, field: usize) -> u64 {
        self.zone.region.load64(self.base + field, Relaxed)
    }

    /// Whether somebody holds the lock; in one order with the closing of stamps.
    pub fn is_locked(&self) -> bool {
        self.zone.region.load64(self.base + shard::LOCK, SeqCst) != 0
    }

    /// The sequence before reading.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.zone.region.load64(self.base + shard::SEQUENCE, Acquire)
    }

    /// Whether something is half done; to be asked after [`UnlockedShard::sequence`].
    #[inline]
    pub fn is_changing(&self) -> bool {
        self.zone.region.load64(self.base + shard::CHANGING, Acquire) != 0
    }

    /// Whether nothing that was read since `sequence` can have been reused meanwhile.
    #[inline]
    pub fn is_unmoved(&self, sequence: u64) -> bool {
        // Orders the relaxed reads of the records before the read of the sequence.
        fence(Acquire);
        self.get(shard::SEQUENCE) == sequence
    }
}
