//! Single operations, sizes and limits.

use super::check::check;
use super::*;
use crate::store::{AttachError, Condition, Life, MAX_KEY, MAX_VALUE, StoreError, Written};

#[test]
fn what_was_set_is_found_until_it_is_deleted() {
    let zone = Fixture::new(32 << 10, None, false);
    assert_eq!(value(&zone, b"k", START), None);
    assert!(matches!(zone.set(b"k", b"v", Life::Default, Condition::Always, START), Ok(Written::Done(_))));
    assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"v"[..]));
    assert_eq!(zone.set(b"k", b"w", Life::Default, Condition::Absent, START), Ok(Written::Unmet));
    assert_eq!(zone.set(b"l", b"w", Life::Default, Condition::Present, START), Ok(Written::Unmet));
    assert!(matches!(zone.delete(b"k", START), Ok(Written::Done(_))));
    assert_eq!(zone.delete(b"k", START), Ok(Written::Unmet));
    assert_eq!(value(&zone, b"k", START), None);
    check(&zone);
}

#[test]
fn every_size_up_to_the_limits_survives_byte_for_byte() {
    let zone = Fixture::new(8 << 20, None, true);
    let bytes: Vec<u8> = (0..MAX_VALUE).map(|i| (i * 31 % 251) as u8).collect();
    for key_len in [1, 2, 100, 1000, 4055, 4056, 4057, 10_000, MAX_KEY] {
        for value_len in [0, 1, 7, 8, 9, 950, 3000, 4055, 5000, 100_000, MAX_VALUE] {
            let (key, value_) = (&bytes[1..=key_len], &bytes[..value_len]);
            zone.set(key, value_, Life::Default, Condition::Always, START).expect("room");
            assert_eq!(value(&zone, key, START).as_deref(), Some(value_), "key of {key_len}, value of {value_len}");
            check(&zone);
            zone.delete(key, START).expect("deleted");
        }
    }
    assert_eq!(zone.set(&bytes[..MAX_KEY + 1], b"", Life::Default, Condition::Always, START), Err(StoreError::BadKey));
    assert_eq!(zone.set(b"", b"", Life::Default, Condition::Always, START), Err(StoreError::BadKey));
    let long = vec![0; MAX_VALUE + 1];
    assert_eq!(zone.set(b"k", &long, Life::Default, Condition::Always, START), Err(StoreError::BadValue));
}

#[test]
fn a_full_zone_refuses_new_keys_keeps_what_it_has_updates_and_deletes() {
    for size in [32 << 10, 100 << 10, 1 << 20, 4 << 20] {
        for sync in [false, true] {
            let zone = Fixture::new(size, None, sync);
            let key = |n: u32| format!("key {n:012}").into_bytes();
            let mut count = 0;
            while zone.set(&key(count), &[7; 100], Life::Default, Condition::Absent, START).is_ok() {
                count += 1;
            }
            assert!(count > 50, "{size} bytes hold {count}");
            assert_eq!(zone.stats().refused, 1);
            assert_eq!(listing(&zone, START).len(), count as usize);
            for n in 0..count {
                let written = zone.set(&key(n), &[8; 100], Life::Default, Condition::Present, START);
                assert!(matches!(written, Ok(Written::Done(_))), "update {n} of {count}: {written:?}");
            }
            check(&zone);
            for n in 0..count {
                assert!(matches!(zone.delete(&key(n), START), Ok(Written::Done(_))), "delete {n}");
            }
            assert_eq!(listing(&zone, START), []);
            check(&zone);
            // Tombstones make room for records.
            for n in 0..count / 2 {
                zone.set(&key(n + count), &[9; 100], Life::Default, Condition::Absent, START).expect("room again");
            }
            check(&zone);
        }
    }
}

#[test]
fn updates_of_the_same_size_fit_into_a_full_zone_of_many_shards_and_few_blocks_a_page() {
    for size in [600 << 10, 3 << 20, 9 << 20] {
        for lens in [&[1_400][..], &[1_000, 1_400, 700, 600], &[1_400, 40], &[300, 3_000, 9_000, 1_400]] {
            let zone = Fixture::new(size, None, true);
            let key = |n: usize| format!("key {n:012}").into_bytes();
            let len = |n: usize| lens[n % lens.len()];
            let (mut held, mut refused, mut n) = (Vec::new(), 0, 0);
            // Until no shard takes any of these sizes.
            while refused < 400 {
                match zone.set(&key(n), &vec![7; len(n)], Life::Default, Condition::Absent, START) {
                    Ok(_) => (refused, _) = (0, held.push(n)),
                    Err(_) => refused += 1,
                }
                n += 1;
            }
            for round in 0..3 {
                for n in &held {
                    let value = vec![round; len(*n)];
                    let written = zone.set(&key(*n), &value, Life::Default, Condition::Present, START);
                    assert!(matches!(written, Ok(Written::Done(_))), "{size}, {lens:?}: update {n}: {written:?}");
                }
                // Updates of other sizes may be refused, and must not use up what those of the same need.
                for n in held.iter().step_by(3) {
                    let value = vec![round; len(*n) * 3 / 2];
                    if zone.set(&key(*n), &value, Life::Default, Condition::Present, START).is_ok() {
                        let value = vec![round; len(*n)];
                        let _ = zone.set(&key(*n), &value, Life::Default, Condition::Present, START);
                    }
                }
                held.retain(|n| value(&zone, &key(*n), START).is_some_and(|value| value.len() == len(*n)));
            }
            check(&zone);
        }
    }
}

#[test]
fn emptying_removes_everything_and_later_writes_stay() {
    for sync in [false, true] {
        let zone = Fixture::new(1 << 20, None, sync);
        for n in 0..3000u32 {
            zone.set(&n.to_be_bytes(), b"v", Life::Default, Condition::Always, START).expect("room");
        }
        zone.clear(START).expect("cleared");
        assert_eq!(zone.is_empty(START), Ok(true));
        // The clock stands still: the write must come after the emptying all the same.
        zone.set(b"new", b"v", Life::Default, Condition::Always, START).expect("room");
        assert_eq!(listing(&zone, START).len(), 1);
        while zone.upkeep(START, 1000) == 1000 {}
        assert_eq!(zone.stats().records, 1);
        check(&zone);
    }
}

#[test]
fn a_region_of_something_else_is_refused() {
    let mapping = Region::anonymous(64 << 10).expect("memory");
    let params = Params::new(identity(1));
    assert!(matches!(Zone::attach(mapping.region(), &params), Err(AttachError::Foreign(_))));
    Zone::create(mapping.region(), &params).expect("a zone");
    let again = Zone::attach(mapping.region(), &Params { timeout: Some(5), sync: true, ..params }).expect("attached");
    assert_eq!(again.params().timeout, Some(5));
    assert!(again.params().sync);
    let small = Region::anonymous(16 << 10).expect("memory");
    assert!(matches!(Zone::create(small.region(), &params), Err(AttachError::TooSmall(_))));
}

#[test]
fn records_of_many_blocks_can_be_updated_in_a_full_zone() {
    for len in [900, 5_000, 20_000] {
        let zone = Fixture::new(512 << 10, None, true);
        let key = |n: u32| format!("key {n:012}").into_bytes();
        let mut count = 0;
        while zone.set(&key(count), &vec![7; len], Life::Default, Condition::Absent, START).is_ok() {
            count += 1;
        }
        assert!(count >= 8, "{count} records of {len} bytes");
        for n in (0..count).chain(0..count) {
            let written = zone.set(&key(n), &vec![8; len], Life::Default, Condition::Present, START);
            assert!(matches!(written, Ok(Written::Done(_))), "update {n} of {count} of {len} bytes: {written:?}");
        }
        check(&zone);
    }
}

#[test]
fn a_damaged_header_is_refused_and_damage_elsewhere_harms_nobody() {
    use std::sync::atomic::Ordering::Relaxed;
    let params = Params::new(identity(1));
    for word in 0..3 {
        let mapping = Region::anonymous(64 << 10).expect("memory");
        let region = mapping.region();
        Zone::create(region, &params).expect("a zone");
        region.store64(word * 8, region.load64(word * 8, Relaxed) ^ 1 << 3, Relaxed);
        assert!(matches!(Zone::attach(region, &params), Err(AttachError::Foreign(_))), "word {word}");
    }
    // Nonsense in everything but the header: answers may be wrong, but nothing is touched outside, and nothing panics.
    for seed in 1..40u64 {
        let zone = Fixture::new(64 << 10, None, true);
        for n in 0..50u32 {
            zone.set(&n.to_be_bytes(), &[7; 50], Life::Default, Condition::Always, START).expect("room");
        }
        let mut x = seed;
        for at in (zone.geometry.bucket(0, 0)..zone.region.len() - 8).step_by(8) {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if x >> 60 == 0 {
                zone.region.store64(at, x.rotate_left(17), Relaxed);
            }
        }
        for n in 0..50u32 {
            let mut value = Vec::new();
            let _ = zone.get(&n.to_be_bytes(), START, &mut value);
        }
    }
}

#[test]
fn what_was_deleted_in_a_full_zone_makes_room_for_records_of_a_little_less() {
    for size in [64 << 10, 1 << 20] {
        let zone = Fixture::new(size, None, false);
        let key = |n: u32| format!("key {n:012}").into_bytes();
        let mut count = 0;
        while zone.set(&key(count), &[7; 100], Life::Default, Condition::Absent, START).is_ok() {
            count += 1;
        }
        // One of each shard's at least, but no shard's whole page.
        for n in 0..40 {
            zone.delete(&key(n), START).expect("deleted");
        }
        for less in [0, 4, 9, 17] {
            let set = |n| zone.set(&key(n), &[8; 100][less..], Life::Default, Condition::Absent, START);
            assert!((1000..1040).any(|n| set(n + 100 * less as u32).is_ok()), "{less} bytes less, in a zone of {size}");
        }
        check(&zone);
    }
}

#[test]
fn a_zone_above_1_gib_counts_in_larger_units_and_keeps_its_records() {
    let zone = Fixture::new((1 << 30) + (1 << 20), None, true);
    assert_eq!(zone.geometry.marker_len(), 16);
    let key = |n: usize| format!("key {n}").into_bytes();
    for round in 0..2 {
        for n in 0..300 {
            zone.set(&key(n), &vec![n as u8; n * (20 + round)], Life::Default, Condition::Always, START).expect("room");
        }
    }
    for n in 0..300 {
        assert_eq!(value(&zone, &key(n), START), Some(vec![n as u8; n * 21]), "record {n}");
    }
    check(&zone);
}
