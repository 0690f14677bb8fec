//! Eviction: what a full zone with `evict` gives up so that a write fits.
//!
//! Expired records and tombstones went before (`upkeep`). Then goes what will end soonest, of a bounded sample: of those that
//! the wheel has first, and of those that were written longest ago, as a slot of the wheel is hours wide where it wasn't turned
//! yet. Then goes what was not looked up for long, after Corbató's CLOCK: a mark for each link of a bucket, set by readers,
//! cleared as the hand passes. Sessions and limits go by their use alone: the sample are those that were written longest ago,
//! without those that were used since (`hand`).
//!
//! Of those that would go next, one whose block has the size that is wanted goes first. If there is none, they go all the
//! same, until they leave a page ([`Shard::gather`]): else a size would never get room from others, however old they are.
//! The record that is being written never goes. Eviction is local: it leaves no tombstone.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Zone;
use super::arena::serves;
use super::block::{Fields, HEAD};
use super::failpoint::{Step, done};
use super::feed::End;
use super::find::{Met, Place};
use super::layout::{BUCKET_LINKS, header, shard};
use super::shard::Shard;

/// Of how many records the one that ends soonest is chosen, and as many of those that were written longest ago.
pub const SAMPLE: usize = 16;
/// How often single records are given up for one write; after that it isn't their number that hinders but their size, and whole
/// pages go.
const SINGLES: usize = 48;
/// In so many of these rounds what was used lately is spared.
const SPARING: usize = 8;
/// A page with fewer blocks than this of the size that is wanted isn't made by giving up records one by one.
const FEW: u32 = 4;
/// Links that the clock looks ahead for what has the size that is wanted.
const AHEAD: usize = 64;
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
        let (word, bit) = self.mark_of(place, met);
        if let Some(word) = self.region.word64(word)
            && word.load(Relaxed) & bit == 0
        {
            word.fetch_or(bit, Relaxed);
        }
    }

    #[inline]
    fn mark_of(&self, place: Place, met: &Met) -> (usize, u64) {
        let bucket = self.geometry.bucket(place.shard, place.bucket);
        // What isn't in a slot of the bucket is in its chain.
        let slot = (met.from.wrapping_sub(bucket) / 4).min(BUCKET_LINKS - 1);
        self.geometry.use_mark(place.shard, place.bucket * BUCKET_LINKS + slot)
    }

    /// Takes a mark away; `false`: there is none.
    fn clear_mark(&self, (word, bit): (usize, u64)) -> bool {
        let marks = self.region.word64(word);
        marks.is_some_and(|word| word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, Relaxed) & bit != 0)
    }

    fn has_mark(&self, (word, bit): (usize, u64)) -> bool {
        self.region.load64(word, Relaxed) & bit != 0
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
        match class.filter(|_| round < SINGLES) {
            Some(class) if self.evict_some(class, keep, round < SPARING) => true,
            _ => {
                // So many that the pool is above its reserve again when the write has taken what it needs.
                let lacking = self.zone.reserve().saturating_sub(self.zone.free_pages()) as usize;
                self.evict_pages(keep, lacking + 1 + wish.payload / (self.zone.geometry.page_size / 2))
            }
        }
    }

    /// Gives up the record that ends soonest and whose block does for class `wanted`, if it is among the half of the sample that
    /// ends first; else those of that half that have the size of the first.
    fn evict_some(&self, wanted: usize, keep: Option<usize>, sparing: bool) -> bool {
        let mut sample = self.soonest(keep);
        if sample.is_empty() {
            return self.evict_unused(wanted, keep);
        }
        sample.truncate(sample.len().div_ceil(2));
        let is_spared = |at: &usize| sparing && self.zone.matching.goes_by_use() && self.is_used(*at);
        let (serving, others): (Vec<usize>, Vec<usize>) = sample.into_iter().partition(|at| self.does_for(*at, wanted));
        if serving.is_empty() && self.blocks_a_page(wanted) < FEW {
            return false;
        }
        if let Some(at) = serving.iter().find(|at| !is_spared(at)) {
            return self.give_up(*at);
        }
        let mut others = others.into_iter().filter(|at| !is_spared(at)).peekable();
        let Some(class) = others.peek().map(|at| self.class_of(*at)) else {
            self.pass_all_by();
            return true;
        };
        self.evict_for_page(wanted, keep, others.filter(|at| self.class_of(*at) == class))
    }

    /// Gives up records of one size, as a part of what it takes to have a page for another one. `false`: pages of that hold so
    /// few that it is better to look for the emptiest.
    fn evict_for_page(&self, wanted: usize, keep: Option<usize>, doomed: impl Iterator<Item = usize>) -> bool {
        if self.blocks_a_page(wanted) < FEW {
            return false;
        }
        let mut class = None;
        for at in doomed {
            class = self.class_of(at);
            self.give_up(at);
        }
        class.inspect(|class| _ = self.gather(*class, keep));
        true
    }

    /// A sample of what may go, what ends soonest first.
    fn soonest(&self, keep: Option<usize>) -> Vec<usize> {
        let mut sample = Vec::new();
        let mut add = |at, fields: Fields| {
            if let Some(end) = fields.expires.filter(|_| Some(at) != keep && !fields.tombstone) {
                sample.push((end, at));
            }
        };
        if self.zone.matching.goes_by_use() {
            self.behind_hand(SAMPLE).into_iter().for_each(|at| add(at, self.block(at).fields()));
        } else {
            self.timer_sample(SAMPLE).into_iter().for_each(|(at, fields)| add(at, fields));
            self.feed_some(End::Oldest, SAMPLE, |at| {
                add(at, self.block(at).fields());
                true
            });
        }
        sample.sort_unstable();
        sample.dedup();
        sample.into_iter().map(|(_, at)| at).collect()
    }

    /// Whether the block of a record does for class `wanted`.
    fn does_for(&self, at: usize, wanted: usize) -> bool {
        self.class_of(at).is_some_and(|class| serves(class, wanted))
    }

    /// Whether a look-up found what is behind the link to a record.
    pub fn is_used(&self, at: usize) -> bool {
        self.met_at(at).is_some_and(|(met, key)| self.zone.has_mark(self.zone.mark_of(self.zone.place(&key), &met)))
    }

    /// Takes the mark away that says so; `false`: there is none.
    pub fn take_mark(&self, at: usize) -> bool {
        self.met_at(at).is_some_and(|(met, key)| self.zone.clear_mark(self.zone.mark_of(self.zone.place(&key), &met)))
    }

    /// Turns the clock's hand to the first link behind which nobody found anything since it last passed, and gives up what
    /// is behind it, or what has the size that is wanted behind one of the next of these links.
    fn evict_unused(&self, wanted: usize, keep: Option<usize>) -> bool {
        let links = self.zone.geometry.buckets_per_shard * BUCKET_LINKS;
        let hand = self.get(shard::HAND) as usize;
        let mut unused: Vec<usize> = Vec::new();
        let (mut place, mut ahead) = (hand, 0);
        // Twice round: the first time it may do no more than clear marks.
        for step in 0..=2 * links {
            let link = (hand + step) % links;
            let mark = self.zone.geometry.use_mark(self.index, link);
            // The hand itself stays at the first; what is ahead of it keeps its marks.
            let used = if unused.is_empty() { self.zone.clear_mark(mark) } else { self.zone.has_mark(mark) };
            let mut met_here = Vec::new();
            if !used {
                self.link_each(link, |met: &Met| {
                    if Some(met.at) != keep && !met.fields.tombstone {
                        met_here.push(met.at);
                    }
                });
            }
            if unused.is_empty() && !met_here.is_empty() {
                place = link;
            }
            if met_here.iter().any(|at| self.does_for(*at, wanted)) {
                self.set(shard::HAND, if place == link { link + 1 } else { place } as u64);
                return met_here.into_iter().fold(false, |any, at| self.give_up(at) | any);
            }
            unused.extend(met_here);
            ahead += usize::from(!unused.is_empty());
            if ahead == AHEAD || unused.len() >= SAMPLE {
                break;
            }
        }
        let Some(first) = unused.first() else { return false };
        self.set(shard::HAND, place as u64);
        let class = self.class_of(*first);
        unused.truncate(unused.len().div_ceil(2));
        self.evict_for_page(wanted, keep, unused.into_iter().filter(|at| self.class_of(*at) == class))
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
        self.count_gone();
        done(Step::GivenUpSoon);
        self.remove_at(at);
        done(Step::GivenUp);
        true
    }
}
