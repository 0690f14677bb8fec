//! The change feed: a shard's records in the order of their last change, as a ring through the records themselves.
//!
//! A walker's place is a marker in the ring: a small block of links in a fixed table. Records come and go around it, so
//! that the feed needs no memory of its own and can't overflow, however slow a walker is.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::block::{FEED_NEXT, FEED_PREV, Fields};
use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::{WALKER_MISSED, header, shard};
use super::shard::Shard;
use super::{Cursor, FeedEnd, ShardMask, Sparing, StoreError, Zone, watch};
use crate::record::{Record, Version};

/// Records handed out, and ring places passed, in one hold of the lock.
const RECORDS_A_HOLD: usize = 32;
const STEPS_A_HOLD: usize = 512;
/// Walkers that a zone's state files have at a time.
const OF_STATE_FILES: usize = 2;
/// The epoch of a shard into whose feed a walker couldn't be put yet: none has it.
const NOT_YET: u64 = u64::MAX;

/// The ends of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What changed longest ago.
    Oldest,
    /// What changed last.
    Newest,
}

/// What a walk calls for each record, with what the store alone knows of it; `false` ends the walk before it.
pub type Each<'a> = &'a mut dyn FnMut(&Record<'_>, &Fields) -> bool;

impl Shard<'_> {
    /// An empty ring.
    pub fn feed_clear(&self) {
        let end = self.field(shard::FEED);
        self.set_next(end, end);
        self.set_prev(end, end);
    }

    /// Puts a block at the end of the ring.
    pub fn feed_append(&self, at: usize) {
        let end = self.field(shard::FEED);
        self.feed_insert(at, self.prev(end));
        self.change();
    }

    /// Takes a block out of the ring.
    pub fn feed_unlink(&self, at: usize) {
        let (prev, next) = (self.prev(at), self.next(at));
        self.set_next(prev, next);
        done(Step::FeedHalfOut);
        self.set_prev(next, prev);
    }

    /// Puts a block behind another.
    pub fn feed_insert(&self, at: usize, prev: usize) {
        let next = self.next(prev);
        self.set_next(at, next);
        self.set_prev(at, prev);
        self.set_next(prev, at);
        done(Step::FeedHalfIn);
        self.set_prev(next, at);
        done(Step::FeedIn);
    }

    /// The records of the ring, oldest change first, as long as `each` returns true. `each` may remove the record it
    /// was given, and no other.
    pub fn feed_each(&self, mut each: impl FnMut(usize) -> bool) {
        let end = self.field(shard::FEED);
        let mut at = self.next(end);
        for _ in 0..self.zone.region.len() {
            if at == end {
                return;
            }
            let next = self.next(at);
            if !self.zone.geometry.is_marker(at) && !each(at) {
                return;
            }
            at = next;
        }
    }

    /// Records at one end of the ring, in so many places at most, as long as `each` returns true. Returns whether it always
    /// did.
    pub fn feed_some(&self, from: End, places: usize, mut each: impl FnMut(usize) -> bool) -> bool {
        let end = self.field(shard::FEED);
        let step = |at| if from == End::Oldest { self.next(at) } else { self.prev(at) };
        let mut at = step(end);
        for _ in 0..places {
            if at == end || at == 0 {
                break;
            }
            if !self.zone.geometry.is_marker(at) && !each(at) {
                return false;
            }
            at = step(at);
        }
        true
    }

    pub(super) fn next(&self, at: usize) -> usize {
        self.zone.geometry.offset(self.zone.region.load32(at + FEED_NEXT, Relaxed))
    }

    pub(super) fn prev(&self, at: usize) -> usize {
        self.zone.geometry.offset(self.zone.region.load32(at + FEED_PREV, Relaxed))
    }

    fn set_next(&self, at: usize, to: usize) {
        self.zone.region.store32(at + FEED_NEXT, self.zone.geometry.link(to), Relaxed);
    }

    fn set_prev(&self, at: usize, to: usize) {
        self.zone.region.store32(at + FEED_PREV, self.zone.geometry.link(to), Relaxed);
    }
}

impl Zone {
    /// A new walker at the beginning of every shard's feed. `None`: the zone has as many walkers as it can.
    /// `owner` (not 0) is the number of the lease under which it walks.
    pub fn feed_open(&self, owner: u64) -> Option<Cursor> {
        let mut cursor = self.take_walker(owner)?;
        self.feed_rewind(&mut cursor);
        Some(cursor)
    }

    /// A new walker that `place` puts into each shard's feed. `None` also if some shard is busy.
    pub(super) fn feed_open_with(&self, owner: u64, place: impl Fn(&Shard<'_>, &mut Cursor)) -> Option<Cursor> {
        let mut cursor = self.take_walker(owner)?;
        for index in 0..self.geometry.shards {
            match self.shard(index) {
                Ok(shard) => place(&shard, &mut cursor),
                Err(_) => {
                    self.feed_close(cursor);
                    return None;
                }
            }
        }
        Some(cursor)
    }

    /// A walker that stands nowhere yet.
    fn take_walker(&self, owner: u64) -> Option<Cursor> {
        let slot = (0..self.geometry.walkers).find(|slot| {
            self.region
                .word64(self.geometry.walker(*slot))
                .is_some_and(|word| word.compare_exchange(0, owner, SeqCst, Relaxed).is_ok())
        })?;
        // Looked at with the place in hand: of two who take the last one at a time both may find that it is one too many.
        if watch::is_watcher(owner) && !self.leaves_places() {
            self.region.store64(self.geometry.walker(slot), 0, SeqCst);
            return None;
        }
        Some(Cursor { slot, epochs: vec![NOT_YET; self.geometry.shards as usize], scratch: Vec::new() })
    }

    /// Puts a walker back to the beginning of every shard; of one that is busy once it isn't any more, which is told as a
    /// [`FeedEnd::Reset`].
    pub fn feed_rewind(&self, cursor: &mut Cursor) {
        for index in 0..self.geometry.shards {
            match self.shard(index) {
                Ok(shard) => shard.rewind(cursor),
                Err(_) => cursor.epochs.get_mut(index as usize).into_iter().for_each(|epoch| *epoch = NOT_YET),
            }
        }
    }

    /// Gives a walker's place back.
    pub fn feed_close(&self, cursor: Cursor) {
        self.free_walker(cursor.slot);
    }

    /// From now on so many places are kept for walkers of the agent: watchers get none of them.
    pub fn keep_walkers(&self, count: usize) {
        self.region.store32(header::WALKERS_KEPT, count.min(self.geometry.walkers) as u32, SeqCst);
    }

    /// Whether the places that are free do for all that the agent may still want.
    fn leaves_places(&self) -> bool {
        let owners = (0..self.geometry.walkers).map(|slot| self.region.load64(self.geometry.walker(slot), SeqCst));
        let (mut free, mut agents) = (0, 0);
        for owner in owners {
            free += usize::from(owner == 0);
            agents += usize::from(owner != 0 && !watch::is_watcher(owner));
        }
        let kept = self.region.load32(header::WALKERS_KEPT, SeqCst) as usize + OF_STATE_FILES;
        free >= kept.saturating_sub(agents)
    }

    /// How many walkers there are.
    pub fn walkers(&self) -> usize {
        (0..self.geometry.walkers).filter(|slot| self.region.load64(self.geometry.walker(*slot), Relaxed) != 0).count()
    }

    /// Takes the places of walkers of other owners, those of an agent that died, and of watchers that died. The one that
    /// stands where the state files do stays.
    pub fn feed_sweep(&self, owner: u64) {
        self.sweep(|slot, held_by| match Zone::owns_trail(held_by) {
            true => self.is_stray_trail(slot, held_by),
            false => held_by != owner && watch::is_abandoned(held_by).unwrap_or(true),
        });
    }

    /// Takes the places of those walkers whose owners are `gone`.
    pub(super) fn sweep(&self, gone: impl Fn(usize, u64) -> bool) {
        for slot in 0..self.geometry.walkers {
            let held_by = self.region.load64(self.geometry.walker(slot), SeqCst);
            if held_by != 0 && gone(slot, held_by) {
                self.free_walker(slot);
            }
        }
    }

    /// Walks on in one shard: hands some dozens of records at most to `each`, oldest change first, tombstones too, and
    /// moves the walker past those for which it returned true. The first `false` ends the walk before that record.
    ///
    /// # Errors
    ///
    /// `Busy`: the shard's lock is stuck; the walker is where it was.
    pub fn feed(
        &self,
        cursor: &mut Cursor,
        shard: u32,
        each: &mut dyn FnMut(&Record<'_>) -> bool,
    ) -> Result<FeedEnd, StoreError> {
        self.feed_with_fields(cursor, shard, &mut |record, _| each(record))
    }

    /// The same, with what the store alone knows of a record.
    pub(super) fn feed_with_fields(
        &self,
        cursor: &mut Cursor,
        shard: u32,
        each: Each<'_>,
    ) -> Result<FeedEnd, StoreError> {
        let shard = self.shard(shard)?;
        if cursor.epochs.get(shard.index as usize).is_none_or(|epoch| *epoch != shard.get(shard::EPOCH)) {
            shard.rewind(cursor);
            return Ok(FeedEnd::Reset);
        }
        let mut scratch = std::mem::take(&mut cursor.scratch);
        let result = shard.walk(cursor.slot, &mut scratch, each);
        cursor.scratch = scratch;
        Ok(result)
    }

    /// Takes the set of shards that changed since the last call. One consumer only: the agent.
    pub fn take_dirty(&self) -> ShardMask {
        self.region
            .word64(header::DIRTY)
            .map_or(0, |dirty| if dirty.load(SeqCst) == 0 { 0 } else { dirty.swap(0, SeqCst) })
    }

    /// Whether some shard has changed since.
    pub fn is_dirty(&self) -> bool {
        self.region.load64(header::DIRTY, SeqCst) != 0
    }

    /// Every shard.
    pub fn all_shards(&self) -> ShardMask {
        u64::MAX >> (64 - self.geometry.shards)
    }

    /// Takes a walker's markers out of the rings and frees its slot. A shard that is stuck keeps its marker, which costs
    /// a step to those who walk past, until the slot is used again or the shard is repaired.
    pub(super) fn free_walker(&self, slot: usize) {
        let _sparing = Sparing::begin();
        for index in 0..self.geometry.shards {
            if let Ok(shard) = self.shard(index) {
                shard.drop_marker(slot);
            }
        }
        self.region.store64(self.geometry.walker(slot) + WALKER_MISSED, 0, SeqCst);
        self.region.store64(self.geometry.walker(slot), 0, SeqCst);
    }
}

impl Shard<'_> {
    /// Forgets all markers: their links are zero when they are in no ring.
    pub fn clear_markers(&self) {
        let geometry = &self.zone.geometry;
        let markers = (0..geometry.walkers).map(|slot| geometry.marker(self.index, slot));
        let hands = geometry.hands(self.index);
        for marker in markers.chain(hands) {
            self.zone.region.zero(marker, geometry.marker_len());
        }
    }

    pub(super) fn drop_marker(&self, slot: usize) {
        let marker = self.zone.geometry.marker(self.index, slot);
        if self.next(marker) != 0 {
            self.feed_unlink(marker);
            self.zone.region.zero(marker, self.zone.geometry.marker_len());
        }
    }

    pub(super) fn rewind(&self, cursor: &mut Cursor) {
        self.drop_marker(cursor.slot);
        self.feed_insert(self.zone.geometry.marker(self.index, cursor.slot), self.field(shard::FEED));
        if let Some(epoch) = cursor.epochs.get_mut(self.index as usize) {
            *epoch = self.get(shard::EPOCH);
        }
    }

    fn walk(&self, slot: usize, scratch: &mut Vec<u8>, each: Each<'_>) -> FeedEnd {
        let marker = self.zone.geometry.marker(self.index, slot);
        let end = self.field(shard::FEED);
        let (mut passed, mut at) = (marker, self.next(marker));
        let mut outcome = FeedEnd::More;
        let mut records = 0;
        for _ in 0..STEPS_A_HOLD {
            if at == end {
                outcome = FeedEnd::Drained;
                break;
            }
            if !self.zone.geometry.is_marker(at) {
                if records == RECORDS_A_HOLD {
                    break;
                }
                if !self.show(at, scratch, each) {
                    outcome = FeedEnd::Stopped;
                    break;
                }
                records += 1;
            }
            passed = at;
            at = self.next(at);
        }
        if passed != marker {
            self.feed_unlink(marker);
            done(Step::MarkerOut);
            self.feed_insert(marker, passed);
        }
        outcome
    }

    /// Hands one record to `each`. One that a clear removed, or whose origin isn't known any more, is passed over.
    pub fn show(&self, at: usize, scratch: &mut Vec<u8>, each: Each<'_>) -> bool {
        let fields = self.block(at).fields();
        let Some(origin) = self.zone.origin_identity(fields.origin) else { return true };
        if fields.stamp <= self.zone.cleared() || !self.payload(&Met { at, from: 0, fields }, scratch) {
            return true;
        }
        let (key, value) = scratch.split_at(fields.key_len);
        let record = Record {
            kind: fields.known_kind(),
            version: Version { stamp: fields.stamp, origin },
            key,
            value: (!fields.tombstone).then_some(value),
            expires: fields.expires.filter(|_| !fields.tombstone),
            shortened: fields.shortened,
        };
        each(&record, &fields)
    }
}
