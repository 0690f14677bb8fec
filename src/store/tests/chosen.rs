//! Keys that somebody chose so that they meet in one chain.

use std::collections::HashSet;

use super::*;
use crate::store::{Condition, Life};

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
