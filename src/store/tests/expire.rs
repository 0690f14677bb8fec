//! Ends in time order.

use super::check::check;
use super::*;
use crate::store::{Condition, Life};

#[test]
fn records_end_in_time_and_upkeep_takes_them_away() {
    for sync in [false, true] {
        let zone = Fixture::new(1 << 20, Some(5_000), sync);
        zone.upkeep(START, 100);
        // From the next tick to years ahead, so that every level of the wheel is used.
        let lives: Vec<Millis> =
            (0..600).map(|n: u64| (n * n * n * 171) % 400_000_000_000 / (1 + n % 7 * 5000) + 1).collect();
        for (n, life) in lives.iter().enumerate() {
            zone.set(&n.to_be_bytes(), b"v", Life::For(*life), Condition::Always, START).expect("room");
        }
        let mut ends: Vec<Millis> = lives.iter().map(|life| START + life).collect();
        ends.sort_unstable();
        for (n, end) in ends.iter().enumerate().step_by(37) {
            while zone.upkeep(*end - 1, 50) == 50 {}
            let before = ends.iter().filter(|e| **e < *end).count();
            assert_eq!(listing(&zone, *end - 1).len(), ends.len() - before, "just before end {n}");
            assert!(zone.stats().records >= (ends.len() - before) as u64);
            while zone.upkeep(*end + 100, 50) == 50 {}
            let left = ends.iter().filter(|e| **e > *end + 100).count() as u64;
            assert!(zone.stats().records <= left + 2, "within 100 ms: {} of {left}", zone.stats().records);
            check(&zone);
        }
        let last = ends.last().expect("ends") + 8_000_000;
        while zone.upkeep(last, 1000) == 1000 {}
        while zone.upkeep(last + 8_000_000, 1000) == 1000 {}
        assert_eq!((zone.stats().records, zone.stats().tombstones), (0, 0));
        assert_eq!(zone.stats().expired, 600);
        check(&zone);
    }
}

#[test]
fn a_clock_that_goes_back_and_forth_harms_nothing() {
    let zone = Fixture::new(256 << 10, Some(1_000), true);
    for n in 0..500u64 {
        let now = START + (n * 7919 % 10_000) * 100;
        zone.set(&(n % 50).to_be_bytes(), b"v", Life::Default, Condition::Always, now).expect("room");
        zone.upkeep(now, 10);
        check(&zone);
    }
}

#[test]
fn what_ends_goes_while_the_clock_is_behind_where_it_was() {
    const HOUR: Millis = 3_600_000;
    for size in [64 << 10, 4 << 20] {
        let zone = Fixture::new(size, Some(1_000), false);
        let set = |n: u64, now| zone.set(&n.to_be_bytes(), b"v", Life::Default, Condition::Always, now).expect("room");
        (0..100).for_each(|n| _ = set(n, START + HOUR));
        while zone.upkeep(START + HOUR + 2_000, 100) > 0 {}
        // Set back by an hour.
        (0..100).for_each(|n| _ = set(n, START));
        zone.set(b"for ever", b"v", Life::For(10 * HOUR), Condition::Always, START).expect("room");
        check(&zone);
        let sweep = |now| {
            for turns in 0.. {
                assert!(turns < 1_000, "it comes to an end");
                let done = zone.upkeep(now, 7);
                check(&zone);
                if done < 7 {
                    return;
                }
            }
        };
        sweep(START + 500);
        assert_eq!(zone.stats().records, 101, "nothing goes early");
        sweep(START + 40_000);
        assert_eq!(zone.stats().records, 1);
        (0..100).for_each(|n| _ = set(n, START + 40_000));
        sweep(START + 80_000);
        assert_eq!(zone.stats().records, 1, "time and again");
        assert_eq!(zone.upkeep(START + 80_100, 100), 0, "and not all the time");
        // The clock catches up.
        set(1, START + HOUR + 1_900);
        sweep(START + HOUR + 10_000);
        sweep(START + 11 * HOUR);
        assert_eq!(zone.stats().records, 0);
    }
}
