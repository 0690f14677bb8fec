//! The table of origins: which nodes wrote records of this zone, and up to which stamp all of theirs has been applied.
//!
//! Records name their origin by its index here. An entry's number never changes while a record uses it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::failpoint::{Step, done};
use super::layout::header;
use super::lock;
use super::{StoreError, Zone};
use crate::record::{Identity, Millis, Stamp};

const POSITION: usize = 16;
const STATE: usize = 24;
const FLAGS: usize = 28;
/// The greatest stamp of a record of it that was met; see `past`.
pub const MET: usize = 32;
/// Its position when the zone was emptied last: what it covers is over since then.
const EMPTIED: usize = 40;

/// Its memory was made anew, and its position tells nothing of what it wrote before.
pub const ANEW: u32 = 1;
/// Something of it found no room.
pub const LACKING: u32 = 2;

/// Between two searches for an entry that can go, as far as peers cause them, milliseconds: each looks at all records.
const SEARCH_PAUSE: Millis = 60_000;

/// States of an entry. One that is leaving is not given to new records while somebody looks whether it can go.
const FREE: u32 = 0;
const USED: u32 = 1;
const LEAVING: u32 = 2;

impl Zone {
    /// For each origin known, the stamp at or below which everything of it has been applied, zero if nothing is promised;
    /// of this node itself, the last closed one.
    pub fn positions(&self) -> Vec<(Identity, Stamp)> {
        let own = self.own_origin();
        (0..self.origin_entries())
            .filter(|index| self.state(*index) == USED)
            .map(|index| {
                let stamp =
                    if index == own as usize { self.within_limit(self.closed()) } else { self.position_at(index) };
                (self.identity_at(index), stamp)
            })
            .collect()
    }

    /// The position of one origin, zero if it isn't known.
    pub fn position(&self, origin: Identity) -> Stamp {
        match self.origin_index(origin) {
            Some(index) if index == self.own_origin() => self.within_limit(self.closed()),
            Some(index) => self.position_at(index as usize),
            None => Stamp::ZERO,
        }
    }

    /// Raises the position of another origin; lowers none. `false`: the table of origins is full.
    pub fn advance(&self, origin: Identity, stamp: Stamp) -> bool {
        let Ok(index) = self.origin_for(origin) else { return false };
        if let Some(word) = self.region.word64(self.origin_at(index as usize) + POSITION) {
            word.fetch_max(stamp.0, SeqCst);
        }
        true
    }

    /// The same of what was asked for when the position was `base`. `None`: it is less since, as somebody has promised too much.
    /// Then what comes doesn't go on from it.
    pub fn advance_from(&self, origin: Identity, base: Stamp, stamp: Stamp) -> Option<bool> {
        let Ok(index) = self.origin_for(origin) else { return Some(false) };
        let word = self.region.word64(self.origin_at(index as usize) + POSITION)?;
        let raised = |had: u64| (had >= base.0).then_some(had.max(stamp.0));
        word.fetch_update(SeqCst, SeqCst, raised).ok().map(|_| true)
    }

    /// The memory of an origin was made anew: it promises what it has, and not what it wrote before.
    pub fn mark_anew(&self, origin: Identity) {
        if let Ok(index) = self.origin_for(origin) {
            self.flag(index, ANEW, true);
        }
    }

    pub(super) fn is_flagged(&self, index: u16, flag: u32) -> bool {
        self.region.load32(self.origin_at(index.into()) + FLAGS, SeqCst) & flag != 0
    }

    pub(super) fn flag(&self, index: u16, flag: u32, set: bool) {
        if let Some(word) = self.region.word32(self.origin_at(index.into()) + FLAGS) {
            _ = if set { word.fetch_or(flag, SeqCst) } else { word.fetch_and(!flag, SeqCst) };
        }
    }

    /// Promises nothing of an origin any more: who has its position covers less than it seemed.
    pub fn disclaim(&self, origin: Identity) {
        if let Some(index) = self.origin_index(origin).filter(|index| *index != self.own_origin()) {
            self.region.store64(self.origin_at(index.into()) + POSITION, 0, SeqCst);
        }
    }

    /// Whether what a peer says of an origin can be noted now. Where the table is full and can't be made longer, making room for
    /// another one is a look at all records, which peers get once a minute: nobody can keep a node busy with origins that it
    /// makes up.
    pub fn admits(&self, origin: Identity, now: Millis) -> bool {
        let is_free = |index| self.state(index) == FREE;
        let has_room = || (0..self.origin_entries()).any(is_free) || self.origins_to_come() > 0;
        if self.origin_index(origin).is_some() || has_room() {
            return true;
        }
        let Some(sought) = self.region.word64(header::ORIGINS_SOUGHT) else { return false };
        let last = sought.load(Relaxed);
        now.abs_diff(last) >= SEARCH_PAUSE && sought.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// How many origins are noted, and how many more can be without giving up another.
    pub(super) fn origins_known(&self) -> (u64, u64) {
        let entries = self.origin_entries();
        let free = (0..entries).filter(|index| self.state(*index) == FREE).count();
        ((entries - free) as u64, (free + self.origins_to_come()) as u64)
    }

    /// The index of an origin, a new one if need be.
    pub(super) fn origin_for(&self, origin: Identity) -> Result<u16, StoreError> {
        if let Some(index) = self.origin_index(origin) {
            return Ok(index);
        }
        self.with_origins(|| {
            // Somebody else may have been quicker.
            if let Some(index) = self.origin_index(origin) {
                return Ok(index);
            }
            let free = || (0..self.origin_entries()).find(|index| self.state(*index) == FREE);
            let index = match free().or_else(|| self.extend_origins().then(free).flatten()) {
                Some(index) => index,
                None => self.collect_origin()?,
            };
            let at = self.origin_at(index);
            self.region.write(at, &origin.0);
            done(Step::OriginHalf);
            self.region.store64(at + POSITION, 0, Relaxed);
            self.region.store64(at + MET, 0, Relaxed);
            self.region.store64(at + EMPTIED, 0, Relaxed);
            self.region.store32(at + FLAGS, 0, Relaxed);
            self.set_state(index, USED);
            Ok(index as u16)
        })?
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
        let found = |index: &usize| self.state(*index) == USED && self.region.equals(self.origin_at(*index), &origin.0);
        (0..self.origin_entries()).find(found).map(|index| index as u16)
    }

    /// Frees the entry that no record uses and that was quiet for longest. The caller holds the table's lock.
    fn collect_origin(&self) -> Result<usize, StoreError> {
        let own = usize::from(self.own_origin());
        let mut candidates: Vec<usize> = (0..self.origin_entries()).filter(|index| *index != own).collect();
        candidates.iter().for_each(|index| self.set_state(*index, LEAVING));
        let mut result = Ok(());
        for index in 0..self.geometry.shards {
            match self.shard(index) {
                Ok(shard) => shard.feed_each(|at| {
                    let origin = usize::from(shard.block(at).fields().origin);
                    candidates.retain(|candidate| *candidate != origin);
                    true
                }),
                Err(error) => result = Err(error),
            }
        }
        let chosen = candidates.into_iter().min_by_key(|index| self.position_at(*index));
        for index in (0..self.origin_entries()).filter(|index| *index != own) {
            let goes = result.is_ok() && chosen == Some(index);
            self.set_state(index, if goes { FREE } else { USED });
        }
        result?;
        chosen.ok_or(StoreError::NoMemory)
    }

    pub(super) fn with_origins<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let word = self.region.word64(header::ORIGINS_LOCK).ok_or(StoreError::Busy)?;
        let obtained = lock::lock(word)?;
        let _held = lock::Held::new(word);
        if obtained == lock::Obtained::FromTheDead {
            // Half an entry is still free; one that was looked at may be in use.
            (0..self.origin_entries())
                .filter(|index| self.state(*index) == LEAVING)
                .for_each(|index| self.set_state(index, USED));
        }
        Ok(work())
    }

    pub(super) fn identity_at(&self, index: usize) -> Identity {
        let mut bytes = [0; 16];
        self.region.read(self.origin_at(index), &mut bytes);
        Identity(bytes)
    }

    pub(super) fn position_at(&self, index: usize) -> Stamp {
        Stamp(self.region.load64(self.origin_at(index) + POSITION, Acquire))
    }

    /// Position and greatest stamp met of all other origins.
    pub(super) fn origins_met(&self) -> impl Iterator<Item = (Stamp, Stamp)> {
        let own = usize::from(self.own_origin());
        let others = (0..self.origin_entries()).filter(move |index| *index != own && self.state(*index) == USED);
        others.map(|index| (self.position_at(index), self.met_of(index)))
    }

    /// The origins of which something found no room.
    pub(super) fn origins_lacked(&self) -> impl Iterator<Item = u16> {
        let used = (0..self.origin_entries()).filter(|index| self.state(*index) == USED);
        used.map(|index| index as u16).filter(|index| self.is_flagged(*index, LACKING))
    }

    /// Notes what another zone of this node met and lacks, for which all its records are copied here.
    pub(super) fn meet_as(&self, other: &Zone) {
        for index in (0..other.origin_entries()).filter(|index| other.state(*index) == USED) {
            if let Ok(here) = self.origin_for(other.identity_at(index)) {
                self.note_met(here, other.met_of(index));
                let emptied = other.region.load64(other.origin_at(index) + EMPTIED, SeqCst);
                self.region.store64(self.origin_at(here.into()) + EMPTIED, emptied, SeqCst);
                for flag in [ANEW, LACKING] {
                    self.flag(here, flag, other.is_flagged(index as u16, flag));
                }
            }
        }
    }

    /// The greatest stamp that is known of an origin.
    pub(super) fn last_of(&self, index: usize) -> Stamp {
        if self.state(index) == USED { self.position_at(index).max(self.met_of(index)) } else { Stamp::ZERO }
    }

    /// The zone is about to be emptied: what it has of others by now is over with that.
    pub(super) fn note_emptied(&self) {
        for index in (0..self.origin_entries()).filter(|index| self.state(*index) == USED) {
            self.region.store64(self.origin_at(index) + EMPTIED, self.position_at(index).0, SeqCst);
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

    /// This node goes by another index from now on.
    pub(super) fn set_own_origin(&self, index: u16) {
        self.region.store32(header::SELF, index.into(), SeqCst);
    }

    pub(super) fn met_of(&self, index: usize) -> Stamp {
        Stamp(self.region.load64(self.origin_at(index) + MET, Acquire))
    }

    fn state(&self, index: usize) -> u32 {
        self.region.load32(self.origin_at(index) + STATE, Acquire)
    }

    fn set_state(&self, index: usize, state: u32) {
        self.region.store32(self.origin_at(index) + STATE, state, Release);
    }
}
