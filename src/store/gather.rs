//! Gathering what is free: records of one size move together, so that a page that they leave can serve another size.
//!
//! What a full zone gives up are the oldest records, wherever they lie. Are they of another size than what is wanted, the
//! room that they leave is scattered over pages that are cut for theirs. As soon as a size has more free blocks in a shard
//! than a page has, the records of its emptiest page move into the others.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::arena::Need;
use super::block::{CHAIN_NEXT, HEAD};
use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::CLASS_SIZES;
use super::shard::Shard;

/// Of how many pages with free blocks the emptiest is looked for.
const LOOKED_AT: usize = 64;
/// How many of them are tried: what goes on in further blocks can't move, and its page stays.
const TRIED: usize = 4;

impl Shard<'_> {
    /// Frees a page of a class, if its other pages have room for what is in it. What is at `keep` stays where it is.
    pub fn gather(&self, class: usize, keep: Option<usize>) -> bool {
        let blocks = self.blocks_a_page(class);
        self.give_spare(class);
        let pages = self.usable_pages(class, Need::Growth).take(LOOKED_AT);
        let mut pages: Vec<(u32, usize)> = pages.map(|page| (self.used_in(page), page)).collect();
        let free: u32 = pages.iter().map(|(used, _)| blocks.saturating_sub(*used)).sum();
        // One more, which the size keeps for the next version of some record.
        if free <= blocks {
            return false;
        }
        pages.sort_unstable();
        pages.into_iter().take(TRIED).any(|(_, page)| self.move_out(page, class, keep))
    }

    fn move_out(&self, page: usize, class: usize, keep: Option<usize>) -> bool {
        let blocks = self.blocks_in_use(page, class);
        if !blocks.iter().all(|block| Some(*block) != keep && self.whole_record(*block, class).is_some()) {
            return false;
        }
        for block in blocks {
            let beside = self.usable_pages(class, Need::Growth).find(|other| *other != page);
            let (Some(met), Some(beside)) = (self.whole_record(block, class), beside) else { return false };
            self.shift(&met, self.take_from_page(beside, class));
        }
        self.give_spare(class);
        // Most often the last one that went took the page with it.
        let is_here = self.class_of(self.zone.geometry.page(page)) == Some(class);
        !is_here || (self.used_in(page) == 0 && self.return_page(class, page))
    }

    /// The record that a block is all of.
    fn whole_record(&self, block: usize, class: usize) -> Option<Met> {
        let record = self.block(block);
        // What another record goes on in may look like anything.
        let fits = !record.is_large() && HEAD + record.fields().payload() <= CLASS_SIZES[class];
        self.met_at(block).filter(|_| fits).map(|(met, _)| met)
    }

    /// Moves a record to another block, where nothing of it changes but its place.
    fn shift(&self, met: &Met, to: usize) {
        let geometry = &self.zone.geometry;
        let mut payload = Vec::new();
        self.payload(met, &mut payload);
        self.zone.region.write(to + HEAD, &payload);
        let moved = self.block(to);
        moved.set_fields(geometry, &met.fields);
        moved.set_link(CHAIN_NEXT, self.block(met.at).chain_next());
        let mark = self.zone.region.load32(met.from, Relaxed) & geometry.mark_mask;
        self.zone.region.store32(met.from, geometry.link(to) | mark, Release);
        done(Step::Shifted);
        self.feed_insert(to, met.at);
        self.feed_unlink(met.at);
        self.timer_replace(to, &met.fields, met);
        self.free(met.at);
    }
}
