//! Eviction: what a full zone with `evict` gives up so that a write fits.
//!
//! Expired records and tombstones went before (`upkeep`). Then goes what will end soonest, of a bounded sample: of those that
//! the wheel has first, and of those that were written longest ago, as a slot of the wheel is hours wide where it wasn't turned
//! yet. Then goes what was not looked up for long, after Corbató's CLOCK: a mark for each link of a bucket, set by readers,
//! cleared as the hand passes.
//! The record that is being written never goes. Eviction is local: it leaves no tombstone.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Zone;
use super::block::HEAD;
use super::failpoint::{Step, done};
use super::feed::End;
use super::layout::{BUCKET_LINKS, CLASS_SIZES, header, shard};
use super::shard::{Met, Place, Shard};

/// Of how many records the one that ends soonest is chosen, and as many of those that were written longest ago.
const SAMPLE: usize = 16;
/// Records given up one by one for one write; after that it isn't their number that hinders but their size, and whole
/// pages go.
const SINGLES: usize = 32;
/// A shard with fewer blocks of a size than this gives up a page for more of them.
const FEW: u64 = 8;
/// How often pages are given up for one write.
const PAGE_ROUNDS: usize = 8;

/// The write that room is made for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub place: Place,
    pub key: &'a [u8],
    /// Bytes of key and value.
    pub payload: usize,
}

impl Zone {
    /// A look-up found this. A mark that is lost or set for nothing does no harm.
    #[inline]
    pub(super) fn mark_used(&self, place: Place, met: &Met) {
        let bucket = self.geometry.bucket(place.shard, place.bucket);
        // What isn't in a slot of the bucket is in its chain.
        let slot = (met.from.wrapping_sub(bucket) / 4).min(BUCKET_LINKS - 1);
        let (word, bit) = self.geometry.use_mark(place.shard, place.bucket * BUCKET_LINKS + slot);
        if let Some(word) = self.region.word64(word)
            && word.load(Relaxed) & bit == 0
        {
            word.fetch_or(bit, Relaxed);
        }
    }
}

impl Shard<'_> {
    /// Gives something up for `wish`; `round` counts how often that was done. `false`: there is nothing that may go.
    pub fn evict(&self, wish: &Wish<'_>, round: usize) -> bool {
        // A write that can't fit, whatever went, must not empty the zone first; a new one has to leave room for its next
        // version, so it needs its pages twice.
        let pages = 1 + wish.payload / self.zone.geometry.page_size;
        if !self.zone.evict || round >= SINGLES + PAGE_ROUNDS || 2 * pages > self.zone.geometry.pages {
            return false;
        }
        let keep = self.zone.find(wish.place, wish.key).map(|met| met.at);
        let class = self.zone.geometry.class_for(HEAD + wish.payload);
        match class.filter(|class| round < SINGLES && self.blocks_used(*class) >= FEW) {
            Some(class) if self.evict_one(CLASS_SIZES[class], keep) => true,
            _ => {
                // So many that the pool is above its reserve again when the write has taken what it needs.
                let lacking = self.zone.reserve().saturating_sub(self.zone.free_pages()) as usize;
                self.evict_pages(keep, lacking + 1 + wish.payload / (self.zone.geometry.page_size / 2))
            }
        }
    }

    /// Gives up one record whose block has the size that is wanted: any other would go for nothing.
    fn evict_one(&self, size: usize, keep: Option<usize>) -> bool {
        let mut sample = self.timer_sample(SAMPLE);
        self.feed_some(End::Oldest, SAMPLE, |at| {
            sample.push((at, self.block(at).fields()));
            true
        });
        let soonest = sample
            .into_iter()
            .filter(|(at, fields)| Some(*at) != keep && !fields.tombstone && self.block_size(*at) == size)
            .filter(|(_, fields)| fields.expires.is_some())
            .min_by_key(|(_, fields)| fields.expires);
        match soonest {
            Some((at, _)) => self.give_up(at),
            None => self.evict_unused(size, keep),
        }
    }

    /// Turns the clock's hand to the first link behind which nobody found anything since it last passed, and gives up what
    /// is behind it.
    fn evict_unused(&self, size: usize, keep: Option<usize>) -> bool {
        let links = self.zone.geometry.buckets_per_shard * BUCKET_LINKS;
        let hand = self.get(shard::HAND) as usize;
        // Twice round: the first time it may do no more than clear marks.
        for step in 0..=2 * links {
            let link = (hand + step) % links;
            let (word, bit) = self.zone.geometry.use_mark(self.index, link);
            let marks = self.zone.region.word64(word);
            if marks.is_some_and(|word| word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, Relaxed) & bit != 0) {
                continue;
            }
            let mut chosen = Vec::new();
            self.link_each(link, |met: &Met| {
                if Some(met.at) != keep && !met.fields.tombstone && self.block_size(met.at) == size {
                    chosen.push(met.at);
                }
            });
            if !chosen.is_empty() {
                self.set(shard::HAND, (link + 1) as u64);
                return chosen.into_iter().fold(false, |any, at| self.give_up(at) | any);
            }
        }
        false
    }

    /// Gives up all records in those of this shard's pages that hold least, so that the pages can be cut anew.
    fn evict_pages(&self, keep: Option<usize>, count: usize) -> bool {
        let mut kept = HashSet::new();
        if let Some(at) = keep {
            self.pages_each(at, |page| {
                kept.insert(page);
            });
        }
        let gave = self.give_empty_pages();
        let mut pages = self.own_pages();
        pages.retain(|(used, page)| *used > 0 && !kept.contains(page));
        pages.sort_unstable();
        let chosen: HashSet<usize> = pages.into_iter().take(count).map(|(_, page)| page).collect();
        let mut doomed = Vec::new();
        self.feed_each(|at| {
            if self.lies_in(at, &chosen) {
                doomed.push(at);
            }
            true
        });
        doomed.into_iter().fold(gave, |any, at| self.give_up(at) | any)
    }

    /// Whether some block of a record lies in one of these pages.
    fn lies_in(&self, at: usize, pages: &HashSet<usize>) -> bool {
        let mut lies = false;
        self.pages_each(at, |page| lies |= pages.contains(&page));
        lies
    }

    fn give_up(&self, at: usize) -> bool {
        let fields = self.block(at).fields();
        self.note_given_up(&fields);
        // First of all it is said that it goes: to other nodes, what is missing here for no reason was deleted here.
        if let Some(word) = self.zone.region.word64(header::EVICTED_STAMP) {
            word.fetch_max(fields.stamp.0, SeqCst);
        }
        self.bump(shard::EVICTED);
        done(Step::GivenUpSoon);
        self.remove_at(at);
        done(Step::GivenUp);
        true
    }
}
