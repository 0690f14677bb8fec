//! One shard under its lock: chains of records, and the steps by which one is put in, replaced or taken out.
//!
//! The chains are the truth. Everything else (free lists, feed, expiry order, counters) is made from them by
//! [`Shard::repair`] when a lock's owner died. So each change of a chain is one store of one link, and comes after the new
//! record is whole and before the old one is touched.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::thread;

use super::arena::Need;
use super::block::{self, Block, CHAIN_NEXT, Fields};
use super::failpoint::{Step, done};
use super::layout::{self, header, link, shard};
use super::lock::{self, Obtained};
use super::{StoreError, Zone};
use crate::record::{Millis, Stamp};

/// A key's place: which shard, which bucket, and the bits that records keep of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: u32,
    pub bucket: usize,
    pub tag: u16,
}

/// A record found in a chain.
#[derive(Clone, Copy)]
pub struct Met {
    /// Offset of the record.
    pub at: usize,
    /// Offset of the link that leads to it.
    pub from: usize,
    pub fields: Fields,
}

/// The face of a shard, locked by [`Zone::shard`] and unlocked when this is dropped.
pub struct Shard<'a> {
    pub zone: &'a Zone,
    pub index: u32,
    base: usize,
    word: &'a AtomicU64,
}

impl Zone {
    /// Locks a shard; one whose owner died is repaired first.
    pub(super) fn shard(&self, index: u32) -> Result<Shard<'_>, StoreError> {
        let base = self.geometry.shard(index);
        let word = self.region.word64(base + shard::LOCK).ok_or(StoreError::Busy)?;
        let obtained = lock::lock(word)?;
        let shard = Shard { zone: self, index, base, word };
        if obtained == Obtained::FromTheDead {
            shard.repair();
        }
        Ok(shard)
    }

    /// A shard that nobody else can use yet or that is only read: not locked.
    pub(super) fn shard_unlocked(&self, index: u32) -> UnlockedShard<'_> {
        UnlockedShard { zone: self, base: self.geometry.shard(index) }
    }

    /// Where a key of this hash belongs.
    #[inline]
    pub(super) fn place_of_hash(&self, hash: u64) -> Place {
        Place {
            shard: (hash >> 58) as u32 & (self.geometry.shards - 1),
            bucket: hash as usize & (self.geometry.buckets_per_shard - 1),
            tag: (hash >> 40) as u16 & 0x3ff,
        }
    }

    /// Follows a bucket's chain to `key`. Without the lock it may miss or end early: the caller checks the sequence.
    #[inline]
    pub(super) fn find(&self, place: Place, key: &[u8]) -> Option<Met> {
        let mut from = self.geometry.bucket(place.shard, place.bucket);
        // A chain can't be longer than there are blocks; one that seems so is being changed under our eyes.
        for _ in 0..self.geometry.longest_chain {
            let at = layout::offset(self.region.load32(from, Acquire));
            if at == 0 {
                return None;
            }
            let block = Block { region: &self.region, at };
            if block.has_key(&self.geometry, place.tag, key) {
                return Some(Met { at, from, fields: block.fields() });
            }
            from = at + CHAIN_NEXT;
        }
        None
    }

    /// Hands every record of a chain to `each`, as [`Zone::find`] would meet them.
    pub(super) fn find_each(&self, place: Place, mut each: impl FnMut(&Met)) {
        let mut from = self.geometry.bucket(place.shard, place.bucket);
        for _ in 0..self.geometry.longest_chain {
            let at = layout::offset(self.region.load32(from, Acquire));
            if at == 0 {
                return;
            }
            let fields = Block { region: &self.region, at }.fields();
            if fields.tag == place.tag {
                each(&Met { at, from, fields });
            }
            from = at + CHAIN_NEXT;
        }
    }

    /// Copies a record's key into `to`, which has its length.
    pub(super) fn read_key(&self, met: &Met, to: &mut [u8]) -> bool {
        let block = Block { region: &self.region, at: met.at };
        block.read_payload(&self.geometry, met.fields.payload(), 0, to)
    }
}

impl<'a> Shard<'a> {
    /// The block at `at`.
    #[inline]
    pub fn block(&self, at: usize) -> Block<'a> {
        Block { region: &self.zone.region, at }
    }

    /// Makes a record that nothing leads to yet.
    pub fn make(&self, fields: &Fields, key: &[u8], value: &[u8], need: Need) -> Result<usize, StoreError> {
        let geometry = &self.zone.geometry;
        let (overflow, last) = block::overflow_blocks(geometry, fields.payload());
        let head = if overflow == 0 { block::HEAD + fields.payload() } else { geometry.page_size };
        let pages = overflow as u64 + 1;
        // A large one must leave room for its own next version. What is refused must not raise the reserve for good.
        if need == Need::Growth && overflow > 0 && u64::from(self.zone.free_pages()) < 2 * pages {
            return Err(StoreError::NoMemory);
        }
        let at = self.allocate(head, need)?;
        let record = self.block(at);
        record.set_overflow(0);
        // Each block is linked in front of those before it, the last one of the record first.
        for n in 0..overflow {
            match self.allocate(if n == 0 { last } else { geometry.page_size }, need) {
                Ok(more) => {
                    self.zone.region.store32(more, record.overflow(), Relaxed);
                    record.set_overflow(link(more));
                    done(Step::OverflowTaken);
                }
                Err(error) => {
                    self.discard(at);
                    return Err(error);
                }
            }
        }
        if let Some(largest) = self.zone.region.word64(header::LARGEST)
            && largest.load(Relaxed) < pages
        {
            largest.fetch_max(pages, Relaxed);
        }
        self.zone.note_length(key);
        record.set_fields(fields);
        record.write_payload(geometry, key, value);
        done(Step::RecordFilled);
        Ok(at)
    }

    /// Puts a record made by [`Shard::make`] in the place of `old`, or at the head of its bucket: it is there from one
    /// store on. Then the feed, expiry and counters follow, and the old record's memory is freed.
    pub fn publish(&self, place: Place, at: usize, old: Option<&Met>) {
        let record = self.block(at);
        let fields = record.fields();
        let from = match old {
            Some(old) => {
                record.set_link(CHAIN_NEXT, self.block(old.at).chain_next());
                old.from
            }
            None => {
                let from = self.zone.geometry.bucket(place.shard, place.bucket);
                record.set_link(CHAIN_NEXT, self.zone.region.load32(from, Relaxed));
                from
            }
        };
        done(Step::ChainContinued);
        self.zone.region.store32(from, link(at), Release);
        done(Step::Published);
        self.feed_append(at);
        self.timer_insert(at, &fields);
        self.count(&fields, 1);
        if let Some(old) = old {
            self.detach(old);
        }
    }

    /// Takes a record out of its chain, and then out of everything.
    pub fn remove(&self, met: &Met) {
        self.zone.region.store32(met.from, self.block(met.at).chain_next(), Release);
        done(Step::Removed);
        self.detach(met);
    }

    /// Copies a record's key and value into `to`.
    pub fn payload(&self, met: &Met, to: &mut Vec<u8>) -> bool {
        to.resize(met.fields.payload(), 0);
        self.block(met.at).read_payload(&self.zone.geometry, met.fields.payload(), 0, to)
    }

    /// A stamp for a write of this node: above everything in the shard, and above what is closed or cleared.
    pub fn stamp(&self, now: Millis) -> Stamp {
        let last = Stamp(self.get(shard::LAST)).max(self.zone.closed()).max(self.zone.cleared());
        let stamp = Stamp::at(now).max(last.next());
        self.set(shard::LAST, stamp.0);
        done(Step::Stamped);
        self.set(shard::LAST_OWN, stamp.0);
        self.set(shard::WRITES, self.get(shard::WRITES) + 1);
        stamp
    }

    /// A stamp of another node was merged: later ones of this node come above it.
    pub fn witness(&self, stamp: Stamp) {
        self.set(shard::LAST, self.get(shard::LAST).max(stamp.0));
    }

    /// A field of the shard.
    #[inline]
    pub fn get(&self, field: usize) -> u64 {
        self.zone.region.load64(self.base + field, Relaxed)
    }

    /// Sets a field.
    #[inline]
    pub fn set(&self, field: usize, value: u64) {
        self.zone.region.store64(self.base + field, value, Relaxed);
    }

    /// A 4-byte field's offset in the region.
    pub fn field(&self, field: usize) -> usize {
        self.base + field
    }

    /// Adds one to a counter.
    pub fn bump(&self, field: usize) {
        self.set(field, self.get(field) + 1);
    }

    /// Adds a record to the counters, or takes it off.
    pub fn count(&self, fields: &Fields, by: i64) {
        let field = if fields.tombstone { shard::TOMBSTONES } else { shard::RECORDS };
        self.set(field, self.get(field).wrapping_add_signed(by));
        done(if by > 0 { Step::Counted } else { Step::Uncounted });
    }

    /// The agent is to look at this shard. Under the lock, so that no change slips between its look and its walk.
    pub fn mark_dirty(&self) {
        let bit = 1 << self.index;
        if let Some(dirty) = self.zone.region.word64(header::DIRTY)
            && dirty.load(Relaxed) & bit == 0
        {
            dirty.fetch_or(bit, std::sync::atomic::Ordering::SeqCst);
            done(Step::Dirtied);
        }
    }

    /// What no chain leads to any more leaves the feed, the wheel and the counters, and its memory is freed.
    fn detach(&self, met: &Met) {
        self.feed_unlink(met.at);
        self.timer_remove(met.at, &met.fields);
        self.count(&met.fields, -1);
        self.discard(met.at);
    }

    /// Frees all blocks of a record.
    fn discard(&self, at: usize) {
        let mut overflow = self.block(at).overflow();
        self.free(at);
        for _ in 0..self.zone.geometry.pages {
            if overflow == 0 {
                break;
            }
            let block = layout::offset(overflow);
            overflow = self.zone.region.load32(block, Relaxed);
            self.free(block);
        }
    }
}

impl Drop for Shard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.repair();
        }
        lock::unlock(self.word);
    }
}

/// A shard looked at without its lock.
pub struct UnlockedShard<'a> {
    zone: &'a Zone,
    base: usize,
}

impl UnlockedShard<'_> {
    /// A field of the shard, as of some moment.
    #[inline]
    pub fn get(&self, field: usize) -> u64 {
        self.zone.region.load64(self.base + field, Relaxed)
    }

    /// Whether somebody holds the lock; in one order with the closing of stamps.
    pub fn is_locked(&self) -> bool {
        self.zone.region.load64(self.base + shard::LOCK, std::sync::atomic::Ordering::SeqCst) != 0
    }

    /// The sequence before reading.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.zone.region.load64(self.base + shard::SEQUENCE, Acquire)
    }

    /// Whether nothing that was read since `sequence` can have been reused meanwhile.
    #[inline]
    pub fn is_unmoved(&self, sequence: u64) -> bool {
        // Orders the relaxed reads of the records before the read of the sequence.
        fence(Acquire);
        self.get(shard::SEQUENCE) == sequence
    }
}
