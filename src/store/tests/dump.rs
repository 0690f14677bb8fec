//! Copies of all records, and the number that tells whether there is something new to copy.

use std::collections::BTreeMap;

use super::{Fixture, START, identity};
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::{Applied, Batch, Condition, DumpPlace, Life, Params, Zone};

/// Everything that a walk finds, and how many steps it took.
fn all(zone: &Zone, between: &mut dyn FnMut(usize)) -> (BTreeMap<Vec<u8>, Option<Vec<u8>>>, usize) {
    let (mut found, mut place, mut batch, mut steps) = (BTreeMap::new(), DumpPlace::default(), Batch::default(), 0);
    while zone.dump(&mut place, &mut batch).expect("a step") {
        for dumped in batch.records() {
            let (key, value) = (dumped.record.key.to_vec(), dumped.record.value.map(<[u8]>::to_vec));
            assert!(found.insert(key, value).is_none(), "a record is met twice");
        }
        between(steps);
        steps += 1;
    }
    (found, steps)
}

fn set(zone: &Zone, key: &str, value: &[u8]) {
    zone.set(key.as_bytes(), value, Life::Default, Condition::Always, START).expect("a write");
}

#[test]
fn a_walk_meets_every_record_once_whatever_changes_meanwhile() {
    let zone = Fixture::new(4 << 20, None, true);
    for n in 0..5000 {
        set(&zone, &format!("key {n}"), &vec![b'v'; n % 300]);
    }
    for n in 0..100 {
        zone.delete(format!("key {n}").as_bytes(), START).expect("a delete");
    }
    let (found, steps) = all(&zone, &mut |step| {
        set(&zone, &format!("key {}", 100 + step * 7 % 4900), b"changed");
        set(&zone, &format!("new {step}"), b"v");
    });
    assert!(steps > 100, "{steps} steps");
    assert_eq!((0..5000).filter(|n| !found.contains_key(format!("key {n}").as_bytes())).count(), 0);
    assert_eq!(found.values().filter(|value| value.is_none()).count(), 100, "tombstones are met too");
}

#[test]
fn a_bucket_that_a_batch_cuts_is_met_whole() {
    // A zone of few buckets, each with some ten records.
    let zone = Fixture::new(32 << 10, None, false);
    let keys: Vec<String> = (0..250).map(|n| format!("key {n}")).collect();
    keys.iter().for_each(|key| set(&zone, key, b"v"));
    let (found, steps) = all(&zone, &mut |step| set(&zone, &keys[step * 31 % 250], b"w"));
    assert_eq!(found.len(), 250);
    assert!(steps >= 250 / 32, "{steps} steps");
}

#[test]
fn large_records_are_copied_one_in_a_hold() {
    let zone = Fixture::new(32 << 20, None, false);
    (0..60).for_each(|n| set(&zone, &format!("key {n}"), &vec![n as u8; 300_000]));
    let (found, steps) = all(&zone, &mut |step| set(&zone, &format!("key {}", step % 60), &[step as u8; 300_000]));
    assert_eq!(found.len(), 60);
    assert!(steps >= 60, "{steps} steps");
}

#[test]
fn what_an_emptying_removed_is_not_met() {
    let zone = Fixture::new(1 << 20, None, true);
    (0..10_000).for_each(|n| set(&zone, &format!("key {n}"), b""));
    zone.clear(START).expect("an emptying");
    set(&zone, "after", b"v");
    assert_eq!(all(&zone, &mut |_| {}).0.into_keys().collect::<Vec<_>>(), [b"after".to_vec()]);
}

#[test]
fn every_change_moves_the_number_and_nothing_else_does() {
    let zone = Fixture::with(1 << 20, Params { sync: true, ..Params::new(identity(1)) });
    let mut last = zone.changes();
    let mut moved = |what: &str, expected: bool| {
        let now = zone.changes();
        assert_eq!(now != last, expected, "{what}");
        last = now;
    };
    let remote = |stamp: u64, value: Option<&'static [u8]>| Record {
        kind: Kind::Register,
        version: Version { stamp: Stamp::at(START + stamp), origin: identity(2) },
        key: b"remote",
        value,
        expires: None,
        shortened: false,
    };
    moved("nothing happened", false);
    set(&zone, "a", b"v");
    moved("a write", true);
    set(&zone, "a", b"v");
    moved("the same value, of a new version", true);
    zone.get(b"a", START, &mut Vec::new()).unwrap();
    zone.touch(b"missing", Life::For(1), START).unwrap();
    zone.delete(b"missing", START).unwrap();
    all(&zone, &mut |_| {});
    zone.close(START);
    moved("reading", false);
    zone.touch(b"a", Life::For(10), START).unwrap();
    moved("another life", true);
    assert_eq!(zone.apply(&remote(5, Some(b"v")), START, 1000), Ok(Applied::Newer));
    moved("a remote record", true);
    assert_eq!(zone.apply(&remote(5, Some(b"v")), START, 1000), Ok(Applied::Stale));
    moved("a remote record that was here", false);
    assert_eq!(zone.apply(&remote(9, None), START, 1000), Ok(Applied::Newer));
    moved("a remote delete", true);
    zone.upkeep(START + 200, 100);
    moved("an end", true);
    zone.upkeep(START + 400, 100);
    moved("upkeep of nothing", false);
    zone.apply_clear(Stamp::at(START + 500), START + 500, 1000).unwrap();
    moved("a remote emptying", true);
    zone.clear(START + 600).unwrap();
    moved("an emptying", true);
}

#[test]
fn what_is_known_of_a_state_file_follows_it() {
    let zone = Fixture::new(1 << 20, None, false);
    assert_eq!(zone.state_figures(), None);
    zone.keep_state(Some(7));
    assert!(zone.state_figures().unwrap().pending, "a file that the zone had not before holds nothing of it");
    zone.state_loaded(0, 0);
    assert!(!zone.state_is_stale());
    set(&zone, "a", b"v");
    assert!(zone.state_is_stale());
    let changes = zone.changes();
    set(&zone, "b", b"v");
    zone.state_saved(changes, START, 99);
    let figures = zone.state_figures().unwrap();
    assert_eq!((figures.written, figures.bytes, figures.writes, figures.pending), (START, 99, 1, true));
    zone.state_saved(zone.changes(), START + 1, 100);
    zone.keep_state(Some(7));
    assert!(!zone.state_is_stale(), "the same file");
    zone.keep_state(Some(8));
    assert!(zone.state_is_stale(), "another file");
    assert_eq!(zone.state_figures().unwrap().written, 0);
    zone.keep_state(None);
    assert_eq!(zone.state_figures(), None);
}
