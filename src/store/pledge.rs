//! Room that a zone keeps for what is still written to the memory that its records came from.
//!
//! For a while workers of the last configuration go on writing to the old memory, and don't know what new workers fill the
//! new with. What they acknowledge must fit there all the same. So the new zone, the *heir*, keeps pages back from its own
//! writers: its *pledge*. The old zone has an *allowance*: each write takes from it what it may cost the heir at worst, and
//! one that finds too little left is refused. Whoever merges gives the allowance back once the writes are in the heir.
//!
//! Costs are counted in shares of a page. For each size of block, as many writes as the heir has shards cost a page, since
//! each may be the first of its size in its shard; the others cost their part of one. Deletes cost nothing.
//!
//! What is pledged to a zone is never less than its allowance and what was taken from it and isn't merged yet. Whatever is
//! changed is changed in an order that keeps this so, whoever is killed when; what is too much is found by the next round.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::arena::Need;
use super::block::{self, HEAD};
use super::layout::{CLASS_SIZES, Geometry, header, shard};
use super::shard::Shard;
use super::{Slot, Source, StoreError, Zone};

/// Shares of a page.
const PAGE: u64 = 4096;
/// Set in an allowance that is one; without it there is no bound.
const BOUNDED: u64 = 1 << 63;
/// While merging goes on, allowances are together at most this part of the heir's pages, or so many pages; until it begins,
/// half of what is free.
const STEADY_PART: u64 = 16;
const STEADY_PAGES: u64 = 64;

impl Zone {
    /// Bounds what may be written here from now on by what `heir` has room for: it is empty, nobody else uses it yet, and
    /// it will get all records. `others`: further zones that it will be the heir of. Not `generous`: nothing but deletes.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn bind(&self, heir: &Zone, others: &[Source], generous: bool) -> Result<(), StoreError> {
        if heir.evict {
            // Room is made when it is needed.
            self.release();
            return Ok(());
        }
        // What is of one size may lie in a page that isn't full in each shard.
        let (page, shards) = (heir.geometry.page_size as u64, u64::from(heir.geometry.shards));
        let pages = |slot: Slot| (slot.used * slot.size * 9 / 8).div_ceil(page) + slot.used.min(shards);
        let needed = self.slots().into_iter().map(pages).sum();
        let free = heir.unreserved().saturating_sub(needed) * PAGE;
        let fair = if generous { free / 2 / (others.len() as u64 + 1) } else { 0 };
        for source in others {
            let most = fair / source.old.in_pages_of(heir);
            if source.old.allowance().is_some_and(|left| left > most) {
                source.old.set_allowance(most, heir);
            }
        }
        let left = fair.min(free.saturating_sub(heir.pledged_to(others)));
        self.with_pool(|| {
            let taken = self.pledged() - self.allowance().unwrap_or(0).min(self.pledged());
            self.region.store64(header::HEIR_SIZE, heir.geometry.size as u64, SeqCst);
            self.forget_charges();
            self.region.store64(header::PLEDGED, taken + left, SeqCst);
            self.region.store64(header::ALLOWANCE, BOUNDED | left, SeqCst);
        })?;
        heir.pledge_to(self.pledged() + heir.pledged_to(others));
        Ok(())
    }

    /// Takes the bound away: the heir isn't to be.
    pub fn release(&self) {
        self.region.store64(header::ALLOWANCE, 0, SeqCst);
        self.region.store64(header::PLEDGED, 0, SeqCst);
    }

    /// `heir` takes the place of the zone that was this one's heir.
    pub(super) fn inherit(&self, heir: &Zone) {
        let _ = self.with_pool(|| {
            let pledged = self.pledged() * self.in_pages_of(heir);
            self.region.store64(header::PLEDGED, pledged, SeqCst);
            self.region.store64(header::HEIR_SIZE, heir.geometry.size as u64, SeqCst);
            self.forget_charges();
        });
    }

    /// Shares that these have of this zone, or will have once it is their heir.
    pub(super) fn pledged_to(&self, others: &[Source]) -> u64 {
        others.iter().map(|source| source.old.pledged() * source.old.in_pages_of(self)).sum()
    }

    /// How many pages of `heir` hold what a page of this zone's heir does.
    fn in_pages_of(&self, heir: &Zone) -> u64 {
        let now = Geometry::new(self.region.load64(header::HEIR_SIZE, SeqCst) as usize);
        now.map_or(1, |now| (now.page_size / heir.geometry.page_size).max(1) as u64)
    }

    /// Whether writes are bounded.
    pub(super) fn is_bound(&self) -> bool {
        self.allowance().is_some()
    }

    /// Shares that the heir keeps for this zone.
    pub(super) fn pledged(&self) -> u64 {
        self.region.load64(header::PLEDGED, SeqCst)
    }

    /// Keeps so many shares back for the zones whose heir this is.
    pub(super) fn pledge_to(&self, shares: u64) {
        self.region.store64(header::PLEDGE, shares.div_ceil(PAGE), SeqCst);
    }

    /// Lets nobody have a page but who merges.
    pub(super) fn pledge_all(&self) {
        self.region.store64(header::PLEDGE, self.geometry.pages as u64, SeqCst);
    }

    /// Pages of the pool that writes of this need can't have.
    pub(super) fn withheld(&self, need: Need) -> u64 {
        match need {
            Need::Growth => u64::from(self.reserve()) + self.region.load64(header::PLEDGE, Relaxed),
            Need::Replacement => self.region.load64(header::PLEDGE, Relaxed),
            Need::Moved => 0,
        }
    }

    /// A page was taken by who merges: the pledge was for this. The caller holds the pool's lock.
    pub(super) fn redeem(&self) {
        let pledge = self.region.load64(header::PLEDGE, Relaxed);
        self.region.store64(header::PLEDGE, pledge.saturating_sub(1), Relaxed);
    }

    /// What was taken so far and wasn't given back: of this everything is in the feeds, and in the heir after a walk that
    /// begins now.
    pub(super) fn taken(&self) -> u64 {
        let taken = self.with_pool(|| {
            self.forget_charges();
            self.allowance().map_or(0, |left| self.pledged().saturating_sub(left))
        });
        taken.unwrap_or(0)
    }

    /// What was taken is in the heir now.
    pub(super) fn settle(&self, taken: u64) {
        self.region.store64(header::PLEDGED, self.pledged().saturating_sub(taken), SeqCst);
    }

    /// The allowance that each source of this zone is to have after a round of merging, in their order: half of what is free
    /// among them, or what they have, but no more than is good for one round.
    pub(super) fn steady_allowances(&self, sources: &[Source]) -> Vec<u64> {
        let left: fn(&Zone) -> u64 = |zone| zone.allowance().unwrap_or(0);
        let sum = |shares: fn(&Zone) -> u64| sources.iter().map(|source| shares(&source.old)).sum::<u64>();
        let room = (self.unreserved() * PAGE).saturating_sub(sum(Zone::pledged)) + sum(left);
        let count = sources.len().max(1) as u64;
        let (fair, most) =
            (room / 2 / count, (self.geometry.pages as u64 / STEADY_PART).max(STEADY_PAGES) * PAGE / count);
        sources.iter().map(|source| fair.max(left(&source.old)).min(most)).collect()
    }

    /// Raises or lowers the allowance, for which `heir` has pledged enough; not if that has got an heir itself.
    pub(super) fn set_allowance(&self, aim: u64, heir: &Zone) {
        let _ = self.with_pool(|| {
            let Some(left) = self.allowance() else { return };
            let pledged = self.pledged();
            if aim > left {
                self.region.store64(header::PLEDGED, pledged + aim - left, SeqCst);
                // Who makes the next heir first says so and then looks at what is pledged: one of us sees the other.
                if heir.is_handed_over() {
                    self.region.store64(header::PLEDGED, pledged, SeqCst);
                    return;
                }
            }
            self.region.store64(header::ALLOWANCE, BOUNDED | aim, SeqCst);
            if aim < left {
                self.region.store64(header::PLEDGED, pledged.saturating_sub(left - aim), SeqCst);
            }
        });
    }

    fn allowance(&self) -> Option<u64> {
        let word = self.region.load64(header::ALLOWANCE, SeqCst);
        (word & BOUNDED != 0).then_some(word & !BOUNDED)
    }

    /// Free pages above the reserve.
    fn unreserved(&self) -> u64 {
        u64::from(self.free_pages().saturating_sub(self.reserve()))
    }

    /// From now on writes cost as the first of their size do.
    fn forget_charges(&self) {
        self.region.zero(header::CHARGES, CLASS_SIZES.len() * 4);
    }

    /// Takes what a record may cost the heir. The caller holds the shard's lock.
    fn take_allowance(&self, payload: usize) -> Result<(), StoreError> {
        let heir = Geometry::new(self.region.load64(header::HEIR_SIZE, SeqCst) as usize);
        let heir = heir.map_err(|_| StoreError::NoMemory)?;
        let (overflow, _) = block::overflow_blocks(&heir, payload);
        let class = heir.class_for(HEAD + payload).filter(|_| overflow == 0);
        self.with_pool(|| {
            let Some(left) = self.allowance() else { return Ok(()) };
            let charged = class.map(|class| header::CHARGES + class * 4);
            let (times, cost) = match (class, charged) {
                (Some(class), Some(charged)) => match self.region.load32(charged, Relaxed) {
                    times if times < heir.shards => (times, PAGE),
                    times => (times, PAGE.div_ceil((heir.page_size / CLASS_SIZES[class]) as u64)),
                },
                _ => (0, (overflow as u64 + 1) * PAGE),
            };
            let left = left.checked_sub(cost).ok_or(StoreError::NoMemory)?;
            self.region.store64(header::ALLOWANCE, BOUNDED | left, SeqCst);
            if let Some(charged) = charged {
                self.region.store32(charged, times.saturating_add(1), Relaxed);
            }
            Ok(())
        })?
    }
}

impl Shard<'_> {
    /// Asks whether a record of so many bytes may be written: whether it fits where this zone's records go.
    ///
    /// # Errors
    ///
    /// `NoMemory`, counted; `Busy`.
    #[inline]
    pub fn charge(&self, payload: usize) -> Result<(), StoreError> {
        if self.zone.region.load64(header::ALLOWANCE, SeqCst) == 0 { Ok(()) } else { self.charge_bound(payload) }
    }

    #[cold]
    fn charge_bound(&self, payload: usize) -> Result<(), StoreError> {
        let taken = self.zone.take_allowance(payload);
        if taken == Err(StoreError::NoMemory) {
            self.bump(shard::REFUSED);
        }
        taken
    }
}
