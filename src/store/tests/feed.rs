//! The change feed and its walkers.

use super::check::check;
use super::*;
use crate::store::{Condition, Cursor, FeedEnd, Life};

fn drain(zone: &Zone, cursor: &mut Cursor) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for shard in 0..64 {
        if zone.all_shards() & 1 << shard == 0 {
            break;
        }
        loop {
            let end = zone.feed(cursor, shard, &mut |record| {
                keys.push(record.key.to_vec());
                true
            });
            match end.expect("the lock") {
                FeedEnd::Drained => break,
                FeedEnd::More => {}
                other => panic!("{other:?}"),
            }
        }
    }
    keys.sort();
    keys
}

#[test]
fn a_walker_meets_every_change_once_and_a_hot_key_once() {
    let zone = Fixture::new(1 << 20, None, true);
    let set = |n: u32| zone.set(&n.to_be_bytes(), b"v", Life::Default, Condition::Always, START).expect("room");
    for n in 0..1000 {
        set(n);
    }
    let mut one = zone.feed_open(1).expect("a walker");
    assert_eq!(drain(&zone, &mut one).len(), 1000);
    let mut two = zone.feed_open(1).expect("a walker");
    for _ in 0..500 {
        set(7);
    }
    zone.delete(&9u32.to_be_bytes(), START).expect("deleted");
    assert_eq!(drain(&zone, &mut one), [7u32.to_be_bytes(), 9u32.to_be_bytes()]);
    assert_eq!(drain(&zone, &mut one), Vec::<Vec<u8>>::new());
    assert_eq!(drain(&zone, &mut two).len(), 1000);
    check(&zone);
    zone.feed_close(one);
    zone.feed_sweep(2);
    check(&zone);
    let many: Vec<_> = std::iter::from_fn(|| zone.feed_open(2)).collect();
    assert_eq!(many.len(), 256);
}

#[test]
fn a_walk_stops_before_what_is_refused() {
    let zone = Fixture::new(32 << 10, None, true);
    for n in 0..10u32 {
        zone.set(&n.to_be_bytes(), b"v", Life::Default, Condition::Always, START).expect("room");
    }
    let mut cursor = zone.feed_open(1).expect("a walker");
    let mut seen = Vec::new();
    for _ in 0..20 {
        let mut offered = 0;
        zone.feed(&mut cursor, 0, &mut |record| {
            offered += 1;
            if offered == 1 {
                seen.push(record.key.to_vec());
            }
            offered == 1
        })
        .expect("the lock");
    }
    assert_eq!(seen, (0..10u32).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn what_is_written_after_closing_is_later_than_what_is_closed() {
    let zone = Fixture::new(1 << 20, None, true);
    for n in 0..100u32 {
        let (closed, _) = zone.close(START);
        let crate::store::Written::Done(version) =
            zone.set(&n.to_be_bytes(), b"v", Life::Default, Condition::Always, START).expect("room")
        else {
            panic!("not written")
        };
        assert!(version.stamp > closed);
        assert!(zone.close(START).0 >= version.stamp);
    }
}
