//! A clock that was ahead and was mended: what it wrote gets stamps of the present, and the node goes on as another one.

use super::check::check;
use super::crash::{end, fork};
use super::kept::{Kept, all_of, give, give_all, live_of};
use super::*;
use crate::record::{Kind, Record, Role, Stamp, Version};
use crate::store::control::CONTROL_SIZE;
use crate::store::failpoint::{Step, armed};
use crate::store::{
    Applied, Condition, Control, Counted, Life, Matching, Missing, Renewal, Renewed, StoreError, Written,
};

const DRIFT: Millis = 60_000;
const HOUR: Millis = 3_600_000;

/// Steps of the work, at most so many; what became of it, if all was done.
fn renew(zone: &Zone, node: u8, now: Millis, steps: usize) -> Option<Renewed> {
    let mut renewal = Renewal::new(*zone, identity(node), identity(1), Renewal::latest(now, DRIFT));
    (0..steps).find_map(|_| renewal.step(now).expect("a step"))
}

fn write(zone: &Zone, key: &str, now: Millis) -> Version {
    match zone.set(key.as_bytes(), key.as_bytes(), Life::Default, Condition::Always, now) {
        Ok(Written::Done(version)) => version,
        other => panic!("{other:?}"),
    }
}

fn version(zone: &Zone, key: &str) -> Version {
    let mut version = None;
    zone.show(key.as_bytes(), &mut |record| version = Some(record.version)).expect("the lock");
    version.expect("a record or a tombstone")
}

fn remote(key: &'static str, millis: Millis, node: u8) -> Record<'static> {
    let version = Version { stamp: Stamp::at(millis), origin: identity(node) };
    Record { kind: Kind::Register, version, key: key.as_bytes(), value: Some(b"r"), expires: None, shortened: false }
}

#[test]
fn what_is_from_the_future_gets_stamps_that_peers_take() {
    for size in [64 << 10, 4 << 20] {
        let zone = Fixture::new(size, None, true);
        let before = write(&zone, "before", START);
        write(&zone, "deleted", START);
        // The clock jumps, and is mended ten seconds later.
        let future = START + HOUR;
        for n in 0..10 {
            write(&zone, &format!("key {n}"), future + n * 100);
        }
        zone.delete(b"deleted", future + 500).expect("deleted");
        assert_eq!(zone.apply(&remote("theirs", future + 700, 7), future, DRIFT), Ok(Applied::Newer));
        zone.advance(identity(7), Stamp::at(future + 700));
        zone.advance(identity(8), Stamp::at(START - 10 * HOUR));
        let now = START + 10_000;
        assert!(zone.is_ahead(now, DRIFT) && zone.ahead(now) > HOUR - 11_000);
        let live = listing(&zone, now);

        assert_eq!(renew(&zone, 2, now, 1_000_000), Some(Renewed { records: 12, cleared: false }));
        check(&zone);
        assert!(!zone.is_ahead(now, DRIFT) && zone.is_of(identity(2)));
        assert_eq!(listing(&zone, now), live, "nothing else has changed");
        assert_eq!(version(&zone, "before"), before);
        // Later than whatever peers may have taken, whoever wrote it.
        let latest = Version { stamp: Stamp::at(now + DRIFT).next(), origin: identity(2) };
        (0..10).for_each(|n| assert_eq!(version(&zone, &format!("key {n}")), latest));
        assert_eq!(version(&zone, "deleted"), latest);
        assert_eq!(version(&zone, "theirs"), latest);
        // What is promised stays so, but for the future.
        assert_eq!(zone.position(identity(7)), Stamp::at(now + DRIFT));
        assert_eq!(zone.position(identity(8)), Stamp::at(START - 10 * HOUR));
        assert!(zone.position(identity(1)) >= before.stamp && zone.position(identity(1)) <= Stamp::at(now + DRIFT));
        let next = write(&zone, "next", now);
        assert!(next.stamp >= Stamp::at(now) && next.stamp.millis() <= now + DRIFT && next.origin == identity(2));
        assert!(!zone.is_ahead(now, DRIFT), "it is done once");
        assert!(write(&zone, "key 3", now) > latest, "what is written now wins over what was");
        assert!(zone.close(now).0 >= next.stamp);
    }
}

#[test]
fn a_write_wins_over_what_stays_from_the_near_future() {
    let zone = Fixture::new(64 << 10, None, true);
    let near = remote("k", START + 30_000, 7);
    assert_eq!(zone.apply(&near, START, DRIFT), Ok(Applied::Newer));
    write(&zone, "far", START + HOUR);
    renew(&zone, 2, START, 1_000_000).expect("done");
    assert_eq!(version(&zone, "k"), near.version, "peers take it as it is");
    assert!(write(&zone, "k", START).stamp > near.version.stamp);
}

#[test]
fn an_emptying_of_the_future_is_one_of_the_present() {
    let zone = Fixture::new(64 << 10, None, true);
    (0..200).for_each(|n| _ = write(&zone, &format!("key {n}"), START));
    zone.clear(START + HOUR).expect("emptied");
    write(&zone, "after", START + HOUR);
    assert_eq!(zone.apply(&remote("lost", START + 5_000, 7), START, DRIFT), Ok(Applied::Stale));
    let now = START + 4_000;
    let done = renew(&zone, 2, now, 1_000_000).expect("done");
    assert_eq!(done, Renewed { records: 1, cleared: true });
    let cleared = zone.cleared();
    assert!(cleared > Stamp::at(START) && cleared <= Stamp::at(now), "{cleared:?}");
    assert_eq!(listing(&zone, now).len(), 1);
    assert!(version(&zone, "after").stamp > cleared);
    // What was written elsewhere after it is news now; and it can be emptied again.
    assert_eq!(zone.apply(&remote("lost", START + 5_000, 7), START, DRIFT), Ok(Applied::Newer));
    zone.clear(now + 10_000).expect("emptied");
    while zone.upkeep(now + 10_000, 1000) > 0 {}
    assert_eq!(zone.stats().records, 0);
    check(&zone);
}

/// More than one emptying takes away by itself: what it left is out of sight only as long as its stamp stands.
#[test]
fn what_an_emptying_of_the_future_has_not_taken_away_yet_stays_out_of_sight() {
    let zone = Fixture::new(4 << 20, None, true);
    (0..3_000).for_each(|n| _ = write(&zone, &format!("key {n}"), START + HOUR + n));
    zone.clear(START + 2 * HOUR).expect("emptied");
    assert_eq!(renew(&zone, 2, START, 1_000_000), Some(Renewed { records: 0, cleared: true }));
    assert!(zone.cleared() <= Stamp::at(START));
    assert_eq!(listing(&zone, START), []);
    check(&zone);
}

#[test]
fn what_an_emptying_of_the_future_took_along_stays_gone() {
    let zone = Fixture::new(64 << 10, None, true);
    // A peer took some of what is ahead, and stamps of its own were pulled along.
    let near = START + DRIFT - 5_000;
    let known = remote("known", near, 7);
    let own = write(&zone, "own", near + 1);
    assert_eq!(zone.apply(&known, near + HOUR, DRIFT), Ok(Applied::Newer));
    zone.advance(identity(7), Stamp::at(near));
    zone.clear(START + HOUR).expect("emptied");
    // What it wrote since is older than that; so it went unseen, although its position says that it came.
    let later = remote("later", near + 1_000, 7);
    assert_eq!(zone.apply(&later, START, DRIFT), Ok(Applied::Stale));
    zone.advance(identity(7), Stamp::at(near + 1_000));
    assert_eq!(renew(&zone, 2, START, 1_000_000), Some(Renewed { records: 0, cleared: true }));
    assert!(zone.cleared() <= Stamp::at(START));
    assert_eq!(zone.position(identity(7)), Stamp::at(near));
    assert_eq!(zone.apply(&known, START, DRIFT), Ok(Applied::Stale), "it was here, and is over");
    assert_eq!(zone.apply(&later, START, DRIFT), Ok(Applied::Newer));
    // So is what the node wrote itself, that peers may still have.
    assert!(zone.position(identity(1)) >= own.stamp);
    let own = Record { version: own, ..remote("own", 0, 1) };
    assert_eq!(zone.apply(&own, START, DRIFT), Ok(Applied::Stale));
    check(&zone);
}

#[test]
fn nothing_is_emptied_before_it_is_noted_what_is_over_then() {
    let zone = Fixture::new(64 << 10, None, true);
    let known = remote("known", START, 7);
    assert_eq!(zone.apply(&known, START, DRIFT), Ok(Applied::Newer));
    zone.advance(identity(7), Stamp::at(START));
    zone.stop_in_origins();
    assert_eq!(zone.clear(START + HOUR), Err(StoreError::Busy));
    assert_eq!(zone.apply_clear(Stamp::at(START + HOUR), START + HOUR, DRIFT), Err(StoreError::Busy));
    assert_eq!((listing(&zone, START).len(), zone.cleared()), (1, Stamp::ZERO), "it is to be tried again");
    zone.go_on_in_origins();
    assert_eq!(zone.apply_clear(Stamp::at(START + HOUR), START + HOUR, DRIFT), Ok(Applied::Newer));
    assert_eq!(zone.apply_clear(Stamp::at(START + HOUR), START + HOUR, DRIFT), Ok(Applied::Stale));
    // The clock is mended.
    renew(&zone, 2, START, 1_000_000).expect("done");
    assert!(zone.cleared() <= Stamp::at(START));
    assert_eq!(zone.apply(&known, START, DRIFT), Ok(Applied::Stale), "it was here, and is over");
    check(&zone);
}

#[test]
fn deletes_of_what_is_not_promised_any_more_are_remembered_until_it_is() {
    let params = Params { sync: true, retention: 1_000, ..Params::new(identity(1)) };
    let zone = Fixture::with(64 << 10, params);
    zone.clear(START + HOUR).expect("emptied");
    // Went unseen, is promised; and what came after it was deleted.
    let unseen = remote("k", START + 5_000, 7);
    assert_eq!(zone.apply(&unseen, START + HOUR, DRIFT), Ok(Applied::Stale));
    zone.advance(identity(7), Stamp::at(START + 5_000));
    write(&zone, "k", START + HOUR + 5_000);
    renew(&zone, 2, START + 6_000, 1_000_000).expect("done");
    assert!(zone.cleared() < unseen.version.stamp);
    zone.delete(b"k", START + 6_000).expect("deleted");
    // Long after the time of its tombstone.
    let late = START + 10 * HOUR;
    zone.upkeep(late, 1_000);
    assert_eq!(zone.apply(&unseen, late, DRIFT), Ok(Applied::Stale), "the delete came later");
    zone.advance(identity(7), Stamp::at(START + 5_000));
    while zone.upkeep(late + HOUR, 1_000) > 0 {}
    assert_eq!(zone.stats().tombstones, 0, "nothing is kept for ever");
    assert_eq!(zone.apply(&unseen, late, DRIFT), Ok(Applied::Stale), "it is past now");
    check(&zone);
}

#[test]
fn what_the_fastest_of_the_right_clocks_may_have_taken_makes_way() {
    let zone = Fixture::new(64 << 10, None, true);
    write(&zone, "k", START + HOUR);
    let fastest = START + 4_000;
    let latest = Renewal::latest(fastest, DRIFT);
    let mut renewal = Renewal::new(*zone, identity(2), identity(1), latest);
    while renewal.step(START).expect("a step").is_none() {}
    assert_eq!(version(&zone, "k").stamp, latest.next());
    assert!(!zone.is_ahead(fastest, DRIFT), "it isn't done again for that");
}

#[test]
fn who_dies_in_the_midst_of_it_leaves_what_another_can_go_on_with() {
    for steps in 0.. {
        let zone = Fixture::new(256 << 10, None, true);
        (0..100).for_each(|n| _ = write(&zone, &format!("key {n}"), START));
        (50..100).for_each(|n| _ = write(&zone, &format!("key {n}"), START + HOUR));
        let whole = renew(&zone, 2, START, steps).is_some();
        // Others go on writing meanwhile.
        write(&zone, "key 7", START + 1);
        write(&zone, "key 77", START + 1);
        renew(&zone, 2, START + 2, 1_000_000).expect("done");
        check(&zone);
        assert!(!zone.is_ahead(START + 2, DRIFT));
        assert_eq!(listing(&zone, START).len(), 100);
        (0..100).for_each(|n| assert!(version(&zone, &format!("key {n}")).stamp < Stamp::at(START + DRIFT + 10)));
        if whole {
            break;
        }
    }
}

#[test]
fn a_table_full_of_nodes_that_are_long_gone_has_room_for_the_new_identity() {
    for walking in [false, true] {
        let zone = Fixture::new(32 << 10, None, true);
        let gone = |n: u16| {
            let mut bytes = [9; 16];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            Identity(bytes)
        };
        // Each has a record first, so that a walk finds nobody who has none.
        for n in (0..).take_while(|n| zone.advance(gone(*n), Stamp::at(START - 1))) {
            let version = Version { stamp: Stamp::at(START + u64::from(n)), origin: gone(n) };
            let key = format!("of {n}");
            let record = Record { version, key: key.as_bytes(), ..remote("", START, 9) };
            assert_eq!(zone.apply(&record, START, DRIFT), Ok(Applied::Newer));
        }
        if walking {
            zone.find_idle_origins(START + HOUR, 10);
            assert!(zone.walked().is_some(), "a walk is under way, and has met some");
        }
        zone.clear(START + HOUR).expect("emptied");
        while zone.upkeep(START + HOUR, 1_000) > 0 {}
        write(&zone, "of the future", START + 2 * HOUR);
        assert_eq!(zone.expect_identity(identity(2)), Ok(()), "walking: {walking}");
        assert_eq!(renew(&zone, 2, START + HOUR, 1_000_000).map(|done| done.records), Some(1));
        check(&zone);
    }
}

#[test]
fn a_node_has_one_identity_at_a_time() {
    let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
    let control = Control::create_with(memory.region(), identity(1)).expect("a control region");
    for n in 2..6 {
        assert_eq!((control.identity(), control.is_renewing()), (identity(n - 1), false));
        assert_eq!(control.begin_renewal(identity(n)), identity(n));
        assert_eq!(control.begin_renewal(identity(99)), identity(n), "who goes on with it doesn't begin anew");
        assert_eq!((control.identity(), control.is_renewing()), (identity(n), true));
        assert_eq!(control.last_identity(), identity(n - 1));
        control.end_renewal();
    }
    assert_eq!(control.incarnation(), 8);
}

#[test]
fn counters_of_the_future_count_on() {
    let params = Params { sync: true, matching: Matching::Counter, ..Params::new(identity(1)) };
    let zone = Fixture::with(256 << 10, params);
    let future = START + HOUR;
    let add = |key: &str, by, now| {
        zone.count(key.as_bytes(), by, Missing::Begin(0, Life::Default), now).expect("counted");
    };
    for n in 0..20 {
        let key = format!("key {n}");
        add(&key, 5, START);
        zone.set(key.as_bytes(), b"10", Life::Default, Condition::Always, future).expect("set");
        add(&key, 7, future);
    }
    renew(&zone, 2, START + 1, 1_000_000).expect("done");
    check(&zone);
    for n in 0..20 {
        let key = format!("key {n}");
        assert_eq!(value(&zone, key.as_bytes(), START).as_deref(), Some(&b"17"[..]), "{key}");
        add(&key, 1, START + 2);
        assert_eq!(value(&zone, key.as_bytes(), START).as_deref(), Some(&b"18"[..]));
        zone.set(key.as_bytes(), b"3", Life::Default, Condition::Always, START + 3).expect("set");
        assert_eq!(value(&zone, key.as_bytes(), START).as_deref(), Some(&b"3"[..]), "what is set now ends it all");
    }
}

fn counters(node: u8) -> Fixture {
    Fixture::with(256 << 10, Params { sync: true, matching: Matching::Counter, ..Params::new(identity(node)) })
}

fn add(zone: &Zone, key: &str, by: i64, now: Millis) {
    let counted = zone.count(key.as_bytes(), by, Missing::Begin(0, Life::Default), now);
    assert!(matches!(counted, Ok(Counted::Done { .. })), "{key}: {counted:?}");
}

fn set(zone: &Zone, key: &str, to: &str, now: Millis) {
    let written = zone.set(key.as_bytes(), to.as_bytes(), Life::Default, Condition::Always, now);
    assert!(matches!(written, Ok(Written::Done(_))), "{key}: {written:?}");
}

fn sum(zone: &Zone, key: &str) -> Option<String> {
    value(zone, key.as_bytes(), START).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Has `to` merge these records under this version.
fn give_under(version: Version, all: &[Kept], to: &Zone) {
    all.iter().for_each(|kept| _ = give(&kept.under(version), to, START));
}

/// What somebody had set a counter to.
fn base(key: &[u8], version: Version, value: &str) -> Kept {
    let (key, value) = (Role::Base.of(key), Some(value.into()));
    Kept { kind: Kind::Counter, key, value, version, expires: None, shortened: false }
}

#[test]
fn what_was_over_in_a_counter_stays_over() {
    let (zone, peer) = (counters(1), counters(3));
    // Another node adds, also in the future, to what is set and deleted there.
    for now in [START, START + HOUR] {
        ["set", "deleted", "set again"].iter().for_each(|key| add(&peer, key, 100, now));
    }
    let theirs = live_of(&peer);
    give_all(&theirs, &zone, START);
    set(&zone, "set", "7", START + HOUR + 1);
    zone.delete(b"deleted", START + HOUR + 1).expect("deleted");
    set(&zone, "set again", "8", START + HOUR + 1);
    add(&zone, "set again", 1, START + HOUR + 2);
    set(&zone, "set again", "9", START + HOUR + 3);
    add(&zone, "set again", 1, START + HOUR + 4);
    let expected = || [sum(&zone, "set"), sum(&zone, "deleted"), sum(&zone, "set again")];
    let shown = expected();
    assert_eq!(shown, [Some("7".into()), None, Some("10".into())]);
    renew(&zone, 2, START + 1, 1_000_000).expect("done");
    check(&zone);
    assert_eq!(expected(), shown);
    give_all(&theirs, &zone, START);
    assert_eq!(expected(), shown, "nor does it come back");
    assert!(!zone.is_ahead(START + 1, DRIFT));
    // Those who had refused it take all of it.
    let other = counters(4);
    for kept in live_of(&zone) {
        assert_eq!(other.apply(&kept.record(), START + 1, DRIFT + 1), Ok(Applied::Newer));
    }
    assert_eq!([sum(&other, "set"), sum(&other, "set again")], [Some("7".into()), Some("10".into())]);
}

#[test]
fn counters_are_written_to_while_they_are_stamped_anew() {
    for steps in 0.. {
        let zone = counters(1);
        let key = |n: u64| format!("key {n}");
        for n in 0..60 {
            add(&zone, &key(n), 1, START);
            set(&zone, &key(n), "10", START + HOUR);
            add(&zone, &key(n), 5, START + HOUR);
        }
        let whole = renew(&zone, 2, START + 1, steps).is_some();
        for n in 0..60 {
            match n % 4 {
                0 => add(&zone, &key(n), 2, START + 2),
                1 => set(&zone, &key(n), "3", START + 2),
                2 => _ = zone.delete(key(n).as_bytes(), START + 2).expect("deleted"),
                _ => continue,
            }
            add(&zone, &key(n), 1, START + 3);
        }
        let holds = || {
            for n in 0..60 {
                let expected = ["18", "4", "1", "15"][n as usize % 4];
                assert_eq!(sum(&zone, &key(n)).as_deref(), Some(expected), "{} after {steps} steps", key(n));
            }
        };
        holds();
        renew(&zone, 2, START + 4, 1_000_000).expect("done");
        check(&zone);
        holds();
        assert!(!zone.is_ahead(START + 4, DRIFT));
        if whole {
            break;
        }
    }
}

#[test]
fn an_older_copy_of_a_nodes_own_part_is_answered_by_what_it_is() {
    let (zone, peer) = (counters(1), counters(3));
    add(&zone, "k", 5, START);
    let old = live_of(&zone);
    give_all(&old, &peer, START);
    add(&zone, "k", 2, START + 1);
    // Another node, whose clock was ahead, has it from before, and stamped it anew.
    let later = Version { stamp: Stamp::at(START + 30_000), origin: identity(7) };
    give_under(later, &old, &zone);
    give_under(later, &old, &peer);
    check(&zone);
    assert_eq!([sum(&zone, "k"), sum(&peer, "k")], [Some("7".into()), Some("5".into())]);
    let told = live_of(&zone);
    assert!(told.iter().all(|kept| kept.version.stamp > later.stamp && kept.version.origin == identity(1)));
    give_all(&told, &peer, START);
    assert_eq!(sum(&peer, "k").as_deref(), Some("7"));
    // It hasn't begun anew by that: what is set between the two is later than all of it.
    let cut = Version { stamp: Stamp::at(START + 2), origin: identity(8) };
    give(&base(b"k", cut, "1"), &zone, START);
    assert_eq!(sum(&zone, "k").as_deref(), Some("1"));
    add(&zone, "once", 5, START + 3);
    let old: Vec<Kept> = live_of(&zone).into_iter().filter(|kept| kept.key.starts_with(b"once")).collect();
    give_under(Version { stamp: Stamp::at(START + 50_000), ..later }, &old, &zone);
    let cut = Version { stamp: Stamp::at(START + 45_000), ..later };
    give(&base(b"once", cut, "1"), &zone, START);
    assert_eq!(sum(&zone, "once").as_deref(), Some("1"));
    // What it has no more it doesn't defend.
    give_under(Version { stamp: Stamp::at(START + 60_000), origin: identity(7) }, &old, &zone);
    check(&zone);
}

#[test]
fn what_several_had_set_and_added_in_the_future_is_one_sum() {
    let (a, c) = (counters(1), counters(3));
    set(&a, "k", "10", START + HOUR);
    add(&a, "k", 5, START + HOUR);
    give_all(&live_of(&a), &c, START);
    add(&c, "other", 1, START + HOUR);
    // The second one has stamped all of it anew a little later, and its base comes first.
    renew(&a, 6, START, 1_000_000).expect("done");
    renew(&c, 5, START + 5, 1_000_000).expect("done");
    for now in [START + 10, START + 20] {
        for (from, to) in [(&c, &a), (&a, &c)] {
            let mut all = all_of(from);
            all.sort_by_key(|kept| !matches!(Role::split(&kept.key), Some((_, Role::Base))));
            give_all(&all, to, now);
        }
    }
    assert_eq!([sum(&a, "k"), sum(&c, "k")], [Some("15".into()), Some("15".into())]);
    check(&a);
    check(&c);
}

#[test]
fn shares_of_limits_of_the_future_are_told_again() {
    let params = Params { sync: true, matching: Matching::Limit, rate: 1, ..Params::new(identity(1)) };
    let (zone, peer) =
        (Fixture::with(256 << 10, params), Fixture::with(256 << 10, Params { node: identity(3), ..params }));
    let admit = |zone: &Zone, now| zone.admit(b"k", 1, None, now).expect("admitted");
    admit(&zone, START);
    let old = live_of(&zone);
    give_all(&old, &peer, START);
    admit(&peer, START);
    // Not so far ahead that a request would run out.
    (0..3).for_each(|n| _ = admit(&zone, START + 3 * DRIFT + n));
    assert_eq!(renew(&zone, 2, START + 1, 1_000_000), Some(Renewed { records: 1, cleared: false }));
    check(&zone);
    let level = |zone: &Zone| zone.limited(b"k", 1, START + 1).expect("a look").div_ceil(1_000);
    assert!(!zone.is_ahead(START + 1, DRIFT));
    // As before the request that asks.
    assert_eq!([level(&zone), level(&peer)], [4, 2]);
    give_all(&live_of(&zone), &peer, START);
    assert_eq!(level(&peer), 5, "three more, which it had refused");
    // An older copy that another node has stamped anew doesn't take the place of the share.
    give_under(Version { stamp: Stamp::at(START + 90_000), origin: identity(7) }, &old, &zone);
    assert_eq!(level(&zone), 4);
    let told = live_of(&zone);
    assert!(told.iter().all(|kept| kept.version.stamp > Stamp::at(START + 90_000)));
    give_all(&told, &peer, START);
    assert_eq!(level(&peer), 5, "the same said again adds nothing");
}

#[test]
fn what_the_dead_left_of_a_counter_of_the_future_does_not_count() {
    // Who sets it dies before what was added to what there was is gone.
    let zone = counters(1);
    add(&zone, "k", 5, START + HOUR);
    let child = fork(|| {
        armed::arm(Step::Published, 1, libc::SIGKILL);
        set(&zone, "k", "7", START + HOUR + 1);
    });
    assert_eq!(end(child, 0), Some(libc::SIGKILL));
    assert_eq!(sum(&zone, "k").as_deref(), Some("7"));
    renew(&zone, 2, START, 1_000_000).expect("done");
    check(&zone);
    assert_eq!(sum(&zone, "k").as_deref(), Some("7"));
}

#[test]
fn who_dies_over_a_counter_of_the_future_leaves_its_sum() {
    for step in [Step::BuriedStamp, Step::FeedHalfOut, Step::FeedHalfIn, Step::FeedIn] {
        for nth in 1.. {
            let (zone, peer) = (counters(1), counters(3));
            set(&zone, "k", "1", START + HOUR);
            add(&peer, "k", 3, START + HOUR + 1_000);
            give_all(&live_of(&peer), &zone, START);
            add(&zone, "k", 5, START + HOUR + 1_000);
            let child = fork(|| {
                armed::arm(step, nth, libc::SIGKILL);
                renew(&zone, 2, START, 1_000_000).expect("done");
            });
            let killed = end(child, 0);
            let dead = || format!("after {step:?}, time {nth}");
            assert_eq!(sum(&zone, "k").as_deref(), Some("9"), "{}", dead());
            renew(&zone, 2, START + 1, 1_000_000).expect("done");
            check(&zone);
            assert_eq!(sum(&zone, "k").as_deref(), Some("9"), "{}", dead());
            if killed.is_none() {
                assert!(nth > 3, "{}: of all three records", dead());
                break;
            }
        }
    }
}
