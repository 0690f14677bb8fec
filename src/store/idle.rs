//! Entries of the table of origins that no record uses: when the table is full, they are given to others.
//!
//! Each start of nginx is another origin, and of most that are gone nothing is left but their position. Which these are, only a
//! walk over all records tells. So upkeep walks ahead of need, in short steps, when few entries are left; who needs one takes
//! what was found then, and holds nobody up.
//!
//! ```text
//! free ──> used ──> unmet ──> idle ──> free, and another's at once
//!            ^        │        │
//!            └────────┴────────┘   a record of it was met, or is about to be written
//! ```
//!
//! A walk begins with all entries that are used becoming *unmet*, but this node's own. Each record that it meets makes its
//! origin's entry used again, and what is unmet in the end is *idle*. Who writes a record makes its origin's entry used first,
//! with the record's shard in hand ([`Zone::hold_origin`]). So an idle entry has no record: who had the shard before the walk
//! came to it has left a record that is met, and who has it later finds the entry unmet, or idle. To hold an idle entry and to
//! give it away are each one exchange of its state, so that one of the two fails; and who writes looks anew whose the entry is
//! that it holds, or sends the record back.
//!
//! To all others, entries that are unmet or idle are as good as used: they are found, and what is known of their origins counts.
//! When one has to go, it is the idle one with the lowest position, that of a node which was gone before others were.
//!
//! Who is killed in the midst of this leaves nothing to be undone. How far the walk is stands in the zone, and the next agent goes
//! on with it. What is unmet without a walk is used, but for its name: the next walk begins behind that.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::failpoint::{Step, done};
use super::layout::{MAX_ORIGINS, header};
use super::origins::{FREE, USED};
use super::scan::ScanPlace;
use super::{StoreError, Zone};
use crate::record::{Identity, Millis, Stamp};

/// No record of it was met yet by the walk under way.
pub const UNMET: u32 = 2;
/// It has no record.
pub const IDLE: u32 = 3;

/// The word that says how far the walk is: its number, and the next bucket from 1; 0: there is none.
const PLACE_BITS: u32 = 40;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// Between the beginnings of two walks, milliseconds; in so long peers push out no more than a share of the table.
const PAUSE: Millis = 60_000;
/// That share. So many entries are to be free or idle.
const SHARE: usize = 16;
/// Records and buckets in one hold of a shard's lock, and buckets that cost as much to pass as a record.
const RECORDS_A_HOLD: usize = 64;
const BUCKETS_A_HOLD: usize = 128;
const BUCKETS_A_STEP: usize = 16;

/// What there is for one more origin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It is known, or there is a free entry.
    Plenty,
    /// The origin of this position gives way.
    InPlaceOf(Stamp),
    /// Nothing, before somebody has looked.
    Unknown,
}

impl Zone {
    /// Whether what a peer says of an origin can be noted now: something of its own, or (`position`) only up to where this
    /// node would have everything of it. Where the table is full another origin has to give way, of which all is forgotten. Of
    /// those peers push out a sixteenth of the table in a minute: nobody can make a node forget all by origins that it makes up.
    pub fn admits(&self, origin: Identity, position: Option<Stamp>, now: Millis) -> bool {
        match self.room_for(origin) {
            Room::Plenty => true,
            // Otherwise it would itself be the next that goes.
            Room::InPlaceOf(lowest) => position.is_none_or(|position| position > lowest) && self.take_share(now),
            Room::Unknown => {
                self.want_idle();
                false
            }
        }
    }

    /// Whether [`Zone::admits`] would say so of the position of an origin; changes nothing.
    pub fn would_admit(&self, origin: Identity, position: Stamp, now: Millis) -> bool {
        match self.room_for(origin) {
            Room::Plenty => true,
            Room::InPlaceOf(lowest) => position > lowest && self.share_left(now) > 0,
            Room::Unknown => false,
        }
    }

    fn room_for(&self, origin: Identity) -> Room {
        if self.origins_end() < self.origin_entries()
            || self.origin_index(origin).is_some()
            || self.origins_to_come() > 0
            || self.origin_places().any(|at| self.state_in(at) == FREE)
        {
            return Room::Plenty;
        }
        self.idle_origins().map(|(_, at)| self.position_in(at)).min().map_or(Room::Unknown, Room::InPlaceOf)
    }

    /// How many more may be pushed out in the minute that it is.
    fn share_left(&self, now: Millis) -> u64 {
        let word = self.region.load64(header::ORIGINS_PUSHED, Relaxed);
        let pushed = if word >> 16 == minute(now) { word & 0xffff } else { 0 };
        (self.share() as u64).saturating_sub(pushed)
    }

    fn take_share(&self, now: Millis) -> bool {
        let Some(word) = self.region.word64(header::ORIGINS_PUSHED) else { return false };
        let begin = minute(now) << 16;
        let one_more = |had: u64| {
            let had = if had >> 16 == minute(now) { had } else { begin };
            ((had & 0xffff) < self.share() as u64).then_some(had + 1)
        };
        word.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    fn share(&self) -> usize {
        (self.origin_entries() / SHARE).max(1)
    }

    /// Entries that may go: the index of each, and where it lies.
    fn idle_origins(&self) -> impl Iterator<Item = (usize, usize)> {
        let own = usize::from(self.own_origin());
        self.origin_places().enumerate().filter(move |(index, at)| *index != own && self.state_in(*at) == IDLE)
    }

    /// Frees the idle entry of the lowest position. The caller holds the table's lock, and gives it to another at once.
    pub(super) fn give_up_idle(&self) -> Option<usize> {
        let mut idle: Vec<(Stamp, usize)> =
            self.idle_origins().map(|(index, at)| (self.position_in(at), index)).collect();
        idle.sort_unstable();
        // Who is about to write a record of one was quicker.
        let mut given = idle.into_iter().map(|(_, index)| index);
        let given = given.find(|index| self.change_state(*index, |state| (state == IDLE).then_some(FREE)));
        done(Step::OriginGivenUp);
        given
    }

    /// Whether an entry stands for this origin. If so it does as long as the caller has the shard that it has, and longer if a
    /// record of it is there then.
    pub(super) fn hold_origin(&self, index: u16, origin: Identity) -> bool {
        self.keep_origin(index) && self.identity_at(index.into()) == origin
    }

    /// An entry has a record. `false`: it stands for nobody.
    pub(super) fn keep_origin(&self, index: u16) -> bool {
        let index = usize::from(index);
        self.state(index) == USED || self.change_state(index, |state| (state != FREE).then_some(USED))
    }

    /// Somebody found no entry.
    pub(super) fn want_idle(&self) {
        // The walk under way may find some; who then still finds none comes again.
        if self.region.load64(header::ORIGINS_WALK, SeqCst) & PLACE == 0 {
            self.region.store32(header::ORIGINS_WANTED, 1, SeqCst);
        }
    }

    /// An entry was taken: if few are left, upkeep is to look for more.
    pub(super) fn want_idle_in_time(&self) {
        if self.origins_to_come() > 0 {
            return;
        }
        let left = self.origin_places().filter(|at| matches!(self.state_in(*at), FREE | IDLE)).count();
        if left + self.origin_entries().saturating_sub(self.origins_end()) < self.share() {
            self.want_idle();
        }
    }

    /// Looks for entries of the table of origins that no record uses, if that is wanted: part of upkeep. Goes on for about
    /// `budget` records, and returns how many steps it was; less than `budget`: nothing is left to do now.
    pub fn find_idle_origins(&self, now: Millis, budget: usize) -> usize {
        if self.region.load64(header::ORIGINS_WALK, Relaxed) & PLACE == 0 {
            let last = self.region.load64(header::ORIGINS_WALKED, Relaxed);
            let is_wanted = self.region.load32(header::ORIGINS_WANTED, Relaxed) != 0;
            if !is_wanted || now.abs_diff(last) < PAUSE || self.begin_walk(now).is_err() {
                return 0;
            }
        }
        self.walk_on(budget)
    }

    /// The same, all of it and now, for who can't do without.
    pub(super) fn find_idle_at_once(&self) {
        let last = self.region.load64(header::ORIGINS_WALKED, Relaxed);
        // What came to be without records behind a walk that is under way, only the next one finds.
        for _ in 0..2 {
            if self.idle_origins().next().is_none() && self.begin_walk(last).is_ok() {
                self.walk_on(usize::MAX);
            }
        }
    }

    /// Nothing if a walk is under way.
    fn begin_walk(&self, now: Millis) -> Result<(), StoreError> {
        self.with_origins(|| {
            let Some(walk) = self.walk_word() else { return };
            let word = walk.load(SeqCst);
            if word & PLACE != 0 {
                return;
            }
            let own = usize::from(self.own_origin());
            for index in (0..self.origins_end()).filter(|index| *index != own) {
                self.change_state(index, |state| (state == USED).then_some(UNMET));
                done(Step::OriginUnmet);
            }
            // Before all of them are unmet nothing may be walked.
            let number = (word >> PLACE_BITS).wrapping_add(1);
            walk.store(number << PLACE_BITS | 1, SeqCst);
            self.region.store64(header::ORIGINS_WALKED, now, Relaxed);
            self.region.store32(header::ORIGINS_WANTED, 0, SeqCst);
        })
    }

    fn walk_on(&self, budget: usize) -> usize {
        let Some(walk) = self.walk_word() else { return 0 };
        let mut left = budget;
        while left > 0 {
            let word = walk.load(SeqCst);
            let Some(place) = (word & PLACE).checked_sub(1) else { break };
            let Some((index, buckets)) = self.hold_at(ScanPlace(place), BUCKETS_A_HOLD) else {
                if self.end_walk(word).is_err() {
                    break;
                }
                continue;
            };
            let Ok((passed, steps)) = self.meet_some(index, buckets, left) else { break };
            // Somebody else may have got further, or have begun the next one.
            let _ = walk.compare_exchange(word, word + passed as u64, SeqCst, Relaxed);
            done(Step::OriginsMet);
            left = left.saturating_sub(steps);
        }
        budget - left
    }

    /// Walks these buckets, for about `budget` records at most; how many it passed, and how many steps that was.
    fn meet_some(&self, index: u32, buckets: Range<usize>, budget: usize) -> Result<(usize, usize), StoreError> {
        let shard = self.shard(index)?;
        let (mut bucket, mut records) = (buckets.start, 0);
        let mut met = [0_u64; MAX_ORIGINS / 64];
        while bucket < buckets.end && records < RECORDS_A_HOLD.min(budget) {
            shard.bucket_each(bucket, |record| {
                records += 1;
                let origin = usize::from(record.fields.origin);
                if let Some(word) = met.get_mut(origin / 64) {
                    *word |= 1 << (origin % 64);
                }
            });
            bucket += 1;
        }
        for (word, mut bits) in met.into_iter().enumerate() {
            while bits != 0 {
                self.keep_origin((word * 64) as u16 + bits.trailing_zeros() as u16);
                bits &= bits - 1;
            }
        }
        let passed = bucket - buckets.start;
        Ok((passed, records + passed.div_ceil(BUCKETS_A_STEP)))
    }

    /// All has been walked: what is unmet has no record.
    fn end_walk(&self, word: u64) -> Result<(), StoreError> {
        self.with_origins(|| {
            let Some(walk) = self.walk_word().filter(|walk| walk.load(SeqCst) == word) else { return };
            let own = usize::from(self.own_origin());
            for index in 0..self.origins_end() {
                // This node's own may have become that while the walk was under way; what is one's own isn't looked for.
                let then = if index == own { USED } else { IDLE };
                self.change_state(index, |state| (state == UNMET).then_some(then));
                done(Step::OriginIdle);
            }
            walk.store(word & !PLACE, SeqCst);
        })
    }

    fn walk_word(&self) -> Option<&AtomicU64> {
        self.region.word64(header::ORIGINS_WALK)
    }

    /// How many buckets the walk under way has passed; `None`: there is none.
    #[cfg(test)]
    pub(super) fn walked(&self) -> Option<u64> {
        (self.region.load64(header::ORIGINS_WALK, SeqCst) & PLACE).checked_sub(1)
    }
}

/// Of the epoch, as far as the word has room for it.
fn minute(now: Millis) -> u64 {
    (now / PAUSE) & (u64::MAX >> 16)
}
