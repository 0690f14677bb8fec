//! What is past: versions that this zone has had and that are over, although nothing in it tells that any more.
//!
//! A position covers a version that isn't here (and nothing newer of its key is): then it was here, or was over when
//! others told what they had, and was deleted, or ended. So deletes hold against all that positions cover, however short
//! the life of tombstones is. Four things are no proof of that: a record that was left out for want of room, one that
//! may have been evicted by the node that was to send it, one that was let go by a clock that was ahead, and one that this node
//! wrote to other memory than this.
//!
//! What positions don't cover yet is remembered by what won over it: such a record or tombstone is *unsettled*, and no
//! unsettled tombstone is forgotten while an origin has written more than it has promised here.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Zone;
use super::block::Fields;
use super::expiry;
use super::layout::{header, shard};
use super::origins::MET;
use super::shard::{Met, Shard};
use crate::record::{Identity, Millis, Record, Stamp};

impl Zone {
    /// Whether all that this node ever wrote to this zone was written to this memory.
    fn has_all_own(&self) -> bool {
        self.region.load64(header::BORN, Relaxed) == 0
    }

    /// The greatest stamp of a record of others that was left out for want of room, or because it can't be held: what this
    /// zone lacks at or below it tells nothing. Zero: nothing was left out, or it has been made up for.
    pub fn lacked(&self) -> Stamp {
        Stamp(self.region.load64(header::LACKED, SeqCst))
    }

    /// A record of others was left out, of this stamp or an earlier one.
    pub fn count_lacked(&self, stamp: Stamp) {
        if let Ok(shard) = self.shard(0) {
            shard.leave_out(stamp);
        }
    }

    /// The greatest stamp up to which positions cover what may never have been sent here, as it was given up for others before:
    /// what this zone lacks at or below it tells nothing. Zero: there is no doubt about any.
    pub fn doubted(&self) -> Stamp {
        Stamp(self.region.load64(header::DOUBTED, SeqCst))
    }

    /// Who promises to have sent all of `origin` up to `position` gave up records up to `evicted`. What it had promised
    /// before it sent before, so only what is new is in doubt. Call it before [`Zone::advance`].
    pub fn doubt(&self, origin: Identity, position: Stamp, evicted: Stamp) {
        if evicted > Stamp::ZERO
            && evicted > self.position(origin)
            && let Some(word) = self.region.word64(header::DOUBTED)
        {
            word.fetch_max(evicted.min(position).0, SeqCst);
        }
    }

    /// The greatest stamp of a record that was given up here for others.
    pub fn evicted_here(&self) -> Stamp {
        Stamp(self.region.load64(header::EVICTED_STAMP, SeqCst))
    }

    /// The greatest stamp of a record that this zone may lack as it was given up for others, here or before it was sent here.
    pub fn may_lack(&self) -> Stamp {
        self.evicted_here().max(self.doubted())
    }

    /// All that was left out up to `lacked`, as [`Zone::lacked`] said before comparing, is here now or known to be over.
    pub fn made_up(&self, lacked: Stamp) {
        // Read first: what is left out meanwhile counts on.
        let count = self.left_out();
        if let Some(word) = self.region.word64(header::LACKED)
            && word.compare_exchange(lacked.0, 0, SeqCst, Relaxed).is_ok()
        {
            self.region.store64(header::MADE_UP, count, SeqCst);
        }
    }

    /// Records of others that were left out, ever.
    pub(super) fn left_out(&self) -> u64 {
        (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::INCOMPLETE)).sum()
    }

    /// The positions that tell what is past: of this node itself only if it never had other memory.
    pub fn claims(&self) -> Vec<(Identity, Stamp)> {
        let (own, all) = (self.node(), self.has_all_own());
        self.positions().into_iter().filter(|(identity, _)| all || *identity != own).collect()
    }

    /// Whether some version of an origin was here once, or something newer of its key. Not if it may have been left out.
    pub(super) fn is_past(&self, origin: u16, stamp: Stamp) -> bool {
        // What this node has not closed yet, it can't have sent to anybody.
        let known = origin != self.own_origin() || stamp <= self.closed();
        known && self.is_promised(origin, stamp) && stamp > self.lacked().max(self.doubted())
    }

    /// Whether what is newer than this record may be missing because a node gave it up for others, and not because it is over.
    pub(super) fn may_be_evicted(&self, older: &Met) -> bool {
        self.evict && !older.fields.tombstone
    }

    /// Whether a record that ends then may have been let go too early, by a clock that was ahead of what it is now.
    pub(super) fn ended_early(&self, record: &Record<'_>, now: Millis) -> bool {
        record.expires.is_some_and(|end| end > now && end <= self.ran_to())
    }

    /// The latest time up to which records may have been let go because they had ended.
    pub(super) fn ran_to(&self) -> Millis {
        let ticks = (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::TICK));
        expiry::begins(ticks.max().unwrap_or(0))
    }

    /// Whether something may come again that loses against whatever takes the place of these: they are such a thing
    /// themselves, or won over one.
    pub(super) fn may_come_again(&self, fields: &Fields) -> bool {
        fields.unsettled || !self.is_promised(fields.origin, fields.stamp)
    }

    /// A record of another node was met, whatever becomes of it.
    pub(super) fn note_met(&self, origin: u16, stamp: Stamp) {
        if origin != self.own_origin()
            && let Some(word) = self.region.word64(self.geometry.origin(origin.into()) + MET)
            && word.load(Relaxed) < stamp.0
        {
            word.fetch_max(stamp.0, SeqCst);
        }
    }

    /// Whether some origin has written more than it has promised here.
    pub(super) fn is_unsettled(&self) -> bool {
        self.origins_met().any(|(position, met)| met > position)
    }

    /// Whether all writes of the origin up to this stamp are here, or were.
    pub(super) fn is_promised(&self, origin: u16, stamp: Stamp) -> bool {
        if origin != self.own_origin() {
            return stamp <= self.position_at(origin.into());
        }
        // What moves between memory of this node isn't all here yet.
        let whole = self.region.load64(header::LIMIT, Relaxed) == 0;
        whole && stamp.0 > self.region.load64(header::BORN, Relaxed)
    }
}

impl Shard<'_> {
    /// A record of others finds no room. In a zone that gives up records for others it counts as one of those.
    pub fn leave_out(&self, stamp: Stamp) {
        self.bump(shard::INCOMPLETE);
        let field = if self.zone.evict { header::EVICTED_STAMP } else { header::LACKED };
        if let Some(word) = self.zone.region.word64(field) {
            word.fetch_max(stamp.0, SeqCst);
        }
    }
}
