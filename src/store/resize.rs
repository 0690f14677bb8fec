//! Moving the records of a zone to memory of another size, while others go on writing to the old.
//!
//! A reload gives a zone with another size new memory. Workers of the last configuration don't know of it: until they
//! have gone, they read and write the old, and what they acknowledge must not be lost. So there are three steps:
//!
//! 1. [`Zone::copy_to`] tries whether everything fits.
//! 2. [`Zone::hand_over`], once nothing can fail any more: copies everything.
//! 3. [`Merge`](super::Merge), again and again, until the old workers have gone: merges what they changed since.
//!
//! From before the first step on the old zone takes no more than the new has room for: see `pledge`.
//!
//! While this lasts both zones have a *limit*, and as long as they have one
//!
//! - deletes leave tombstones, also in zones that aren't shared: a delete in one zone must win over what is merged later
//!   from the other;
//! - neither zone promises peers a stamp of this node above its limit. The old zone's is frozen where the new zone's
//!   stamps begin. The new zone's rises with each merge, to a stamp that was closed in the old zone before it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::arena::Need;
use super::block::Fields;
use super::find::Met;
use super::layout::{MAGIC, header};
use super::replicate::Via;
use super::shard::Shard;
use super::{Applied, AttachError, Params, Region, ShardMask, StoreError, Zone, lock};
use crate::record::{Millis, Record, Stamp};

/// Set in a limit that is not to be raised any more.
const FROZEN: u64 = 1 << 63;
/// The lowest limit: nothing is promised.
const NOTHING: u64 = 1;
/// Records have been in this node's memory before: how far their stamps are ahead is of no interest.
pub(super) const ANY_DRIFT: Millis = Millis::MAX;
/// Buckets copied in one hold of a shard's lock.
const BUCKETS_A_HOLD: usize = 64;

/// What became of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Records that there were, without tombstones.
    pub records: u64,
    /// Of these, those that didn't fit.
    pub lost: u64,
    /// Of these, those that were given up for others.
    pub evicted: u64,
}

/// A zone in old memory from which records still have to be merged.
#[derive(Clone, Copy)]
pub struct Source {
    /// The zone as old workers have it.
    pub old: Zone,
    /// What this node had written at or below this is in the new zone already.
    pub floor: Stamp,
    /// Workers of older configurations than this one write to it.
    pub generation: u64,
}

/// A zone into which records have to be merged.
#[derive(Clone)]
pub struct Handover {
    /// The zone in force.
    pub new: Zone,
    /// Where they come from: several, if there was one reload after another.
    pub sources: Vec<Source>,
}

impl Zone {
    /// Whether the memory holds a zone that this version can use.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(region: &Region) -> Result<(), AttachError> {
        super::layout::Geometry::new(region.len())?.check(region)
    }

    /// Makes an empty zone that places keys as `other` does: for a second copy that turns out as the first.
    ///
    /// # Errors
    ///
    /// As [`Zone::create`].
    pub fn create_like(other: &Zone, region: Region, params: &Params) -> Result<Zone, AttachError> {
        let mut seed = [0; 16];
        other.region.read(header::SEED, &mut seed);
        Zone::create_seeded(region, params, seed)
    }

    /// Copies all records to an empty zone that nobody else uses yet, with versions and ends, positions and what else is
    /// known of other nodes. This zone stays as it is, but for what it gets from `others`, of which it is the heir.
    ///
    /// # Errors
    ///
    /// `Busy`: some process holds a lock and doesn't go on. `NoMemory`: this zone has no room for what `others` hold.
    pub fn copy_to(&self, new: &Zone, others: &[Source], now: Millis) -> Result<Copied, StoreError> {
        others.iter().try_for_each(|source| self.take_in(source, now).map(drop))?;
        let promised = self.promised();
        let copied = self.copy_records(new, now, None)?;
        self.copy_tombstones(new, now)?;
        new.take_promise(&promised);
        Ok(copied)
    }

    /// Copies what isn't over. Tombstones come after it: they must not take the room of records.
    fn copy_records(&self, new: &Zone, now: Millis, need: Option<Need>) -> Result<Copied, StoreError> {
        new.apply_clear(self.cleared(), now, ANY_DRIFT)?;
        new.forget_as(self)?;
        new.meet_as(self);
        for field in [
            header::PURGE_FLOOR,
            header::EVICTED_STAMP,
            header::BORN,
            header::LACKED,
            header::LACKED_OF_ANY,
            header::DOUBTED,
        ] {
            new.region.store64(field, self.region.load64(field, SeqCst), SeqCst);
        }
        let mut copied = Copied::default();
        self.buckets_each(|shard, met, scratch| {
            if is_over(&met.fields, now) {
                return;
            }
            shard.show(met.at, scratch, &mut |record, _| {
                copied.records += 1;
                let merged = new.merge(record, now, ANY_DRIFT, Via::memory(need, &met.fields));
                copied.lost += u64::from(!matches!(merged, Ok(Applied::Newer | Applied::Stale)));
                true
            });
        })?;
        copied.evicted = new.stats().evicted;
        Ok(copied)
    }

    fn copy_tombstones(&self, new: &Zone, now: Millis) -> Result<(), StoreError> {
        if !self.is_sync() {
            return Ok(());
        }
        self.buckets_each(|shard, met, scratch| {
            if is_over(&met.fields, now) {
                shard.show(met.at, scratch, &mut |record, _| {
                    let _ = new.merge(record, now, ANY_DRIFT, Via::memory(None, &met.fields));
                    true
                });
            }
        })
    }

    /// Merges what workers of older configurations wrote to `source`, of which this is the heir; returns the stamp up to
    /// which nothing of it is missing here any more.
    fn take_in(&self, source: &Source, now: Millis) -> Result<Stamp, StoreError> {
        let old = &source.old;
        if !old.is_source() {
            return Ok(source.floor);
        }
        let cleared = old.cleared();
        let (closed, _) = old.close_all(now);
        let mut failed = None;
        old.buckets_each(|shard, met, scratch| {
            if met.fields.origin != old.own_origin() || met.fields.stamp <= source.floor {
                return;
            }
            shard.show(met.at, scratch, &mut |record, _| {
                match self.merge(record, now, ANY_DRIFT, Via::memory(need_of(record, now), &met.fields)) {
                    Ok(Applied::Newer) => self.mark_changed(1 << self.place(record.key).shard),
                    Ok(Applied::Full) if !is_over(&met.fields, now) => failed = Some(StoreError::NoMemory),
                    Err(error) => failed = Some(error),
                    Ok(_) => {}
                }
                true
            });
        })?;
        if self.apply_clear(cleared, now, ANY_DRIFT)? == Applied::Newer {
            self.mark_changed(self.all_shards());
        }
        failed.map_or(Ok(closed.max(source.floor)), Err)
    }

    /// Hands every record to `each`, with a buffer, some dozens of buckets in one hold of a shard's lock.
    fn buckets_each(&self, mut each: impl FnMut(&Shard<'_>, &Met, &mut Vec<u8>)) -> Result<(), StoreError> {
        let mut scratch = Vec::new();
        for index in 0..self.geometry.shards {
            for bucket in (0..self.geometry.buckets_per_shard).step_by(BUCKETS_A_HOLD) {
                let end = self.geometry.buckets_per_shard.min(bucket + BUCKETS_A_HOLD);
                let shard = lock::in_time(|| self.shard(index))?;
                (bucket..end).for_each(|bucket| shard.bucket_each(bucket, |met| each(&shard, met, &mut scratch)));
            }
        }
        Ok(())
    }

    /// Lets `new`, which is empty and which nobody uses yet, take this zone's place. Workers of configurations older than
    /// `generation` go on writing here, and others to `others`, of which `new` is the heir from now on.
    pub fn hand_over(
        &self,
        new: &Zone,
        others: &mut [Source],
        generation: u64,
        now: Millis,
    ) -> (Source, Result<Copied, StoreError>) {
        // Mostly it was bound for a trial. If it can't be, the new zone takes nothing but this zone's records for now.
        let bound = new.evict || self.is_bound() || self.bind(new, others, true).is_ok();
        let mut whole = true;
        for source in others.iter_mut() {
            match self.take_in(source, now) {
                Ok(floor) => source.floor = floor,
                Err(_) => whole = false,
            }
            if new.evict {
                source.old.release();
            }
        }
        let (stamp, _) = self.close_all(now);
        let last = (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(super::layout::shard::LAST));
        let stamp = stamp.max(Stamp(last.max().unwrap_or(0))).max(self.cleared());
        let mine = self.freeze(stamp);
        // Who closed a stamp above the limit before it could see the limit did so before this look.
        let floor = stamp.max(self.closed());
        // From here on old workers write above it as well, and the new ones above all that there was.
        self.raise_closed(floor);
        new.raise_closed(floor);
        new.region.store64(header::LIMIT, NOTHING, SeqCst);
        let promised = self.promised();
        let copied = self.copy_records(new, now, Some(Need::Moved));
        if copied.is_ok() && bound && whole {
            new.pledge_to(self.pledged());
        } else {
            new.pledge_all();
        }
        let complete = copied.is_ok() && self.copy_tombstones(new, now).is_ok();
        if complete {
            new.take_promise(&promised);
            new.region.store64(header::LIMIT, mine.0.min(floor.0).max(NOTHING), SeqCst);
        }
        let floor = if complete { floor } else { Stamp::ZERO };
        (Source { old: *self, floor, generation }, copied)
    }

    /// The greatest stamp up to `stamp` that may be promised.
    pub(super) fn within_limit(&self, stamp: Stamp) -> Stamp {
        match self.region.load64(header::LIMIT, SeqCst) {
            0 => stamp,
            limit => stamp.min(Stamp(limit & !FROZEN)),
        }
    }

    /// Whether another zone has taken this one's place.
    pub fn is_handed_over(&self) -> bool {
        self.region.load64(header::LIMIT, SeqCst) & FROZEN != 0
    }

    /// Sets a limit for good, at most where it is already.
    fn freeze(&self, stamp: Stamp) -> Stamp {
        let Some(word) = self.limit() else { return Stamp::ZERO };
        loop {
            let before = word.load(SeqCst);
            let limit = if before == 0 { stamp.0 } else { stamp.0.min(before & !FROZEN) };
            if word.compare_exchange(before, limit | FROZEN, SeqCst, Relaxed).is_ok() {
                return Stamp(limit);
            }
        }
    }

    /// Raises the limit to `stamp`, or takes it away. Nothing if it is frozen, or taken away before.
    pub(super) fn set_limit(&self, stamp: Option<Stamp>) {
        let Some(word) = self.limit() else { return };
        let before = word.load(SeqCst);
        let limit = stamp.map_or(0, |stamp| stamp.0.max(before));
        if before != 0 && before & FROZEN == 0 {
            // A failure means that it was frozen meanwhile.
            let _ = word.compare_exchange(before, limit, SeqCst, Relaxed);
        }
    }

    fn limit(&self) -> Option<&AtomicU64> {
        self.region.word64(header::LIMIT)
    }

    fn raise_closed(&self, stamp: Stamp) {
        if let Some(word) = self.region.word64(header::CLOSED) {
            word.fetch_max(stamp.0, SeqCst);
        }
    }

    /// Whether records have still to be merged from here.
    pub fn is_source(&self) -> bool {
        self.region.load64(header::MAGIC, SeqCst) == MAGIC
    }

    /// The agent is to look at the place of `key`.
    pub(super) fn mark_changed(&self, shards: ShardMask) {
        if let Some(dirty) = self.region.word64(header::DIRTY) {
            dirty.fetch_or(shards, SeqCst);
        }
    }
}

/// Whether a record is a tombstone, or about to be one.
fn is_over(fields: &Fields, now: Millis) -> bool {
    fields.tombstone || fields.expires.is_some_and(|end| end <= now)
}

/// Who may have the room that a record of this node needs where it is merged: for values there is an allowance.
pub(super) fn need_of(record: &Record<'_>, now: Millis) -> Option<Need> {
    (record.value.is_some() && record.expires.is_none_or(|end| end > now)).then_some(Need::Moved)
}
