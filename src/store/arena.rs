//! Memory for blocks: pages of one pool, each cut into blocks of one size for one shard.
//!
//! A shard allocates under its own lock; only taking a page from the pool and giving one back need the pool's. What a
//! crash leaves undone, the shard's repair puts right: a page belongs to whom its descriptor names.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::{CLASS_SIZES, shard};
use super::pages::{FAILURES, NEXT, REQUESTS, USED};
use super::shard::Shard;
use super::{Slot, StoreError};

/// Who may have the last blocks and pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A new record: of each size a free block stays in each shard that uses it, and of the pool the reserve.
    Growth,
    /// A new version of a record whose older blocks are freed right after: it may have the last of those
    /// sizes that are freed.
    Replacement(Freed),
    /// The tombstone of a record whose blocks are freed right after, and which can do without what is kept in the shard.
    Burial(Freed),
    /// A record that the memory in which it was written has an allowance for: whatever is left.
    Moved,
    /// One of many that fitted before, in some order: whatever is left, and rather a larger block than another page. What is
    /// larger comes first.
    Packed,
}

/// Whether in a full zone a block of class `there` does for what belongs into one of class `wanted`: it may be up to a quarter
/// larger.
pub const fn serves(there: usize, wanted: usize) -> bool {
    there >= wanted && CLASS_SIZES[there] <= CLASS_SIZES[wanted] + CLASS_SIZES[wanted] / 4
}

/// What becomes free once a record is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// A bit for each class.
    pub classes: u64,
    /// Whole pages.
    pub pages: u64,
}

impl Shard<'_> {
    /// A block of the smallest class that holds `len` bytes, which must be a page's at most, or of one not much larger if
    /// there is no other.
    pub fn allocate(&self, len: usize, need: Need) -> Result<usize, StoreError> {
        let class = self.zone.geometry.class_for(len).ok_or(StoreError::NoMemory)?;
        self.class_add(class, REQUESTS, 1);
        if need == Need::Packed
            && let Some(block) =
                (class..self.zone.geometry.classes).find_map(|class| self.take_block(class, Need::Growth))
        {
            return Ok(block);
        }
        if need == Need::Moved && !self.may_take(class, Need::Growth) {
            // For the next version of some record, if there is room that isn't kept for others.
            let _ = self.take_page(class, Need::Growth);
        }
        if need != Need::Packed
            && let Some(block) = self.take_block(class, need)
        {
            return Ok(block);
        }
        let block = match self.take_page(class, need) {
            Ok(()) => self.take_block(class, need),
            Err(StoreError::NoMemory) => {
                self.take_larger_block(class, need).or_else(|| self.take_any_block(class, need))
            }
            Err(error) => return Err(error),
        };
        block.ok_or_else(|| {
            self.class_add(class, FAILURES, 1);
            StoreError::NoMemory
        })
    }

    /// What replacing a record frees.
    pub fn freed_by(&self, met: &Met) -> Freed {
        let mut freed = Freed { classes: 0, pages: 0 };
        let mut add = |at| {
            if let Some((_, class)) = self.page_and_class(at) {
                freed.classes |= 1 << class;
                freed.pages += u64::from(2 * CLASS_SIZES[class] > self.zone.geometry.page_size);
            }
        };
        add(met.at);
        self.overflow_each(self.block(met.at).overflow(), add);
        freed
    }

    /// Whether a block of a class may be taken: of a size that lies in a page with others, each shard that uses it keeps one
    /// for the next version of some record, so that updates don't fail in a full zone. Whole pages are kept by the reserve.
    fn may_take(&self, class: usize, need: Need) -> bool {
        match need {
            Need::Moved | Need::Packed => return true,
            Need::Replacement(freed) | Need::Burial(freed) if freed.classes >> class & 1 == 1 => return true,
            _ => {}
        }
        let blocks = self.blocks_a_page(class);
        let spare = u32::from(self.spare(class) != 0);
        let mut pages = self.usable_pages(class, need);
        let first = pages.next().map_or(0, |page| blocks.saturating_sub(self.used_in(page)));
        blocks == 1 || spare + first > 1 || (first == 1 && pages.next().is_some())
    }

    /// A free block of a class, without asking the pool.
    fn take_block(&self, class: usize, need: Need) -> Option<usize> {
        if !self.may_take(class, need) {
            return None;
        }
        if let Some(block) = self.take_spare(class) {
            return Some(block);
        }
        let page = self.usable_pages(class, need).next()?;
        Some(self.take_from_page(page, class))
    }

    /// The first free block of a page that has one.
    pub fn take_from_page(&self, page: usize, class: usize) -> usize {
        let descriptor = self.zone.geometry.descriptor(page);
        let (used, free) = self.usage(descriptor);
        let block = self.zone.geometry.page(page) + (free as usize).saturating_sub(1) * CLASS_SIZES[class];
        let next = self.zone.region.load32(block, Relaxed) as u16;
        self.set_usage(descriptor, used + 1, next);
        if next == 0 {
            self.unlink_page(class, page);
        }
        done(Step::BlockTaken);
        self.class_add(class, USED, 1);
        block
    }

    /// In a full zone, a block that is up to a quarter larger than what was asked for.
    fn take_larger_block(&self, class: usize, need: Need) -> Option<usize> {
        (class + 1..self.zone.geometry.classes)
            .take_while(|larger| serves(*larger, class))
            .find_map(|class| self.take_block(class, need))
    }

    /// The block that what is replaced leaves behind, be it ever so large; or whichever is left.
    fn take_any_block(&self, class: usize, need: Need) -> Option<usize> {
        let any = match need {
            Need::Replacement(freed) => freed.classes,
            Need::Packed => u64::MAX,
            _ => 0,
        };
        (class..self.zone.geometry.classes)
            .filter(|class| any >> class & 1 == 1)
            .find_map(|class| self.take_block(class, need))
    }

    /// Gives a block back. Nothing leads to it any more; readers may still be in it.
    pub fn free(&self, block: usize) {
        let Some((page, class)) = self.page_and_class(block) else { return };
        self.move_sequence();
        done(Step::SequenceMoved);
        self.class_add(class, USED, -1);
        if !self.keep_spare(class, block) {
            self.free_in_page(page, class, block);
        }
    }

    /// Before blocks that were taken out can be written again: a reader that meets what comes next sees the sequence moved.
    pub fn move_sequence(&self) {
        // Release: who reads this one has also left the links that lead to those blocks.
        self.set_with(shard::SEQUENCE, self.get(shard::SEQUENCE).wrapping_add(1), Release);
        fence(Release);
    }

    /// Puts a block back into its page's list, and the page into the pool if that is all it holds.
    fn free_in_page(&self, page: usize, class: usize, block: usize) {
        let descriptor = self.zone.geometry.descriptor(page);
        let (used, free) = self.usage(descriptor);
        let index = (block - self.zone.geometry.page(page)) as u32 / CLASS_SIZES[class] as u32;
        self.zone.region.store32(block, u32::from(free), Relaxed);
        done(Step::BlockLinked);
        self.set_usage(descriptor, used.saturating_sub(1), index as u16 + 1);
        done(Step::BlockFreed);
        if free == 0 {
            self.link_page(class, page);
        }
        if used <= 1 && self.can_return(class, page) {
            self.return_page(class, page);
        }
    }

    /// Puts an empty page into the pool; `false`: that is stuck.
    pub fn return_page(&self, class: usize, page: usize) -> bool {
        self.unlink_page(class, page);
        done(Step::PageUnlinked);
        let given = self.give_page(page);
        if !given {
            self.link_page(class, page);
        }
        given
    }

    /// The block that was freed last serves the next write of its size, which most often is the next version of some record:
    /// so neither of the two touches the descriptor of a page.
    fn keep_spare(&self, class: usize, block: usize) -> bool {
        let keeps = self.spare(class) == 0
            && CLASS_SIZES[class] < self.zone.geometry.page_size
            && self.zone.free_pages() > self.zone.reserve();
        if keeps {
            self.set_spare(class, self.zone.geometry.link(block));
            done(Step::SpareKept);
        }
        keeps
    }

    fn take_spare(&self, class: usize) -> Option<usize> {
        let spare = self.spare(class);
        if spare == 0 {
            return None;
        }
        self.set_spare(class, 0);
        done(Step::SpareTaken);
        self.class_add(class, USED, 1);
        Some(self.zone.geometry.offset(spare))
    }

    /// Forgets which blocks are free, before [`Shard::keep`] and [`Shard::sort_pages`] find out anew.
    pub fn forget_blocks(&self) {
        for class in 0..self.zone.geometry.classes {
            self.set_partial(class, 0);
            self.set_spare(class, 0);
            self.set_class(class, USED, 0);
        }
    }

    /// The block that `offset` begins, if it is one of this shard's: (page, index in it).
    pub fn block_index(&self, offset: usize) -> Option<(usize, usize)> {
        let (page, class) = self.page_and_class(offset)?;
        let within = offset - self.zone.geometry.page(page);
        let index = within / CLASS_SIZES[class];
        (within.is_multiple_of(CLASS_SIZES[class]) && index < self.zone.geometry.page_size / CLASS_SIZES[class])
            .then_some((page, index))
    }

    /// Bytes of the block that begins at `offset`; 0 if there is none of this shard's.
    pub fn block_size(&self, offset: usize) -> usize {
        self.page_and_class(offset).map_or(0, |(_, class)| CLASS_SIZES[class])
    }

    /// Builds the free lists of this shard's pages from `is_used`; pages without a block in use go back to the pool.
    pub fn sort_pages(&self, is_used: impl Fn(usize, usize) -> bool) {
        for page in 0..self.zone.geometry.pages {
            let start = self.zone.geometry.page(page);
            let Some((_, class)) = self.page_and_class(start) else { continue };
            let descriptor = self.zone.geometry.descriptor(page);
            let (mut used, mut free) = (0, 0);
            for index in (0..self.zone.geometry.page_size / CLASS_SIZES[class]).rev() {
                if is_used(page, index) {
                    used += 1;
                } else {
                    self.zone.region.store32(start + index * CLASS_SIZES[class], free, Relaxed);
                    free = index as u32 + 1;
                }
            }
            self.set_usage(descriptor, used, free as u16);
            self.class_add(class, USED, i64::from(used));
            if free != 0 {
                self.link_page(class, page);
            }
        }
        self.give_empty_pages();
        self.mend_pool();
    }

    /// The pages of this shard, with how many blocks of each are in use.
    pub fn own_pages(&self) -> Vec<(u16, usize)> {
        let owned = |page: &usize| self.page_and_class(self.zone.geometry.page(*page)).is_some();
        let used = |page| (self.usage(self.zone.geometry.descriptor(page)).0, page);
        (0..self.zone.geometry.pages).filter(owned).map(used).collect()
    }

    /// The pages that a record's blocks lie in.
    pub fn pages_each(&self, at: usize, mut each: impl FnMut(usize)) {
        let mut show = |block| {
            if let Some(page) = self.zone.geometry.page_of(block) {
                each(page);
            }
        };
        show(at);
        self.overflow_each(self.block(at).overflow(), show);
    }

    /// The block that a class keeps as its spare, if it does.
    #[cfg(test)]
    pub fn spare_block(&self, class: usize) -> Option<usize> {
        Some(self.zone.geometry.offset(self.spare(class))).filter(|block| *block != 0)
    }

    /// Blocks of a class in use.
    pub fn blocks_used(&self, class: usize) -> u64 {
        self.class(class, USED)
    }

    /// Figures of a class.
    pub fn slot(&self, class: usize) -> Slot {
        let per_page = (self.zone.geometry.page_size / CLASS_SIZES[class]) as u64;
        let used = self.class(class, USED);
        let (mut free, mut page, mut steps) = (u64::from(self.spare(class) != 0), self.partial(class), 0);
        while page != 0 && steps < self.zone.geometry.pages {
            let descriptor = self.zone.geometry.descriptor(page as usize - 1);
            free += per_page.saturating_sub(u64::from(self.usage(descriptor).0));
            page = self.zone.region.load32(descriptor + NEXT, Relaxed);
            steps += 1;
        }
        Slot {
            size: CLASS_SIZES[class] as u64,
            used,
            free,
            reqs: self.class(class, REQUESTS),
            fails: self.class(class, FAILURES),
        }
    }

    /// Counts a class's requests anew.
    pub fn reset_slot(&self, class: usize) {
        self.set_class(class, REQUESTS, 0);
        self.set_class(class, FAILURES, 0);
    }

    /// A fresh page for a class, its blocks in a list.
    fn take_page(&self, class: usize, need: Need) -> Result<(), StoreError> {
        let page = self.take_from_pool(class, need)?;
        let start = self.zone.geometry.page(page);
        let blocks = self.zone.geometry.page_size / CLASS_SIZES[class];
        for index in 0..blocks {
            let next = if index + 1 < blocks { index as u32 + 2 } else { 0 };
            self.zone.region.store32(start + index * CLASS_SIZES[class], next, Relaxed);
        }
        self.set_usage(self.zone.geometry.descriptor(page), 0, 1);
        self.link_page(class, page);
        done(Step::PageLinked);
        Ok(())
    }

    /// An empty page goes back if the class has another with room, or the pool runs low; else it would soon be asked for.
    fn can_return(&self, class: usize, page: usize) -> bool {
        let free = self.zone.free_pages();
        let is_low =
            || u64::from(free) <= self.zone.withheld(Need::Growth) || (free as usize) < self.zone.geometry.pages / 4;
        !self.is_alone(class, page) || (!self.is_kept(class, page) && is_low())
    }

    /// Whether no other page of its class has free blocks.
    fn is_alone(&self, class: usize, page: usize) -> bool {
        let next = self.zone.region.load32(self.zone.geometry.descriptor(page) + NEXT, Relaxed);
        next == 0 && self.partial(class) == page as u32 + 1
    }

    /// Whether an empty page has the block that is kept for the next version of some record: see [`Shard::may_take`].
    fn is_kept(&self, class: usize, page: usize) -> bool {
        let in_use = self.blocks_used(class) > 0 && self.spare(class) == 0;
        in_use && self.blocks_a_page(class) > 1 && self.is_alone(class, page)
    }

    /// Gives back the empty pages that classes kept for themselves; `false`: there was none.
    pub fn give_empty_pages(&self) -> bool {
        let mut any = false;
        for class in 0..self.zone.geometry.classes {
            self.give_spare(class);
            let (mut next, mut steps) = (self.partial(class), 0);
            while next != 0 && steps < self.zone.geometry.pages {
                let page = next as usize - 1;
                let descriptor = self.zone.geometry.descriptor(page);
                next = self.zone.region.load32(descriptor + NEXT, Relaxed);
                steps += 1;
                if self.usage(descriptor).0 == 0 && !self.is_kept(class, page) {
                    any |= self.return_page(class, page);
                }
            }
        }
        any
    }

    /// Puts the block that a class keeps as its spare back into its page.
    pub fn give_spare(&self, class: usize) {
        let spare = self.zone.geometry.offset(self.spare(class));
        if let Some((page, _)) = self.page_and_class(spare) {
            self.set_spare(class, 0);
            done(Step::SpareGiven);
            self.free_in_page(page, class, spare);
        }
    }
}
