//! What those who follow a zone's changes need beyond the feed: while it is watched, nothing goes without a trace.
//!
//! A zone is *watched* until a time that its watchers keep putting off. As long as that lasts
//!
//! - deletes and ends leave tombstones, in zones that aren't shared too, kept for [`Zone::remembered`] at least;
//! - each shard counts its changes, so that a watcher sees with one look where there is something new.
//!
//! What goes without a tombstone, or whose tombstone goes, is *forgotten*: the shard notes when it went. Who was away since
//! before that can't be told what is gone. Eviction isn't noted: it is local, and no statement about the key.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::block::Fields;
use super::layout::{WALKER_MISSED, header, shard};
use super::shard::Shard;
use super::{Cursor, FeedEnd, ShardMask, StoreError, Zone, lock};
use crate::record::{Millis, Record};

/// Watchers put the end of a watch off by no more than this, milliseconds.
const LONGEST_WATCH: Millis = 15 * 60_000;

/// A change as a watcher sees it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The record as it is now; without a value it is gone.
    pub record: Record<'a>,
    /// It is gone because its end had come: since when, at the latest.
    pub lapsed: Option<Millis>,
}

impl Zone {
    /// For how long, in milliseconds, it remembers what is gone while it is watched, unless it is full.
    pub fn remembered(&self) -> Millis {
        self.lapsed_retention()
    }

    /// Announces changes until `until`, which is within a quarter of an hour, or longer if somebody said so.
    pub fn watch_until(&self, until: Millis) {
        if let Some(word) = self.region.word64(header::WATCHED) {
            word.fetch_max(until, SeqCst);
        }
    }

    /// Whether changes are announced to watchers.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.region.load64(header::WATCHED, SeqCst) != 0
    }

    /// Whether somebody is to be told of changes: other nodes, or watchers.
    pub fn announces(&self) -> bool {
        self.region.load32(header::SYNC, Relaxed) != 0 || self.is_watched()
    }

    /// Nobody has put off the end of the watch.
    pub(super) fn end_watch(&self, now: Millis) {
        let until = self.region.load64(header::WATCHED, SeqCst);
        // So far ahead is what was said by a clock that was ahead and isn't any more. Whoever is still there puts it off again.
        let latest = now.saturating_add(LONGEST_WATCH);
        let end = if until < now { 0 } else { until.min(latest) };
        if until != end
            && let Some(word) = self.region.word64(header::WATCHED)
        {
            // A failure means that somebody watches.
            let _ = word.compare_exchange(until, end, SeqCst, SeqCst);
        }
    }

    /// Whether what is deleted leaves a tombstone.
    pub(super) fn leaves_tombstones(&self) -> bool {
        self.is_sync() || self.is_watched() || self.trail_stands()
    }

    /// A number that moves with every change in a shard, while the zone is watched.
    pub fn changes_in(&self, shard: u32) -> u64 {
        self.region.load64(self.geometry.shard(shard) + shard::CHANGES, SeqCst)
    }

    /// Of everything that is gone from a shard and of which nothing tells that any more, when the last went; 0: there is
    /// nothing.
    pub fn forgotten(&self, shard: u32) -> Millis {
        self.shard_unlocked(shard).get(shard::FORGOTTEN)
    }

    /// A number that another zone, or one made anew, has otherwise.
    pub fn mark(&self) -> u64 {
        self.region.load64(header::MARK, Relaxed)
    }

    /// What another zone of this node, from which all records come, has forgotten is forgotten here too.
    pub(super) fn forget_as(&self, other: &Zone) -> Result<(), StoreError> {
        let gone = (0..other.geometry.shards).map(|shard| other.forgotten(shard)).max().unwrap_or(0);
        (0..self.geometry.shards).try_for_each(|shard| self.shard(shard).map(|shard| shard.forget(gone)))
    }

    /// The owner of walkers that end with the calling thread.
    pub fn walker_owner() -> u64 {
        lock::this_thread()
    }

    /// A new walker behind the last change of every shard. `None` as with [`Zone::feed_open`].
    pub fn feed_open_at_end(&self, owner: u64) -> Option<Cursor> {
        self.feed_open_with(owner, |shard, cursor| {
            let end = shard.field(shard::FEED);
            shard.place_marker(cursor, shard.prev(end), shard.get(shard::EPOCH));
        })
    }

    /// Whether one more walker may be had for a client that goes on alone: all of these together get a quarter of the places.
    pub fn spares_walker(&self) -> bool {
        let places = (0..self.geometry.walkers).map(|slot| self.region.load64(self.geometry.walker(slot), SeqCst));
        places.filter(|owner| is_watcher(*owner)).count() < self.geometry.walkers / 4
    }

    /// A new walker where another one is. `None` as with [`Zone::feed_open`].
    pub fn feed_fork(&self, from: &Cursor, owner: u64) -> Option<Cursor> {
        self.feed_open_with(owner, |shard, cursor| {
            let marker = self.geometry.marker(shard.index, from.slot);
            let epoch = from.epochs.get(shard.index as usize).copied().unwrap_or(0);
            // One that a repair took out of the ring begins anew, and so does its fork.
            let place = if shard.next(marker) == 0 { shard.field(shard::FEED) } else { marker };
            shard.place_marker(cursor, place, epoch);
        })
    }

    /// As [`Zone::feed`], for watchers.
    ///
    /// # Errors
    ///
    /// `Busy`: the shard's lock is stuck; the walker is where it was.
    pub fn watch_feed(
        &self,
        cursor: &mut Cursor,
        shard: u32,
        now: Millis,
        each: &mut dyn FnMut(&Change<'_>) -> bool,
    ) -> Result<FeedEnd, StoreError> {
        self.feed_with_fields(cursor, shard, &mut |record, fields| {
            let until = fields.expires.filter(|_| fields.lapsed);
            let lapsed = until.map(|until| until.saturating_sub(self.remembered()));
            if !self.matching.has_parts() {
                return each(&Change { record: *record, lapsed });
            }
            // Whichever of a counter's records it was, it is the counter that has changed.
            let Some((key, sum)) = self.sum_around(record.key, now) else { return true };
            let (value, expires) = sum.as_ref().map_or((None, None), |(text, end)| (Some(text.as_bytes()), *end));
            let lapsed = lapsed.filter(|_| value.is_none());
            each(&Change { record: Record { key: &key, value, expires, ..*record }, lapsed })
        })
    }

    /// The shards in which a walker missed something since this was last asked: its tombstone was given up for want of
    /// room before the walker came to it.
    pub fn take_missed(&self, cursor: &Cursor) -> ShardMask {
        let word = self.region.word64(self.geometry.walker(cursor.slot) + WALKER_MISSED);
        word.map_or(0, |missed| if missed.load(SeqCst) == 0 { 0 } else { missed.swap(0, SeqCst) })
    }

    /// Takes the places of walkers whose threads are dead.
    pub fn sweep_watchers(&self) {
        if self.is_watched() {
            self.sweep(|_, owner| is_abandoned(owner) == Some(true));
        }
    }
}

impl Shard<'_> {
    /// There is something new in the feed, or not any more.
    #[inline]
    pub fn change(&self) {
        if self.zone.is_watched() {
            self.bump(shard::CHANGES);
        }
    }

    /// Something went at this time, and nothing will tell.
    pub fn forget(&self, gone: Millis) {
        self.set(shard::FORGOTTEN, self.get(shard::FORGOTTEN).max(gone));
    }

    /// Tombstones are about to go, the first ones in the feed; walkers that haven't come to them yet miss them.
    pub fn note_missed(&self, doomed: &[usize]) {
        let followed = self.zone.is_watched() || self.zone.trail_stands();
        let (Some(last), true) = (doomed.last(), followed) else { return };
        let geometry = &self.zone.geometry;
        let end = self.field(shard::FEED);
        let mut at = self.next(end);
        for _ in 0..self.zone.region.len() {
            if at == end || at == *last {
                return;
            }
            if let Some(slot) = geometry.walker_of(self.index, at)
                && let Some(missed) = self.zone.region.word64(geometry.walker(slot) + WALKER_MISSED)
            {
                missed.fetch_or(1 << self.index, SeqCst);
                if Zone::owns_trail(self.zone.region.load64(geometry.walker(slot), SeqCst)) {
                    self.zone.miss();
                }
            }
            at = self.next(at);
        }
    }

    pub(super) fn place_marker(&self, cursor: &mut Cursor, behind: usize, epoch: u64) {
        self.drop_marker(cursor.slot);
        self.feed_insert(self.zone.geometry.marker(self.index, cursor.slot), behind);
        if let Some(place) = cursor.epochs.get_mut(self.index as usize) {
            *place = epoch;
        }
    }
}

/// When what is taken away now went, at the latest.
pub fn gone_since(zone: &Zone, fields: &Fields, now: Millis) -> Millis {
    let until = fields.expires.filter(|_| fields.tombstone);
    until.map_or(now, |until| until.saturating_sub(zone.remembered()).min(now))
}

/// Whether a walker's owner is a thread that watches, and not a lease or the state files.
pub const fn is_watcher(owner: u64) -> bool {
    owner >> 32 != 0
}

/// Whether a walker's owner is a thread that is dead. `None`: it isn't a thread but the number of a lease, which counts
/// from 1 and has no upper half.
pub fn is_abandoned(owner: u64) -> Option<bool> {
    is_watcher(owner).then(|| lock::is_dead(owner))
}
