//! What no change brings: two nodes compare what they hold.

use super::super::message::kind;
use super::super::{Node, Pull};
use super::pair::{Pair, mark};
use super::{NOW, contents, limits, node, region, set};
use crate::record::{Count, Identity, Kind, Millis, PartId, Record, Role, Stamp, Version, number};
use crate::store::control::CONTROL_SIZE;
use crate::store::{Applied, Condition, Control, Counted, Lacks, Life, Matching, Missing, Params, Traffic, Zone};

/// How long the nodes of these tests keep tombstones.
const RETENTION: Millis = 1_000;
/// Longer than a comparison waits to begin, and than it takes.
const LONG: Millis = 120_000;

fn joined(number: u8, size: usize) -> Node {
    joined_with(size, Params { sync: true, retention: RETENTION, ..Params::new(Identity([number; 16])) })
}

fn joined_with(size: usize, params: Params) -> Node {
    let identity = params.node;
    let zone = Zone::create(region(size), &params).unwrap();
    zone.set_joined();
    let control = Control::create_with(region(CONTROL_SIZE), identity).unwrap();
    Node { control, zones: [super::super::SyncZone { name: "z".into(), zone }].into(), ..node(0, &[], limits()) }
}

fn zone(node: &Node) -> Zone {
    node.zones[0].zone
}

/// Sessions in both directions, for `LONG`; what both told of comparisons.
fn together(a: &Node, b: &Node, now: Millis) -> Vec<String> {
    together_hearing(a, b, now, &[])
}

/// The same while both hear of these origins, so that nobody speaks for them.
fn together_hearing(a: &Node, b: &Node, now: Millis, origins: &[Identity]) -> Vec<String> {
    let notes = all_together(&[a, b], now, LONG, origins).into_iter().map(|(_, text)| text);
    notes.filter(|text| text.contains("comparing")).collect()
}

/// Sessions from each to each, for so long: what they told, and which node did.
fn all_together(nodes: &[&Node], now: Millis, long: Millis, origins: &[Identity]) -> Vec<(usize, String)> {
    all_together_seen(nodes, now, long, origins, |_| {})
}

/// The same, looked at all the while.
fn all_together_seen(
    nodes: &[&Node],
    now: Millis,
    long: Millis,
    origins: &[Identity],
    mut look: impl FnMut(Millis),
) -> Vec<(usize, String)> {
    let mut pairs = Vec::new();
    for from in 0..nodes.len() {
        for to in (0..nodes.len()).filter(|to| *to != from) {
            let mut pair = Pair::new(nodes[from], nodes[to], now);
            // Unlike that of every other session of the node.
            pair.pull = Pull::new(nodes[to].clone(), from as u64 + 1, now);
            pairs.push((from, to, pair));
        }
    }
    let mut notes = Vec::new();
    for at in (now..now + long).step_by(50) {
        for origin in origins {
            nodes.iter().for_each(|node| node.control.heard(*origin, at, &Traffic::default()));
        }
        for (from, node) in nodes.iter().enumerate() {
            let changed = zone(node).take_dirty();
            pairs.iter_mut().filter(|pair| pair.0 == from).for_each(|(_, _, pair)| pair.push.mark(0, changed));
        }
        for (_, to, pair) in &mut pairs {
            pair.run(at);
            notes.extend(pair.pull.notes().into_iter().map(|note| (*to, note.text)));
            look(at);
        }
    }
    for (_, _, pair) in &mut pairs {
        assert!(pair.push.flushed());
        pair.push.close(&mut Vec::new(), "");
        pair.pull.close(&mut Vec::new(), "");
    }
    notes
}

/// All tombstones are over.
fn forget(nodes: &[&Node], now: Millis) {
    for node in nodes {
        while zone(node).upkeep(now, 1_000) == 1_000 {}
        assert_eq!(zone(node).stats().tombstones, 0);
    }
}

fn keys(node: &Node, now: Millis) -> Vec<String> {
    contents(&zone(node), now).into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn the_more_peers_there_are_the_less_often_a_large_zone_is_compared_with_each() {
    let answers = |peers| {
        let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
        (0..2_000).for_each(|n| set(&zone(&a), &format!("key {n}"), b"", NOW));
        b.control.set_nodes_online(peers);
        let mut pair = Pair::new(&a, &b, NOW);
        for now in (NOW..NOW + 10 * LONG).step_by(500) {
            mark(&mut pair.push, &a);
            pair.run(now);
        }
        pair.count(kind::DIGESTS)
    };
    // Ten timeouts are 50 s; with 400 peers the records of one second's walk are due each 400 s.
    let (few, many) = (answers(1), answers(400));
    assert!((20..=24).contains(&few) && (1..=4).contains(&many), "{few} and {many}");
}

#[test]
fn nodes_apart_for_longer_than_tombstones_live_bring_nothing_back_and_drop_nothing() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    for key in ["kept", "deleted here", "deleted there", "deleted and written", "replaced"] {
        set(&zone(&a), key, b"old", NOW);
    }
    set(&zone(&b), "of b, deleted by a", b"old", NOW);
    assert_eq!(together(&a, &b, NOW), Vec::<String>::new(), "well nodes mend nothing");
    assert_eq!(keys(&a, NOW), keys(&b, NOW));

    // Apart, and for so long that nobody knows of a delete any more.
    let apart = NOW + LONG;
    zone(&a).delete(b"deleted here", apart).unwrap();
    zone(&a).delete(b"of b, deleted by a", apart).unwrap();
    zone(&b).delete(b"deleted there", apart).unwrap();
    zone(&a).delete(b"deleted and written", apart).unwrap();
    set(&zone(&b), "deleted and written", b"by b, after all", apart + 10);
    set(&zone(&a), "replaced", b"by a", apart);
    set(&zone(&a), "new of a", b"", apart);
    set(&zone(&b), "new of b", b"", apart);
    let after = apart + LONG;
    forget(&[&a, &b], after);
    let notes = together(&a, &b, after);
    let expected = ["deleted and written", "kept", "new of a", "new of b", "replaced"];
    assert_eq!(keys(&a, after), expected);
    assert_eq!(keys(&a, after), keys(&b, after));
    assert_eq!(zone(&a).stats().retired + zone(&b).stats().retired, 3);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!(together(&a, &b, after + LONG), Vec::<String>::new(), "once mended, all is well");
}

#[test]
fn what_was_past_on_one_node_and_is_its_tombstone_since_is_taken_away_on_the_other() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    let record = |count, node| {
        let version = Version { stamp: Stamp(Stamp::at(NOW).0 + count), origin: Identity([node; 16]) };
        Record { kind: Kind::Register, version, key: b"k", value: Some(b"v"), expires: None, shortened: false }
    };
    let apply = |node: &Node, record: Record<'_>, now| zone(node).apply(&record, now, 60_000).unwrap();
    apply(&a, record(5, 9), NOW);
    zone(&a).advance(Identity([9; 16]), Stamp::at(NOW + 1));
    zone(&a).delete(b"k", NOW).unwrap();
    forget(&[&a], NOW + LONG);
    // Something older that it hadn't heard of, and then what had won over that: both are over.
    apply(&a, record(3, 8), NOW + LONG);
    assert_eq!(apply(&a, record(5, 9), NOW + LONG), Applied::Newer);
    assert_eq!((keys(&a, NOW + LONG), zone(&a).stats().tombstones), (vec![], 1));
    // As from a state file.
    apply(&b, record(5, 9), NOW + LONG);
    together(&a, &b, NOW + LONG);
    assert_eq!(keys(&b, NOW + LONG), Vec::<String>::new());
    assert_eq!(zone(&b).stats().retired, 1);
}

#[test]
fn what_was_added_to_a_counter_before_it_was_deleted_is_taken_away_where_nobody_heard_of_that() {
    let (a, b) = counters(10 * LONG);
    let counted = zone(&a).count(b"k", 1, Missing::Begin(0, Life::Default), NOW + 1_000).unwrap();
    assert!(matches!(counted, Counted::Done { sum: 1, .. }));
    zone(&a).delete(b"k", NOW + 2_000).unwrap();
    // Of a node that is gone, and never promised it.
    let key = Role::Part(PartId([7; 8])).of(b"k");
    let value = Count { begun: Stamp::ZERO, amount: 5 }.encode();
    let version = Version { stamp: Stamp::at(NOW), origin: Identity([9; 16]) };
    let part = Record { kind: Kind::Counter, version, key: &key, value: Some(&value), expires: None, shortened: false };
    assert_eq!(zone(&b).apply(&part, NOW + 3_000, 60_000), Ok(Applied::Newer));
    assert_eq!(keys(&b, NOW + 3_000), ["k"]);
    zone(&b).advance(Identity([1; 16]), Stamp::at(NOW + 2_500));
    together(&a, &b, NOW + LONG);
    assert_eq!((keys(&a, NOW + LONG), keys(&b, NOW + LONG)), (vec![], vec![]));
    assert_eq!(together(&a, &b, NOW + 3 * LONG), Vec::<String>::new(), "once mended, all is well");
}

/// Two nodes with counters.
fn counters(retention: Millis) -> (Node, Node) {
    let params =
        |number| Params { sync: true, matching: Matching::Counter, retention, ..Params::new(Identity([number; 16])) };
    (joined_with(1 << 20, params(1)), joined_with(1 << 20, params(2)))
}

/// A counter as a third node had set it, or deleted.
fn base(of: &str, value: Option<&'static [u8]>, stamp: Millis, apply: &dyn Fn(&Record<'_>)) {
    let (key, version) = (Role::Base.of(of.as_bytes()), Version { stamp: Stamp::at(stamp), origin: Identity([9; 16]) });
    apply(&Record { kind: Kind::Counter, version, key: &key, value, expires: None, shortened: false });
}

#[test]
fn what_was_added_to_a_counter_counts_until_it_is_known_what_ended_it() {
    const MANY: usize = 300;
    for has_tombstones in [true, false] {
        let (a, b) = counters(10 * LONG);
        let key = |n: usize| format!("key {n}");
        for n in 0..MANY {
            zone(&b).count(key(n).as_bytes(), 5, Missing::Begin(0, Life::Default), NOW).unwrap();
        }
        together(&a, &b, NOW);
        // A third node, which is gone, had set them: a stamp that the other one takes in 90 s only.
        for n in 0..MANY {
            base(&key(n), Some(b"9"), NOW + LONG + 150_000, &|record| {
                assert_eq!(zone(&a).apply(record, NOW + LONG, Millis::MAX), Ok(Applied::Newer));
            });
        }
        if !has_tombstones {
            forget(&[&a], NOW + LONG + 70_000);
        }
        let shown = |node: &Node, value: &str| {
            let all = contents(&zone(node), NOW + LONG);
            assert_eq!(all.len(), MANY, "{has_tombstones}");
            all.iter().for_each(|(_, shown)| assert_eq!(shown, value.as_bytes(), "{has_tombstones}"));
        };
        let before = zone(&b).stats().comparisons.ended;
        all_together(&[&a, &b], NOW + LONG, 85_000, &[]);
        assert!(zone(&b).stats().comparisons.ended >= before + 2, "it looks again");
        shown(&b, "5");
        together(&a, &b, NOW + LONG + 90_000);
        shown(&a, "9");
        shown(&b, "9");
        assert_eq!(zone(&b).stats().retired, 0);
    }
}

#[test]
fn a_counter_that_was_set_is_not_taken_away_in_halves() {
    // Deleted by a third node, of which this one takes the delete in 90 s only; and deleted so long ago that it is forgotten.
    for is_forgotten in [false, true] {
        let (a, b) = counters(if is_forgotten { RETENTION } else { 10 * LONG });
        zone(&b).set(b"k", b"9", Life::Default, Condition::Always, NOW).unwrap();
        zone(&b).count(b"k", 5, Missing::Leave, NOW).unwrap();
        together(&a, &b, NOW);
        let deleted = if is_forgotten { NOW + LONG } else { NOW + LONG + 150_000 };
        base("k", None, deleted, &|record| {
            assert_eq!(zone(&a).apply(record, NOW + LONG, Millis::MAX), Ok(Applied::Newer));
        });
        zone(&a).upkeep(NOW + LONG + 70_000, 1_000);
        assert_eq!(zone(&a).stats().tombstones, usize::from(!is_forgotten) as u64);
        let mut seen = Vec::new();
        all_together_seen(&[&a, &b], NOW + LONG + 70_000, 2 * LONG, &[], |now| seen.extend(contents(&zone(&b), now)));
        let whole = (b"k".to_vec(), b"14".to_vec());
        assert!(seen.len() > 10 && seen.iter().all(|shown| *shown == whole), "{is_forgotten}: {seen:?}");
        assert_eq!((keys(&a, NOW + LONG), keys(&b, NOW + LONG)), (vec![], vec![]), "{is_forgotten}");
    }
}

#[test]
fn a_delete_that_has_ended_a_counter_is_asked_for_and_ends_all_of_it_at_once() {
    let origins = [Identity([8; 16]), Identity([9; 16])];
    for is_hot in [false, true] {
        let (a, b) = counters(10 * LONG);
        let add = |by, now| zone(&b).count(b"k", by, Missing::Begin(0, Life::Default), now).unwrap();
        add(5, NOW);
        // Of another memory: the peer has never promised it.
        let (key, value) = (Role::Part(PartId([7; 8])).of(b"k"), Count { begun: Stamp::ZERO, amount: 2 }.encode());
        let version = Version { stamp: Stamp::at(NOW), origin: origins[0] };
        let part =
            Record { kind: Kind::Counter, version, key: &key, value: Some(&value), expires: None, shortened: false };
        assert_eq!(zone(&b).apply(&part, NOW, 60_000), Ok(Applied::Newer));
        together_hearing(&a, &b, NOW, &origins);
        assert_eq!(contents(&zone(&a), NOW + LONG), [(b"k".to_vec(), b"7".to_vec())]);
        base("k", None, NOW + LONG, &|record| {
            assert_eq!(zone(&a).apply(record, NOW + LONG, 60_000), Ok(Applied::Newer));
        });
        zone(&a).upkeep(NOW + LONG + 70_000, 1_000);
        let (mut seen, mut added) = (Vec::new(), 0);
        all_together_seen(&[&a, &b], NOW + LONG + 70_000, LONG, &origins, |now| {
            if is_hot && now % 500 == 0 {
                added += 1;
                add(1, now);
            }
            let shown: Vec<i64> = contents(&zone(&b), now).iter().map(|(_, sum)| number(sum).unwrap()).collect();
            seen.push((added, shown));
        });
        // All of it, or nothing of what there was.
        let all = seen.iter().take_while(|(added, shown)| *shown == [7 + added]).count();
        assert!(all > 10 && all < seen.len(), "{seen:?}");
        let begun = if is_hot { seen[all - 1].0 } else { 0 };
        for (added, shown) in &seen[all..] {
            assert_eq!(shown.iter().sum::<i64>(), added - begun, "{is_hot}");
        }
        assert_eq!((zone(&b).stats().mended, zone(&b).stats().retired), (1, 0));
    }
}

#[test]
fn what_a_dead_origin_told_one_node_only_reaches_the_others() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    for number in 0..2_000u32 {
        let key = format!("key {number}");
        let version = Version { stamp: Stamp::at(NOW + u64::from(number)), origin: Identity([9; 16]) };
        let value = vec![3; if number == 7 { 50_000 } else { 20 }];
        let record = Record {
            kind: Kind::Register,
            version,
            key: key.as_bytes(),
            value: Some(&value),
            expires: None,
            shortened: false,
        };
        zone(&a).apply(&record, NOW + LONG, 60_000).unwrap();
        // Most of it is on both.
        if number % 3 > 0 {
            zone(&b).apply(&record, NOW + LONG, 60_000).unwrap();
        }
    }
    // As if both had heard of it: then no relaying brings it either.
    for node in [&a, &b] {
        for at in (0..2 * LONG).step_by(1_000) {
            node.control.heard(Identity([9; 16]), NOW + LONG + at, &Traffic::default());
        }
    }
    together(&a, &b, NOW + LONG);
    assert_eq!(keys(&b, NOW).len(), 2_000);
    assert_eq!(zone(&b).stats().mended, 667);
    assert_eq!(contents(&zone(&a), NOW), contents(&zone(&b), NOW));
}

#[test]
fn where_one_part_differed_today_all_are_asked_for_tomorrow() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    let gone = Identity([9; 16]);
    let apply = |node: &Node, number: u64| {
        let (key, version) = (format!("key {number}"), Version { stamp: Stamp::at(NOW + number), origin: gone });
        let (key, value) = (key.as_bytes(), Some(b"v".as_slice()));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        assert_eq!(zone(node).apply(&record, NOW + LONG, 60_000), Ok(Applied::Newer));
    };
    (0..2_000).for_each(|number| apply(&a, number));
    (1..2_000).for_each(|number| apply(&b, number));
    let mut pair = Pair::new(&a, &b, NOW + LONG);
    let mut go = |from: Millis, long: Millis| {
        for at in (from..from + long).step_by(50) {
            [&a, &b].into_iter().for_each(|node| node.control.heard(gone, at, &Traffic::default()));
            pair.run(at);
        }
        (pair.count(kind::LISTED), keys(&b, NOW).len())
    };
    // They are compared each 50 s.
    assert_eq!(go(NOW + LONG, 30_000), (1, 2_000), "one is mended");
    (2_000..4_000).for_each(|number| apply(&a, number));
    assert_eq!(go(NOW + LONG + 30_000, 30_000), (2, 4_000), "and many in one round");
}

#[test]
fn tombstones_without_end_do_not_hide_what_is_missing() {
    let params = |number| Params { sync: true, retention: 10 * LONG, ..Params::new(Identity([number; 16])) };
    let (a, b) = (joined_with(16 << 20, params(1)), joined_with(16 << 20, params(2)));
    // More than are kept of one part, where the records alone make one part.
    for number in 0..70_000u32 {
        let key = number.to_le_bytes();
        zone(&a).set(&key, b"", Life::Default, Condition::Always, NOW).unwrap();
        zone(&a).delete(&key, NOW).unwrap();
    }
    let version = Version { stamp: Stamp::at(NOW), origin: Identity([9; 16]) };
    let missing =
        Record { kind: Kind::Register, version, key: b"missing", value: Some(b"v"), expires: None, shortened: false };
    zone(&a).apply(&missing, NOW, 60_000).unwrap();
    together_hearing(&a, &b, NOW, &[Identity([9; 16])]);
    assert_eq!((keys(&b, NOW), zone(&b).stats().mended), (vec!["missing".to_string()], 1));
}

#[test]
fn what_was_evicted_or_left_out_for_want_of_room_is_not_taken_for_deleted() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 64 << 10));
    (0..3_000).for_each(|number| set(&zone(&a), &format!("key {number}"), &[1; 100], NOW));
    together(&a, &b, NOW);
    assert!(zone(&b).stats().incomplete > 0);
    assert_eq!(zone(&a).stats().records, 3_000, "the small one's gaps take nothing away");
    // With room again, it asks again.
    (100..3_000).for_each(|number| _ = zone(&a).delete(format!("key {number}").as_bytes(), NOW + LONG).unwrap());
    let after = NOW + 2 * LONG;
    together(&a, &b, after - LONG);
    forget(&[&a, &b], after + RETENTION);
    together(&a, &b, after + LONG);
    assert_eq!(keys(&a, after).len(), 100);
    assert_eq!(keys(&a, after), keys(&b, after));
    assert_eq!((zone(&b).stats().incomplete, zone(&b).is_lacking()), (0, false), "nothing is missing");
    assert!(zone(&b).stats().left_out > 0);
}

/// A large zone with more than fits into the small one beside it, which takes all but a hundred of it away in time; both keep
/// tombstones for long.
fn crowded() -> (Node, Node) {
    let keeping = |number, size| joined_with(size, Params { sync: true, ..Params::new(Identity([number; 16])) });
    let (a, b) = (keeping(1, 1 << 20), keeping(2, 64 << 10));
    (0..3_000).for_each(|number| set(&zone(&a), &format!("key {number}"), &[1; 100], NOW));
    (a, b)
}

fn make_room(a: &Node, now: Millis) {
    (100..3_000).for_each(|number| _ = zone(a).delete(format!("key {number}").as_bytes(), now).unwrap());
}

#[test]
fn tombstones_make_way_for_what_found_no_room() {
    let (a, b) = crowded();
    together(&a, &b, NOW);
    assert!(zone(&b).stats().incomplete > 0);
    make_room(&a, NOW + LONG);
    (1..4).for_each(|times| _ = together(&a, &b, NOW + times * LONG));
    let after = NOW + 4 * LONG;
    assert!(zone(&b).stats().tombstones > 100, "they are kept for long");
    assert_eq!(keys(&a, after).len(), 100);
    assert_eq!(keys(&a, after), keys(&b, after));
    assert_eq!(zone(&b).stats().incomplete, 0);
}

#[test]
fn who_sends_is_told_what_found_no_room_and_that_it_is_here() {
    let (a, b) = crowded();
    let mut pair = Pair::new(&a, &b, NOW);
    let run = |pair: &mut Pair, from: Millis, until: &dyn Fn(&Pair) -> bool| {
        (from..from + 4 * LONG).step_by(50).find(|at| {
            mark(&mut pair.push, &a);
            pair.run(*at);
            until(pair)
        })
    };
    let told = run(&mut pair, NOW, &|pair| pair.push.flushed()).expect("all is acknowledged");
    assert_eq!(pair.push.left_out().collect::<Vec<_>>(), [0]);
    make_room(&a, told);
    run(&mut pair, told, &|pair| pair.push.flushed() && pair.push.left_out().next().is_none()).expect("all is here");
    assert_eq!(zone(&b).stats().incomplete, 0);
    // Something whose writer isn't known: it may have been this one.
    zone(&b).count_lacked(Stamp::at(told));
    run(&mut pair, told + 5 * LONG, &|pair| pair.push.left_out().next().is_some()).expect("it is told without a write");
}

#[test]
fn what_a_node_evicted_before_it_was_sent_is_not_taken_for_deleted() {
    for evict in [false, true] {
        let params = |number| Params { sync: true, evict: true, ..Params::new(Identity([number; 16])) };
        let (a, c) = (joined_with(64 << 10, params(1)), joined_with(1 << 20, params(3)));
        let b = joined_with(1 << 20, Params { evict, ..params(2) });
        // What would end soonest goes first.
        zone(&a).set(b"key soon", &[1; 100], Life::For(10 * LONG), Condition::Always, NOW).unwrap();
        Pair::new(&a, &c, NOW).run(NOW);
        for number in 0..5_000 {
            set(&zone(&a), &format!("key {number:04}"), &[1; 100], NOW);
            if !keys(&a, NOW).contains(&"key soon".into()) {
                break;
            }
        }
        assert!(!keys(&a, NOW).contains(&"key soon".into()));
        // The second was never sent it. Who holds it mustn't lose it over that.
        Pair::new(&a, &b, NOW).run(NOW);
        assert!(zone(&b).position(Identity([1; 16])) > Stamp::at(NOW));
        together(&b, &c, NOW + LONG);
        assert!(keys(&c, NOW).contains(&"key soon".into()), "taken away where it was");
        assert_eq!(keys(&b, NOW).contains(&"key soon".into()), !evict, "who evicts nothing itself asks for it");
        // Offered as it is when somebody relays it, it is news, whatever positions say.
        Pair::new(&a, &b, NOW + 3 * LONG).run(NOW + 3 * LONG);
        let version = Version { stamp: zone(&b).doubted(), origin: Identity([1; 16]) };
        let record = Record {
            kind: Kind::Register,
            version,
            key: b"key soon",
            value: Some(b"v"),
            expires: None,
            shortened: false,
        };
        assert_eq!(zone(&b).apply(&record, NOW + 3 * LONG, 0), Ok(Applied::Newer));
        // What was sent first and evicted then is in no doubt.
        let doubted = zone(&b).doubted();
        let later = NOW + 4 * LONG;
        zone(&a).set(b"sent", b"of a", Life::For(60_000), Condition::Always, later).unwrap();
        Pair::new(&a, &b, later).run(later);
        (0..100).for_each(|number| set(&zone(&a), &format!("more {number}"), &[1; 100], later));
        assert!(zone(&a).evicted() >= Stamp::at(later));
        let before = zone(&b).position(Identity([1; 16]));
        zone(&b).doubt(Identity([1; 16]), Stamp::at(later + 1), before);
        assert_eq!(zone(&b).doubted(), doubted);
    }
}

#[test]
fn nodes_that_each_found_no_room_for_the_others_records_become_complete() {
    let nodes = [joined(1, 64 << 10), joined(2, 64 << 10), joined(3, 64 << 10)];
    let all = |now| {
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            together(&nodes[a], &nodes[b], now);
        }
    };
    for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
        (0..200).for_each(|number| set(&zone(node), &format!("{name} {number}"), &[1; 100], NOW));
    }
    all(NOW);
    assert!(nodes.iter().all(|node| zone(node).stats().incomplete > 0), "each lacks something of the others");
    for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
        (50..200).for_each(|number| _ = zone(node).delete(format!("{name} {number}").as_bytes(), NOW + LONG).unwrap());
    }
    (2..6).for_each(|times| all(NOW + times * LONG));
    for node in &nodes {
        assert_eq!(keys(node, NOW + 6 * LONG).len(), 150);
        assert_eq!((zone(node).stats().incomplete, zone(node).is_lacking()), (0, false), "nothing is missing");
    }
}

#[test]
fn a_zone_is_not_complete_as_long_as_somebody_has_what_it_has_no_room_for() {
    // So small that hardly a page has to be free before all is asked for again.
    let nodes = [joined(1, 32 << 10), joined(2, 32 << 10), joined(3, 1 << 20)];
    let all: Vec<&Node> = nodes.iter().collect();
    let complete = |notes: Vec<(usize, String)>| -> Vec<usize> {
        notes.into_iter().filter(|(_, text)| text.contains("is complete")).map(|(node, _)| node).collect()
    };
    // Of a node that is gone, on the large one only.
    for number in 0..300u32 {
        let (key, value) = (format!("key {number}"), [1; 100]);
        let version = Version { stamp: Stamp::at(NOW + u64::from(number)), origin: Identity([9; 16]) };
        let (key, value) = (key.as_bytes(), Some(value.as_slice()));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        zone(&nodes[2]).apply(&record, NOW, 60_000).unwrap();
    }
    zone(&nodes[2]).advance(Identity([9; 16]), Stamp::at(NOW + 300));
    let said = complete(all_together(&all, NOW + LONG, 3 * LONG, &[]));
    assert!(said.is_empty(), "both small ones lack something: {said:?}");
    assert!(nodes[..2].iter().all(|node| zone(node).stats().incomplete > 0));
    // Nobody has it any more.
    let over = NOW + 4 * LONG;
    (50..300).for_each(|number| _ = zone(&nodes[2]).delete(format!("key {number}").as_bytes(), over).unwrap());
    let mut said = complete(all_together(&all, over, 4 * LONG, &[]));
    said.sort_unstable();
    assert_eq!(said, [0, 1], "each says so once");
    for node in &nodes {
        assert_eq!((keys(node, over).len(), zone(node).stats().incomplete), (50, 0));
    }
}

#[test]
fn a_zone_is_not_complete_as_long_as_it_has_no_room_for_what_its_node_wrote_to_other_memory() {
    // So small that hardly a page has to be free before all is asked for again.
    let params = Params { sync: true, retention: RETENTION, ..Params::new(Identity([2; 16])) };
    let (a, b) = (joined(1, 1 << 20), joined_with(32 << 10, Params { born: Some(NOW), ..params }));
    for number in 0..300u32 {
        let (key, value) = (format!("key {number}"), [1; 100]);
        let version = Version { stamp: Stamp::at(NOW - 10_000 + u64::from(number)), origin: Identity([2; 16]) };
        let (key, value) = (key.as_bytes(), Some(value.as_slice()));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        zone(&a).apply(&record, NOW, 60_000).unwrap();
    }
    let complete = |notes: Vec<(usize, String)>| notes.iter().filter(|(_, text)| text.contains("is complete")).count();
    assert_eq!(complete(all_together(&[&a, &b], NOW, 4 * LONG, &[])), 0);
    assert!(keys(&b, NOW).len() < 300 && zone(&b).stats().incomplete > 0);
    // There is room for the rest.
    let over = NOW + 4 * LONG;
    (50..300).for_each(|number| _ = zone(&a).delete(format!("key {number}").as_bytes(), over).unwrap());
    assert_eq!(complete(all_together(&[&a, &b], over, 4 * LONG, &[])), 1);
    assert_eq!((keys(&b, over).len(), zone(&b).stats().incomplete), (50, 0));
}

#[test]
fn a_full_zone_asks_ever_more_seldom_for_what_finds_no_room_and_says_once_that_it_is_full() {
    // So small that no page of it has to be free before all is asked for again.
    let (a, b) = (joined(1, 1 << 20), joined(2, 32 << 10));
    (0..300).for_each(|number| set(&zone(&a), &format!("key {number}"), &[1; 100], NOW));
    let (mut pair, mut notes) = (Pair::new(&a, &b, NOW), Vec::new());
    let mut go = |from: Millis, long: Millis| {
        for at in (from..from + long).step_by(500) {
            mark(&mut pair.push, &a);
            pair.run(at);
            notes.extend(pair.pull.notes().into_iter().map(|note| note.text));
        }
        let said = |what: &str| notes.iter().filter(|text| text.contains(what)).count();
        (pair.count(kind::SENT), said("is full"), said("is complete"))
    };
    // They are compared each 50 s.
    let (asked, full, complete) = go(NOW, 30 * LONG);
    assert!((2..=8).contains(&asked), "asked {asked} times in an hour");
    assert_eq!((full, complete), (1, 0));
    assert!(zone(&b).stats().incomplete > 0);
    // There is room now, and that is used at the next comparison.
    let later = NOW + 30 * LONG;
    (50..300).for_each(|number| _ = zone(&a).delete(format!("key {number}").as_bytes(), later).unwrap());
    let (asked_again, full, complete) = go(later, LONG);
    assert!(asked_again > asked);
    assert_eq!((full, complete, keys(&b, later).len(), zone(&b).stats().incomplete), (1, 1, 50, 0));
    // Full once more.
    let later = NOW + 31 * LONG;
    (300..600).for_each(|number| set(&zone(&a), &format!("key {number}"), &[1; 100], later));
    let (_, full, complete) = go(later, 2 * LONG);
    assert_eq!((full, complete), (2, 1));
}

/// A zone with more than fits into the small one beside it, which has some room left.
fn with_one_too_large() -> (Node, Node) {
    let (a, b) = (joined(1, 1 << 20), joined(2, 64 << 10));
    (0..100).for_each(|number| set(&zone(&a), &format!("key {number}"), &[1; 100], NOW));
    set(&zone(&a), "large", &[1; 30_000], NOW);
    (a, b)
}

/// Gives a node some records of one that has died since, up to which no position goes.
fn told_by_the_dead(node: &Node, keys: std::ops::Range<u64>, now: Millis) {
    for number in keys {
        let key = format!("of the dead {number}");
        let version = Version { stamp: Stamp::at(now - LONG + number), origin: Identity([9; 16]) };
        let (key, value) = (key.as_bytes(), Some(&b"v"[..]));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        assert_eq!(zone(node).apply(&record, now, 60_000), Ok(Applied::Newer));
    }
}

#[test]
fn what_there_is_room_for_comes_although_something_else_is_asked_for_in_vain() {
    let (a, b) = with_one_too_large();
    together(&a, &b, NOW);
    let later = NOW + 3 * LONG;
    together(&a, &b, later - LONG);
    let still = later + LONG / 2;
    assert!(zone(&b).asks_in_vain(still) && !zone(&b).is_crowded());
    told_by_the_dead(&a, 0..50, later);
    all_together(&[&a, &b], later, LONG / 4, &[]);
    assert_eq!((keys(&b, later).len(), zone(&b).stats().mended), (150, 50));
    assert!(zone(&b).stats().incomplete > 0);
    assert!(zone(&b).asks_in_vain(still), "that tells nothing of room for what is large");
}

#[test]
fn who_got_something_has_not_asked_in_vain() {
    let (a, b) = with_one_too_large();
    told_by_the_dead(&a, 0..50, NOW);
    let mut asked = 0;
    let mut pair = Pair::new(&a, &b, NOW);
    for at in (NOW..NOW + LONG).step_by(500) {
        mark(&mut pair.push, &a);
        pair.run(at);
        if std::mem::replace(&mut asked, pair.count(kind::SENT)) == asked {
            continue;
        }
        // First all of it, and one finds no room; then that one.
        assert_eq!((keys(&b, at).len(), zone(&b).asks_in_vain(at)), (150, asked > 1));
    }
    assert!(asked > 1 && zone(&b).stats().incomplete > 0);
}

#[test]
fn a_peer_that_does_not_know_of_comparing_is_left_in_peace() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    set(&zone(&a), "k", b"v", NOW);
    let mut pair = Pair::new(&a, &b, NOW);
    let mut asked = 0;
    for at in (NOW..NOW + 4 * LONG).step_by(100) {
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        if pair.push.deadline() <= at {
            pair.push.tick(at).unwrap();
        }
        pair.push.fill(&mut forth, 1 << 16, at).unwrap();
        pair.pull.handle(&forth, &mut back, at).unwrap();
        if pair.pull.deadline() <= at {
            pair.pull.tick(&mut back, at).unwrap();
        }
        // The older version skips what it doesn't know.
        let known = super::pair::without(&back, kind::COMPARE);
        asked += usize::from(known.len() < back.len());
        pair.push.handle(&known, at).unwrap();
    }
    assert!((1..10).contains(&asked), "asked {asked} times");
    assert_eq!(keys(&b, NOW), ["k"]);
    let _: &Pull = &pair.pull;
}

#[test]
fn who_is_gone_is_relayed_with_what_came_later_only() {
    let (a, b) = (joined(1, 1 << 20), joined(2, 1 << 20));
    let (gone, old) = (Identity([8; 16]), Identity([9; 16]));
    let apply = |node: &Node, key: &str, origin, stamp| {
        let version = Version { stamp: Stamp::at(stamp), origin };
        let record = Record {
            kind: Kind::Register,
            version,
            key: key.as_bytes(),
            value: Some(b"v"),
            expires: None,
            shortened: false,
        };
        assert_eq!(zone(node).apply(&record, NOW, 60_000).unwrap(), Applied::Newer);
    };
    // As of state files: nobody has promised anything of who wrote these.
    for n in 0..500 {
        apply(&a, &format!("key {n}"), old, NOW - 100_000);
        apply(&b, &format!("key {n}"), old, NOW - 100_000);
    }
    // One node was told more by who is gone; and of what that wrote, something has been replaced since.
    zone(&a).advance(gone, Stamp::at(NOW - 5_000));
    apply(&b, "late", gone, NOW - 1_000);
    apply(&b, "replaced", old, NOW - 500);
    zone(&b).advance(gone, Stamp::at(NOW));
    let mut pair = Pair::new(&b, &a, NOW);
    for at in (NOW..NOW + 15_000).step_by(100) {
        pair.run(at);
    }
    assert_eq!(zone(&a).position(gone), Stamp::at(NOW));
    assert_eq!(contents(&zone(&a), NOW), contents(&zone(&b), NOW));
    assert_eq!(pair.records, 2, "of 502");
    assert_eq!(zone(&a).position(old), Stamp::ZERO, "that was not asked for");
}

#[test]
fn nobody_is_taken_for_gone_because_the_clock_was_set_forward() {
    let (a, b, lives) = (joined(1, 1 << 20), joined(2, 1 << 20), Identity([8; 16]));
    let (before, after) = (Stamp::at(NOW - 5_000), Stamp::at(NOW - 1_000));
    zone(&a).advance(lives, before);
    zone(&b).advance(lives, after);
    let (mut pair, timeout) = (Pair::new(&b, &a, NOW), limits().timeout);
    let mut pass = |from: Millis, long: Millis, speaks: bool| {
        for at in (from..from + long).step_by(100) {
            // As often as sessions speak that have nothing to say.
            if speaks && (at - from) % (timeout / 3) >= timeout / 3 - 100 {
                [&a, &b].iter().for_each(|node| node.control.heard(lives, at, &Traffic::default()));
            }
            pair.run(at);
        }
        zone(&a).position(lives)
    };
    [&a, &b].iter().for_each(|node| node.control.heard(lives, NOW, &Traffic::default()));
    assert_eq!(pass(NOW, 3 * timeout, true), before, "it speaks for itself");
    let leapt = NOW + 3 * timeout + 3_600_000;
    assert_eq!(pass(leapt, 3 * timeout, true), before, "... also by a clock that has leapt");
    let back = NOW + 1_000;
    assert_eq!(pass(back, 3 * timeout, true), before, "... or was mended");
    assert_eq!(pass(back + 3 * timeout, 4 * timeout, false), after, "who is silent is spoken for");
}

#[test]
fn nobody_is_taken_for_lost_before_it_can_have_been_heard_of() {
    let (a, b, lives) = (joined(1, 2 << 20), joined(2, 2 << 20), Identity([8; 16]));
    // More than is asked about at once, and over on the one: so the next comparison follows soon.
    for number in 0..17_000_u32 {
        let version = Version { stamp: Stamp::at(NOW - LONG), origin: Identity([9; 16]) };
        let (key, value) = (number.to_le_bytes(), Some(b"".as_slice()));
        let record = Record { kind: Kind::Register, version, key: &key, value, expires: None, shortened: false };
        assert_eq!(zone(&b).apply(&record, NOW, 60_000), Ok(Applied::Newer));
    }
    zone(&a).advance(Identity([9; 16]), Stamp::at(NOW - LONG));
    // Of this one something found no room, and the peer hasn't all of it either.
    let value = vec![1; 1 << 20];
    let version = Version { stamp: Stamp::at(NOW - LONG), origin: lives };
    let record =
        Record { kind: Kind::Register, version, key: b"large", value: Some(&value), expires: None, shortened: false };
    assert_eq!(zone(&b).apply(&record, NOW, 60_000), Ok(Applied::Full));
    zone(&b).advance(lives, version.stamp);
    let (mut pair, patience) = (Pair::new(&a, &b, NOW), 2 * limits().timeout);
    (NOW..NOW + patience).step_by(10).for_each(|at| pair.run(at));
    assert_eq!((pair.count(kind::LISTED), zone(&b).stats().records), (2, 0));
    assert!(zone(&b).lacks_of(lives));
    assert_eq!(zone(&b).position(lives), version.stamp, "it is still promised");
    // It never speaks.
    (NOW + patience..NOW + 2 * LONG).step_by(50).for_each(|at| pair.run(at));
    assert!(!zone(&b).is_lacking());
}

#[test]
fn what_was_left_out_whoever_wrote_it_is_made_up_for_by_several_peers() {
    let (a, b, c) = (joined(1, 1 << 20), joined(2, 1 << 20), joined(3, 1 << 20));
    let (one, other) = (Identity([8; 16]), Identity([9; 16]));
    for (node, of_one, of_other) in [(&a, 5, 5), (&b, 5, 3), (&c, 3, 5)] {
        zone(node).advance(one, Stamp::at(NOW - 10_000 + of_one));
        zone(node).advance(other, Stamp::at(NOW - 10_000 + of_other));
    }
    zone(&a).count_lacked(Stamp::at(NOW - 9_000));
    // Both live, so nobody speaks for them, and no peer has all that this node has of both.
    all_together(&[&a, &b, &c], NOW, 4 * LONG, &[one, other]);
    assert_eq!(zone(&a).lacks(), Lacks { count: 1, ..Lacks::default() });
    assert_eq!(zone(&a).position(one), Stamp::at(NOW - 10_000 + 5), "it is still promised");
}

#[test]
fn nodes_that_all_lack_something_whoever_wrote_it_find_out_what_nobody_has() {
    let nodes = [joined(1, 1 << 20), joined(2, 1 << 20), joined(3, 1 << 20)];
    let [a, b, c] = &nodes;
    for node in &nodes {
        set(&zone(node), &format!("of {}", zone(node).params().node), b"v", NOW);
    }
    all_together(&[a, b, c], NOW, 2_000, &[]);
    // Of who is gone: on one of them only, although the others' positions cover it.
    let gone = Identity([9; 16]);
    let version = Version { stamp: Stamp::at(NOW - 10_000), origin: gone };
    let record =
        Record { kind: Kind::Register, version, key: b"kept", value: Some(b"v"), expires: None, shortened: false };
    assert_eq!(zone(c).apply(&record, NOW, 60_000), Ok(Applied::Newer));
    for node in &nodes {
        assert!(zone(node).advance(gone, Stamp::at(NOW - 9_000)));
        zone(node).count_lacked(Stamp::at(NOW + 1_000));
    }
    all_together(&[a, b, c], NOW + 3_000, 6 * LONG, &[]);
    for node in &nodes {
        assert_eq!(zone(node).lacks(), Lacks { count: 1, ..Lacks::default() }, "node {:?}", zone(node).params().node);
        assert_eq!(zone(node).stats().incomplete, 0);
        assert_eq!(keys(node, NOW).len(), 4);
    }
}
