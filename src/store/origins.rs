//! The table of origins: which nodes wrote records of this zone, and up to which stamp all of theirs has been applied.
//!
//! Records name their origin by its index here. An entry's number never changes while a record uses it; how one that none uses
//! comes to stand for another origin, `idle` tells.
//!
//! Entries are made, given to others and changed under the table's lock, or by who has a shard in which a record of theirs is
//! being written, and are read without. So who reads several fields of one looks at its *turn*, before and after.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use super::failpoint::{Step, done};
use super::hash::mixed;
use super::layout::header;
use super::lock;
use super::{KnownMark, StoreError, Zone};
use crate::record::{Identity, Stamp};

pub const POSITION: usize = 16;
const STATE: usize = 24;
const FLAGS: usize = 28;
/// The greatest stamp of a record of it that was met; see `past`.
pub const MET: usize = 32;
/// Its position when the zone was emptied last: what it covers is over since then.
pub const EMPTIED: usize = 40;

/// Its memory was made anew, and its position tells nothing of what it wrote before.
pub const ANEW: u32 = 1;
/// Something of it found no room.
pub const LACKING: u32 = 2;
/// The other bits of the flags are the entry's turn: it counts the origins that the entry has stood for.
const TURN: u32 = 1 << 8;

/// States of an entry. All but the first stand for somebody; the last two are of `idle`.
pub const FREE: u32 = 0;
pub const USED: u32 = 1;

impl Zone {
    /// For each origin known, the stamp at or below which everything of it has been applied, zero if nothing is promised;
    /// of this node itself, the last closed one.
    pub fn positions(&self) -> Vec<(Identity, Stamp)> {
        let own = usize::from(self.own_origin());
        let places = self.origin_places().enumerate();
        places.filter_map(|(index, at)| self.entry(at, |at| self.promised_in(index == own, at))).collect()
    }

    /// The position of one origin, zero if it isn't known.
    pub fn position(&self, origin: Identity) -> Stamp {
        let Some(index) = self.origin_index(origin) else { return Stamp::ZERO };
        let own = index == self.own_origin();
        let found = self.entry(self.origin_at(index.into()), |at| self.promised_in(own, at));
        found.filter(|(identity, _)| *identity == origin).map_or(Stamp::ZERO, |(_, stamp)| stamp)
    }

    /// Up to where all of an origin has been applied: this node's own, or another.
    pub(super) fn promised_in(&self, is_own: bool, at: usize) -> Stamp {
        if is_own { self.within_limit(self.closed()) } else { self.position_in(at) }
    }

    /// Raises the position of another origin; lowers none. `false`: the table of origins is full.
    pub fn advance(&self, origin: Identity, stamp: Stamp) -> bool {
        self.advance_from(origin, Stamp::ZERO, stamp, false) == Ok(true)
    }

    /// The same of what was asked for when the position was `base`. `anew`: the memory of the origin was made anew, and it promises
    /// what it has, and not what it wrote before. `false`: the position is less since, as somebody has promised too much. Then what
    /// comes doesn't go on from it.
    ///
    /// # Errors
    ///
    /// `NoMemory`: the table of origins is full. `Busy`.
    pub fn advance_from(&self, origin: Identity, base: Stamp, stamp: Stamp, anew: bool) -> Result<bool, StoreError> {
        let raised = |had: u64| (had >= base.0).then_some(had.max(stamp.0));
        self.with_origin(origin, |index| {
            // In one go: a position of which that isn't known would be held for whole.
            if anew {
                self.flag(index, ANEW, true);
            }
            let word = self.region.word64(self.origin_at(index.into()) + POSITION);
            word.is_some_and(|word| word.fetch_update(SeqCst, SeqCst, raised).is_ok())
        })
    }

    pub(super) fn is_flagged(&self, index: u16, flag: u32) -> bool {
        self.is_flagged_in(self.origin_at(index.into()), flag)
    }

    pub(super) fn is_flagged_in(&self, at: usize, flag: u32) -> bool {
        self.region.load32(at + FLAGS, SeqCst) & flag != 0
    }

    /// Whether the entry there is of an origin whose memory was made anew.
    pub(super) fn is_anew(&self, at: usize) -> bool {
        self.is_flagged_in(at, ANEW)
    }

    pub(super) fn flag(&self, index: u16, flag: u32, set: bool) {
        if let Some(word) = self.region.word32(self.origin_at(index.into()) + FLAGS) {
            _ = if set { word.fetch_or(flag, SeqCst) } else { word.fetch_and(!flag, SeqCst) };
        }
    }

    /// Promises nothing of an origin any more: who has its position covers less than it seemed. The caller holds the table's lock.
    pub(super) fn disclaim(&self, origin: Identity) {
        if let Some(index) = self.origin_index(origin).filter(|index| *index != self.own_origin()) {
            self.region.store64(self.origin_at(index.into()) + POSITION, 0, SeqCst);
        }
    }

    /// How many origins are noted, and how many more can be without giving up another.
    pub(super) fn origins_known(&self) -> (u64, u64) {
        let known = self.origin_places().filter(|at| self.state_in(*at) != FREE).count();
        let free = self.origin_entries().saturating_sub(known);
        (known as u64, (free + self.origins_to_come()) as u64)
    }

    /// The index of an origin, a new one if need be. By the time that it is used it may stand for another one: see
    /// [`Zone::hold_origin`].
    pub(super) fn origin_for(&self, origin: Identity) -> Result<u16, StoreError> {
        match self.origin_index(origin) {
            Some(index) => Ok(index),
            None => self.with_origin(origin, |index| index),
        }
    }

    /// The same for this node itself: if need be all records are looked at here and now.
    pub(super) fn origin_for_own(&self, node: Identity) -> Result<u16, StoreError> {
        match self.origin_for(node) {
            Err(StoreError::NoMemory) => {
                self.find_idle_at_once();
                self.origin_for(node)
            }
            done => done,
        }
    }

    /// Does `work` on the entry of an origin, a new one if need be, with the table's lock. `work` takes no other lock.
    pub(super) fn with_origin<T>(&self, origin: Identity, work: impl FnOnce(u16) -> T) -> Result<T, StoreError> {
        self.with_origins(|| {
            // Somebody else may have been quicker.
            let known = self.origin_index(origin).map(Ok);
            known.unwrap_or_else(|| self.note_origin(origin)).map(work)
        })?
    }

    /// A new entry. The caller holds the table's lock.
    fn note_origin(&self, origin: Identity) -> Result<u16, StoreError> {
        let free = || (0..self.origin_entries()).find(|index| self.state(*index) == FREE);
        let mut index = free();
        if index.is_none() && self.extend_origins()? {
            index = free();
        }
        let Some(index) = index.or_else(|| self.give_up_idle()) else {
            self.want_idle();
            return Err(StoreError::NoMemory);
        };
        let at = self.origin_at(index);
        // The turn first: who reads what was there has to notice, and flags are of the one before.
        let turn = self.region.load32(at + FLAGS, Relaxed) & !(TURN - 1);
        self.region.store32(at + FLAGS, turn.wrapping_add(TURN), SeqCst);
        fence(Release);
        self.region.write(at, &origin.0);
        done(Step::OriginHalf);
        self.region.store64(at + POSITION, 0, Relaxed);
        self.region.store64(at + MET, 0, Relaxed);
        self.region.store64(at + EMPTIED, 0, Relaxed);
        // Before it is used: whoever looks through the table from then on comes to it.
        if index >= self.origins_end() {
            self.region.store32(header::ORIGINS_END, index as u32 + 1, SeqCst);
        }
        self.set_state(index, USED);
        self.want_idle_in_time();
        Ok(index as u16)
    }

    /// What `read` finds in the entry there, and whose it is. `None`: it stands for nobody, or comes to stand for another one just
    /// now.
    pub(super) fn entry<T>(&self, at: usize, read: impl FnOnce(usize) -> T) -> Option<(Identity, T)> {
        let turn = || self.region.load32(at + FLAGS, SeqCst) & !(TURN - 1);
        let before = turn();
        if self.state_in(at) == FREE {
            return None;
        }
        let found = (self.identity_in(at), read(at));
        // Orders what was read before the look at the turn.
        fence(Acquire);
        (turn() == before).then_some(found)
    }

    /// What stands for whose entry is there, and for what is promised of it; `None`: nobody's. `lacks`, `lacks_any`: whether
    /// something was left out of origins that are flagged for that, and of any.
    #[inline]
    pub(super) fn entry_mark(&self, at: usize, lacks: bool, lacks_any: bool) -> Option<KnownMark> {
        if self.state_in(at) == FREE {
            return None;
        }
        let flags = self.region.load32(at + FLAGS, SeqCst);
        let is_lacking = lacks_any || lacks && flags & LACKING != 0;
        // With the turn, which stands for whose entry it is.
        let mark = self.position_in(at).0 ^ mixed(u64::from(flags) << 1 | u64::from(is_lacking));
        Some(KnownMark { whose: flags / TURN, mark })
    }

    /// Who an index stands for.
    pub(super) fn origin_identity(&self, index: u16) -> Option<Identity> {
        (self.state(index.into()) != FREE).then(|| self.identity_at(index.into()))
    }

    /// The index of this node.
    pub(super) fn own_origin(&self) -> u16 {
        self.region.load32(header::SELF, Relaxed) as u16
    }

    pub(super) fn origin_index(&self, origin: Identity) -> Option<u16> {
        let first = u128::from_le_bytes(origin.0) as u64;
        // Hardly two begin alike.
        let is_it = |at| {
            self.region.load64(at, Relaxed) == first && self.state_in(at) != FREE && self.region.equals(at, &origin.0)
        };
        self.origin_places().position(is_it).map(|index| index as u16)
    }

    /// Does `work` with the table's lock. Who has a shard may take it, and with it nobody takes a shard.
    pub(super) fn with_origins<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let word = self.region.word64(header::ORIGINS_LOCK).ok_or(StoreError::Busy)?;
        // Of the dead, too: half an entry is still free, and what else they left stands for who it stood for.
        lock::lock(word).map_err(|error| self.was_busy(error))?;
        let _held = lock::Held::new(word);
        Ok(work())
    }

    pub(super) fn identity_at(&self, index: usize) -> Identity {
        self.identity_in(self.origin_at(index))
    }

    fn identity_in(&self, at: usize) -> Identity {
        let mut bytes = [0; 16];
        if let Some([first, last]) = self.region.words(at) {
            bytes[..8].copy_from_slice(&first.load(Relaxed).to_le_bytes());
            bytes[8..].copy_from_slice(&last.load(Relaxed).to_le_bytes());
        }
        Identity(bytes)
    }

    pub(super) fn position_at(&self, index: usize) -> Stamp {
        self.position_in(self.origin_at(index))
    }

    pub(super) fn position_in(&self, at: usize) -> Stamp {
        Stamp(self.region.load64(at + POSITION, Acquire))
    }

    /// Position and greatest stamp met of all other origins.
    pub(super) fn origins_met(&self) -> impl Iterator<Item = (Stamp, Stamp)> {
        let own = usize::from(self.own_origin());
        let others = self.origin_places().enumerate().filter(move |(index, _)| *index != own).map(|(_, at)| at);
        let known = others.filter(|at| self.state_in(*at) != FREE);
        known.map(|at| (self.position_in(at), self.met_in(at)))
    }

    /// The origins of which something found no room, and up to where.
    pub(super) fn origins_lacked(&self) -> impl Iterator<Item = (Identity, Stamp)> {
        let lacking = self.origin_places().filter(|at| self.is_flagged_in(*at, LACKING));
        lacking.filter_map(|at| self.entry(at, |at| self.lacked_in(at)))
    }

    /// The greatest stamp of a record of the origin of an entry that may have been left out.
    pub(super) fn lacked_in(&self, at: usize) -> Stamp {
        let any = Stamp(self.region.load64(header::LACKED_OF_ANY, SeqCst));
        if !self.is_flagged_in(at, LACKING) {
            return any;
        }
        let (met, lacked) = (self.met_in(at), Stamp(self.region.load64(header::LACKED, SeqCst)));
        // Of what this node wrote to other memory it isn't noted what was met.
        if met == Stamp::ZERO { lacked.max(any) } else { met.min(lacked).max(any) }
    }

    /// The greatest stamp that is known of an origin.
    pub(super) fn last_of(&self, index: usize) -> Stamp {
        if self.is_known(index) { self.position_at(index).max(self.met_of(index)) } else { Stamp::ZERO }
    }

    /// The zone is about to be emptied: what it has of others by now is over with that. The caller holds the table's lock.
    pub(super) fn note_emptied(&self) {
        for at in self.origin_places().filter(|at| self.state_in(*at) != FREE) {
            self.region.store64(at + EMPTIED, self.position_in(at).0, SeqCst);
        }
    }

    /// The position of an origin when the zone was emptied last.
    pub(super) fn position_emptied(&self, index: usize) -> Stamp {
        Stamp(self.region.load64(self.origin_at(index) + EMPTIED, SeqCst))
    }

    /// Sets what is known of an origin, also to less than that was.
    pub(super) fn set_promise(&self, index: usize, position: Stamp, met: Stamp) {
        let at = self.origin_at(index);
        // First what makes that unsettled which was promised, and isn't any more.
        self.region.store64(at + MET, met.0, SeqCst);
        self.region.store64(at + POSITION, position.0, SeqCst);
    }

    /// This node goes by another index from now on, which the caller holds. It has the table's lock; and all shards, or nobody
    /// writes.
    pub(super) fn set_own_origin(&self, index: u16) {
        // The one that it leaves has its records, whatever a walk under way has met of it: what is one's own isn't looked for.
        self.keep_origin(self.own_origin());
        self.region.store32(header::SELF, index.into(), SeqCst);
    }

    pub(super) fn met_of(&self, index: usize) -> Stamp {
        self.met_in(self.origin_at(index))
    }

    pub(super) fn met_in(&self, at: usize) -> Stamp {
        Stamp(self.region.load64(at + MET, Acquire))
    }

    /// Whether an entry stands for somebody.
    fn is_known(&self, index: usize) -> bool {
        self.state(index) != FREE
    }

    pub(super) fn state(&self, index: usize) -> u32 {
        self.state_in(self.origin_at(index))
    }

    pub(super) fn state_in(&self, at: usize) -> u32 {
        self.region.load32(at + STATE, Acquire)
    }

    pub(super) fn set_state(&self, index: usize, state: u32) {
        self.region.store32(self.origin_at(index) + STATE, state, Release);
    }

    /// Changes the state of an entry from one to another; `false`: it had neither.
    pub(super) fn change_state(&self, index: usize, change: impl Fn(u32) -> Option<u32>) -> bool {
        let word = self.region.word32(self.origin_at(index) + STATE);
        word.is_some_and(|word| word.fetch_update(SeqCst, SeqCst, change).is_ok())
    }
}
