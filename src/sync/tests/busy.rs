//! Sessions of zones in which a lock doesn't come free: its holder is stopped, or gets no processor time.

use super::super::{Node, NoteLevel};
use super::pair::{Pair, mark};
use super::{NOW, contents, limits, node, set};
use crate::record::{Identity, Millis, Stamp};
use crate::store::{Life, StoreError, Zone};
use std::time::{Duration, Instant};

/// The shard that doesn't come free.
const STUCK: u32 = 0;

/// Writes these keys, of which those in that shard are refused; how many went in.
fn write(zone: &Zone, keys: impl Iterator<Item = u32>, now: Millis) -> usize {
    let wanted = keys.map(|key| format!("key {key}")).filter(|key| zone.shard_of(key.as_bytes()) != STUCK);
    wanted.map(|key| set(zone, &key, b"v", now)).count()
}

fn key_in_stuck(zone: &Zone) -> String {
    (0..).map(|n| format!("stuck {n}")).find(|key| zone.shard_of(key.as_bytes()) == STUCK).unwrap()
}

fn nodes() -> (Node, Node) {
    (node(1, &["z"], limits()), node(2, &["z"], limits()))
}

#[test]
fn a_shard_that_is_busy_holds_up_nothing_but_its_own_records() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let key = key_in_stuck(&from);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let before = to.position(Identity([1; 16]));

    // Written, and not yet sent when the lock is taken for good.
    set(&from, &key, b"v", NOW + 10);
    from.stop_in(STUCK);
    let refused = from.set(key.as_bytes(), b"w", Life::Default, crate::store::Condition::Always, NOW + 10);
    assert_eq!(refused, Err(StoreError::Busy));
    let mut written = write(&from, 0..100, NOW + 10);
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert_eq!(contents(&to, NOW + 10).len(), written, "the others are there");

    // What comes later, too, again and again.
    for n in 1..5 {
        let now = NOW + 10 + u64::from(n) * 400;
        written += write(&from, 100 * n..100 * n + 50, now);
        mark(&mut pair.push, &a);
        pair.run(now);
        assert_eq!(contents(&to, now).len(), written, "after {n} more");
    }
    assert!(!pair.push.flushed() && pair.push.pending(0) > 0);
    assert_eq!(to.position(Identity([1; 16])), before, "nothing is promised that wasn't walked");
    let notes = pair.push.notes();
    let busy = notes.iter().filter(|note| note.level == NoteLevel::Warn && note.text.contains("is busy"));
    assert_eq!(busy.count(), 1, "{notes:?}");

    from.go_on_in(STUCK);
    let now = NOW + 3_000;
    pair.run(now);
    assert_eq!(contents(&to, now).len(), written + 1);
    assert!(to.position(Identity([1; 16])) >= Stamp::at(NOW + 1_610));
    pair.run(now + 10);
    assert!(pair.push.flushed());
}

#[test]
fn a_session_that_begins_meanwhile_gets_the_others_too() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    set(&from, &key_in_stuck(&from), b"v", NOW);
    let written = write(&from, 0..100, NOW);
    from.stop_in(STUCK);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert_eq!(contents(&to, NOW).len(), written);
    from.go_on_in(STUCK);
    pair.run(NOW + 200);
    assert_eq!(contents(&to, NOW + 200).len(), written + 1);
    pair.run(NOW + 210);
    assert!(pair.push.flushed());
}

#[test]
fn records_for_a_shard_that_is_busy_are_left_out_together_and_come_again() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let before = to.position(Identity([1; 16]));
    to.stop_in(STUCK);
    let wanted = (0..2_000).map(|n| format!("key {n}"));
    let stuck = wanted
        .inspect(|key| set(&from, key, b"v", NOW + 10))
        .filter(|key| to.shard_of(key.as_bytes()) == STUCK)
        .count();
    assert!(stuck > 100, "{stuck} of 2000");
    mark(&mut pair.push, &a);
    let began = Instant::now();
    pair.run(NOW + 10);
    // Each would have waited for a tenth of a second.
    assert!(began.elapsed() < Duration::from_secs(stuck as u64 / 20), "{stuck} took {:?}", began.elapsed());
    assert_eq!(contents_but(&to, STUCK), 2_000 - stuck, "the others are there");
    assert_eq!(to.position(Identity([1; 16])), before);
    to.go_on_in(STUCK);
    for n in 1..40 {
        pair.run(NOW + n * 100);
    }
    assert_eq!(contents(&to, NOW + 4_000).len(), 2_000);
    assert!(to.position(Identity([1; 16])) >= Stamp::at(NOW + 10));
}

/// How many of the keys that are written above are in other shards.
fn contents_but(zone: &Zone, stuck: u32) -> usize {
    let keys = (0..2_000).map(|n| format!("key {n}")).filter(|key| zone.shard_of(key.as_bytes()) != stuck);
    keys.filter(|key| zone.has_record(key.as_bytes(), NOW)).count()
}
