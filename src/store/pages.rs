//! What a shard keeps of its pages: their descriptors, and an entry for each class of blocks.

use std::sync::atomic::Ordering::Relaxed;

use super::arena::Need;
use super::layout::{CLASS_SIZES, shard};
use super::shard::Shard;

/// Offsets in a page's descriptor. The owner's word: shard, class, and the round in which it was taken for what is merged.
pub const OWNER: usize = 0;
pub const USE: usize = 4;
pub const NEXT: usize = 8;
pub const PREV: usize = 12;
pub const CLASS_SHIFT: u32 = 16;
/// Offsets in a shard's entry for a class.
pub const PARTIAL: usize = 0;
pub const SPARE: usize = 4;
pub const USED: usize = 8;
pub const REQUESTS: usize = 16;
pub const FAILURES: usize = 24;

impl Shard<'_> {
    /// The blocks of a page that aren't in its list; among them may be the spare one of the class.
    pub fn blocks_in_use(&self, page: usize, class: usize) -> Vec<usize> {
        let start = self.zone.geometry.page(page);
        let mut used = vec![true; self.blocks_a_page(class) as usize];
        let mut free = self.usage(self.zone.geometry.descriptor(page)).1;
        while let Some(used) = used.get_mut((free as usize).wrapping_sub(1)).filter(|used| **used) {
            *used = false;
            free = self.zone.region.load32(start + (free as usize - 1) * CLASS_SIZES[class], Relaxed) as u16;
        }
        (0..used.len()).filter(|index| used[*index]).map(|index| start + index * CLASS_SIZES[class]).collect()
    }

    /// The pages of a class that have free blocks, but for those that are kept for others.
    pub fn usable_pages(&self, class: usize, need: Need) -> impl Iterator<Item = usize> {
        let round = if matches!(need, Need::Moved | Need::Packed) { 0 } else { self.zone.pledge_round() };
        let mut next = self.partial(class);
        // A list can't be longer than there are pages.
        let pages = (0..self.zone.geometry.pages).map_while(move |_| {
            let page = (next as usize).checked_sub(1)?;
            next = self.zone.region.load32(self.zone.geometry.descriptor(page) + NEXT, Relaxed);
            Some(page)
        });
        pages.filter(move |page| round == 0 || self.zone.round_of(*page) != round)
    }

    /// How many blocks of a page are in use.
    pub fn used_in(&self, page: usize) -> u32 {
        u32::from(self.usage(self.zone.geometry.descriptor(page)).0)
    }

    /// How many blocks a page of a class has.
    pub fn blocks_a_page(&self, class: usize) -> u32 {
        (self.zone.geometry.page_size / CLASS_SIZES[class]) as u32
    }

    #[inline]
    pub(super) fn page_and_class(&self, offset: usize) -> Option<(usize, usize)> {
        let page = self.zone.geometry.page_of(offset)?;
        let owner = self.zone.region.load32(self.zone.geometry.descriptor(page) + OWNER, Relaxed);
        let class = (owner >> CLASS_SHIFT & 0xff) as usize;
        (owner & 0xffff == self.owner() && class < self.zone.geometry.classes).then_some((page, class))
    }

    /// The class of the page that `offset` is in, if that is one of this shard's.
    pub fn class_of(&self, offset: usize) -> Option<usize> {
        self.page_and_class(offset).map(|(_, class)| class)
    }

    /// What names this shard in its pages.
    pub fn owner(&self) -> u32 {
        self.index + 1
    }

    pub(super) fn link_page(&self, class: usize, page: usize) {
        let descriptor = self.zone.geometry.descriptor(page);
        let head = self.partial(class);
        self.zone.region.store32(descriptor + NEXT, head, Relaxed);
        self.zone.region.store32(descriptor + PREV, 0, Relaxed);
        if head != 0 {
            self.zone.region.store32(self.zone.geometry.descriptor(head as usize - 1) + PREV, page as u32 + 1, Relaxed);
        }
        self.set_partial(class, page as u32 + 1);
    }

    pub(super) fn unlink_page(&self, class: usize, page: usize) {
        let descriptor = self.zone.geometry.descriptor(page);
        let next = self.zone.region.load32(descriptor + NEXT, Relaxed);
        let prev = self.zone.region.load32(descriptor + PREV, Relaxed);
        if next != 0 {
            self.zone.region.store32(self.zone.geometry.descriptor(next as usize - 1) + PREV, prev, Relaxed);
        }
        if prev != 0 {
            self.zone.region.store32(self.zone.geometry.descriptor(prev as usize - 1) + NEXT, next, Relaxed);
        } else {
            self.set_partial(class, next);
        }
    }

    /// Blocks in use, and the first free one's index + 1.
    #[inline]
    pub(super) fn usage(&self, descriptor: usize) -> (u16, u16) {
        let word = self.zone.region.load32(descriptor + USE, Relaxed);
        (word as u16, (word >> 16) as u16)
    }

    #[inline]
    pub(super) fn set_usage(&self, descriptor: usize, used: u16, free: u16) {
        self.zone.region.store32(descriptor + USE, u32::from(used) | u32::from(free) << 16, Relaxed);
    }

    #[inline]
    pub(super) fn partial(&self, class: usize) -> u32 {
        self.zone.region.load32(self.class_field(class, PARTIAL), Relaxed)
    }

    #[inline]
    pub(super) fn set_partial(&self, class: usize, page: u32) {
        self.zone.region.store32(self.class_field(class, PARTIAL), page, Relaxed);
    }

    /// A link to the block that was freed last, 0 if there is none.
    #[inline]
    pub(super) fn spare(&self, class: usize) -> u32 {
        self.zone.region.load32(self.class_field(class, SPARE), Relaxed)
    }

    #[inline]
    pub(super) fn set_spare(&self, class: usize, block: u32) {
        self.zone.region.store32(self.class_field(class, SPARE), block, Relaxed);
    }

    #[inline]
    pub(super) fn class_field(&self, class: usize, field: usize) -> usize {
        self.field(shard::CLASSES + class * shard::CLASS_LEN + field)
    }

    #[inline]
    pub(super) fn class(&self, class: usize, field: usize) -> u64 {
        self.get(shard::CLASSES + class * shard::CLASS_LEN + field)
    }

    #[inline]
    pub(super) fn set_class(&self, class: usize, field: usize, value: u64) {
        self.set(shard::CLASSES + class * shard::CLASS_LEN + field, value);
    }

    #[inline]
    pub(super) fn class_add(&self, class: usize, field: usize, by: i64) {
        self.set_class(class, field, self.class(class, field).wrapping_add_signed(by));
    }
}
