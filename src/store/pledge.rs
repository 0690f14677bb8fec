//! Room that a zone keeps for what is still written to the memory that its records came from.
//!
//! For a while workers of the last configuration go on writing to the old memory, and don't know what new workers fill the
//! new with. What they acknowledge must fit there all the same. So the new zone, the *heir*, keeps pages back from its own
//! writers: its *pledge*. The old zone has an *allowance*: each write takes from it what it may cost the heir at worst, and
//! one that finds too little left is refused. Whoever merges gives the allowance back once the writes are in the heir.
//!
//! Costs are counted in shares of a page. For each size of block, as many writes as the heir has shards cost a page, since
//! each may be the first of its size in its shard; the others cost their part of one. Deletes cost nothing. The blocks beside
//! the first in a page that merging took are for what is merged further: until the round is over, the heir's own writers don't
//! have them.
//!
//! What is pledged to a zone is never less than its allowance and what was taken from it and isn't merged yet. Whatever is
//! changed is changed in an order that keeps this so, whoever is killed when; what is too much is found by the next round.
//!
//! An heir that is to get an heir itself gets first all that was written to the zones whose heir it is. These take nothing
//! but deletes from then on, until they have an allowance for the new heir: costs are never reckoned for another zone than
//! the one that they arise in.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

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
/// Rounds of merging are counted up to this: what a page's descriptor has room for.
const LAST_ROUND: u32 = 255;

impl Zone {
    /// Bounds what may be written here from now on by what `heir` has room for: it is empty, nobody else uses it yet, and
    /// it will get all records. `others`, of which this is the heir, may write nothing but deletes from now on; nor may this
    /// one, if not `generous`.
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
        let left = if generous { free / 2 } else { 0 };
        self.with_pool(|| {
            let taken = self.pledged() - self.allowance().unwrap_or(0).min(self.pledged());
            self.set_heir(heir);
            self.region.store64(header::PLEDGED, taken + left, SeqCst);
            self.region.store64(header::ALLOWANCE, BOUNDED | left, SeqCst);
        })?;
        // From here on nobody raises theirs any more.
        others.iter().try_for_each(|source| source.old.stop())?;
        heir.pledge_to(self.pledged());
        Ok(())
    }

    /// Takes the bound away: the heir isn't to be.
    pub fn release(&self) {
        let unbind = || {
            self.region.store64(header::ALLOWANCE, 0, SeqCst);
            self.region.store64(header::PLEDGED, 0, SeqCst);
        };
        // With the lock, so that nobody who just takes from the allowance puts it back.
        if self.with_pool(unbind).is_err() {
            unbind();
        }
    }

    /// Lets nothing be written but deletes.
    fn stop(&self) -> Result<(), StoreError> {
        self.with_pool(|| {
            let left = self.allowance().unwrap_or(0);
            self.region.store64(header::ALLOWANCE, BOUNDED, SeqCst);
            self.region.store64(header::PLEDGED, self.pledged().saturating_sub(left), SeqCst);
        })
    }

    /// From now on writes cost what they do in this zone, the first of each size more than others. The caller holds the
    /// pool's lock.
    fn set_heir(&self, heir: &Zone) {
        self.region.store64(header::HEIR_SIZE, heir.geometry.size as u64, SeqCst);
        self.forget_charges();
    }

    /// Whether writes are bounded.
    pub(super) fn is_bound(&self) -> bool {
        self.allowance().is_some()
    }

    /// Shares that the heir keeps for this zone.
    pub(super) fn pledged(&self) -> u64 {
        self.region.load64(header::PLEDGED, SeqCst)
    }

    /// Pages that this zone keeps back.
    pub(super) fn pledge(&self) -> u64 {
        self.region.load64(header::PLEDGE, Relaxed)
    }

    /// Keeps so many shares back for the zones whose heir this is: a round of merging begins.
    pub(super) fn pledge_to(&self, shares: u64) {
        self.region.store64(header::PLEDGE, shares.div_ceil(PAGE), SeqCst);
        self.region.store32(header::PLEDGE_ROUND, self.pledge_round() % LAST_ROUND + 1, SeqCst);
    }

    /// Lets nobody have a page but who merges.
    pub(super) fn pledge_all(&self) {
        self.pledge_to(self.geometry.pages as u64 * PAGE);
    }

    /// Nothing is merged any more.
    pub(super) fn pledge_nothing(&self) {
        self.region.store64(header::PLEDGE, 0, SeqCst);
        self.region.store32(header::PLEDGE_ROUND, 0, SeqCst);
    }

    /// The round of merging; 0: nothing is merged.
    pub(super) fn pledge_round(&self) -> u32 {
        self.region.load32(header::PLEDGE_ROUND, Relaxed)
    }

    /// A page is taken by who merges: the pledge was for this. Returns the round in which all of its blocks are for what is
    /// merged, if it was pledged. The caller holds the pool's lock.
    pub(super) fn redeem(&self) -> u32 {
        let pledge = self.pledge();
        self.region.store64(header::PLEDGE, pledge.saturating_sub(1), Relaxed);
        if pledge == 0 { 0 } else { self.pledge_round() }
    }

    /// A page that was redeemed in this round goes back. The caller holds the pool's lock.
    pub(super) fn pledge_again(&self) {
        self.region.store64(header::PLEDGE, self.pledge() + 1, Relaxed);
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

    /// Pledges what is taken from `sources` and not merged yet, and new allowances: half of what is free among them, or what
    /// they have, but no more than is good for one round. Returns how much more each may have, in their order; less, if it is
    /// negative.
    ///
    /// # Errors
    ///
    /// `Busy`; nothing was changed.
    pub(super) fn pledge_for_round(&self, sources: &[Source]) -> Result<Vec<i64>, StoreError> {
        let left: fn(&Zone) -> u64 = |zone| zone.allowance().unwrap_or(0);
        let sum = |shares: fn(&Zone) -> u64| sources.iter().map(|source| shares(&source.old)).sum::<u64>();
        // With the lock, so that what is free stays free until it is pledged.
        self.with_pool(|| {
            let room = (self.unreserved() * PAGE).saturating_sub(sum(Zone::pledged)) + sum(left);
            let count = sources.len().max(1) as u64;
            let (fair, most) =
                (room / 2 / count, (self.geometry.pages as u64 / STEADY_PART).max(STEADY_PAGES) * PAGE / count);
            let more = |source: &Source| fair.max(left(&source.old)).min(most) as i64 - left(&source.old) as i64;
            let more: Vec<i64> = sources.iter().map(more).collect();
            self.pledge_to(sum(Zone::pledged) + more.iter().map(|more| (*more).max(0) as u64).sum::<u64>());
            more
        })
    }

    /// Raises or lowers the allowance, for which `heir` has pledged enough; raises nothing if that has or is to get an heir
    /// itself.
    pub(super) fn allow(&self, more: i64, heir: &Zone) {
        let _ = self.with_pool(|| {
            let Some(left) = self.allowance() else { return };
            let pledged = self.pledged();
            let less = more.min(0).unsigned_abs().min(left);
            self.region.store64(header::ALLOWANCE, BOUNDED | (left - less), SeqCst);
            self.region.store64(header::PLEDGED, pledged.saturating_sub(less), SeqCst);
            let Some(more) = u64::try_from(more).ok().filter(|more| *more > 0) else { return };
            self.region.store64(header::PLEDGED, pledged + more, SeqCst);
            // Who makes the next heir first binds ours and then stops us: one of us sees the other.
            if heir.is_bound() || heir.is_handed_over() {
                self.region.store64(header::PLEDGED, pledged, SeqCst);
                return;
            }
            if self.region.load64(header::HEIR_SIZE, SeqCst) != heir.geometry.size as u64 {
                self.set_heir(heir);
            }
            self.region.store64(header::ALLOWANCE, BOUNDED | (left + more), SeqCst);
        });
    }

    /// As [`Zone::release`], for an heir that makes room when it is needed; not if that is to get an heir itself.
    pub(super) fn allow_all(&self, heir: &Zone) {
        let _ = self.with_pool(|| {
            if !heir.is_bound() && !heir.is_handed_over() {
                self.region.store64(header::ALLOWANCE, 0, SeqCst);
                self.region.store64(header::PLEDGED, 0, SeqCst);
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
