//! The pool: the pages that no shard has. One lock for the whole zone, held for some instructions.

use std::sync::atomic::Ordering::Relaxed;

use super::annex::ANNEX;
use super::arena::Need;
use super::failpoint::{Step, done};
use super::layout::{DESCRIPTOR_LEN, header};
use super::lock::{self, Obtained};
use super::pages::{CLASS_SHIFT, NEXT, OWNER};
use super::shard::Shard;
use super::{StoreError, Zone};

/// Where in the owner's word the round is in which a page was taken for what is merged.
const ROUND_SHIFT: u32 = 24;

impl Shard<'_> {
    /// Takes a page for a class.
    pub fn take_from_pool(&self, class: usize, need: Need) -> Result<usize, StoreError> {
        match self.take_free_page(class, need) {
            Err(StoreError::NoMemory) if self.may_borrow(need) => {
                self.borrow()?;
                self.take_free_page(class, need)
            }
            taken => taken,
        }
    }

    /// Whether there may be pages once nobody else borrows: there are some now, or somebody does.
    pub fn may_borrow(&self, need: Need) -> bool {
        let zone = self.zone;
        let is_borrowed = || zone.region.load64(header::BORROW_LOCK, Relaxed) != 0;
        !self.borrows.get()
            && !matches!(need, Need::Moved | Need::Packed)
            && (u64::from(zone.free_pages()) > zone.withheld(need) || is_borrowed())
    }

    /// Waits until nobody else borrows pages that next versions count on. Then this may, as long as it has the shard: by the
    /// end of that they are back.
    pub fn borrow(&self) -> Result<(), StoreError> {
        let word = self.zone.region.word64(header::BORROW_LOCK).ok_or(StoreError::Busy)?;
        if self.pool_stuck.get() {
            return Err(StoreError::Busy);
        }
        let obtained =
            lock::lock(word).inspect_err(|_| self.pool_stuck.set(true)).map_err(|error| self.zone.was_busy(error))?;
        self.borrows.set(true);
        if obtained == Obtained::FromTheDead {
            // What the dead one borrowed is in the shard that it had.
            self.zone.repair_others(self.index);
        }
        Ok(())
    }

    /// What was borrowed is back.
    pub fn end_borrowing(&self) {
        if self.borrows.get()
            && let Some(word) = self.zone.region.word64(header::BORROW_LOCK)
        {
            lock::unlock(word);
        }
    }

    fn take_free_page(&self, class: usize, need: Need) -> Result<usize, StoreError> {
        let zone = self.zone;
        self.with_pool(|| {
            if !zone.is_free_page(zone.region.load32(header::POOL_HEAD, Relaxed)) {
                zone.rebuild_pool();
            }
            let (head, free) = (zone.region.load32(header::POOL_HEAD, Relaxed), zone.free_pages());
            let others_count_on = u64::from(free) <= zone.pledge() + u64::from(zone.reserve_for_largest());
            let is_refused = others_count_on && !self.borrows.get() && !matches!(need, Need::Moved | Need::Packed);
            if head == 0 || u64::from(free) <= zone.withheld(need) || is_refused {
                return Err(StoreError::NoMemory);
            }
            let page = head as usize - 1;
            let descriptor = zone.geometry.descriptor(page);
            let round = if need == Need::Moved { zone.redeem() } else { 0 };
            let owner = self.owner() | (class as u32) << CLASS_SHIFT | round << ROUND_SHIFT;
            // The owner first: whoever repairs the pool then leaves the page to its shard, whose repair sorts it out.
            zone.region.store32(descriptor + OWNER, owner, Relaxed);
            done(Step::PageOwned);
            zone.region.store32(header::POOL_HEAD, zone.region.load32(descriptor + NEXT, Relaxed), Relaxed);
            done(Step::PoolMoved);
            zone.region.store32(header::POOL_FREE, free.saturating_sub(1), Relaxed);
            Ok(page)
        })?
    }

    /// Gives a page back. `false`: the pool's lock is stuck, and the page stays the shard's.
    pub fn give_page(&self, page: usize) -> bool {
        let zone = self.zone;
        self.with_pool(|| {
            let descriptor = zone.geometry.descriptor(page);
            let round = zone.pledge_round();
            if round != 0 && zone.round_of(page) == round {
                zone.pledge_again();
            }
            zone.region.store32(descriptor + NEXT, zone.region.load32(header::POOL_HEAD, Relaxed), Relaxed);
            zone.region.store32(descriptor + OWNER, 0, Relaxed);
            done(Step::PageDisowned);
            zone.region.store32(header::POOL_HEAD, page as u32 + 1, Relaxed);
            zone.region.store32(header::POOL_FREE, zone.free_pages() + 1, Relaxed);
        })
        .is_ok()
    }

    /// Who died with this shard may have had the pool, too: taking it mends it.
    pub fn mend_pool(&self) {
        let _ = self.with_pool(|| ());
    }

    /// Whoever found the pool stuck doesn't wait for it once more as long as it has the shard.
    fn with_pool<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        if self.pool_stuck.get() {
            return Err(StoreError::Busy);
        }
        let result = self.zone.with_pool(work);
        self.pool_stuck.set(result.is_err());
        result
    }
}

impl Zone {
    /// Puts every page in the pool; for a new zone.
    pub(super) fn fill_pool(&self) {
        self.region.zero(self.geometry.descriptor(0), self.geometry.pages * DESCRIPTOR_LEN);
        self.rebuild_pool();
    }

    /// Takes a page for the table of origins, if one is left that nothing is kept for.
    pub(super) fn take_for_origins(&self) -> Result<Option<usize>, StoreError> {
        self.with_pool(|| {
            if !self.is_free_page(self.region.load32(header::POOL_HEAD, Relaxed)) {
                self.rebuild_pool();
            }
            let (head, free) = (self.region.load32(header::POOL_HEAD, Relaxed), self.free_pages());
            let page = (head as usize).checked_sub(1).filter(|_| u64::from(free) > self.withheld(Need::Growth))?;
            let descriptor = self.geometry.descriptor(page);
            self.region.store32(descriptor + OWNER, ANNEX, Relaxed);
            done(Step::AnnexOwned);
            self.region.store32(header::POOL_HEAD, self.region.load32(descriptor + NEXT, Relaxed), Relaxed);
            self.region.store32(header::POOL_FREE, free.saturating_sub(1), Relaxed);
            Some(page)
        })
    }

    /// How many pages are in the pool.
    pub(super) fn free_pages(&self) -> u32 {
        self.region.load32(header::POOL_FREE, Relaxed)
    }

    /// Pages that new records can't have, so that updates and deletes go on in a full zone.
    pub(super) fn reserve(&self) -> u32 {
        (self.geometry.pages as u32 / 128).max(self.reserve_for_largest())
    }

    /// Of these, those that only a new version that fills as many pages can have.
    fn reserve_for_largest(&self) -> u32 {
        self.region.load64(header::LARGEST, Relaxed).max(1).min(self.geometry.pages as u64 / 2) as u32
    }

    /// Pages of the pool that writes of this need can't have.
    pub(super) fn withheld(&self, need: Need) -> u64 {
        match need {
            Need::Growth => u64::from(self.reserve()) + self.pledge(),
            // What it frees makes up for what it takes: so the pool has never less than the largest afterwards.
            Need::Replacement(freed) | Need::Burial(freed) => {
                u64::from(self.reserve_for_largest()).saturating_sub(freed.pages) + self.pledge()
            }
            Need::Moved | Need::Packed => 0,
        }
    }

    /// In which round of merging a page was taken for what is merged, if it was.
    pub(super) fn round_of(&self, page: usize) -> u32 {
        self.region.load32(self.geometry.descriptor(page) + OWNER, Relaxed) >> ROUND_SHIFT
    }

    pub(super) fn with_pool<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let word = self.region.word64(header::POOL_LOCK).ok_or(StoreError::Busy)?;
        let obtained = lock::lock(word).map_err(|error| self.was_busy(error))?;
        let _held = lock::Held::new(word);
        if obtained == Obtained::FromTheDead {
            self.rebuild_pool();
        }
        Ok(work())
    }

    /// Whether the pool's list begins with a page that nobody has, or is empty. Damage must not give a page away twice.
    fn is_free_page(&self, head: u32) -> bool {
        let Some(page) = (head as usize).checked_sub(1) else { return true };
        page < self.geometry.pages && self.region.load32(self.geometry.descriptor(page) + OWNER, Relaxed) == 0
    }

    /// The pool's list from the descriptors: free is what has no owner.
    fn rebuild_pool(&self) {
        let (mut head, mut free) = (0, 0);
        for page in (0..self.geometry.pages).rev() {
            let descriptor = self.geometry.descriptor(page);
            if self.region.load32(descriptor + OWNER, Relaxed) == 0 {
                self.region.store32(descriptor + NEXT, head, Relaxed);
                head = page as u32 + 1;
                free += 1;
            }
        }
        self.region.store32(header::POOL_HEAD, head, Relaxed);
        self.region.store32(header::POOL_FREE, free, Relaxed);
    }
}
