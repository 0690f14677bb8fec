//! One shard under its lock: chains of records, and the steps by which one is put in, replaced or taken out.
//!
//! The chains are the truth. Everything else (free lists, feed, expiry order, counters) is made from them by
//! [`Shard::repair`] when a lock's owner died. So each change of a chain is one store of one link, and comes after the new
//! record is whole and before the old one is touched.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{self, Relaxed, Release};
use std::thread;

use super::arena::Need;
use super::block::{self, Block, CHAIN_NEXT, FEED_NEXT, FEED_PREV, Fields, TIMER_NEXT, TIMER_PREV};
use super::failpoint::{Step, done};
use super::find::{LAST_LINK, Met, Place};
use super::layout::{BUCKET_LINKS, header, shard};
use super::lock::{self, Obtained};
use super::{StoreError, Zone};
use crate::record::{Millis, Stamp};

/// The face of a shard, locked by [`Zone::shard`] and unlocked when this is dropped.
pub struct Shard<'a> {
    pub zone: &'a Zone,
    pub index: u32,
    base: usize,
    words: &'a Words,
    /// The pool's lock was waited for in vain.
    pub pool_stuck: Cell<bool>,
    /// It may have pages of the pool that others' next versions count on.
    pub borrows: Cell<bool>,
}

/// A shard's words: all of its fields.
type Words = [AtomicU64; shard::LEN / 8];

impl Zone {
    /// Locks a shard; one whose owner died is repaired first.
    pub(super) fn shard(&self, index: u32) -> Result<Shard<'_>, StoreError> {
        let base = self.geometry.shard(index);
        let words: &Words = self.region.words(base).ok_or(StoreError::Busy)?;
        let obtained = lock::lock(&words[shard::LOCK / 8]).map_err(|error| self.was_busy(error))?;
        let locked =
            |stuck| Shard { zone: self, index, base, words, pool_stuck: Cell::new(stuck), borrows: Cell::new(false) };
        // Not the one that is returned: that is then made in place, and not copied in every write.
        let stuck = obtained == Obtained::FromTheDead && locked(false).take_over();
        Ok(locked(stuck))
    }

    /// A lock wasn't had in time: counts that.
    #[cold]
    pub(super) fn was_busy(&self, error: StoreError) -> StoreError {
        if let Some(word) = self.region.word64(header::BUSY) {
            word.fetch_add(1, Relaxed);
        }
        error
    }

    /// Repairs the shards whose owners died, but for one.
    pub(super) fn repair_others(&self, but: u32) {
        for index in (0..self.geometry.shards).filter(|index| *index != but) {
            let owner = self.region.load64(self.geometry.shard(index) + shard::LOCK, Relaxed);
            if owner != 0 && lock::is_dead(owner) {
                let _ = self.shard(index);
            }
        }
    }

    /// Has those lines fetched that a write changes and that are known before it has the lock: all of them at once, and not
    /// one after the other.
    pub(super) fn prepare_write(&self, place: Place, payload: usize) {
        let base = self.geometry.shard(place.shard);
        self.region.prefetch_to_write(self.geometry.bucket(place.shard, place.bucket));
        self.region.prefetch_to_write(base + shard::SEQUENCE);
        if let Some(class) = self.geometry.class_for(block::HEAD + payload) {
            self.region.prefetch_to_write(base + shard::CLASSES + class * shard::CLASS_LEN);
        }
    }
}

impl<'a> Shard<'a> {
    /// The block at `at`.
    #[inline]
    pub fn block(&self, at: usize) -> Block<'a> {
        Block { region: &self.zone.region, at }
    }

    /// Repairs what its owner died with, and stays locked; whether the pool was stuck then.
    #[cold]
    #[inline(never)]
    fn take_over(self) -> bool {
        self.repair();
        ManuallyDrop::new(self).pool_stuck.get()
    }

    /// Makes a record that nothing leads to yet, but for its fields: these are written when it is published.
    pub fn make(&self, key: &[u8], value: &[u8], need: Need) -> Result<usize, StoreError> {
        let geometry = &self.zone.geometry;
        let payload = key.len() + value.len();
        let (overflow, last) = block::overflow_blocks(geometry, payload);
        let head = if overflow == 0 { block::HEAD + payload } else { geometry.page_size };
        if overflow > 0 && !self.leaves_reserve(overflow as u64, last, need) {
            // Maybe others have borrowed it.
            if !self.may_borrow(need) {
                return Err(StoreError::NoMemory);
            }
            self.borrow()?;
            if !self.leaves_reserve(overflow as u64, last, need) {
                return Err(StoreError::NoMemory);
            }
        }
        let at = self.allocate(head, need)?;
        let record = self.block(at);
        if overflow == 0 {
            self.zone.note_length(key);
            self.zone.region.write(at + block::HEAD, key);
            self.zone.region.write(at + block::HEAD + key.len(), value);
            done(Step::RecordFilled);
            return Ok(at);
        }
        // Each block is linked in front of those before it, the last one of the record first.
        let mut first = 0;
        for n in 0..overflow {
            match self.allocate(if n == 0 { last } else { geometry.page_size }, need) {
                Ok(more) => {
                    self.zone.region.store32(more, first, Relaxed);
                    first = geometry.link(more);
                    done(Step::OverflowTaken);
                }
                Err(error) => {
                    self.free(at);
                    self.free_overflow(first);
                    return Err(error);
                }
            }
        }
        record.set_overflow(first);
        let pages = overflow as u64 + 1;
        if let Some(largest) = self.zone.region.word64(header::LARGEST)
            && largest.load(Relaxed) < pages
        {
            largest.fetch_max(pages, Relaxed);
        }
        self.zone.note_length(key);
        record.write_payload(geometry, key, value);
        done(Step::RecordFilled);
        Ok(at)
    }

    /// Whether a large record of so many overflow blocks, the last one of `last` bytes, leaves room for the next version of
    /// itself and of any other. What is refused must not raise the reserve for good.
    fn leaves_reserve(&self, overflow: u64, last: usize, need: Need) -> bool {
        let room = u64::from(self.zone.free_pages()).saturating_sub(self.zone.pledge());
        match need {
            Need::Growth => room >= 2 * (overflow + 1),
            Need::Replacement(freed) | Need::Burial(freed) => {
                let pages = overflow + u64::from(self.zone.geometry.is_whole_page(last));
                let largest = self.zone.region.load64(header::LARGEST, Relaxed).max(overflow + 1);
                pages <= freed.pages || room + freed.pages >= pages + largest
            }
            Need::Moved | Need::Packed => true,
        }
    }

    /// Puts a record made by [`Shard::make`] in the place of `old`, or in a free slot of its bucket: it is there from one
    /// store on. Then the feed, expiry and counters follow, and the old record's memory is freed.
    pub fn publish(&self, place: Place, at: usize, fields: &Fields, old: Option<&Met>) {
        let record = self.block(at);
        record.set_fields(&self.zone.geometry, fields);
        let from = match old {
            Some(old) => {
                record.set_link(CHAIN_NEXT, self.block(old.at).chain_next());
                old.from
            }
            None => {
                let from = self.free_link(place);
                record.set_link(CHAIN_NEXT, self.zone.region.load32(from, Relaxed));
                from
            }
        };
        done(Step::ChainContinued);
        self.zone.region.store32(from, self.zone.geometry.link(at) | place.mark, Release);
        done(Step::Published);
        self.feed_append(at);
        match old {
            Some(old) => {
                self.feed_unlink(old.at);
                self.timer_replace(at, fields, old);
                if old.fields.tombstone != fields.tombstone {
                    self.count(fields, 1);
                    self.count(&old.fields, -1);
                }
                self.discard(old.at);
            }
            None => {
                self.timer_insert(at, fields);
                self.count(fields, 1);
            }
        }
    }

    /// Takes a record out of its chain, and then out of everything.
    pub fn remove(&self, met: &Met) {
        self.zone.region.store32(met.from, self.block(met.at).chain_next(), Release);
        done(Step::Removed);
        self.detach(met);
    }

    /// As [`Zone::prepare_write`], of what [`Shard::publish`] will touch besides the record that was met.
    pub fn prepare(&self, met: &Met) {
        let record = self.block(met.at);
        for field in [FEED_PREV, FEED_NEXT, TIMER_NEXT, TIMER_PREV] {
            self.zone.region.prefetch_to_write(self.zone.geometry.offset(record.link(field)));
        }
        self.zone
            .region
            .prefetch_to_write(self.zone.geometry.offset(self.block(self.field(shard::FEED)).link(FEED_PREV)));
        if let Some(page) = self.zone.geometry.page_of(met.at) {
            self.zone.region.prefetch(self.zone.geometry.descriptor(page));
        }
    }

    /// The first free slot for a key, or the head of its bucket's chain.
    fn free_link(&self, place: Place) -> usize {
        let bucket = self.zone.geometry.bucket(place.shard, place.bucket);
        let is_free =
            |slot: &usize| place.window >> slot & 1 != 0 && self.zone.region.load32(bucket + slot * 4, Relaxed) == 0;
        bucket + (0..BUCKET_LINKS - 1).find(is_free).map_or(LAST_LINK, |slot| slot * 4)
    }

    /// The records behind one link of a bucket; `link` counts from the shard's first bucket.
    pub fn link_each(&self, link: usize, mut each: impl FnMut(&Met)) {
        let mut from = self.zone.geometry.bucket(self.index, 0) + link * 4;
        for _ in 0..self.zone.geometry.longest_chain {
            let at = self.zone.geometry.target(self.zone.region.load32(from, Relaxed));
            if at == 0 {
                return;
            }
            each(&Met { at, from, fields: self.block(at).fields() });
            from = at + CHAIN_NEXT;
        }
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
        stamp
    }

    /// A stamp of another node was merged: later ones of this node come above it.
    pub fn witness(&self, stamp: Stamp) {
        self.set(shard::LAST, self.get(shard::LAST).max(stamp.0));
    }

    /// A field of the shard.
    #[inline]
    pub fn get(&self, field: usize) -> u64 {
        self.words[field / 8].load(Relaxed)
    }

    /// Sets a field.
    #[inline]
    pub fn set(&self, field: usize, value: u64) {
        self.words[field / 8].store(value, Relaxed);
    }

    /// The same, in this order with what was stored before.
    pub fn set_with(&self, field: usize, value: u64, order: Ordering) {
        self.words[field / 8].store(value, order);
    }

    /// A 4-byte field's offset in the region.
    pub fn field(&self, field: usize) -> usize {
        self.base + field
    }

    /// What follows, as long as this lives, is one change to those who add up several records without the lock.
    pub fn changing(&self) -> Changing<'_, 'a> {
        self.set(shard::CHANGING, 1);
        // Who began before it is told by this one; who begins after it has met this one, and so the word before it.
        self.move_sequence();
        Changing(self)
    }

    /// Nothing is half done.
    pub fn end_change(&self) {
        // Release: who finds the word cleared finds all that was done.
        self.set_with(shard::CHANGING, 0, Release);
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
    pub(super) fn discard(&self, at: usize) {
        let overflow = self.block(at).overflow();
        self.free(at);
        self.free_overflow(overflow);
    }

    fn free_overflow(&self, overflow: u32) {
        self.overflow_each(overflow, |block| self.free(block));
    }

    /// The blocks in which a large record goes on.
    pub fn overflow_each(&self, mut overflow: u32, mut each: impl FnMut(usize)) {
        for _ in 0..self.zone.geometry.pages {
            if overflow == 0 {
                break;
            }
            let block = self.zone.geometry.offset(overflow);
            overflow = self.zone.region.load32(block, Relaxed);
            each(block);
        }
    }
}

impl Drop for Shard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.repair();
        }
        self.end_borrowing();
        lock::unlock(&self.words[shard::LOCK / 8]);
    }
}

/// See [`Shard::changing`].
pub struct Changing<'s, 'a>(&'s Shard<'a>);

impl Drop for Changing<'_, '_> {
    fn drop(&mut self) {
        self.0.end_change();
    }
}
