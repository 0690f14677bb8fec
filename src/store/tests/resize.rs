//! Moving to memory of another size, with writers on both sides.

use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::{Applied, Condition, Handover, Life, Matching, Merge, Merging, Written};

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
    let began = std::time::Instant::now();
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
        let copied = old.copy_to(&new, START).expect("a copy");
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
    let copied = old.copy_to(&new, START).expect("a copy");
    assert_eq!(copied.records, 500);
    assert_eq!(copied.lost, 500 - new.stats().records);
    assert!(copied.lost > 100);
    let params = Params { evict: true, ..Params::new(identity(1)) };
    let new = Fixture::with(32 << 10, params);
    let copied = old.copy_to(&new, START).expect("a copy");
    assert_eq!((copied.lost, copied.evicted), (0, 500 - new.stats().records));
}

#[test]
fn old_writers_lose_nothing_and_deletes_win() {
    for sync in [false, true] {
        let (old, new) = (filled(256 << 10, sync), empty(1 << 20, sync));
        let (source, copied) = old.hand_over(&new, 2, START);
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
    let (source, _) = old.hand_over(&new, 2, START);
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
    let (from_first, _) = first.hand_over(&second, 2, START);
    set(&first, b"first", b"v", START);
    let (from_second, _) = second.hand_over(&third, 3, START);
    set(&second, b"second", b"v", START);
    set(&first, b"first again", b"v", START);
    // The agent of the second configuration has not ended yet.
    let mut outdated = Merge::new(&Handover { new: *second, sources: vec![from_first] });
    merge(&mut outdated, false);
    let mut merging = Merge::new(&Handover { new: *third, sources: vec![from_first, from_second] });
    assert!(merge(&mut merging, true));
    for key in ["first", "second", "first again", "key 1"] {
        assert!(value(&third, key.as_bytes(), START).is_some(), "{key}");
    }
    assert_eq!(merging.lost, 0);
}

#[test]
fn types_move_as_well() {
    let params = Params { matching: Matching::Ip, ..Params::new(identity(1)) };
    let (old, new) = (Fixture::with(64 << 10, params), Fixture::with(1 << 20, params));
    set(&old, b"10.0.0.0/8", b"net", START);
    old.copy_to(&new, START).expect("a copy");
    let mut found = Vec::new();
    assert!(new.look_up(b"10.1.1.1", START, &mut found).expect("a look-up").is_some());
    assert_eq!(found, b"net");
}
