use super::*;
use proptest::prelude::*;

/// Ten requests a second.
const TEN: u64 = 10_000;
const NOW: Millis = 1_700_000_000_000;

/// As nginx's source has it: signed, and with a node's `excess` and `last`. Its clock is never set.
fn nginx(excess: i64, last: u64, rate: i64, now: u64) -> i64 {
    let ms = match now as i64 - last as i64 {
        ms if ms < -MENDED => 1,
        ms => ms.max(0),
    };
    (excess - rate * ms / 1000 + 1000).max(0)
}

impl Bucket {
    /// What hearing of a share with another bucket does.
    fn with_others(self, rate: u64, now: Millis, new: Option<News>, there: Bucket) -> Bucket {
        let share = |bucket| Share { bucket, ..Share::default() };
        share(self).hearing(&share(there), new, rate, now).0.bucket
    }
}

fn prompt(admitted: u32) -> Option<News> {
    Some(News { admitted, within: 10 })
}

fn late(admitted: u32) -> Option<News> {
    Some(News { admitted, within: 3_600_000 })
}

fn filled(excess: u32) -> Bucket {
    Bucket { excess, last: NOW as u32 }
}

proptest! {
    #[test]
    fn a_bucket_alone_is_nginxs_own(rate in 1u64..2_000_000, steps in prop::collection::vec(-2000i64..9000, 1..50)) {
        let (mut bucket, mut excess, mut last) = (Bucket::first(NOW), 0, NOW);
        let mut now = NOW;
        for step in steps {
            now = now.saturating_add_signed(step);
            excess = nginx(excess, last, rate as i64, now);
            last = if now as i64 - (last as i64) > 0 || (now as i64 - last as i64) < -MENDED { now } else { last };
            bucket = bucket.with_one(rate, now);
            prop_assert_eq!((i64::from(bucket.excess), bucket.last), (excess, last as u32));
        }
    }

    #[test]
    fn a_share_travels_as_it_is(begun: u32, admitted in 0..=Share::MOST, marks: (bool, bool, bool), word: u64) {
        let (mixed, taken, doubted) = marks;
        let share = Share { begun, admitted, mixed, taken, doubted, bucket: Bucket::from_word(word) };
        prop_assert_eq!(Share::from_bytes(&share.to_bytes()), Some(share));
        prop_assert_eq!(&share.to_bytes()[..Share::BUCKET], &share.counted().to_le_bytes());
        prop_assert_eq!(&share.to_bytes()[Share::BUCKET..], &word.to_le_bytes());
    }

    /// What others admit counts as if it had been admitted here.
    #[test]
    fn others_fill_it_as_own_requests_do(steps in prop::collection::vec((1u64..200, any::<bool>()), 1..100)) {
        let (mut all, mut split) = (Bucket::first(NOW), Bucket::first(NOW));
        let (mut now, full) = (NOW, Bucket { excess: 4000, last: 0 });
        for (step, own) in steps {
            now += step;
            all = all.with_one(TEN, now);
            split = if own { split.with_one(TEN, now) } else { split.with_others(TEN, now, prompt(1), full) };
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
    assert_eq!(bucket.with_others(TEN, later, prompt(3), filled(8000)).level(TEN, later), 3000);
    assert_eq!(bucket.with_others(TEN, later, prompt(0), filled(8000)), bucket);
}

#[test]
fn what_is_left_of_a_request_is_no_whole_one() {
    for (level, excess) in [(10, 10), (400, 400), (1000, 1000), (2500, 2500)] {
        let bucket = Bucket::holding(level, TEN, NOW).expect("a bucket");
        assert_eq!(bucket.level(TEN, NOW), level);
        assert_eq!(u64::from(bucket.with_one(TEN, NOW).excess), excess);
    }
    assert_eq!(Bucket::holding(0, TEN, NOW), None);
    assert!(Bucket::holding(1, 0, NOW).is_some());
}

#[test]
fn what_drains_in_less_than_a_unit_is_not_lost_to_news() {
    // One request a minute: some 60 ms for each thousandth.
    let rate = 1000 / 60;
    let mut bucket = Bucket::first(NOW);
    for millis in 1..=120_000 {
        let new = prompt(u32::from(millis % 60_000 == 0));
        bucket = bucket.with_others(rate, NOW + millis, new, filled(5000));
    }
    assert!(bucket.level(rate, NOW + 120_000) <= 1100, "{bucket:?}");
}

#[test]
fn what_was_admitted_over_a_long_time_counts_as_far_as_it_is_still_in_a_bucket() {
    let level = |bucket: Bucket, new| bucket.with_others(TEN, NOW, new, filled(4000)).level(TEN, NOW);
    // It may have come at once: then there are five in that bucket, and those are new.
    assert_eq!(level(filled(0), late(3)), 1000 + 3000);
    assert_eq!(level(filled(0), late(6)), 1000 + 5000);
    // It can't: the fuller one.
    assert_eq!(level(filled(0), late(7)), 5000);
    assert_eq!(level(filled(6000), late(6000)), 7000);
    assert_eq!(level(filled(6000), prompt(6000)), 7000, "whoever says that within so short a time");
    assert_eq!(level(filled(0), None), 5000);
    assert_eq!(level(filled(6000), None), 7000);
}

#[test]
fn what_ran_out_while_this_one_was_empty_is_not_added() {
    // Nine, of which the other's bucket holds but one any more; this one was empty for 500 ms.
    let bucket = filled(0).with_others(TEN, NOW + 600, prompt(9), filled(0));
    assert_eq!(bucket.level(TEN, NOW + 600), 4000);
    let bucket = filled(0).with_others(TEN, NOW + 6000, prompt(9), filled(0));
    assert_eq!(bucket.level(TEN, NOW + 6000), 1000);
}

#[test]
fn a_clock_that_was_set_back_goes_on_from_there() {
    let bucket = Bucket { excess: 3000, last: (NOW + 5000) as u32 };
    assert_eq!(bucket.mended(NOW + 4500), None);
    let mended = bucket.mended(NOW).expect("it was set back");
    assert_eq!(mended.level(TEN, NOW + 300), 1000);
    assert_eq!(bucket.with_others(TEN, NOW, prompt(0), filled(0)), mended);
}

#[test]
fn what_is_new_is_what_began_or_was_counted_since() {
    let share = |begun: i64, admitted| Share {
        begun: NOW.saturating_add_signed(begun) as u32,
        admitted,
        bucket: Bucket { excess: 0, last: (NOW + 20) as u32 },
        ..Share::default()
    };
    let own = share(0, 9);
    let new = |there: Share, known: Option<Share>| {
        there.since(known.as_ref(), &own, 0, NOW + 100).map(|news| (news.admitted, news.within))
    };
    assert_eq!(new(share(-7, 12), Some(share(-7, 10))), Some((2, 0)));
    assert_eq!(new(share(-7, 1), Some(share(-7, Share::MOST))), Some((2, 0)));
    assert_eq!(new(share(8, 3), Some(share(-7, 10))), Some((3, 12)));
    assert_eq!(new(share(0, 3), None), Some((3, 20)));
    assert_eq!(new(share(-1500, 3), None).map(|new| new.0), Some(3), "at the same time");
    assert_eq!(new(share(-1501, 3), None), None, "what it admitted may be here already");
    assert_eq!(new(share(-1501, 3), Some(share(-7000, 10))), None);
    // By a clock that is ahead.
    assert_eq!(new(share(500, 3), None).map(|new| new.0), Some(3));
    // Something that came later was forgotten here.
    assert_eq!(share(8, 3).since(None, &own, NOW + 8, NOW + 100), None);
    assert!(share(8, 3).since(None, &own, NOW + 7, NOW + 100).is_some());
    assert_eq!(Share::from_bytes(&[0; 15]), None);
    assert_eq!(Share::from_bytes(&[0; 17]), None);
}

#[test]
fn who_took_a_mixed_bucket_knows_nothing_of_what_third_nodes_tell_next() {
    let told = |admitted| Share { begun: NOW as u32, admitted, bucket: filled(0), ..Share::default() };
    let new = |there: Share, known: Option<Share>, own: Share| {
        there.since(known.as_ref(), &own, 0, NOW + 100).map(|news| news.admitted)
    };
    for (doubted, taken, expected) in [(false, true, Some(2)), (true, false, Some(2)), (true, true, None)] {
        let own = Share { taken, ..told(1) };
        assert_eq!(new(told(5), Some(Share { doubted, ..told(3) }), own), expected, "{doubted} {taken}");
        assert_eq!(new(told(5), None, own), Some(5).filter(|_| !taken));
    }
}

#[test]
fn a_bucket_says_whose_requests_are_in_it() {
    let marks = |share: Share| (share.mixed, share.taken);
    let alone = Share::first(None, TEN, NOW, NOW);
    assert_eq!((marks(alone), alone.admitted), ((false, false), 1));
    assert_eq!(marks(alone.with_one(TEN, NOW)), (false, false));
    // Who begins with what one admitted alone knows how many those are.
    let second = Share::first(Some(&alone), TEN, NOW, NOW);
    assert_eq!((marks(second), second.bucket.level(TEN, NOW)), ((true, false), 2000));
    let third = Share::first(Some(&second), TEN, NOW, NOW);
    assert_eq!((marks(third), third.bucket.level(TEN, NOW)), ((true, true), 3000));
    // What has run empty is nobody's.
    let later = NOW + 1000;
    assert_eq!(marks(Share::first(Some(&third), TEN, later, later)), (false, false));
    assert_eq!(marks(third.with_one(TEN, NOW + 250)), (true, true));
    assert_eq!(marks(third.with_one(TEN, later)), (false, false));
    // To hear of others' mixes, unless it is nothing new.
    assert_eq!(marks(alone.hearing(&second, prompt(0), TEN, NOW).0), (false, false));
    assert_eq!(marks(alone.hearing(&second, prompt(1), TEN, NOW).0), (true, false));
    // The fuller one is taken as a whole.
    let hearing = |there: &Share| third.hearing(there, None, TEN, NOW);
    assert_eq!(hearing(&second), (third, false), "it isn't");
    let fuller = |mixed| Share { mixed, bucket: filled(9000), ..alone };
    for mixed in [false, true] {
        let (share, took) = hearing(&fuller(mixed));
        assert_eq!((marks(share), took), ((true, true), mixed));
        assert_eq!((share.admitted, share.bucket.level(TEN, NOW)), (third.admitted, 10_000));
        assert_eq!(marks(alone.hearing(&fuller(mixed), None, TEN, NOW).0), (true, mixed));
    }
}

#[test]
fn what_nobody_else_holds_is_told_anew() {
    let told = filled(10_000).ends(TEN, NOW);
    assert!(filled(21_000).is_untold(TEN, NOW, told, filled(10_000)));
    assert!(!filled(21_000).is_untold(TEN, NOW, told, filled(20_000)), "the other tells it");
    assert!(!filled(19_000).is_untold(TEN, NOW, told, filled(10_000)));
    // At one request a minute, what drains in half a minute is enough.
    let told = filled(10_000).ends(16, NOW);
    assert!(filled(12_000).is_untold(16, NOW, told, filled(10_000)));
    assert!(
        filled(11_000).is_untold(16, NOW, told, filled(10_000)),
        "each of two admitted one that the other didn't know"
    );
    assert!(!filled(10_400).is_untold(16, NOW, told, filled(10_000)), "clocks, and what drained on the way");
}

#[test]
fn an_end_comes_a_minute_after_it_is_empty() {
    let bucket = Bucket { excess: 9000, last: NOW as u32 };
    assert_eq!(bucket.ends(TEN, NOW), NOW + 1000 + KEEP);
    assert_eq!(bucket.ends(TEN, NOW + 5000), NOW + 5000 + KEEP);
    assert_eq!(Bucket { excess: u32::MAX, last: NOW as u32 }.ends(1, NOW), NOW + LONGEST);
    assert_eq!(Bucket { excess: u32::MAX, last: NOW as u32 }.ends(0, NOW), NOW + LONGEST);
}
