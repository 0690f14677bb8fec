//! The table of origins: a mesh has more nodes than a small zone has entries to begin with, and each start of nginx is another.

use super::check::check;
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::{Applied, Condition, Life};

/// As different as those of real nodes.
fn node(n: u16) -> Identity {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Identity(bytes)
}

/// A record of one of these nodes, with a key of its own.
fn write_of(zone: &Zone, n: u16) -> Applied {
    let version = Version { stamp: Stamp::at(START + u64::from(n)), origin: node(n) };
    let key = n.to_be_bytes();
    let record =
        Record { kind: Kind::Register, version, key: &key, value: Some(b"v"), expires: None, shortened: false };
    zone.apply(&record, START + 1000, 60_000).expect("applied")
}

#[test]
fn zones_of_every_size_note_as_many_nodes_as_they_serve() {
    // What docs/operations.md says, of zones as nginx gives them: it keeps a part for itself.
    for (size, incarnations) in [(32 << 10, 65), (64 << 10, 125), (128 << 10, 270), (256 << 10, 600), (512 << 10, 1000)]
    {
        let zone = Fixture::new(size - 4096, None, true);
        for n in 0..incarnations {
            assert!(zone.admits(node(n), START));
            assert_eq!(write_of(&zone, n), Applied::Newer, "{size} bytes, node {n}");
            assert!(zone.advance(node(n), Stamp::at(START + 1000)));
        }
        let stats = zone.stats();
        assert_eq!((stats.incomplete, stats.origins), (0, u64::from(incarnations) + 1), "{size} bytes");
        assert_eq!(zone.positions().len(), usize::from(incarnations) + 1);
        // What is noted is there for who takes the zone up, also its own entry if that is one of the last.
        let params = Params { sync: true, ..Params::new(node(incarnations)) };
        let again = Zone::attach(zone.region, &params).expect("the zone");
        assert!(again.params().node == node(incarnations));
        let again = Zone::attach(zone.region, &params).expect("the zone once more");
        for n in 0..incarnations {
            let mut value = Vec::new();
            let found = again.get(&n.to_be_bytes(), START, &mut value).expect("a look-up").expect("the record");
            assert_eq!(again.version(&found).origin, node(n));
            assert_eq!(again.position(node(n)), Stamp::at(START + 1000));
        }
        check(&zone);
    }
}

#[test]
fn a_table_that_cannot_grow_any_more_leaves_out_and_says_so() {
    let zone = Fixture::new(32 << 10, None, true);
    let full = (0..1000).find(|n| write_of(&zone, *n) == Applied::Full).expect("an end");
    assert!(full > 63, "{full} nodes");
    let stats = zone.stats();
    assert_eq!((stats.origins, stats.origins_room, stats.incomplete), (u64::from(full) + 1, 0, 1));
    assert!(!zone.admits(node(full), 0) && zone.is_lacking());
    assert!((0..full).all(|n| value(&zone, &n.to_be_bytes(), START).is_some()), "nobody gives way who has records");
    // When one of them has none any more, its entry goes to another.
    zone.set(&0_u16.to_be_bytes(), b"ours", Life::Default, Condition::Always, START + 2000).expect("room");
    assert_eq!(write_of(&zone, full), Applied::Newer);
    check(&zone);
}

#[test]
fn who_makes_up_origins_gets_an_eighth_of_the_zone() {
    let zone = Fixture::new(64 << 10, None, true);
    let free = zone.stats().pages_free;
    (0..5000).for_each(|n| _ = zone.admits(node(n), START) && zone.advance(node(n), Stamp(9)));
    let stats = zone.stats();
    assert!(stats.pages_free >= free * 7 / 8 && stats.origins_room == 0, "{free}, now {stats:?}");
    check(&zone);
}
