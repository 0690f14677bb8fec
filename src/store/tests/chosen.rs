//! Keys that somebody chose so that they meet in one chain.

use std::collections::HashSet;

use super::*;
use crate::store::{Condition, Life, Matching, StoreError};

/// How many different buckets these keys fall in.
fn buckets(zone: &Zone, keys: &[[u8; 8]]) -> usize {
    let places: HashSet<_> = keys
        .iter()
        .map(|key| {
            let place = zone.place(key);
            (place.shard, place.bucket)
        })
        .collect();
    places.len()
}

/// Who knows a zone's seed can pile keys up in one chain; each zone draws one of its own, so that these keys are spread
/// over any other zone like all keys.
#[test]
fn keys_chosen_for_one_seed_are_spread_in_a_zone_of_another() {
    let memory = || Region::anonymous(1 << 20).expect("memory");
    let params = Params::new(Identity([1; 16]));
    let known_memory = memory();
    let known = Zone::create_with(known_memory.region(), &params, [9; 16]).expect("a zone");
    let first = known.place(&0u64.to_be_bytes());
    let same = |key: &[u8; 8]| {
        let place = known.place(key);
        (place.shard, place.bucket) == (first.shard, first.bucket)
    };
    let chosen: Vec<[u8; 8]> = (0..10_000_000u64).map(u64::to_be_bytes).filter(same).take(200).collect();
    assert_eq!((chosen.len(), buckets(&known, &chosen)), (200, 1), "the attack works where the seed is known");

    let others: Vec<_> = (0..8).map(|_| memory()).collect();
    for other in &others {
        let zone = Zone::create(other.region(), &params).expect("a zone");
        // Thrown at random into some 900 buckets, 200 keys take 180 of them; a piled-up zone has one.
        assert!(buckets(&zone, &chosen) > 120, "{}", buckets(&zone, &chosen));
        for key in &chosen {
            zone.set(key, b"v", Life::Default, Condition::Always, START).expect("room");
        }
        assert_eq!(zone.stats().records, 200);
    }
}

/// Host bits of a network don't count, so that nobody needs a seed to make keys of one place: their number is bounded.
#[test]
fn spellings_of_one_network_are_bounded() {
    let zone = Fixture::with(1 << 20, Params { matching: Matching::Ip, ..Params::new(identity(1)) });
    let set = |n: u32| {
        let key = format!("10.{}.{}.{}/8", n >> 16, n >> 8 & 255, n & 255).into_bytes();
        zone.set(&key, &n.to_le_bytes(), Life::Default, Condition::Always, START + u64::from(n))
    };
    assert_eq!((0..50_000).filter(|n| set(*n).is_ok()).count(), 64);
    assert_eq!(set(50_000), Err(StoreError::Spellings));
    // What is there can be changed and deleted, and answers.
    set(7).expect("changed");
    let mut found = Vec::new();
    zone.look_up(b"10.1.2.3", START, &mut found).expect("a look-up").expect("a record");
    assert_eq!(found, 7_u32.to_le_bytes(), "the one written last");
    zone.delete(b"10.0.0.7/8", START + 50_000).expect("deleted");
    set(50_001).expect("room again");
    zone.set(b"11.0.0.1/8", b"v", Life::Default, Condition::Always, START).expect("another network");
}
