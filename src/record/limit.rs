//! Limits of requests: a bucket as nginx's own `limit_req` keeps it, and what a node tells the others of its own.
//!
//! A bucket runs empty at the configured rate, and each request that is admitted adds one. nginx keeps the *excess*: what is
//! in it less the request that came last. Every node has a bucket for each key, into which it puts what it admits itself
//! and what it hears that others have admitted: so each drains the sum, and none asks another. What a node tells is how
//! many it has admitted in all: said twice, or late, or in another order, it adds the same.

use super::Millis;

/// Rates, excess and bursts are in thousandths of a request.
const REQUEST: u64 = 1000;
/// A clock that went back by more than this is one that was mended.
const MENDED: i64 = 60_000;
/// How long a bucket that has run empty is kept.
const KEEP: u64 = 60_000;
/// No bucket is kept for longer: the time of its last request has 32 bits.
const LONGEST: u64 = 20 * 24 * 3_600_000;
/// Of what another node admitted while this one didn't hear of it, no more counts than its bucket holds, and what
/// runs out of it in so many milliseconds: what it admitted before has run out there, too.
const LATE: u64 = 1000;

/// What is in a bucket. The two fit one word of memory, so that a change is one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Thousandths of a request, besides the last one.
    pub excess: u32,
    /// The low bits of the milliseconds as of which that holds.
    pub last: u32,
}

impl Bucket {
    /// What the first request of a key leaves.
    pub const fn first(now: Millis) -> Bucket {
        Bucket { excess: 0, last: now as u32 }
    }

    /// One that holds so much at `now`; `None`: it would be empty.
    pub fn holding(level: u64, now: Millis) -> Option<Bucket> {
        (level > 0).then(|| Bucket { excess: fit(level.saturating_sub(REQUEST)), last: now as u32 })
    }

    /// What it holds after one more request at `now`, as nginx reckons it. `rate`: thousandths of a request a second.
    pub fn with_one(self, rate: u64, now: Millis) -> Bucket {
        let elapsed = self.elapsed(now);
        let excess = (u64::from(self.excess) + REQUEST).saturating_sub(drained(rate, elapsed));
        // What is less than a millisecond isn't lost.
        Bucket { excess: fit(excess), last: if elapsed > 0 { now as u32 } else { self.last } }
    }

    /// What it holds at `now`, the last request included.
    pub fn level(self, rate: u64, now: Millis) -> u64 {
        (u64::from(self.excess) + REQUEST).saturating_sub(drained(rate, self.elapsed(now)))
    }

    /// What it holds once another node is known to have admitted `more` requests, whose own bucket holds `there`.
    pub fn with_others(self, rate: u64, now: Millis, more: u32, there: u64) -> Bucket {
        let most = there.saturating_add(drained(rate, LATE)).max(REQUEST);
        let added = (u64::from(more) * REQUEST).min(most);
        if added == 0 {
            return self;
        }
        match self.level(rate, now) {
            // It had run empty, and would go on running empty of what is added if the time stayed.
            0 => Bucket { excess: fit(added.saturating_sub(REQUEST)), last: now as u32 },
            // The time stays: taking it forward each time would lose what drains in less than its unit.
            _ => Bucket { excess: fit(u64::from(self.excess) + added), last: self.last },
        }
    }

    /// When it may be forgotten.
    pub fn ends(self, rate: u64, now: Millis) -> Millis {
        let empty = self.level(rate, now).saturating_mul(1000) / rate.max(1);
        now.saturating_add(empty.saturating_add(KEEP).min(LONGEST))
    }

    /// As one word.
    pub const fn to_word(self) -> u64 {
        (self.excess as u64) << 32 | self.last as u64
    }

    /// From one word.
    pub const fn from_word(word: u64) -> Bucket {
        Bucket { excess: (word >> 32) as u32, last: word as u32 }
    }

    /// Milliseconds since the last request.
    fn elapsed(self, now: Millis) -> u64 {
        match i64::from((now as u32).wrapping_sub(self.last).cast_signed()) {
            back if back < -MENDED => 1,
            elapsed => u64::try_from(elapsed).unwrap_or(0),
        }
    }
}

/// What one node has admitted for a key: the value of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// When it began to count: after that was forgotten, it counts from zero again.
    pub begun: u32,
    /// How many it has admitted since; counts from anew after the largest.
    pub admitted: u32,
    /// Its bucket.
    pub bucket: Bucket,
}

impl Share {
    /// Bytes of it.
    pub const LEN: usize = 16;
    /// Where in them the bucket is.
    pub const BUCKET: usize = 8;

    /// Nothing was admitted yet, and so much is in the bucket.
    pub const fn begin(bucket: Bucket, now: Millis) -> Share {
        Share { begun: now as u32, admitted: 0, bucket }
    }

    /// How many more were admitted than this node knew of.
    pub const fn since(&self, known: Option<&Share>) -> u32 {
        match known {
            Some(known) if known.begun == self.begun => self.admitted.wrapping_sub(known.admitted),
            _ => self.admitted,
        }
    }

    /// As it is stored and travels.
    pub fn to_bytes(self) -> [u8; Share::LEN] {
        let counted = u64::from(self.begun) << 32 | u64::from(self.admitted);
        let mut bytes = [0; Share::LEN];
        bytes[..Share::BUCKET].copy_from_slice(&counted.to_le_bytes());
        bytes[Share::BUCKET..].copy_from_slice(&self.bucket.to_word().to_le_bytes());
        bytes
    }

    /// `None`: no share.
    pub fn from_bytes(bytes: &[u8]) -> Option<Share> {
        let (counted, bucket) = bytes.split_first_chunk::<8>()?;
        let counted = u64::from_le_bytes(*counted);
        let bucket = Bucket::from_word(u64::from_le_bytes(bucket.try_into().ok()?));
        Some(Share { begun: (counted >> 32) as u32, admitted: counted as u32, bucket })
    }
}

/// What runs out in so many milliseconds; in whole thousandths, as with nginx.
const fn drained(rate: u64, millis: u64) -> u64 {
    rate.saturating_mul(millis) / 1000
}

fn fit(excess: u64) -> u32 {
    u32::try_from(excess).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ten requests a second.
    const TEN: u64 = 10_000;
    const NOW: Millis = 1_700_000_000_000;

    /// As nginx's source has it, in its own words of C: signed, and with a node's `excess` and `last`.
    fn nginx(excess: i64, last: u64, rate: i64, now: u64) -> i64 {
        let ms = match now as i64 - last as i64 {
            ms if ms < -60_000 => 1,
            ms => ms.max(0),
        };
        (excess - rate * ms / 1000 + 1000).max(0)
    }

    proptest! {
        #[test]
        fn a_bucket_alone_is_nginxs_own(rate in 1u64..2_000_000, steps in prop::collection::vec(-70_000i64..90_000, 1..50)) {
            let (mut bucket, mut excess, mut last) = (Bucket::first(NOW), 0, NOW);
            let mut now = NOW;
            for step in steps {
                now = now.saturating_add_signed(step);
                excess = nginx(excess, last, rate as i64, now);
                last = if now as i64 - (last as i64) > 0 || (now as i64 - last as i64) < -60_000 { now } else { last };
                bucket = bucket.with_one(rate, now);
                prop_assert_eq!((i64::from(bucket.excess), bucket.last), (excess, last as u32));
            }
        }

        #[test]
        fn a_share_travels_as_it_is(begun: u32, admitted: u32, word: u64) {
            let share = Share { begun, admitted, bucket: Bucket::from_word(word) };
            prop_assert_eq!(Share::from_bytes(&share.to_bytes()), Some(share));
            prop_assert_eq!(&share.to_bytes()[Share::BUCKET..], &word.to_le_bytes());
        }

        /// What others admit counts as if it had been admitted here.
        #[test]
        fn others_fill_it_as_own_requests_do(steps in prop::collection::vec((1u64..200, any::<bool>()), 1..100)) {
            let (mut all, mut split) = (Bucket::first(NOW), Bucket::first(NOW));
            let mut now = NOW;
            for (step, own) in steps {
                now += step;
                all = all.with_one(TEN, now);
                split = if own { split.with_one(TEN, now) } else { split.with_others(TEN, now, 1, 5000) };
                prop_assert!(all.level(TEN, now).abs_diff(split.level(TEN, now)) <= 1, "{all:?} {split:?}");
            }
        }
    }

    #[test]
    fn a_bucket_that_ran_empty_holds_what_is_added() {
        let bucket = Bucket::first(NOW);
        assert_eq!(bucket.level(TEN, NOW), 1000);
        assert_eq!(bucket.level(TEN, NOW + 100), 0);
        let later = NOW + 60_000;
        assert_eq!(bucket.with_others(TEN, later, 3, 9000).level(TEN, later), 3000);
        assert_eq!(bucket.with_others(TEN, later, 0, 9000), bucket);
    }

    #[test]
    fn what_drains_in_less_than_a_unit_is_not_lost_to_news() {
        // One request a minute: some 60 ms for each thousandth.
        let rate = 1000 / 60;
        let mut bucket = Bucket::first(NOW);
        for millis in 1..=120_000 {
            bucket = bucket.with_others(rate, NOW + millis, u32::from(millis % 60_000 == 0), 5000);
        }
        assert!(bucket.level(rate, NOW + 120_000) <= 1100, "{bucket:?}");
    }

    #[test]
    fn who_was_cut_off_for_long_fills_no_bucket_for_long() {
        // Six thousand, of which its own bucket still holds four.
        let bucket = Bucket::first(NOW).with_others(TEN, NOW, 6000, 4000);
        assert_eq!(bucket.level(TEN, NOW), 1000 + 4000 + 10_000);
    }

    #[test]
    fn a_share_that_began_anew_counts_from_zero() {
        let share = |begun, admitted| Share { begun, admitted, bucket: Bucket::default() };
        assert_eq!(share(7, 12).since(Some(&share(7, 10))), 2);
        assert_eq!(share(7, 1).since(Some(&share(7, u32::MAX))), 2);
        assert_eq!(share(8, 3).since(Some(&share(7, 10))), 3);
        assert_eq!(share(8, 3).since(None), 3);
        assert_eq!(Share::from_bytes(&[0; 15]), None);
        assert_eq!(Share::from_bytes(&[0; 17]), None);
    }

    #[test]
    fn an_end_comes_a_minute_after_it_is_empty() {
        let bucket = Bucket { excess: 9000, last: NOW as u32 };
        assert_eq!(bucket.ends(TEN, NOW), NOW + 1000 + KEEP);
        assert_eq!(bucket.ends(TEN, NOW + 5000), NOW + 5000 + KEEP);
        assert_eq!(Bucket { excess: u32::MAX, last: NOW as u32 }.ends(1, NOW), NOW + LONGEST);
        assert_eq!(Bucket { excess: u32::MAX, last: NOW as u32 }.ends(0, NOW), NOW + LONGEST);
    }
}
