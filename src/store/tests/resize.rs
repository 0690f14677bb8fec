//! Moving to memory of another size, with writers on both sides.

use super::crash::{end, fork};
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::failpoint::{Step, armed};
use crate::store::merge::GONE_FOR;
use crate::store::{Applied, Condition, Handover, Life, Matching, Merge, Merging, StoreError, Written};
use std::collections::BTreeMap;
use std::time::Instant;

fn set(zone: &Zone, key: &[u8], value: &[u8], now: Millis) {
    let written = zone.set(key, value, Life::Default, Condition::Always, now).expect("a write");
    assert!(matches!(written, Written::Done(_)));
}

fn filled(size: usize, sync: bool) -> Fixture {
    let zone = Fixture::new(size, Some(60_000), sync);
    (0..500).for_each(|n| set(&zone, format!("key {n}").as_bytes(), &vec![b'v'; n % 200], START));
    zone
}

fn empty(size: usize, sync: bool) -> Fixture {
    Fixture::new(size, Some(60_000), sync)
}

/// Merges until there is nothing more to do; `gone`: the old workers have gone.
fn merge(merge: &mut Merge, gone: bool) -> bool {
    let began = Instant::now();
    loop {
        match merge.step(1, START, |_| !gone) {
            Merging::Over => return true,
            Merging::Waiting if !gone => return false,
            _ => assert!(began.elapsed().as_secs() < 10, "it never ends"),
        }
    }
}

#[test]
fn a_copy_has_everything_and_leaves_the_old_as_it_was() {
    for (from, to) in [(256 << 10, 4 << 20), (4 << 20, 256 << 10), (512 << 10, 511 << 10)] {
        let (old, new) = (filled(from, true), empty(to, true));
        let other = Version { stamp: Stamp::at(START - 5), origin: identity(9) };
        let record = Record {
            kind: Kind::Register,
            version: other,
            key: b"theirs",
            value: Some(b"v"),
            expires: None,
            shortened: true,
        };
        assert_eq!(old.apply(&record, START, 0), Ok(Applied::Newer));
        old.advance(identity(9), other.stamp);
        old.delete(b"key 7", START).expect("a delete");
        old.set_joined();
        let (before, listed) = (old.stats(), listing(&old, START));
        let copied = old.copy_to(&new, &[], START).expect("a copy");
        assert_eq!((copied.records, copied.lost, copied.evicted), (500, 0, 0), "{from} to {to}");
        assert_eq!(listing(&new, START), listed);
        assert_eq!((new.stats().tombstones, new.joined()), (1, true));
        assert_eq!(new.position(identity(9)), other.stamp);
        let mut value = Vec::new();
        let found = new.get(b"theirs", START, &mut value).expect("a look-up").expect("a record");
        assert_eq!(new.version(&found), other);
        assert_eq!((old.stats(), listing(&old, START)), (before, listed));
        super::check::check(&new);
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let (old, new) = (filled(256 << 10, false), empty(32 << 10, false));
    let copied = old.copy_to(&new, &[], START).expect("a copy");
    assert_eq!(copied.records, 500);
    assert_eq!(copied.lost, 500 - new.stats().records);
    assert!(copied.lost > 100);
    let params = Params { evict: true, ..Params::new(identity(1)) };
    let new = Fixture::with(32 << 10, params);
    let copied = old.copy_to(&new, &[], START).expect("a copy");
    assert_eq!((copied.lost, copied.evicted), (0, 500 - new.stats().records));
}

#[test]
fn old_writers_lose_nothing_and_deletes_win() {
    for sync in [false, true] {
        let (old, new) = (filled(256 << 10, sync), empty(1 << 20, sync));
        let (source, copied) = old.hand_over(&new, &mut [], 2, START);
        assert_eq!(copied.expect("a copy").lost, 0);
        let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });

        set(&old, b"late", b"old", START);
        set(&old, b"key 1", b"changed", START);
        old.delete(b"key 2", START).expect("a delete");
        new.delete(b"key 3", START).expect("a delete");
        set(&new, b"key 4", b"new", START);
        assert!(!merge(&mut merging, false));
        assert!(merging.take_merged());
        assert_eq!(value(&new, b"late", START).as_deref(), Some(&b"old"[..]));
        assert_eq!(value(&new, b"key 1", START).as_deref(), Some(&b"changed"[..]));
        assert_eq!(value(&new, b"key 4", START).as_deref(), Some(&b"new"[..]));
        assert_eq!((value(&new, b"key 2", START), value(&new, b"key 3", START)), (None, None));

        // Another agent begins anew: nothing that was deleted comes back.
        new.delete(b"late", START + 1).expect("a delete");
        let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
        assert!(!merge(&mut merging, false));
        assert_eq!(value(&new, b"late", START + 1), None);

        old.clear(START + 5).expect("emptied");
        set(&old, b"last", b"v", START + 6);
        assert!(merge(&mut merging, true));
        assert_eq!(listing(&new, START + 6).len(), 1);
        assert!(!old.is_source());
        // All is as in any zone now.
        let stones = new.stats().tombstones;
        new.delete(b"last", START + 7).expect("a delete");
        assert_eq!(new.stats().tombstones - stones, u64::from(sync));
        assert_eq!(new.close(START + 1000).0, Stamp::at(START + 1000));
    }
}

#[test]
fn nothing_is_promised_that_the_other_memory_may_still_hold() {
    let (old, new) = (filled(256 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    for now in [START, START + 10, START + 1000] {
        // What the one promises, the other never writes below.
        let Written::Done(by_old) = old.set(b"o", b"v", Life::Default, Condition::Always, now).expect("a write") else {
            panic!("not written");
        };
        let Written::Done(by_new) = new.set(b"n", b"v", Life::Default, Condition::Always, now).expect("a write") else {
            panic!("not written");
        };
        assert!(old.close(now + 5).0 < by_new.stamp);
        assert!(new.close(now + 5).0 < by_old.stamp);
        assert!(new.position(identity(1)) < by_old.stamp);
        assert!(!merge(&mut merging, false));
        assert!(new.close(now + 5).0 >= by_old.stamp || now != START);
        assert!(old.close(now + 5).0 < by_new.stamp);
    }
}

#[test]
fn several_reloads_in_a_row() {
    let (first, second, third) = (filled(256 << 10, false), empty(1 << 20, false), empty(512 << 10, false));
    let (from_first, _) = first.hand_over(&second, &mut [], 2, START);
    set(&first, b"first", b"v", START);
    let mut sources = [from_first];
    let (from_second, _) = second.hand_over(&third, &mut sources, 3, START);
    set(&second, b"second", b"v", START);
    // The agent of the second configuration has not ended yet.
    let mut outdated = Merge::new(&Handover { new: *second, sources: vec![from_first] });
    merge(&mut outdated, false);
    // Until that of the third runs, the oldest workers can only delete.
    let written = first.set(b"first again", b"v", Life::Default, Condition::Always, START);
    assert_eq!(written, Err(StoreError::NoMemory));
    first.delete(b"key 3", START).expect("a delete");
    let mut merging = Merge::new(&Handover { new: *third, sources: vec![sources[0], from_second] });
    assert!(!merge(&mut merging, false));
    set(&first, b"first again", b"v", START);
    assert!(merge(&mut merging, true));
    for key in ["first", "second", "first again", "key 1"] {
        assert!(value(&third, key.as_bytes(), START).is_some(), "{key}");
    }
    assert_eq!(value(&third, b"key 3", START), None);
    assert_eq!(merging.lost, 0);
}

#[test]
fn an_agent_that_is_overtaken_keeps_nothing_from_the_next() {
    for (evict, gone) in [(false, false), (false, true), (true, false), (true, true)] {
        let params = Params { evict, ..Params::new(identity(1)) };
        let (first, second, third) =
            (filled(256 << 10, false), Fixture::with(1 << 20, params), Fixture::with(512 << 10, params));
        let (from_first, _) = first.hand_over(&second, &mut [], 2, START);
        let mut overtaken = Merge::new(&Handover { new: *second, sources: vec![from_first] });
        assert!(!merge(&mut overtaken, false));
        // So that what the oldest workers write next is older than what moves from the second zone to the third.
        set(&second, b"later", b"v", START + 20);
        let mut sources = [from_first];
        let (from_second, _) = second.hand_over(&third, &mut sources, 3, START + 10);
        first.delete(b"key 3", START + 12).expect("a delete");
        // Into other zones they can only delete for now.
        if evict {
            set(&first, b"key 4", b"changed", START + 12);
        }
        // The agent of the second configuration hasn't noticed yet that there is a third.
        let began = Instant::now();
        while overtaken.step(1, START + 12, |_| !gone) == Merging::More || (gone && began.elapsed() < GONE_FOR * 3 / 2)
        {
            assert!(began.elapsed().as_secs() < 10, "it never ends");
        }
        assert_eq!(value(&second, b"key 3", START + 12), None, "it merges on");
        let mut merging = Merge::new(&Handover { new: *third, sources: vec![sources[0], from_second] });
        assert!(merge(&mut merging, true));
        assert_eq!(value(&third, b"key 3", START + 12), None, "evict {evict}, gone {gone}");
        let changed = value(&third, b"key 4", START + 12).as_deref() == Some(b"changed");
        assert_eq!(changed, evict, "evict {evict}, gone {gone}");
    }
}

#[test]
fn a_configuration_that_comes_to_nothing_leaves_the_oldest_writers_as_they_were() {
    for evicts in [false, true] {
        let params = Params { evict: evicts, ..Params::new(identity(1)) };
        let (first, second, third) =
            (filled(256 << 10, false), Fixture::with(1 << 20, params), empty(512 << 10, false));
        let (source, _) = first.hand_over(&second, &mut [], 2, START);
        let mut merging = Merge::new(&Handover { new: *second, sources: vec![source] });
        set(&first, b"before", b"v", START);
        second.bind(&third, &[source], true).expect("bound");
        second.copy_to(&third, &[source], START).expect("a trial");
        assert!(value(&second, b"before", START).is_some());
        let written = first.set(b"k", b"v", Life::Default, Condition::Always, START);
        assert_eq!(written, Err(StoreError::NoMemory));
        merge(&mut merging, false);
        assert_eq!(first.set(b"k", b"v", Life::Default, Condition::Always, START), Err(StoreError::NoMemory));
        second.release();
        merge(&mut merging, false);
        set(&first, b"k", b"v", START);
        assert!(merge(&mut merging, true));
        assert!(value(&second, b"k", START).is_some());
    }
}

#[test]
fn types_move_as_well() {
    let params = Params { matching: Matching::Ip, ..Params::new(identity(1)) };
    let (old, new) = (Fixture::with(64 << 10, params), Fixture::with(1 << 20, params));
    set(&old, b"10.0.0.0/8", b"net", START);
    old.copy_to(&new, &[], START).expect("a copy");
    let mut found = Vec::new();
    assert!(new.look_up(b"10.1.1.1", START, &mut found).expect("a look-up").is_some());
    assert_eq!(found, b"net");
}

/// Writes, deletes and merges at random through both memories, the later of two acknowledged writes to a key being the
/// one that counts; the new memory must have just that in the end. Returns how many writes the old memory refused.
fn storm(from: usize, to: usize, keys: u64, seed: u64) -> u64 {
    let (old, mut new) = (Fixture::new(from, None, false), Fixture::new(to, None, false));
    let mut random = seed;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let name = |n: u64| format!("key {n:08}").into_bytes();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for n in 0..keys {
        let value = vec![1; below(300) as usize];
        set(&old, &name(n), &value, START);
        model.insert(name(n), value);
    }
    old.bind(&new, &[], true).expect("bound");
    let mut copied = old.copy_to(&new, &[], START).expect("a trial");
    if copied.lost > 0 {
        new.zone = Zone::create_like(&new, new.region, &Params::new(identity(1))).expect("a zone");
        old.bind(&new, &[], false).expect("bound");
        copied = old.copy_to(&new, &[], START).expect("a trial");
    }
    assert_eq!(copied.lost, 0, "{keys} records fit into {to} bytes");
    new.zone = Zone::create_like(&new, new.region, &Params::new(identity(1))).expect("a zone");
    let (source, copied) = old.hand_over(&new, &mut [], 2, START);
    assert_eq!(copied.expect("a copy").lost, 0);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    let mut refused = 0;
    for step in 1..6000 {
        let now = START + step;
        // At first the new agent isn't there yet.
        if step > 1000 && below(100) == 0 {
            merge(&mut merging, false);
        }
        let in_old = below(2) == 0;
        let zone = if in_old { &old } else { &new };
        // Old workers change what is there; new ones delete it, and fill the zone with what is only theirs.
        let key = name(if in_old || below(3) == 0 { below(keys + 50) } else { 1_000_000 + below(1_000_000) });
        if below(4) == 0 || (!in_old && key < name(1_000_000)) {
            if let Written::Done(_) = zone.delete(&key, now).expect("a delete") {
                model.remove(&key);
            }
            continue;
        }
        let value = vec![step as u8; if below(50) == 0 { below(6000) } else { below(300) } as usize];
        match zone.set(&key, &value, Life::Default, Condition::Always, now) {
            Ok(_) => drop(model.insert(key, value)),
            Err(StoreError::NoMemory) => refused += u64::from(in_old),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(merge(&mut merging, true));
    assert_eq!(merging.lost, 0, "{from} to {to}, seed {seed}");
    let listed: BTreeMap<_, _> = listing(&new, START).into_iter().map(|(key, value, _)| (key, value)).collect();
    let wrong = model.iter().filter(|(key, value)| listed.get(*key) != Some(value)).count();
    assert_eq!((wrong, listed.len()), (0, model.len()), "{from} to {to}, seed {seed}");
    super::check::check(&new);
    refused
}

#[test]
fn what_old_writers_were_told_is_kept_fits_whatever_new_ones_write() {
    let mut refused = 0;
    for seed in 1..4 {
        for (from, to, keys) in [
            (64 << 10, 32 << 10, 25),
            (256 << 10, 64 << 10, 80),
            (256 << 10, 128 << 10, 280),
            (1 << 20, 400 << 10, 900),
            (4 << 20, 1 << 20, 2000),
            (256 << 10, 2 << 20, 500),
            (300 << 10, 3 << 20, 600),
        ] {
            refused += storm(from, to, keys, seed);
        }
    }
    assert!(refused > 500, "zones came to their limits");
}

#[test]
fn a_larger_zone_lets_old_writers_go_on() {
    let (old, new) = (filled(256 << 10, false), empty(4 << 20, false));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    // As many as fit into the old one, before any agent has looked.
    for n in 0..400 {
        set(&old, format!("late {n}").as_bytes(), &[b'v'; 100], START);
    }
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    for _ in 0..20 {
        assert!(!merge(&mut merging, false));
        for n in 0..100 {
            set(&old, format!("late {n}").as_bytes(), &[b'w'; 100], START);
        }
    }
    assert!(merge(&mut merging, true));
    assert_eq!(new.stats().records, 900);
}

#[test]
fn beside_a_full_zone_old_writers_can_only_delete() {
    let (old, new) = (Fixture::new(256 << 10, None, false), Fixture::new(64 << 10, None, false));
    let key = |n: u32| format!("key {n}").into_bytes();
    (0..300).for_each(|n| set(&old, &key(n), &[1; 30], START));
    old.bind(&new, &[], false).expect("bound");
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let refused = Err(StoreError::NoMemory);
    assert_eq!(old.set(b"more", b"v", Life::Default, Condition::Always, START), refused);
    assert_eq!(old.set(&key(1), &[2; 30], Life::Default, Condition::Always, START), refused);
    assert_eq!(old.touch(&key(1), Life::For(5), START), refused);
    assert_eq!(old.stats().refused, 3);
    // What wouldn't be written is no matter of room.
    let unmet = Ok(Written::Unmet);
    assert_eq!(old.set(b"more", b"v", Life::Default, Condition::Present, START), unmet);
    assert_eq!(old.set(&key(1), b"v", Life::Default, Condition::Absent, START), unmet);
    assert_eq!(old.touch(b"more", Life::For(5), START), unmet);
    assert_eq!(old.stats().refused, 3);
    assert!(matches!(old.delete(&key(1), START), Ok(Written::Done(_))));
    // The zone itself takes updates, and what others can't have.
    (2..300).for_each(|n| set(&new, &key(n), &[3; 30], START));
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    assert_eq!(value(&new, &key(1), START), None);
    assert!(merge(&mut merging, true));
    set(&new, b"more", b"v", START);
}

#[test]
fn what_is_kept_for_old_writers_is_free_once_they_are_gone() {
    let fill = |zone: &Zone| {
        (0..)
            .take_while(|n: &u32| {
                zone.set(&n.to_be_bytes(), &[1; 100], Life::Default, Condition::Always, START).is_ok()
            })
            .count()
    };
    let alone = fill(&empty(256 << 10, false));
    let (old, new) = (empty(256 << 10, false), empty(256 << 10, false));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let beside = fill(&new);
    assert!(beside < alone * 2 / 3 && beside > alone / 3, "{beside} of {alone}");
    assert!(merge(&mut Merge::new(&Handover { new: *new, sources: vec![source] }), true));
    assert_eq!(fill(&new), alone);
    // And a bound that comes to nothing leaves nothing behind.
    new.bind(&old, &[], false).expect("bound");
    assert_eq!(new.set(b"k", b"v", Life::Default, Condition::Always, START), Err(StoreError::NoMemory));
    assert_eq!(new.set(&[0; 4], &[2; 100], Life::Default, Condition::Always, START), Err(StoreError::NoMemory));
    new.release();
    set(&new, &[0; 4], &[2; 100], START);
}

#[test]
fn deletes_that_are_not_merged_yet_outlast_a_full_zone() {
    let (old, new) = (filled(256 << 10, false), empty(4 << 20, false));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    (0..100).for_each(|n| assert!(old.delete(format!("key {n}").as_bytes(), START).is_ok()));
    let mut count = 0;
    while old.set(format!("more {count}").as_bytes(), &[1; 40], Life::Default, Condition::Always, START).is_ok() {
        count += 1;
    }
    assert!(count > 500, "it was filled to the brim: {count}");
    assert!(merge(&mut Merge::new(&Handover { new: *new, sources: vec![source] }), true));
    assert_eq!(new.stats().records, 400 + count);
    assert_eq!(value(&new, b"key 5", START), None);
}

#[test]
fn pledges_of_several_reloads_add_up() {
    let (first, second, third) = (filled(256 << 10, false), empty(320 << 10, false), empty(512 << 10, false));
    let (from_first, _) = first.hand_over(&second, &mut [], 2, START);
    let mut sources = [from_first];
    let (from_second, _) = second.hand_over(&third, &mut sources, 3, START);
    let mut merging = Merge::new(&Handover { new: *third, sources: vec![sources[0], from_second] });
    assert!(!merge(&mut merging, false));
    let fill = |zone: &Zone, name: &str| {
        let key = |n: &u64| format!("{name} {n}").into_bytes();
        (0..).take_while(|n| zone.set(&key(n), &[1; 60], Life::Default, Condition::Always, START).is_ok()).count()
            as u64
    };
    let count = fill(&third, "third") + fill(&second, "second") + fill(&first, "first");
    let mut outdated = Merge::new(&Handover { new: *second, sources: vec![from_first] });
    merge(&mut outdated, false);
    assert!(merge(&mut merging, true));
    assert_eq!((merging.lost, third.stats().records), (0, 500 + count));
}

#[test]
fn an_agent_that_begins_long_after_brings_nothing_back() {
    const WEEK: Life = Life::For(7 * 24 * 3_600_000);
    let (old, new) = (filled(256 << 10, false), empty(1 << 20, false));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let handover = Handover { new: *new, sources: vec![source] };
    old.set(b"late", b"v", WEEK, Condition::Always, START).expect("a write");
    assert!(!merge(&mut Merge::new(&handover), false));
    assert!(value(&new, b"late", START).is_some());
    new.delete(b"late", START + 1).expect("a delete");
    let day = START + 24 * 3_600_000;
    (START..day).step_by(600_000).for_each(|now| _ = new.upkeep(now, 1000));
    assert_eq!(new.stats().tombstones, 0, "nothing tells of it any more");
    old.set(b"last", b"v", WEEK, Condition::Always, day).expect("a write");
    assert!(!merge(&mut Merge::new(&handover), false));
    assert_eq!((value(&new, b"late", day), value(&new, b"last", day)), (None, Some(b"v".to_vec())));
}

#[test]
fn what_becomes_known_of_others_in_the_old_memory_is_known_in_the_new() {
    let (old, new) = (empty(32 << 10, true), empty(1 << 20, true));
    let (of, large) = (identity(7), [0; 20_000]);
    let version = |after| Version { stamp: Stamp::at(START + after), origin: of };
    let record = |key, after, value| Record {
        kind: Kind::Register,
        version: version(after),
        key,
        value: Some(value),
        expires: None,
        shortened: false,
    };
    let apply = |record| old.apply(&record, START + 100, 0).expect("applied");
    old.advance(of, version(0).stamp);
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    assert!(!new.is_unsettled());
    // Something that lost, and so isn't in the feed.
    set(&old, b"k", b"newer", START + 20);
    assert_eq!(apply(record(b"k", 10, b"older")), Applied::Stale);
    assert!(!merge(&mut merging, false));
    assert!(new.is_unsettled(), "it may come again");
    // Memory that was made anew, and what was given up before it was sent.
    assert_eq!(old.advance_from(of, version(0).stamp, version(15).stamp, true), Ok(true));
    old.doubt(of, version(40).stamp, version(30).stamp);
    assert!(!merge(&mut merging, false));
    assert_eq!((new.position(of), new.is_whole(of)), (version(15).stamp, false));
    assert_eq!(new.doubted(), version(30).stamp);
    // What found no room, of one of whom later records are there, while the table there is busy and the old workers go.
    assert_eq!(apply(record(b"small", 50, b"v")), Applied::Newer);
    assert!(!merge(&mut merging, false));
    assert_eq!(apply(record(b"large", 45, &large)), Applied::Full);
    old.advance(of, version(50).stamp);
    new.stop_in_origins();
    let began = Instant::now();
    while began.elapsed() < 2 * GONE_FOR {
        assert_ne!(merging.step(1, START + 60, |_| false), Merging::Over);
    }
    assert!(!new.lacks_of(of) && new.position(of) < version(50).stamp);
    new.go_on_in_origins();
    assert!(merge(&mut merging, true));
    assert!(new.lacks_of(of) && new.position(of) == version(50).stamp);
    assert!(new.stats().left_out > 0, "who is finding out that nothing is lacking looks again");
}

#[test]
fn a_delete_in_the_old_memory_is_remembered_in_the_new_as_long_as_what_it_won_over_may_come_again() {
    let (old, new) = (empty(32 << 10, true), empty(1 << 20, true));
    let record = |after, node, value| {
        let version = Version { stamp: Stamp::at(START + after), origin: identity(node) };
        Record { kind: Kind::Register, version, key: b"k", value: Some(value), expires: None, shortened: false }
    };
    // All of one node is here, and all of another by then.
    assert_eq!(old.apply(&record(20, 7, b"v"), START + 20, 0), Ok(Applied::Newer));
    old.advance(identity(7), Stamp::at(START + 20));
    old.advance(identity(8), Stamp::at(START));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    assert!(value(&new, b"k", START).is_some());
    let older = record(10, 8, b"older");
    assert_eq!(old.apply(&older, START + 20, 0), Ok(Applied::Stale));
    old.delete(b"k", START + 21).expect("deleted");
    assert!(!merge(&mut merging, false));
    assert!(new.is_unsettled());
    let week = START + 7 * 24 * 3_600_000;
    (START..week).step_by(3_600_000).for_each(|now| _ = new.upkeep(now, 1000));
    assert_eq!(new.apply(&older, week, 0), Ok(Applied::Stale));
    super::check::check(&new);
}

#[test]
fn an_emptying_that_has_to_wait_is_not_lost_with_the_old_memory() {
    let (old, new) = (filled(256 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    old.clear(START + 5).expect("emptied");
    new.stop_in_origins();
    // The old workers are gone for long enough, and more.
    let began = Instant::now();
    while began.elapsed() < 2 * GONE_FOR {
        assert_ne!(merging.step(1, START + 5, |_| false), Merging::Over);
    }
    new.go_on_in_origins();
    assert!(merge(&mut merging, true));
    assert_eq!(listing(&new, START + 5).len(), 0);
}

#[test]
fn what_did_not_fit_is_tried_again_by_the_next_agent_however_long_the_last_went_on() {
    let (old, new) = (filled(256 << 10, true), empty(64 << 10, true));
    (10..500).for_each(|n| _ = old.delete(format!("key {n}").as_bytes(), START).expect("a delete"));
    let (source, copied) = old.hand_over(&new, &mut [], 2, START);
    assert_eq!(copied.expect("a copy").lost, 0);
    // As if the pledge hadn't been enough.
    old.release();
    new.pledge_nothing();
    let filler = |n: u32| format!("filler {n}").into_bytes();
    let write = |n: &u32| new.set(&filler(*n), &[1; 900], Life::Default, Condition::Always, START).is_ok();
    let count = (0..).take_while(write).count() as u32;
    set(&old, b"late", &[2; 15_000], START + 1);
    let handover = Handover { new: *new, sources: vec![source] };
    let mut merging = Merge::new(&handover);
    assert!(!merge(&mut merging, false));
    assert_eq!((merging.lost, value(&new, b"late", START + 1)), (1, None));
    set(&old, b"key 1", b"changed", START + 2);
    assert!(!merge(&mut merging, false));
    assert_eq!(merging.lost, 1, "it has gone on since");
    (0..count).for_each(|n| _ = new.delete(&filler(n), START + 3).expect("a delete"));
    assert!(!merge(&mut Merge::new(&handover), false));
    assert!(value(&new, b"late", START + 3).is_some());
}

#[test]
fn what_is_left_out_of_the_old_memory_is_lacking_in_the_new() {
    let other = |key, count| Record {
        kind: Kind::Register,
        version: Version { stamp: Stamp(Stamp::at(START).0 + count), origin: identity(7) },
        key,
        value: Some(&[0; 900][..]),
        expires: None,
        shortened: false,
    };
    let (old, new) = (empty(32 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    assert!(!new.is_lacking());
    let keys: Vec<[u8; 1]> = (0..100).map(|n| [n]).collect();
    let full = (0..).zip(&keys).find(|(n, key)| old.apply(&other(&key[..], *n), START, 0) == Ok(Applied::Full));
    let (count, key) = full.expect("more than there is room for");
    old.advance(identity(7), other(key, count).version.stamp);
    assert!(!merge(&mut merging, false));
    assert!(new.position(identity(7)) >= other(key, count).version.stamp);
    assert!(new.lacks_of(identity(7)) && new.stats().incomplete > 0);
    // Comparing asks for it, and it is no record that was here once.
    assert_eq!(new.apply(&other(key, count), START, 0), Ok(Applied::Newer));
    assert!(new.made_up(&new.lacks(), &[], &[]));
    assert!(!merge(&mut merging, false));
    assert!(!new.is_lacking(), "it is told once");
}

#[test]
fn what_is_being_left_out_just_then_is_lacking_before_a_position_covers_it() {
    let (old, new) = (empty(256 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    let stamp = Stamp::at(START);
    let child = fork(|| {
        armed::arm(Step::LeftOut, 1, libc::SIGSTOP);
        old.count_lacked(stamp);
        old.advance(identity(7), stamp);
    });
    let mut status = 0;
    // SAFETY: a child of ours; this returns when it has stopped.
    unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    assert!(!merge(&mut merging, false));
    assert!(old.stats().left_out == 1 && !new.is_lacking(), "it is counted, and nothing more");
    // SAFETY: a child of ours goes on.
    unsafe { libc::kill(child, libc::SIGCONT) };
    assert_eq!(end(child, 0), None);
    assert!(!merge(&mut merging, false));
    assert!(new.position(identity(7)) == stamp && new.lacks_of(identity(7)));
}

#[test]
fn what_is_told_again_to_who_knows_it_is_no_old_story() {
    let (old, new) = (empty(256 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    let stamp = |count| Stamp(Stamp::at(START).0 + count);
    old.count_lacked(stamp(9));
    assert!(!merge(&mut merging, false));
    // A comparison begins; then something is left out that was written before what is known to be lacking.
    let lacks = new.lacks();
    old.count_lacked(stamp(5));
    assert!(!merge(&mut merging, false));
    assert!(!new.made_up(&lacks, &[], &[]) && new.is_lacking());
    assert!(new.made_up(&new.lacks(), &[], &[]));
}

#[test]
fn who_had_other_memory_is_known_for_it_in_the_new_zone() {
    let (old, new) = (empty(256 << 10, true), empty(1 << 20, true));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    assert!(!merge(&mut merging, false));
    // A peer tells it to an old worker.
    assert_eq!(old.advance_from(identity(7), Stamp::ZERO, Stamp::at(START), true), Ok(true));
    assert!(!merge(&mut merging, false));
    assert!(new.position(identity(7)) == Stamp::at(START) && !new.is_whole(identity(7)));
}
