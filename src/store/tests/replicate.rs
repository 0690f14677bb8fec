//! Merging: whatever the order of arrival, zones that were given the same records hold the same.

use std::sync::Barrier;

use proptest::prelude::*;

use super::check::check;
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::layout::header;
use crate::store::{Applied, StoreError, lock};

const DRIFT: Millis = 60_000;

fn record<'a>(key: &'a [u8], value: Option<&'a [u8]>, stamp: u64, node: u8) -> Record<'a> {
    let version = Version { stamp: Stamp(Stamp::at(START).0 + stamp), origin: identity(node) };
    Record { kind: Kind::Register, version, key, value, expires: None, shortened: false }
}

#[test]
fn newer_wins_and_deletes_hold_against_older_values() {
    let zone = Fixture::new(64 << 10, None, true);
    let apply = |record| zone.apply(&record, START, DRIFT).expect("applied");
    assert_eq!(apply(record(b"k", Some(b"b"), 2, 7)), Applied::Newer);
    assert_eq!(apply(record(b"k", Some(b"a"), 1, 7)), Applied::Stale);
    assert_eq!(apply(record(b"k", Some(b"b"), 2, 7)), Applied::Stale);
    assert_eq!(apply(record(b"k", None, 3, 8)), Applied::Newer);
    assert_eq!(value(&zone, b"k", START), None);
    assert_eq!(apply(record(b"k", Some(b"c"), 2, 9)), Applied::Stale);
    assert_eq!(apply(record(b"k", Some(b"c"), 3, 9)), Applied::Newer, "the greater identity wins a tie");
    let future = Record {
        version: Version { stamp: Stamp::at(START + DRIFT + 1), origin: identity(9) },
        ..record(b"f", Some(b""), 0, 9)
    };
    assert_eq!(apply(future), Applied::Future);
    assert_eq!(zone.stats().future, 1);
    check(&zone);
}

#[test]
fn a_table_of_origins_that_is_busy_is_not_a_lack_of_room() {
    let zone = Fixture::new(64 << 10, None, true);
    let (has, release) = (Barrier::new(2), Barrier::new(2));
    let region = zone.region;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let word = region.word64(header::ORIGINS_LOCK).expect("a word");
            lock::lock(word).expect("the lock");
            has.wait();
            release.wait();
            lock::unlock(word);
        });
        has.wait();
        assert_eq!(zone.apply(&record(b"k", Some(b"v"), 1, 7), START, DRIFT), Err(StoreError::Busy));
        release.wait();
    });
    assert_eq!((zone.stats().incomplete, zone.is_lacking()), (0, false));
    assert_eq!(zone.apply(&record(b"k", Some(b"v"), 1, 7), START, DRIFT), Ok(Applied::Newer));
}

#[test]
fn a_write_comes_after_what_it_replaces_even_by_a_slow_clock() {
    let zone = Fixture::new(64 << 10, None, true);
    zone.apply(&record(b"k", Some(b"theirs"), 5000 << 16, 7), START, DRIFT).expect("applied");
    zone.set(b"k", b"ours", crate::store::Life::Default, crate::store::Condition::Always, START).expect("room");
    let mut cursor = zone.feed_open(1).expect("a walker");
    let mut last = None;
    zone.feed(&mut cursor, 0, &mut |record| {
        last = Some((record.version, record.value.map(<[u8]>::to_vec)));
        true
    })
    .expect("the lock");
    let (version, value) = last.expect("a record");
    assert_eq!(value.as_deref(), Some(&b"ours"[..]));
    assert!(version.stamp > Stamp(Stamp::at(START).0 + (5000 << 16)));
}

#[test]
fn positions_only_rise_and_old_origins_make_way() {
    let zone = Fixture::new(32 << 10, None, true);
    assert!(zone.advance(identity(7), Stamp(9)));
    assert!(zone.advance(identity(7), Stamp(5)));
    assert_eq!(zone.position(identity(7)), Stamp(9));
    let mut id = [0u8; 16];
    for n in 0..1000u32 {
        id[..4].copy_from_slice(&n.to_be_bytes());
        assert!(zone.advance(Identity(id), Stamp(u64::from(n) + 10)));
        zone.find_idle_origins(START + u64::from(n) * 60_000, 1_000);
    }
    assert_eq!(zone.position(Identity(id)), Stamp(1009));
    check(&zone);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        writes in prop::collection::vec((0..6u8, prop::option::of(0..4u8), 0..30u64, 2..6u8), 1..40),
        order in any::<u64>(),
    ) {
        let zones = [Fixture::of(1, 64 << 10, None, true), Fixture::of(9, 64 << 10, None, true)];
        let mut shuffled = writes.clone();
        shuffled.sort_by_key(|write| order.wrapping_mul(write.2 + 1) ^ u64::from(write.0));
        for (zone, writes) in zones.iter().zip([&writes, &shuffled]) {
            for (key, value, stamp, node) in writes {
                let value = value.map(|v| [v; 3]);
                let value = value.as_ref().map(<[u8; 3]>::as_slice);
                zone.apply(&record(&[*key], value, *stamp, *node), START, DRIFT).expect("applied");
            }
            check(zone);
        }
        prop_assert_eq!(listing(&zones[0], START), listing(&zones[1], START));
    }
}
