//! Sessions of zones in which a lock doesn't come free: its holder is stopped, or gets no processor time.

use super::super::message::kind;
use super::super::{Node, NoteLevel, Pull};
use super::pair::{Pair, mark};
use super::{NOW, contents, limits, node, set};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::{Applied, Life, StoreError, Traffic, Zone};
use std::time::{Duration, Instant};

/// The shard that doesn't come free.
const STUCK: u32 = 0;
/// Keys, of which each shard has some; all of them are less than a session keeps while it waits.
const KEYS: usize = 1_000;

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
    all_keys().for_each(|key| set(&from, &key, b"v", NOW + 10));
    let stuck = all_keys().filter(|key| to.shard_of(key.as_bytes()) == STUCK).count();
    assert!(stuck > 20, "{stuck} of {KEYS}");
    mark(&mut pair.push, &a);
    let began = Instant::now();
    pair.run(NOW + 10);
    assert!(pair.pull.is_waiting() && contents_but(&to, STUCK) < KEYS - stuck, "it may go on soon");
    (1..=20).for_each(|n| pair.run(NOW + 10 + 5 * n));
    // Each would have waited for a tenth of a second.
    assert!(began.elapsed() < Duration::from_secs(stuck as u64 / 20), "{stuck} took {:?}", began.elapsed());
    assert_eq!(contents_but(&to, STUCK), KEYS - stuck, "the others are there");
    assert_eq!(to.position(Identity([1; 16])), before);
    to.go_on_in(STUCK);
    for n in 2..40 {
        pair.run(NOW + n * 100);
    }
    assert_eq!(contents(&to, NOW + 4_000).len(), KEYS);
    assert!(to.position(Identity([1; 16])) >= Stamp::at(NOW + 10));
}

#[test]
fn records_for_a_shard_that_is_soon_free_cost_nothing_but_that() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    pair.pull.notes();
    let stuck = key_in_stuck(&to);
    for round in 0..20 {
        let now = NOW + 10 + 200 * round;
        // Others before them, and behind; one so large that it comes in parts.
        (0..30).for_each(|n| set(&from, &format!("key {n}"), b"v", now + round));
        set(&from, &stuck, &[1; 20_000], now + round);
        mark(&mut pair.push, &a);
        // Now this, and now the table of origins, which positions need.
        let is_shard = round % 2 == 0;
        if is_shard {
            to.stop_in(STUCK)
        } else {
            to.stop_in_origins()
        }
        (0..5).for_each(|n| pair.run(now + 10 * n));
        assert!(pair.pull.is_waiting() && pair.pull.held().bytes > 0);
        assert_eq!(to.has_record(stuck.as_bytes(), now), round > 0);
        if is_shard {
            to.go_on_in(STUCK)
        } else {
            to.go_on_in_origins()
        }
        pair.run(now + 60);
        assert!(!pair.pull.is_waiting());
        assert_eq!(contents(&to, now), contents(&from, now));
        assert!(to.position(Identity([1; 16])) >= Stamp::at(now));
    }
    assert_eq!((pair.records, pair.count(kind::POSITION)), (600, 21), "nothing came twice");
    assert!(pair.pull.notes().is_empty());
}

#[test]
fn who_sends_much_meanwhile_is_not_waited_for() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    to.stop_in(STUCK);
    all_keys().for_each(|key| set(&from, &key, b"v", NOW + 10));
    (0..4).for_each(|n| set(&from, &format!("large {n}"), &[1; 20_000], NOW + 10));
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert!(!pair.pull.is_waiting());
    assert_eq!(contents_but(&to, STUCK), all_keys().filter(|key| to.shard_of(key.as_bytes()) != STUCK).count());
}

fn all_keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("key {n}"))
}

/// How many of these keys are in other shards.
fn contents_but(zone: &Zone, stuck: u32) -> usize {
    let keys = all_keys().filter(|key| zone.shard_of(key.as_bytes()) != stuck);
    keys.filter(|key| zone.has_record(key.as_bytes(), NOW)).count()
}

#[test]
fn who_joins_asks_another_when_a_donor_with_a_busy_shard_has_nothing_more_than_what_is_written() {
    let all = ["z"];
    let (a, b, c) = (node(1, &all, limits()), node(2, &all, limits()), node(3, &all, limits()));
    let [from, other, to] = [&a, &b, &c].map(|node| node.zones[0].zone);
    [from, other].into_iter().for_each(|zone| zone.set_joined());
    set(&from, &key_in_stuck(&from), b"v", NOW);
    let mut written = write(&from, 0..100, NOW);
    Pair::new(&a, &b, NOW).run(NOW);
    from.stop_in(STUCK);

    let mut pairs = [Pair::new(&a, &c, NOW + 10), Pair::new(&b, &c, NOW + 10)];
    pairs[1].pull = Pull::new(c.clone(), 2, NOW + 10);
    let (mut at, mut n) = (NOW + 10, 100);
    while !to.joined() {
        assert!(at < NOW + 6 * limits().timeout, "it still joins");
        written += write(&from, n..n + 10, at);
        n += 10;
        mark(&mut pairs[0].push, &a);
        for now in (at..at + 1_000).step_by(100) {
            pairs.iter_mut().for_each(|pair| pair.run(now));
        }
        at += 1_000;
    }
    assert_eq!(contents(&to, at).len(), written + 1, "the one has what is written, the other had what waits");
}

/// Two nodes with these zones, in which both have the same, and then the first has more of a node that isn't told of any more.
fn unlike(names: &[&str]) -> (Node, Node, Pair) {
    let (a, b) = (node(1, names, limits()), node(2, names, limits()));
    for zone in a.zones.iter().chain(b.zones.iter()) {
        zone.zone.set_joined();
    }
    for zone in a.zones.iter() {
        write(&zone.zone, 0..100, NOW);
    }
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    for zone in a.zones.iter() {
        let version = Version { stamp: Stamp::at(NOW - 60_000), origin: GONE };
        let (key, value) = (b"missing".as_slice(), Some(b"v".as_slice()));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        assert_eq!(zone.zone.apply(&record, NOW, 60_000), Ok(Applied::Newer));
    }
    (a, b, pair)
}

const GONE: Identity = Identity([9; 16]);

/// Whether the missing record comes to this zone within a period of comparing, from then on.
fn is_mended(zone: usize, from: Millis, (a, b, pair): &mut (Node, Node, Pair)) -> bool {
    (from..from + PERIOD).step_by(50).any(|at| {
        [&*a, &*b].into_iter().for_each(|node| node.control.heard(GONE, at, &Traffic::default()));
        pair.run(at);
        b.zones[zone].zone.has_record(b"missing", at)
    })
}

/// Longer than zones that are alike aren't compared for, and shorter than an answer is waited for.
const PERIOD: Millis = 60_000;

#[test]
fn zones_that_are_busy_here_keep_no_other_from_being_compared() {
    let mut nodes = unlike(&["a", "b", "c"]);
    (0..2).for_each(|zone| nodes.1.zones[zone].zone.stop_in(STUCK));
    assert!(is_mended(2, NOW + 10, &mut nodes));
    // And are compared themselves when they aren't any more.
    (0..2).for_each(|zone| nodes.1.zones[zone].zone.go_on_in(STUCK));
    assert!(is_mended(0, NOW + PERIOD, &mut nodes) && is_mended(1, NOW + 2 * PERIOD, &mut nodes));
}

#[test]
fn a_zone_that_is_busy_there_keeps_no_other_from_being_answered() {
    let mut nodes = unlike(&["a", "b"]);
    nodes.0.zones[0].zone.stop_in(STUCK);
    assert!(is_mended(1, NOW + 10, &mut nodes));
    nodes.0.zones[0].zone.go_on_in(STUCK);
    assert!(is_mended(0, NOW + PERIOD, &mut nodes));
}
