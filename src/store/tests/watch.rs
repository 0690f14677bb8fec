//! What watchers rely on: nothing goes unseen from a zone that is watched, or it is noted.

use super::check::check;
use super::*;
use crate::store::{Condition, Cursor, FeedEnd, Life};

const MINUTE: Millis = 60_000;

fn set(zone: &Zone, key: &str, life: Life, now: Millis) {
    zone.set(key.as_bytes(), b"v", life, Condition::Always, now).expect("room");
}

/// All that a walker has before it: keys with `=` for a value, `-` for a delete, `~` for an end.
fn seen(zone: &Zone, cursor: &mut Cursor) -> Vec<String> {
    let mut seen = Vec::new();
    for shard in 0..zone.all_shards().count_ones() {
        let mut each = |change: &crate::store::Change<'_>| {
            let what = match (change.record.value, change.lapsed) {
                (Some(_), None) => '=',
                (None, None) => '-',
                (None, Some(_)) => '~',
                (Some(_), Some(_)) => panic!("there and gone"),
            };
            seen.push(format!("{}{what}", String::from_utf8_lossy(change.record.key)));
            true
        };
        while zone.watch_feed(cursor, shard, START, &mut each).expect("the lock") != FeedEnd::Drained {}
    }
    seen.sort();
    seen
}

fn forgotten(zone: &Zone) -> Millis {
    (0..zone.all_shards().count_ones()).map(|shard| zone.forgotten(shard)).max().expect("a shard")
}

#[test]
fn a_watched_zone_that_is_not_shared_remembers_what_went_and_how() {
    let zone = Fixture::new(1 << 20, Some(10 * MINUTE), false);
    zone.watch_until(START + 10 * MINUTE);
    let mut cursor = zone.feed_open_at_end(Zone::walker_owner()).expect("a walker");
    set(&zone, "kept", Life::Default, START);
    set(&zone, "deleted", Life::Default, START);
    set(&zone, "ended", Life::For(100), START);
    assert_eq!(seen(&zone, &mut cursor), ["deleted=", "ended=", "kept="]);
    zone.delete(b"deleted", START + 50).expect("deleted");
    zone.upkeep(START + 300, 100);
    assert_eq!(seen(&zone, &mut cursor), ["deleted-", "ended~"]);
    assert_eq!(seen(&zone, &mut cursor), Vec::<String>::new());
    assert_eq!(forgotten(&zone), 0);

    zone.upkeep(START + 300 + zone.remembered() + 100, 100);
    assert_eq!(zone.stats().tombstones, 0, "it doesn't remember for ever");
    assert_eq!(forgotten(&zone), START + 300, "and notes when the last went that it forgot");
    check(&zone);
}

#[test]
fn a_zone_that_is_not_watched_forgets_at_once() {
    let zone = Fixture::new(1 << 20, Some(10 * MINUTE), false);
    set(&zone, "deleted", Life::Default, START);
    set(&zone, "ended", Life::For(100), START);
    zone.delete(b"deleted", START + 50).expect("deleted");
    assert_eq!((zone.stats().tombstones, forgotten(&zone)), (0, START + 50));
    zone.upkeep(START + 300, 100);
    assert_eq!((zone.stats().tombstones, forgotten(&zone)), (0, START + 300));
    assert!(!zone.is_watched());

    zone.watch_until(START + MINUTE);
    zone.watch_until(START + 1);
    zone.upkeep(START + MINUTE, 100);
    assert!(zone.is_watched(), "an earlier end doesn't shorten the watch");
    zone.upkeep(START + MINUTE + 1, 100);
    assert!(!zone.is_watched(), "it ends by itself");
}

#[test]
fn a_watch_that_a_clock_ahead_asked_for_ends_soon() {
    let zone = Fixture::new(1 << 20, None, false);
    zone.watch_until(START + 24 * 60 * MINUTE);
    zone.upkeep(START, 100);
    assert!(zone.is_watched(), "who is there has time to say so");
    zone.upkeep(START + 16 * MINUTE, 100);
    assert!(!zone.is_watched());
    zone.watch_until(START + 24 * 60 * MINUTE);
    zone.upkeep(START, 100);
    zone.watch_until(START + 17 * MINUTE);
    zone.upkeep(START + 16 * MINUTE, 100);
    assert!(zone.is_watched(), "and keeps it up");
}

#[test]
fn changes_are_counted_while_somebody_watches() {
    let zone = Fixture::new(32 << 10, None, false);
    set(&zone, "a", Life::Default, START);
    assert_eq!(zone.changes_in(0), 0);
    zone.watch_until(START + MINUTE);
    let mut last = 0;
    let steps: [&dyn Fn(); 4] = [
        &|| set(&zone, "a", Life::Default, START),
        &|| _ = zone.touch(b"a", Life::For(9), START),
        &|| _ = zone.upkeep(START + 100, 10),
        &|| _ = zone.clear(START + 100),
    ];
    for step in steps {
        step();
        assert!(zone.changes_in(0) > last);
        last = zone.changes_in(0);
    }
}

#[test]
fn a_fork_goes_on_where_the_other_stands() {
    let zone = Fixture::new(1 << 20, None, false);
    zone.watch_until(START + MINUTE);
    (0..500).for_each(|n| set(&zone, &format!("old {n}"), Life::Default, START));
    let mut one = zone.feed_open_at_end(1).expect("a walker");
    let expected: Vec<String> = (0..9).map(|n| format!("new {n}=")).collect();
    (0..9).for_each(|n| set(&zone, &format!("new {n}"), Life::Default, START));
    let mut two = zone.feed_fork(&one, 1).expect("a walker");
    assert_eq!(seen(&zone, &mut one), expected);
    let mut three = zone.feed_fork(&one, 1).expect("a walker");
    assert_eq!(seen(&zone, &mut two), expected);
    set(&zone, "last", Life::Default, START);
    for cursor in [&mut one, &mut two, &mut three] {
        assert_eq!(seen(&zone, cursor), ["last="]);
    }
    check(&zone);
}

#[test]
fn a_walker_learns_that_it_missed_a_delete() {
    let zone = Fixture::new(32 << 10, None, false);
    zone.watch_until(START + MINUTE);
    let mut early = zone.feed_open_at_end(1).expect("a walker");
    (0..50).for_each(|n| set(&zone, &format!("key {n}"), Life::Default, START));
    (0..50).for_each(|n| _ = zone.delete(format!("key {n}").as_bytes(), START));
    let late = zone.feed_open_at_end(1).expect("a walker");
    assert_eq!((zone.take_missed(&early), zone.take_missed(&late)), (0, 0));
    let full = (0..5000).find(|n| {
        zone.stats().tombstones < 50 || {
            set(&zone, &format!("filling {n}"), Life::Default, START);
            false
        }
    });
    assert!(full.is_some(), "tombstones make room");
    assert_eq!((zone.take_missed(&early), zone.take_missed(&late)), (1, 0));
    assert_eq!(zone.take_missed(&early), 0, "it is told once");
    assert_eq!(forgotten(&zone), START);
    assert!(!seen(&zone, &mut early).is_empty());
    zone.feed_close(early);
    check(&zone);
}

#[test]
fn watchers_leave_a_place_to_every_peer() {
    let zone = Fixture::new(32 << 10, None, true);
    zone.keep_walkers(50);
    let mut peers: Vec<Cursor> = (0..10).map(|_| zone.feed_open(7).expect("a walker")).collect();
    let watchers = std::iter::from_fn(|| zone.feed_open_at_end(Zone::walker_owner()));
    assert_eq!(watchers.count(), 64 - 50 - 2, "two are for state files");
    peers.extend(std::iter::from_fn(|| zone.feed_open(7)));
    assert_eq!(peers.len(), 52);
    assert!(zone.feed_open_at_end(Zone::walker_owner()).is_none());
    // A peer that goes leaves its place to the next one, not to a watcher.
    peers.into_iter().take(3).for_each(|cursor| zone.feed_close(cursor));
    assert!(zone.feed_open_at_end(Zone::walker_owner()).is_none());
    assert!((0..3).all(|_| zone.feed_open(7).is_some()));
    check(&zone);
}

#[test]
fn walkers_of_dead_threads_are_taken_back_and_no_others() {
    let zone = Fixture::new(32 << 10, None, false);
    zone.watch_until(START + MINUTE);
    let here = zone.feed_open_at_end(Zone::walker_owner()).expect("a walker");
    let gone = std::thread::scope(|scope| {
        let open = || zone.feed_open_at_end(Zone::walker_owner());
        scope.spawn(open).join().expect("a thread").expect("a walker")
    });
    let agent = zone.feed_open(7).expect("a walker");
    let free = || {
        let all: Vec<Cursor> = std::iter::from_fn(|| zone.feed_open(9)).collect();
        let count = all.len();
        all.into_iter().for_each(|cursor| zone.feed_close(cursor));
        count
    };
    assert_eq!(free(), 61);
    zone.sweep_watchers();
    assert_eq!(free(), 62, "the walker of the thread that is gone");
    zone.feed_sweep(8);
    assert_eq!(free(), 63, "the walker of another agent; the watcher here lives");
    drop((here, gone, agent));
    check(&zone);
}
