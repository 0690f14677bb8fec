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

use super::block::Fields;
use super::expiry;
use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::{CLASS_SIZES, header, shard};
use super::origins::{ANEW, LACKING, MET};
use super::shard::Shard;
use super::{Rule, Zone};
use crate::record::{Identity, Millis, Record, Stamp};

const VAIN: [usize; 4] = [header::VAIN_UNTIL, header::VAIN_PAUSE, header::VAIN_PAGES, header::VAIN_RECORDS];
/// Between two times that a zone with `evict` says that something finds no room.
const TOLD_AGAIN: Millis = 600_000;

impl Zone {
    /// Whether all that this node ever wrote to this zone was written to this memory.
    fn has_all_own(&self) -> bool {
        self.region.load64(header::BORN, Relaxed) == 0
    }

    /// What this zone lacks.
    pub fn lacks(&self) -> Lacks {
        // Read first: what is left out meanwhile is found by who compares.
        let count = self.left_out();
        Lacks {
            of: if self.has_left_out() { self.origins_lacked().collect() } else { Vec::new() },
            any: Stamp(self.region.load64(header::LACKED_OF_ANY, SeqCst)),
            count,
        }
    }

    /// Whether that is something.
    pub fn is_lacking(&self) -> bool {
        let of_any = || self.region.load64(header::LACKED_OF_ANY, SeqCst) > 0;
        self.has_left_out() && (of_any() || self.origins_lacked().next().is_some())
    }

    /// Whether something of this origin may be lacking.
    pub fn lacks_of(&self, origin: Identity) -> bool {
        if !self.has_left_out() {
            return false;
        }
        let any = || Stamp(self.region.load64(header::LACKED_OF_ANY, SeqCst));
        self.origin_index(origin).map_or_else(any, |index| self.lacked_of(index)) > Stamp::ZERO
    }

    /// Whether there is hardly room for what was left out: less than a sixteenth of the pages is free, or would be without
    /// tombstones, which make way for whatever comes.
    pub fn is_crowded(&self) -> bool {
        let tombstones: u64 =
            (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::TOMBSTONES)).sum();
        // At least so much: a block each, of the smallest size.
        let theirs = tombstones.saturating_mul(CLASS_SIZES[0] as u64) / self.geometry.page_size as u64;
        u64::from(self.free_pages()) + theirs < self.geometry.pages as u64 / 16
    }

    /// Whether what was left out would find no room if it was asked for now: it found none before, there is no more room than there
    /// was then, and that wasn't long ago.
    pub fn asks_in_vain(&self, now: Millis) -> bool {
        let [until, pause, pages, records] = VAIN.map(|field| self.region.load64(field, Relaxed));
        // More than comes and goes all the time.
        let is_roomier = u64::from(self.free_pages()) > pages || self.records() < records - records / 64;
        // A clock that was set back makes it no longer.
        let is_early = now < until && until - now <= pause;
        if until > 0 && is_roomier {
            self.region.store64(header::VAIN_UNTIL, 0, Relaxed);
        }
        is_early && !is_roomier
    }

    /// What was left out was asked for. It found room, or not all of it: then it is in vain for the first of these times,
    /// milliseconds, doubled each time up to the second.
    pub fn note_room(&self, refused: Option<(Millis, Millis)>, now: Millis) {
        let [until, pause, ..] = VAIN.map(|field| self.region.load64(field, Relaxed));
        let Some((first, last)) = refused else { return self.region.store64(header::VAIN_UNTIL, 0, Relaxed) };
        let pause = match until {
            0 => first,
            // Others have just asked, too.
            until if now < until => pause,
            _ => pause.saturating_mul(2).min(last),
        };
        let room = [u64::from(self.free_pages()), self.records()];
        for (field, value) in VAIN.into_iter().zip([now.saturating_add(pause), pause, room[0], room[1]]) {
            self.region.store64(field, value, Relaxed);
        }
    }

    fn records(&self) -> u64 {
        (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::RECORDS)).sum()
    }

    /// A record of others found no room: whether that is to be said, as it wasn't since the zone was last complete. A zone that
    /// gives up records for others is never known to be that: there it is said now and then.
    pub fn tell_full(&self, now: Millis) -> bool {
        let Some(word) = self.region.word64(header::TOLD_FULL) else { return false };
        let told = word.load(Relaxed);
        let is_news = told == 0 || (self.evict && now.abs_diff(told) > TOLD_AGAIN);
        is_news && word.compare_exchange(told, now.max(1), Relaxed, Relaxed).is_ok()
    }

    /// The greatest stamp of a record of this origin that may have been left out.
    pub(super) fn lacked_of(&self, origin: u16) -> Stamp {
        self.lacked_in(self.origin_at(origin.into()))
    }

    /// A record of others was left out, of this stamp or an earlier one, whoever wrote it. Takes no lock, as positions that come
    /// later cover the record: this can't be put off.
    pub fn count_lacked(&self, stamp: Stamp) {
        self.leave_out(0, None, stamp);
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

    /// All that was left out, as [`Zone::lacks`] said before comparing, is here now or known to be over. If something was left
    /// out since, that has to be compared first. Returns whether that was the last of what this zone lacked, which several
    /// sessions may find out. `unsure`: of these origins, of what was left out whoever wrote it some may still be lacking. `lost`:
    /// nobody is left who has all of these; nothing is promised of them any more, so that what still comes is news.
    pub fn made_up(&self, lacks: &Lacks, unsure: &[Identity], lost: &[Identity]) -> bool {
        // All of it or nothing: if the table is busy, the next comparison says so again.
        self.with_origins(|| self.note_made_up(lacks, unsure, lost)).unwrap_or(false)
    }

    fn note_made_up(&self, lacks: &Lacks, unsure: &[Identity], lost: &[Identity]) -> bool {
        let origins: Vec<u16> = lacks.of.iter().filter_map(|(origin, _)| self.origin_index(*origin)).collect();
        if self.left_out() != lacks.count {
            return false;
        }
        lost.iter().for_each(|origin| self.disclaim(*origin));
        let was_lacking = self.is_lacking();
        origins.iter().for_each(|index| self.flag(*index, LACKING, false));
        unsure.iter().filter_map(|origin| self.origin_index(*origin)).for_each(|index| self.narrow(index, lacks.any));
        if let Some(word) = self.region.word64(header::LACKED_OF_ANY) {
            let _ = word.compare_exchange(lacks.any.0, 0, SeqCst, Relaxed);
        }
        done(Step::MadeUp);
        // Whoever leaves something out counts it before it says of whom: one of us sees the other.
        if self.left_out() != lacks.count {
            origins.iter().for_each(|index| self.flag(*index, LACKING, true));
            _ = self.region.word64(header::LACKED_OF_ANY).map(|word| word.fetch_max(lacks.any.0, SeqCst));
            self.count_noted();
        }
        if self.is_lacking() || !Rule::Complete.holds() {
            return false;
        }
        self.region.store64(header::MADE_UP, lacks.count, SeqCst);
        [header::TOLD_FULL, header::VAIN_UNTIL].into_iter().for_each(|field| self.region.store64(field, 0, Relaxed));
        was_lacking
    }

    /// Something was left out up to `any`, whoever wrote it, and of this origin it may still be lacking: as much as its position
    /// covers, which is all that is held for here or past.
    fn narrow(&self, origin: u16, any: Stamp) {
        self.note_met(origin, self.position_at(origin.into()).min(any));
        _ = self.region.word64(header::LACKED).map(|word| word.fetch_max(any.0, SeqCst));
        self.flag(origin, LACKING, true);
    }

    /// A record of others finds no room, or can't be held: of this origin, or of any. In a zone that gives up records for others
    /// it counts as one of those. It is counted in that shard, of which the caller need not have the lock.
    fn leave_out(&self, shard: u32, origin: Option<u16>, stamp: Stamp) {
        let word = |at| self.region.word64(at);
        _ = word(self.geometry.shard(shard) + shard::INCOMPLETE).map(|count| count.fetch_add(1, SeqCst));
        done(Step::LeftOut);
        let raise = |field| _ = word(field).map(|word| word.fetch_max(stamp.0, SeqCst));
        match origin {
            _ if self.evict => raise(header::EVICTED_STAMP),
            Some(origin) => {
                raise(header::LACKED);
                self.flag(origin, LACKING, true);
            }
            None => raise(header::LACKED_OF_ANY),
        }
        self.count_noted();
    }

    /// Another number each time that it has been noted that something is lacking: who read it before what is lacking, and reads it
    /// again, has missed nothing. What was left out is counted before that is noted.
    pub(super) fn lacks_noted(&self) -> u64 {
        self.region.load64(header::LACKS_NOTED, SeqCst)
    }

    fn count_noted(&self) {
        _ = self.region.word64(header::LACKS_NOTED).map(|count| count.fetch_add(1, SeqCst));
    }

    /// Records of others that were left out, ever.
    pub(super) fn left_out(&self) -> u64 {
        (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::INCOMPLETE)).sum()
    }

    /// The positions that tell what is past: of nodes that never had other memory.
    pub fn claims(&self) -> Vec<(Identity, Stamp)> {
        let own = usize::from(self.own_origin());
        let places = self.origin_places().enumerate();
        let claims = places.filter_map(|(index, at)| {
            let is_whole = |at| if index == own { self.has_all_own() } else { !self.is_anew(at) };
            self.entry(at, |at| (self.promised_in(index == own, at), is_whole(at)))
        });
        claims.filter(|(_, (_, is_whole))| *is_whole).map(|(origin, (position, _))| (origin, position)).collect()
    }

    /// Whether all that this origin ever wrote was written to the memory that it has now, as far as is known.
    pub fn is_whole(&self, origin: Identity) -> bool {
        match self.origin_index(origin) {
            Some(index) if index == self.own_origin() => self.has_all_own(),
            Some(index) => !self.is_flagged(index, ANEW),
            None => true,
        }
    }

    /// Whether some version of an origin was here once, or something newer of its key. Not if it may have been left out.
    pub(super) fn is_past(&self, origin: u16, stamp: Stamp) -> bool {
        // What this node has not closed yet, it can't have sent to anybody. Of what it wrote when it has had other memory,
        // nobody vouches for anything, so that it must not know better than others.
        let own_known = self.has_all_own() || !Rule::Born.holds();
        let known = origin != self.own_origin() || (own_known && stamp <= self.closed());
        let lacked = Rule::LeftOut.holds() && stamp <= self.lacked_of(origin);
        let known = known && stamp > self.doubted();
        let anew = self.is_flagged(origin, ANEW) && Rule::Anew.holds();
        known && self.is_promised(origin, stamp) && !lacked && !anew
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
            && let Some(word) = self.region.word64(self.origin_at(origin.into()) + MET)
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
    /// A record of others finds no room here: of this origin, or of any.
    pub fn leave_out(&self, origin: Option<u16>, stamp: Stamp) {
        self.zone.leave_out(self.index, origin, stamp);
    }
}

/// What a zone lacks: up to which stamp records of others were left out, for want of room or because they can't be held. What
/// isn't there at or below it tells nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// By origin.
    pub of: Vec<(Identity, Stamp)>,
    /// Whoever wrote it. Zero: nothing.
    pub any: Stamp,
    /// Records that were left out until then.
    pub count: u64,
}

impl Lacks {
    /// Nothing is lacking.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty() && self.any == Stamp::ZERO
    }

    /// Up to where something of this origin may be lacking.
    pub fn of(&self, origin: Identity) -> Stamp {
        self.any.max(self.of_itself(origin))
    }

    /// The same of what was known to be of it when it was left out.
    pub fn of_itself(&self, origin: Identity) -> Stamp {
        self.of.iter().find(|(identity, _)| *identity == origin).map_or(Stamp::ZERO, |(_, stamp)| *stamp)
    }
}
