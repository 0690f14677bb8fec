//! Where the entries of the table of origins lie. Every zone has a table of its own, as long as suits its size; a mesh may have
//! more nodes than that, and each start of nginx is another one. So a table that is full goes on in pages of the pool, and
//! keeps them.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::arena::Need;
use super::failpoint::{Step, done};
use super::layout::{MAX_ORIGINS, ORIGIN_LEN, header};
use super::pages::{NEXT, OWNER};
use super::{StoreError, Zone};

/// The owner of such pages. No shard has this number.
pub const ANNEX: u32 = 0xffff;
/// One of so many pages of a zone may become one of them: who makes up origins gets no more.
const PAGES_AN_ANNEX: usize = 8;

impl Zone {
    /// How many entries there are, used or not.
    pub(super) fn origin_entries(&self) -> usize {
        (self.geometry.origins + self.annexes() * self.entries_a_page()).min(MAX_ORIGINS)
    }

    /// Offset of an entry. One that isn't there lies beyond the zone, where all reads as zero.
    #[inline]
    pub(super) fn origin_at(&self, index: usize) -> usize {
        match index.checked_sub(self.geometry.origins) {
            None => self.geometry.origin(index),
            Some(beyond) => self.entry_beyond(beyond).unwrap_or(self.geometry.size),
        }
    }

    /// Where each of them lies that was ever used, in their order: for who looks through the table. Most have few, and each
    /// further page is found by those before it.
    pub(super) fn origin_places(&self) -> impl Iterator<Item = usize> {
        let (own, end) = (self.geometry.origins, self.origins_end());
        let beyond = self.annex_pages().flat_map(|page| {
            let first = self.geometry.page(page);
            (0..self.entries_a_page()).map(move |entry| first + entry * ORIGIN_LEN)
        });
        let further = beyond.take(end.saturating_sub(own));
        (0..own.min(end)).map(|index| self.geometry.origin(index)).chain(further)
    }

    /// How many of them were ever used: all before this one.
    pub(super) fn origins_end(&self) -> usize {
        (self.region.load32(header::ORIGINS_END, Acquire) as usize).min(MAX_ORIGINS)
    }

    /// How many entries there may still be, as far as nothing else takes the pages.
    pub(super) fn origins_to_come(&self) -> usize {
        let free = u64::from(self.free_pages()).saturating_sub(self.withheld(Need::Growth)) as usize;
        let pages = self.most_annexes().saturating_sub(self.annexes()).min(free);
        (pages * self.entries_a_page()).min(MAX_ORIGINS.saturating_sub(self.origin_entries()))
    }

    /// Makes the table longer by a page; `false`: there is none for it. The caller holds the table's lock.
    ///
    /// # Errors
    ///
    /// `Busy`: whether there is one can't be seen now. So nobody is forgotten for want of it.
    pub(super) fn extend_origins(&self) -> Result<bool, StoreError> {
        let (count, pages): (_, Vec<usize>) = (self.annexes(), self.annex_pages().collect());
        if count >= self.most_annexes() || pages.len() != count {
            return Ok(false);
        }
        // Who was killed on the way here has left one that leads nowhere.
        let left = (0..self.geometry.pages).find(|page| self.is_annex(*page) && !pages.contains(page));
        let Some(page) = left.map_or_else(|| self.take_for_origins(), |page| Ok(Some(page)))? else { return Ok(false) };
        self.region.zero(self.geometry.page(page), self.geometry.page_size);
        let link = pages.last().map_or(header::ANNEX, |last| self.geometry.descriptor(*last) + NEXT);
        self.region.store32(link, page as u32 + 1, Release);
        done(Step::AnnexLinked);
        self.region.store32(header::ANNEXES, count as u32 + 1, Release);
        Ok(true)
    }

    /// Pages of the pool that the table has taken.
    pub(super) fn annexes(&self) -> usize {
        (self.region.load32(header::ANNEXES, Acquire) as usize).min(self.most_annexes())
    }

    fn most_annexes(&self) -> usize {
        let wanted = MAX_ORIGINS.saturating_sub(self.geometry.origins).div_ceil(self.entries_a_page());
        wanted.min(self.geometry.pages / PAGES_AN_ANNEX)
    }

    const fn entries_a_page(&self) -> usize {
        self.geometry.page_size / ORIGIN_LEN
    }

    fn entry_beyond(&self, beyond: usize) -> Option<usize> {
        let page = self.annex_pages().nth(beyond / self.entries_a_page())?;
        Some(self.geometry.page(page) + beyond % self.entries_a_page() * ORIGIN_LEN)
    }

    /// In their order.
    fn annex_pages(&self) -> impl Iterator<Item = usize> {
        let mut link = header::ANNEX;
        (0..self.annexes()).map_while(move |_| {
            let page = (self.region.load32(link, Acquire) as usize).checked_sub(1)?;
            link = self.geometry.descriptor(page) + NEXT;
            (page < self.geometry.pages && self.is_annex(page)).then_some(page)
        })
    }

    fn is_annex(&self, page: usize) -> bool {
        self.region.load32(self.geometry.descriptor(page) + OWNER, Relaxed) == ANNEX
    }
}
