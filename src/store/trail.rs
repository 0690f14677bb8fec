//! Where a zone's state files stand in the change feed: what comes behind that place isn't in them yet.
//!
//! A walker stands there as long as changes may be written one by one. It belongs to the zone and to no process, so that
//! whoever is the agent next goes on from it. Who writes walks on with a second one, which takes the place of the first when
//! what it passed is on the disk. As long as the walker stands,
//!
//! - deletes leave tombstones, in zones that aren't shared too, and so do ends that the files can't foretell;
//! - what goes without a trace before it was written is counted as *missed*: only all records, written anew, mend that.

use std::sync::atomic::Ordering::SeqCst;

use super::block::Fields;
use super::layout::{header, shard};
use super::shard::Shard;
use super::{Batch, Cursor, FeedEnd, StoreError, Zone};
use crate::record::{Millis, Stamp};

/// The owner of these walkers: no thread, and the number of no lease.
const OWNER: u64 = u32::MAX as u64;

/// A walk from where the state files stand, or from the end of the feed. To be given back with [`Zone::trail_reach`] or
/// [`Zone::trail_leave`].
#[derive(Debug)]
pub struct Walk {
    cursor: Cursor,
    /// Every write of this node at or below it is in the feeds; those that were at or below the last one are in the files.
    closed: Stamp,
    before: Stamp,
}

impl Zone {
    /// Whether a walker stands where the state files do.
    pub fn trail_stands(&self) -> bool {
        self.region.load64(header::TRAIL, SeqCst) != 0
    }

    /// A walk that begins behind everything that is there now. `None`: the zone has no walker left, or is busy.
    pub fn trail_mark(&self, now: Millis) -> Option<Walk> {
        self.close(now);
        let (closed, before) = (self.closed(), Stamp::ZERO);
        self.feed_open_at_end(OWNER).map(|cursor| Walk { cursor, closed, before })
    }

    /// A walk from where the state files stand. `None`: they stand nowhere, the zone has no walker left, or is busy.
    pub fn trail_walk(&self, now: Millis) -> Option<Walk> {
        let slot = self.region.load64(header::TRAIL, SeqCst).checked_sub(1)? as usize;
        self.close(now);
        let (closed, before) = (self.closed(), self.trail_closed());
        let cursor = self.feed_open_with(OWNER, |shard, cursor| {
            let marker = self.geometry.marker(shard.index, slot);
            let place = if shard.next(marker) == 0 {
                // A repair took it out of the ring, and tombstones may have gone since.
                self.miss();
                shard.field(shard::FEED)
            } else {
                marker
            };
            shard.place_marker(cursor, place, shard.get(shard::EPOCH));
        })?;
        Some(Walk { cursor, closed, before })
    }

    /// Walks on in one shard: copies some dozens of records to `batch`, in place of what was in it. Left out is what has
    /// ended as the files say anyway.
    ///
    /// # Errors
    ///
    /// `Busy`: the shard's lock is stuck; the walk is where it was.
    pub fn trail_step(&self, walk: &mut Walk, shard: u32, batch: &mut Batch) -> Result<FeedEnd, StoreError> {
        batch.clear();
        let (own, before) = (self.own_origin(), walk.before);
        let end = self.feed_with_fields(&mut walk.cursor, shard, &mut |record, fields| {
            if batch.is_full() {
                return false;
            }
            if !(fields.lapsed && fields.origin == own && fields.stamp <= before) {
                batch.push(record, fields);
            }
            true
        })?;
        if end == FeedEnd::Reset {
            self.miss();
        }
        Ok(end)
    }

    /// So many shards there are.
    pub fn shard_count(&self) -> u32 {
        self.geometry.shards
    }

    /// The state files hold what the walk has passed; `all`: it came to the end of every shard.
    pub fn trail_reach(&self, walk: Walk, all: bool) {
        let last = self.region.load64(header::TRAIL, SeqCst);
        if all {
            self.region.store64(header::TRAIL_CLOSED, walk.closed.0, SeqCst);
        }
        self.region.store64(header::TRAIL, walk.cursor.slot as u64 + 1, SeqCst);
        if let Some(slot) = last.checked_sub(1) {
            self.free_walker(slot as usize);
        }
    }

    /// The walk was in vain: the state files stand where they did.
    pub fn trail_leave(&self, walk: Walk) {
        self.feed_close(walk.cursor);
    }

    /// Changes aren't written one by one any more.
    pub fn trail_end(&self) {
        let last = self.region.load64(header::TRAIL, SeqCst);
        self.region.store64(header::TRAIL, 0, SeqCst);
        if let Some(slot) = last.checked_sub(1) {
            self.free_walker(slot as usize);
        }
    }

    /// Whether a walker of these is left over from a process that died.
    pub(super) fn is_stray_trail(&self, slot: usize, owner: u64) -> bool {
        owner == OWNER && self.region.load64(header::TRAIL, SeqCst) != slot as u64 + 1
    }

    /// Whether this owner's walkers outlive processes.
    pub(super) fn owns_trail(owner: u64) -> bool {
        owner == OWNER
    }

    /// A number that moves when something went unseen, which no walk will find. [`Zone::trail_mended`] says up to which.
    pub fn trail_misses(&self) -> u64 {
        self.region.load64(header::TRAIL_MISSES, SeqCst)
    }

    /// All records were written anew after [`Zone::trail_misses`] was so many.
    pub fn trail_mend(&self, misses: u64) {
        self.region.store64(header::TRAIL_MENDED, misses, SeqCst);
    }

    /// Whether something went unseen since all records were last written.
    pub fn trail_missed(&self) -> bool {
        self.trail_misses() != self.region.load64(header::TRAIL_MENDED, SeqCst)
    }

    /// Something changed that no walk will find.
    pub(super) fn miss(&self) {
        if self.trail_stands()
            && let Some(word) = self.region.word64(header::TRAIL_MISSES)
        {
            word.fetch_add(1, SeqCst);
        }
    }

    /// The same, also for files that are being written now.
    pub(super) fn miss_all(&self) {
        if let Some(word) = self.region.word64(header::TRAIL_MISSES) {
            word.fetch_add(1, SeqCst);
        }
    }

    /// Whether the state files follow changes, and may lack this one of a record that goes now.
    pub(super) fn trail_may_lack(&self, fields: &Fields) -> bool {
        self.trail_stands() && fields.stamp > self.trail_closed()
    }

    fn trail_closed(&self) -> Stamp {
        Stamp(self.region.load64(header::TRAIL_CLOSED, SeqCst))
    }
}

impl Shard<'_> {
    /// A record is given up for want of room.
    pub fn note_given_up(&self, fields: &Fields) {
        if self.zone.trail_may_lack(fields) {
            self.zone.miss();
        }
    }
}
