//! Zones whose records go by their use: what was used since it was written is passed by when its turn comes to go.
//!
//! The feed has records in the order in which they were last written, and walkers rely on that. So what is used stays where it
//! is, and has a mark (see `evict`). A *hand* stands in the feed, a marker like those of walkers: what is before it was passed
//! by. When as many records have gone as there are, the hand begins a new lap with the oldest. Those that it has passed by in the
//! last lap, up to a second marker, lose their marks now; the one after that they lose their place, unless they were used
//! again. So between a mark's end and the next look at its record there is a whole lap.

use super::evict::SAMPLE;
use super::layout::{Hand, shard};
use super::shard::Shard;

impl Shard<'_> {
    /// Up to so many records behind the hand, those first that were written first. What it comes to and was used lately it
    /// passes by before.
    pub fn behind_hand(&self, count: usize) -> Vec<usize> {
        let is_there = self.next(self.hand(Hand::Now)) != 0;
        if !is_there || self.get(shard::GONE) >= self.get(shard::RECORDS) {
            self.begin_lap();
        }
        self.pass_by(|at, again| {
            self.block(at).fields().tombstone || if again { self.take_mark(at) } else { self.is_used(at) }
        });
        let (end, mut at) = (self.field(shard::FEED), self.hand(Hand::Now));
        let mut records = Vec::new();
        for _ in 0..count {
            at = self.next(at);
            if at == end || at == 0 {
                break;
            }
            if !self.zone.geometry.is_marker(at) {
                records.push(at);
            }
        }
        records
    }

    /// Passes by what [`Shard::behind_hand`] has shown, as none of it is to go.
    pub fn pass_all_by(&self) {
        self.pass_by(|at, again| {
            if again {
                self.take_mark(at);
            }
            true
        });
    }

    /// A record went.
    pub fn count_gone(&self) {
        self.bump(shard::GONE);
    }

    fn hand(&self, hand: Hand) -> usize {
        self.zone.geometry.hand(self.index, hand)
    }

    fn begin_lap(&self) {
        let (now, before, end) = (self.hand(Hand::Now), self.hand(Hand::Before), self.field(shard::FEED));
        let was = match self.prev(now) {
            _ if self.next(now) == 0 => end,
            at if at == before => self.prev(before),
            at => at,
        };
        for marker in [now, before] {
            if self.next(marker) != 0 {
                self.feed_unlink(marker);
            }
        }
        self.feed_insert(before, was);
        self.feed_insert(now, end);
        self.set(shard::AGAIN, 1);
        self.set(shard::GONE, 0);
    }

    /// Moves the hand on, as long as `passes` says so of what it comes to, and whether that was passed by before.
    fn pass_by(&self, passes: impl Fn(usize, bool) -> bool) {
        let hand = self.hand(Hand::Now);
        for _ in 0..SAMPLE {
            let at = self.next(hand);
            if at == self.field(shard::FEED) {
                return self.begin_lap();
            }
            if at == self.hand(Hand::Before) {
                self.set(shard::AGAIN, 0);
            }
            if !self.zone.geometry.is_marker(at) && !passes(at, self.get(shard::AGAIN) != 0) {
                return;
            }
            self.feed_unlink(hand);
            self.feed_insert(hand, at);
        }
    }
}
