//! Eviction: a full zone with `evict` takes what is written, and gives up what matters least.

use super::check::check;
use super::*;
use crate::store::{Condition, Life, Written};

fn zone_of(size: usize) -> Fixture {
    Fixture::with(size, Params { evict: true, ..Params::new(identity(1)) })
}

fn key(n: u32) -> Vec<u8> {
    format!("key {n:08}").into_bytes()
}

#[test]
fn a_full_zone_takes_every_write() {
    for size in [32 << 10, 256 << 10, 2 << 20] {
        let zone = zone_of(size);
        let count = (size / 50) as u32;
        for n in 0..count {
            let written = zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START);
            assert!(matches!(written, Ok(Written::Done(_))), "{n} of {count} in {size}: {written:?}");
            assert!(value(&zone, &key(n), START).is_some(), "the record that was written is there");
        }
        assert!(zone.stats().evicted > 0);
        assert_eq!(zone.stats().refused, 0);
        check(&zone);
    }
}

#[test]
fn what_is_looked_up_stays_longer_than_what_is_not() {
    let zone = zone_of(256 << 10);
    for n in 0..200 {
        zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START).expect("room");
    }
    for n in 1000..20_000 {
        zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START).expect("room");
        value(&zone, &key(n % 200), START);
    }
    let kept = (0..200).filter(|n| value(&zone, &key(*n), START).is_some()).count();
    assert!(kept > 150, "{kept} of 200 records in use are left");
}

#[test]
fn what_ends_soon_goes_first() {
    let zone = zone_of(64 << 10);
    for n in 0..100 {
        zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START).expect("room");
        zone.set(&key(n + 1000), &[1; 40], Life::For(60_000), Condition::Always, START).expect("room");
    }
    let mut n = 2000;
    while zone.stats().evicted < 100 {
        zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START).expect("room");
        n += 1;
    }
    assert_eq!((0..100).filter(|n| value(&zone, &key(*n), START).is_some()).count(), 100);
    assert!((1000..1100).filter(|n| value(&zone, &key(*n), START).is_some()).count() < 5);
}

#[test]
fn of_one_timeout_the_oldest_go_first() {
    // Whether the wheel has a slot for all of them that is a day wide, hours, minutes or seconds.
    for timeout in [86_400_000, 3_600_000, 825_000, 60_000] {
        let zone = Fixture::with(64 << 10, Params { evict: true, timeout: Some(timeout), ..Params::new(identity(1)) });
        let set = |n: u32| {
            let now = START + Millis::from(n);
            zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, now).expect("room");
        };
        let mut full = 0;
        while zone.stats().evicted == 0 {
            set(full);
            full += 1;
        }
        (full..4 * full).for_each(set);
        let kept = |from, to| (from..to).filter(|n| value(&zone, &key(*n), START + 20_000).is_some()).count();
        let half = full / 2;
        let (new, old) = (kept(4 * full - half, 4 * full), kept(0, 2 * full));
        assert!(new as u32 * 10 >= half * 9, "{timeout}: {new} of the last {half} are left");
        assert!(old < 10, "{timeout}: {old} of the first {} are left", 2 * full);
        check(&zone);
    }
}

#[test]
fn mixed_sizes_make_room_for_each_other() {
    mix(256 << 10);
}

#[test]
fn mixed_sizes_make_room_for_each_other_in_a_small_zone() {
    // The large ones keep a third of it free for their next version.
    mix(64 << 10);
}

fn mix(size: usize) {
    let zone = zone_of(size);
    let mut x = 7u64;
    for n in 0..20_000u32 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let len = [10, 40, 200, 900, 3000, 20_000][(x % 6) as usize];
        let key = key((x >> 8) as u32 % 500);
        let written = zone.set(&key, &vec![n as u8; len], Life::Default, Condition::Always, START);
        assert!(matches!(written, Ok(Written::Done(_))), "write {n} of {len} bytes: {written:?}");
        assert_eq!(value(&zone, &key, START).map(|value| value.len()), Some(len));
        if n % 500 == 0 {
            check(&zone);
        }
    }
}

#[test]
fn what_can_never_fit_costs_nobody_a_place() {
    let zone = zone_of(64 << 10);
    for n in 0..100 {
        zone.set(&key(n), &[1; 40], Life::Default, Condition::Always, START).expect("room");
    }
    let written = zone.set(b"large", &vec![1; 60_000], Life::Default, Condition::Always, START);
    assert_eq!(written, Err(crate::store::StoreError::NoMemory));
    assert_eq!(listing(&zone, START).len(), 100);
    assert_eq!(zone.stats().evicted, 0);
}

#[test]
fn a_zone_of_mixed_sizes_stays_well_filled() {
    for timeout in [None, Some(3_600_000)] {
        let value = |n: u32| vec![1; n as usize * 37 % 90];
        let refusing = Fixture::new(64 << 10, timeout, false);
        let evicting = Fixture::with(64 << 10, Params { evict: true, timeout, ..Params::new(identity(1)) });
        let mut fits = 0;
        for n in 0..5000 {
            fits += usize::from(refusing.set(&key(n), &value(n), Life::Default, Condition::Always, START).is_ok());
            evicting.set(&key(n), &value(n), Life::Default, Condition::Always, START).expect("room");
            let kept = listing(&evicting, START).len();
            assert!(kept * 4 >= fits * 3, "{kept} records after {n} writes; {fits} fit");
        }
    }
}

#[test]
fn a_page_that_a_size_keeps_for_itself_goes_to_who_needs_it() {
    let zone = zone_of(60 << 10);
    let set = |key: &[u8], len| zone.set(key, &vec![1; len], Life::Default, Condition::Always, START);
    for n in 0..1500 {
        set(&key(n), 100).expect("room");
    }
    for len in [20_000, 20_001, 3, 500, 20_000, 900, 200] {
        set(b"large", len).unwrap_or_else(|error| panic!("{len}: {error}"));
        for small in 1..40 {
            set(&[len as u8, small], small as usize * 20).unwrap_or_else(|error| panic!("{len}, {small}: {error}"));
        }
        check(&zone);
    }
    assert_eq!(zone.stats().refused, 0);
}
