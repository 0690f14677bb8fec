//! Counters: what is added on any node is in the sum once, whatever the order of arrival, over new memory and deaths.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::check::check;
use super::crash::{Ledger, end, fork};
use super::kept::{all_of, give, give_all};
use super::*;
use crate::record::{Count, Kind, PartId, Record, Role, Stamp, Version};
use crate::store::failpoint::{ALL, Step, armed};
use crate::store::{Applied, Condition, Counted, Life, Matching, Missing, Sparing, StoreError, Written};

const ANY_DRIFT: Millis = Millis::MAX;
const FROM_ZERO: Missing = Missing::Begin(0, Life::Default);

fn counters(node: u8, timeout: Option<Millis>, sync: bool) -> Fixture {
    let params = Params { matching: Matching::Counter, timeout, sync, ..Params::new(identity(node)) };
    Fixture::with(256 << 10, params)
}

fn add(zone: &Zone, key: &[u8], by: i64, now: Millis) -> i64 {
    match zone.count(key, by, FROM_ZERO, now).expect("room") {
        Counted::Done { sum, .. } => sum,
        Counted::Unmet => panic!("it begins if it isn't there"),
    }
}

fn set(zone: &Zone, key: &[u8], to: i64, now: Millis) {
    zone.set(key, to.to_string().as_bytes(), Life::Default, Condition::Always, now).expect("room");
}

fn sum(zone: &Zone, key: &[u8], now: Millis) -> Option<i64> {
    value(zone, key, now).map(|text| String::from_utf8(text).expect("text").parse().expect("a number"))
}

#[test]
fn a_reader_gets_a_sum_though_a_writer_is_stopped_in_the_midst_of_a_change() {
    let zone = counters(1, None, false);
    add(&zone, b"c", 5, START);
    let shard = zone.shard_of(b"c");
    let half = zone.shard(shard).expect("the lock");
    let changing = half.changing();
    assert_eq!(sum(&zone, b"c", START), Some(5), "without the lock, which this very thread has");
    drop(changing);
    drop(half);
    assert_eq!(add(&zone, b"c", 1, START), 6);
    assert_eq!(sum(&zone, b"c", START), Some(6));
    check(&zone);
}

#[test]
fn a_counter_is_what_was_added_and_set() {
    for sync in [false, true] {
        let zone = counters(1, None, sync);
        assert_eq!(sum(&zone, b"k", START), None);
        assert_eq!(zone.count(b"k", 1, Missing::Leave, START), Ok(Counted::Unmet));
        assert_eq!((add(&zone, b"k", 1, START), add(&zone, b"k", 5, START), add(&zone, b"k", -7, START)), (1, 6, -1));
        set(&zone, b"k", 100, START);
        assert_eq!((sum(&zone, b"k", START), add(&zone, b"k", 1, START)), (Some(100), 101));
        assert_eq!(zone.set(b"k", b"x", Life::Default, Condition::Always, START), Err(StoreError::NoNumber));
        assert_eq!(zone.set(b"k", b"1", Life::Default, Condition::Absent, START), Ok(Written::Unmet));
        assert_eq!(zone.touch(b"k", Life::For(1), START), Err(StoreError::BadKey));
        assert_eq!(zone.stats().records, 2, "what was added before it was set is gone");
        assert!(matches!(zone.delete(b"k", START), Ok(Written::Done(_))));
        assert_eq!((sum(&zone, b"k", START), zone.delete(b"k", START)), (None, Ok(Written::Unmet)));
        assert_eq!(zone.is_empty(START), Ok(true));
        // One that was never set, too.
        add(&zone, b"l", 2, START);
        assert!(matches!(zone.delete(b"l", START), Ok(Written::Done(_))));
        assert_eq!((sum(&zone, b"l", START), add(&zone, b"l", 1, START)), (None, 1));
        assert_eq!(zone.stats().tombstones > 0, sync, "who isn't followed remembers nothing");
        zone.clear(START).expect("cleared");
        assert_eq!((sum(&zone, b"l", START), add(&zone, b"l", 3, START)), (None, 3));
        assert_eq!(listing(&zone, START), [(b"l".to_vec(), b"3".to_vec(), None)]);
        check(&zone);
    }
}

#[test]
fn what_64_bits_do_not_hold_is_refused() {
    let zone = counters(1, None, true);
    set(&zone, b"k", i64::MAX - 1, START);
    assert_eq!(add(&zone, b"k", 1, START), i64::MAX);
    assert_eq!(zone.count(b"k", 1, FROM_ZERO, START), Err(StoreError::OutOfRange));
    assert_eq!(zone.count(b"n", i64::MIN, Missing::Begin(-1, Life::Default), START), Err(StoreError::OutOfRange));
    assert_eq!((sum(&zone, b"k", START), sum(&zone, b"n", START)), (Some(i64::MAX), None));
    // Apart, nodes can't know.
    let other = counters(2, None, true);
    add(&other, b"k", i64::MAX, START + 1);
    give_all(&all_of(&other), &zone, START + 2);
    assert_eq!(sum(&zone, b"k", START + 2), Some(i64::MAX), "shown as the largest");
    assert_eq!(add(&zone, b"k", i64::MIN, START + 2), i64::MAX - 1, "and right when something is taken off");
}

#[test]
fn two_nodes_begin_a_counter_apart_and_nothing_is_lost() {
    let zones = [counters(1, Some(10_000), true), counters(2, Some(10_000), true)];
    for (zone, later) in zones.iter().zip([0, 500]) {
        let begun = zone.count(b"k", 1, Missing::Begin(100, Life::Default), START + later);
        assert!(matches!(begun, Ok(Counted::Done { sum: 101, created: true, .. })), "{begun:?}");
    }
    give_all(&all_of(&zones[0]), &zones[1], START + 600);
    give_all(&all_of(&zones[1]), &zones[0], START + 600);
    for zone in &zones {
        assert_eq!(sum(zone, b"k", START + 600), Some(102), "it begins with what it begins with once");
        assert_eq!(add(zone, b"k", 1, START + 700), 103);
        assert_eq!(listing(zone, START + 700)[0].2, Some(START + 10_000), "the earliest end");
    }
    give_all(&all_of(&zones[0]), &zones[1], START + 800);
    give_all(&all_of(&zones[1]), &zones[0], START + 800);
    for zone in &zones {
        assert_eq!(sum(zone, b"k", START + 9_999), Some(104));
        assert_eq!(sum(zone, b"k", START + 10_600), None, "it has ended");
        zone.upkeep(START + 11_000, 1000);
        assert_eq!(add(zone, b"k", 1, START + 11_000), 1, "and begins anew");
    }
    give_all(&all_of(&zones[0]), &zones[1], START + 11_500);
    assert_eq!(sum(&zones[1], b"k", START + 11_500), Some(2));
    zones.iter().for_each(|zone| check(zone));
}

#[test]
fn what_was_added_before_a_delete_stays_gone() {
    let (one, two) = (counters(1, None, true), counters(2, None, true));
    add(&two, b"k", 5, START);
    give_all(&all_of(&two), &one, START + 1);
    one.delete(b"k", START + 2).expect("deleted");
    // The other hasn't heard of it.
    add(&two, b"k", 1, START + 3);
    give_all(&all_of(&two), &one, START + 4);
    assert_eq!(sum(&one, b"k", START + 4), None, "it goes on with what is deleted");
    give_all(&all_of(&one), &two, START + 5);
    assert_eq!(sum(&two, b"k", START + 5), None);
    add(&two, b"k", 1, START + 6);
    give_all(&all_of(&two), &one, START + 7);
    assert_eq!((sum(&one, b"k", START + 7), sum(&two, b"k", START + 7)), (Some(1), Some(1)));
}

#[test]
fn a_counter_that_begins_anew_at_once_has_what_it_begins_with() {
    let (a, b) = (counters(1, None, true), counters(2, None, true));
    let begin = |zone: &Zone, now| zone.count(b"k", 1, Missing::Begin(100, Life::Default), now).expect("room");
    begin(&b, START);
    give_all(&all_of(&b), &a, START);
    a.delete(b"k", START + 1).expect("deleted");
    begin(&a, START + 1);
    // It comes while the other one's clock is further on.
    for now in [START + 5, START + 10] {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut all = all_of(from);
            all.sort_by_key(|kept| !matches!(Role::split(&kept.key), Some((_, Role::Base))));
            give_all(&all, to, now);
        }
    }
    assert_eq!([sum(&a, b"k", START + 10), sum(&b, b"k", START + 10)], [Some(101), Some(101)]);
    check(&a);
    check(&b);
}

#[test]
fn new_memory_goes_on_with_a_part_of_its_own() {
    let (old, peer) = (counters(1, None, true), counters(2, None, true));
    add(&old, b"k", 3, START);
    give_all(&all_of(&old), &peer, START + 1);
    let saved = all_of(&old);
    // Not all of it is in the file that the new memory begins with.
    add(&old, b"k", 4, START + 2);
    give_all(&all_of(&old), &peer, START + 3);
    let new = counters(1, None, true);
    give_all(&saved, &new, START + 4);
    assert_eq!(add(&new, b"k", 10, START + 5), 13);
    give_all(&all_of(&new), &peer, START + 6);
    give_all(&all_of(&peer), &new, START + 6);
    assert_eq!((sum(&new, b"k", START + 6), sum(&peer, b"k", START + 6)), (Some(17), Some(17)));
}

#[test]
fn its_tag_changes_with_each_part() {
    let (one, two) = (counters(1, None, true), counters(2, None, true));
    add(&two, b"k", 1, START);
    add(&one, b"k", 1, START + 1);
    let tag = |zone: &Zone| {
        let found = zone.get(b"k", START + 5, &mut Vec::new()).expect("a look-up").expect("there");
        zone.version(&found)
    };
    let before = tag(&one);
    give_all(&all_of(&two), &one, START + 2);
    assert_ne!(tag(&one), before, "also where what comes is older than what is there");
    give_all(&all_of(&one), &two, START + 2);
    assert_eq!(tag(&one), tag(&two), "the same everywhere");
    assert!(matches!(one.set(b"k", b"9", Life::Default, Condition::Version(before), START + 3), Ok(Written::Unmet)));
    let set = one.set(b"k", b"9", Life::Default, Condition::Version(tag(&one)), START + 3);
    assert!(matches!(set, Ok(Written::Done(version)) if version == tag(&one)));
}

#[test]
fn what_is_no_record_of_a_counter_is_refused() {
    let zone = counters(1, None, true);
    let part = Role::Part(PartId([7; 8])).of(b"k");
    let count = Count { begun: Stamp::ZERO, amount: 1 }.encode();
    let version = Version { stamp: Stamp::at(START), origin: identity(7) };
    let good =
        Record { kind: Kind::Counter, version, key: &part, value: Some(&count), expires: None, shortened: false };
    let base = Role::Base.of(b"k");
    for bad in [
        Record { value: Some(b"1"), ..good },
        Record { kind: Kind::Register, ..good },
        Record { key: b"k", ..good },
        Record { key: &base, ..good },
    ] {
        assert!(zone.apply(&bad, START, ANY_DRIFT).is_err(), "{bad:?}");
    }
    assert_eq!(zone.apply(&good, START, ANY_DRIFT), Ok(Applied::Newer));
    assert_eq!(sum(&zone, b"k", START), Some(1));
}

#[derive(Clone, Debug)]
enum Act {
    Add {
        node: usize,
        key: u8,
        by: i64,
    },
    Set {
        node: usize,
        key: u8,
        to: i64,
    },
    Delete {
        node: usize,
        key: u8,
    },
    /// Some records go from one to another, in some order, some of them twice.
    Give {
        from: usize,
        to: usize,
        order: u64,
    },
    /// A node's memory is made anew, with what a file had.
    Anew {
        node: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let node = 0..NODES;
    let key = 0..3_u8;
    prop_oneof![
        8 => (node.clone(), key.clone(), -3..9_i64).prop_map(|(node, key, by)| Act::Add { node, key, by }),
        1 => (node.clone(), key.clone(), -50..50_i64).prop_map(|(node, key, to)| Act::Set { node, key, to }),
        1 => (node.clone(), key).prop_map(|(node, key)| Act::Delete { node, key }),
        4 => (node.clone(), node.clone(), any::<u64>()).prop_map(|(from, to, order)| Act::Give { from, to, order }),
        1 => node.prop_map(|node| Act::Anew { node }),
    ]
}

const NODES: usize = 3;

/// What must be, by the rule alone: what was added counts if what it was added to was begun after the last time that the
/// counter was set or deleted.
#[derive(Default)]
struct Rule {
    /// For each key: when it was last set or deleted, and to what it was set.
    last: BTreeMap<u8, (Millis, Option<i64>)>,
    /// For each memory and key: what was added since when.
    added: BTreeMap<(usize, u8), Vec<(Millis, i64)>>,
}

impl Rule {
    fn add(&mut self, memory: usize, key: u8, by: i64, known: Millis, now: Millis) {
        let parts = self.added.entry((memory, key)).or_default();
        match parts.last_mut().filter(|(begun, _)| *begun > known) {
            Some((_, amount)) => *amount += by,
            None => parts.push((now, by)),
        }
    }

    fn sum(&self, key: u8) -> Option<i64> {
        let (cut, set) = self.last.get(&key).copied().unwrap_or((0, None));
        let parts = self.added.iter().filter(|((_, of), _)| *of == key).flat_map(|(_, parts)| parts);
        let counting: Vec<i64> = parts.filter(|(begun, _)| *begun > cut).map(|(_, amount)| *amount).collect();
        (set.is_some() || !counting.is_empty()).then(|| set.unwrap_or(0) + counting.iter().sum::<i64>())
    }
}

/// When the key was last set or deleted, as far as this zone knows.
fn known(zone: &Zone, key: u8) -> Millis {
    let base = Role::Base.of(&[key]);
    all_of(zone).iter().find(|kept| kept.key == base).map_or(0, |kept| kept.version.stamp.millis())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_agree_and_nothing_is_lost_or_doubled(acts in prop::collection::vec(act(), 1..80)) {
        let mut zones: Vec<Fixture> = (0..NODES).map(|node| counters(node as u8 + 1, None, true)).collect();
        let mut memories: Vec<usize> = (0..NODES).collect();
        let (mut rule, mut now) = (Rule::default(), START);
        for act in &acts {
            // Each act in a millisecond of its own: so stamps are in the order of acts.
            now += 1;
            match *act {
                Act::Add { node, key, by } => {
                    rule.add(memories[node], key, by, known(&zones[node], key), now);
                    add(&zones[node], &[key], by, now);
                }
                Act::Set { node, key, to } => {
                    set(&zones[node], &[key], to, now);
                    rule.last.insert(key, (now, Some(to)));
                }
                Act::Delete { node, key } => {
                    if zones[node].delete(&[key], now).expect("room") != Written::Unmet {
                        rule.last.insert(key, (now, None));
                    }
                }
                Act::Give { from, to, order } => {
                    let mut records = all_of(&zones[from]);
                    records.sort_by_key(|kept| order.wrapping_mul(kept.version.stamp.0 | 1));
                    let (some, twice) = (order as usize % (records.len() + 1), order as usize / 7 % 3);
                    for kept in records.iter().take(some).chain(records.iter().take(twice)) {
                        give(kept, &zones[to], now);
                    }
                }
                Act::Anew { node } => {
                    let new = counters(node as u8 + 1, None, true);
                    give_all(&all_of(&zones[node]), &new, now);
                    zones[node] = new;
                    memories[node] = memories.iter().max().expect("some") + 1;
                }
            }
        }
        for _ in 0..2 {
            for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
                give_all(&all_of(&zones[from]), &zones[to], now);
            }
        }
        for zone in &zones {
            check(zone);
            for key in 0..3 {
                prop_assert_eq!(sum(zone, &[key], now), rule.sum(key), "key {}", key);
            }
            prop_assert_eq!(listing(zone, now), listing(&zones[0], now));
        }
    }
}

const KEYS: u64 = 16;

/// One step of a child's work.
fn work(zone: &Zone, ledger: &Ledger, n: u64) {
    let (key, now) = (n % KEYS, START + n);
    let aside = (key + 1000).to_be_bytes();
    match n % 7 {
        2 => drop(zone.set(&aside, b"5", Life::For(1 + n % 300), Condition::Always, now)),
        4 => drop(zone.delete(&aside, now)),
        5 => {
            let part = Role::Part(PartId(n.to_be_bytes())).of(&aside);
            let count = Count { begun: Stamp::ZERO, amount: 1 }.encode();
            let version = Version { stamp: Stamp::at(now), origin: identity(9) };
            let expires = Some(now + 50);
            let record =
                Record { kind: Kind::Counter, version, key: &part, value: Some(&count), expires, shortened: false };
            let _ = zone.apply(&record, now, 60_000);
        }
        _ => drop(zone.count(&aside, 1, Missing::Begin(3, Life::For(1 + n % 200)), now)),
    }
    if let Ok(Counted::Done { sum, .. }) = zone.count(&key.to_be_bytes(), 1, FROM_ZERO, now) {
        ledger.note(key, sum as u64);
    }
    zone.upkeep(now, 5);
    zone.take_dirty();
}

#[test]
fn a_death_after_any_step_loses_and_doubles_nothing() {
    let mut deaths = 0;
    for &step in ALL {
        for nth in [1, 3, 20, 150] {
            let params = Params { matching: Matching::Counter, sync: true, ..Params::new(identity(1)) };
            let (zone, ledger) = (Fixture::with(32 << 10, params), Ledger::new());
            let child = fork(|| {
                armed::arm(step, nth, libc::SIGKILL);
                (1..3000).for_each(|n| work(&zone, &ledger, n));
            });
            // Steps of eviction, say, don't come.
            if end(child, 0).is_none() {
                break;
            }
            zone.delete(b"absent", START).expect("it goes on");
            for key in 0..KEYS {
                let (noted, sum) = (ledger.noted(key) as i64, sum(&zone, &key.to_be_bytes(), START).unwrap_or(0));
                assert!(sum == noted || sum == noted + 1, "{step:?}, time {nth}: {noted} acknowledged, {sum} there");
            }
            check(&zone);
            deaths += 1;
        }
    }
    assert!(deaths > ALL.len(), "{deaths} deaths in {} steps", ALL.len());
}

#[test]
fn a_counter_has_a_bounded_number_of_parts() {
    use crate::store::parts::MAX_PARTS;
    let params = Params { matching: Matching::Counter, sync: true, ..Params::new(identity(1)) };
    let zone = Fixture::with(4 << 20, params);
    let count = Count { begun: Stamp::ZERO, amount: 1 }.encode();
    let part = |n: usize| {
        let key = Role::Part(PartId((n as u64 + 1).to_le_bytes())).of(b"k");
        let version = Version { stamp: Stamp::at(START), origin: identity(7) };
        let record =
            Record { kind: Kind::Counter, version, key: &key, value: Some(&count), expires: None, shortened: false };
        zone.apply(&record, START, ANY_DRIFT)
    };
    for n in 0..MAX_PARTS {
        assert_eq!(part(n), Ok(Applied::Newer));
    }
    assert_eq!(part(MAX_PARTS), Err(StoreError::Parts));
    assert_eq!(part(0), Ok(Applied::Stale), "those that are there go on");
    assert_eq!(
        zone.count(b"k", 1, FROM_ZERO, START),
        Err(StoreError::Parts),
        "what no peer would take isn't begun here"
    );
    assert_eq!(sum(&zone, b"k", START), Some(MAX_PARTS as i64));
    set(&zone, b"k", 5, START);
    assert_eq!((add(&zone, b"k", 1, START), zone.stats().records), (6, 2), "it begins anew");
}

#[test]
fn of_what_begins_with_a_number_all_is_there_or_nothing() {
    const NEW: u64 = 1 << 32;
    const APART: Millis = 20_000;
    let params = Params { matching: Matching::Counter, ..Params::new(identity(1)) };
    let zone = Fixture::with(32 << 10, params);
    let begin = |n: u64, from, life, now| zone.count(&n.to_be_bytes(), 1, Missing::Begin(from, life), now);
    for n in 0..2000_u64 {
        let _ = begin(n, 0, Life::For(APART * (n + 1)), START);
    }
    let (mut refused, mut begun) = (0, 0);
    for n in 0..40_u64 {
        // One more has ended, and leaves room for one record; it takes two.
        let now = START + APART * (n + 1) + APART / 2;
        zone.upkeep(now, 1000);
        match begin(NEW + n, 5, Life::Default, now) {
            Err(StoreError::NoMemory) => {
                refused += 1;
                assert_eq!(sum(&zone, &(NEW + n).to_be_bytes(), now), None, "{n}");
            }
            done => {
                begun += 1;
                assert!(matches!(done, Ok(Counted::Done { sum: 6, created: true, .. })), "{n}: {done:?}");
            }
        }
    }
    assert!(refused > 0 && begun > 0, "{refused} refused, {begun} begun");
    check(&zone);
}

#[test]
fn counters_of_a_full_zone_are_deleted_and_set() {
    let longest = vec![b'k'; 3000];
    for (sync, stem) in [(false, &b"k"[..]), (true, b"k"), (true, b"a key of a common length "), (true, &longest)] {
        let params = Params { matching: Matching::Counter, sync, ..Params::new(identity(1)) };
        let (zone, other) = (Fixture::with(64 << 10, params), counters(2, None, true));
        let key = |n: usize| [stem, &n.to_be_bytes()].concat();
        let count = (0..).take_while(|n| zone.count(&key(*n), 7, FROM_ZERO, START).is_ok()).count();
        assert!(count >= 8, "{count}");
        for n in 0..count {
            let now = START + 1 + n as Millis;
            match n % 4 {
                0 => assert!(matches!(zone.delete(&key(n), now), Ok(Written::Done(_))), "{n} of {count}"),
                1 => set(&zone, &key(n), i64::MIN, now),
                2 if sync => {
                    // Another node knows of it, and deletes or sets it.
                    give_all(&all_of(&zone), &other, now);
                    assert_eq!(sum(&other, &key(n), now), Some(7));
                    match n % 8 {
                        2 => assert!(matches!(other.delete(&key(n), now), Ok(Written::Done(_)))),
                        _ => set(&other, &key(n), 5, now),
                    }
                    let base = Role::Base.of(&key(n));
                    let all = all_of(&other);
                    let record = all.iter().find(|kept| kept.key == base).expect("a base");
                    assert_eq!(give(record, &zone, now), Applied::Newer, "{n} of {count}");
                }
                _ => {}
            }
            let shown = match (n % 4, n % 8) {
                (0, _) => None,
                (1, _) => Some(i64::MIN),
                (2, 2) if sync => None,
                (2, _) if sync => Some(5),
                _ => Some(7),
            };
            assert_eq!(sum(&zone, &key(n), now), shown, "{n} of {count}");
            if n % 4 == 3 {
                assert_eq!(add(&zone, &key(n), 1, now), 8, "who is left goes on");
            }
            check(&zone);
        }
        let now = START + 2 + count as Millis;
        for n in (3..count).step_by(4) {
            assert_eq!(add(&zone, &key(n), 1, now), 9);
        }
    }
}

#[test]
fn what_one_node_adds_is_bounded_too() {
    let (one, two) = (counters(1, None, true), counters(2, None, true));
    add(&one, b"k", i64::MAX, START);
    give_all(&all_of(&one), &two, START + 1);
    add(&two, b"k", -10, START + 2);
    give_all(&all_of(&two), &one, START + 3);
    assert_eq!(sum(&one, b"k", START + 3), Some(i64::MAX - 10));
    assert_eq!(one.count(b"k", 1, FROM_ZERO, START + 4), Err(StoreError::OutOfRange), "all that this node added");
    assert_eq!(add(&two, b"k", 1, START + 4), i64::MAX - 9, "another node can");
    set(&one, b"k", i64::MAX - 9, START + 5);
    assert_eq!(add(&one, b"k", 1, START + 6), i64::MAX - 8, "it begins anew");
}

#[test]
fn what_is_added_where_an_end_came_joins_what_is_still_there() {
    const HOUR: Millis = 3_600_000;
    let (one, two) = (counters(1, Some(HOUR), true), counters(2, Some(HOUR), true));
    add(&one, b"k", 1, START);
    add(&two, b"k", 1, START + 5);
    give_all(&all_of(&two), &one, START + 10);
    assert_eq!(sum(&one, b"k", START + HOUR + 2), Some(1), "the part that ends later");
    assert_eq!(add(&one, b"k", 1, START + HOUR + 2), 2);
    assert_eq!(listing(&one, START + HOUR + 2)[0].2, Some(START + HOUR + 5), "and its end");
    assert_eq!((sum(&one, b"k", START + HOUR + 5), add(&one, b"k", 1, START + HOUR + 5)), (None, 1));
    assert_eq!(listing(&one, START + HOUR + 5)[0].2, Some(START + 2 * HOUR + 5), "then it begins anew");
    // Also what was begun anew before that was heard of, if the node adds in between.
    let late = counters(3, Some(HOUR), true);
    add(&late, b"k", 1, START + HOUR + 1);
    give_all(&all_of(&two), &late, START + HOUR + 2);
    assert_eq!(add(&late, b"k", 1, START + HOUR + 3), 3);
    assert_eq!(sum(&late, b"k", START + HOUR + 5), None);
}

/// A child that adds twice, and is stopped when it has published so many records.
fn stopped_after(nth: u32, zone: &Zone) -> libc::pid_t {
    let child = fork(|| {
        armed::arm(Step::Published, nth, libc::SIGSTOP);
        let _ = zone.count(b"k", 1, Missing::Begin(100, Life::Default), START);
        let _ = zone.count(b"k", 1, Missing::Begin(100, Life::Default), START);
    });
    let mut status = 0;
    // SAFETY: a child of ours; this returns when it has stopped.
    unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    child
}

#[test]
fn who_looks_waits_for_a_counter_half_begun_though_the_thread_has_waited_enough_for_others() {
    let zone = counters(1, None, true);
    let child = stopped_after(1, &zone);
    let sparing = Sparing::begin();
    // Who waits for itself waits in vain.
    let stuck = std::sync::atomic::AtomicU64::new(lock::this_thread());
    assert_eq!(lock::lock(&stuck), Err(StoreError::Busy));
    drop(sparing);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // SAFETY: a child of ours goes on.
            unsafe { libc::kill(child, libc::SIGCONT) };
        });
        assert!([Some(101), Some(102)].contains(&sum(&zone, b"k", START)), "once the writer has gone on");
    });
    assert_eq!(end(child, 0), None);
    check(&zone);
}

#[test]
fn a_look_meets_no_counter_half_begun() {
    for nth in 1..=3 {
        let zone = counters(1, None, true);
        let child = stopped_after(nth, &zone);
        let mut text = Vec::new();
        let looked = zone.get(b"k", START, &mut text);
        assert!(looked == Err(StoreError::Busy) || text == b"101" || text == b"102", "{nth}: {looked:?} {text:?}");
        // SAFETY: a child of ours goes on.
        unsafe { libc::kill(child, libc::SIGCONT) };
        assert_eq!(end(child, 0), None);
        assert_eq!(sum(&zone, b"k", START), Some(102));
        check(&zone);
    }
}

#[test]
fn a_look_meets_only_sums_that_were() {
    const ROUNDS: u32 = 5_000;
    for sync in [false, true] {
        let zone = counters(1, None, sync);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looks = 0_u64;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let seen = sum(&zone, b"k", START);
                    assert!([None, Some(101), Some(121), Some(141), Some(7)].contains(&seen), "{seen:?} never was");
                    looks += 1;
                }
                looks
            });
            for _ in 0..ROUNDS {
                if reader.is_finished() {
                    break;
                }
                zone.count(b"k", 1, Missing::Begin(100, Life::Default), START).expect("room");
                add(&zone, b"k", 20, START);
                add(&zone, b"k", 20, START);
                set(&zone, b"k", 7, START);
                zone.delete(b"k", START).expect("deleted");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(reader.join().expect("no other sums") > 0);
        });
        check(&zone);
    }
}
