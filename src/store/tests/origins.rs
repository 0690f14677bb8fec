//! The table of origins: a mesh has more nodes than a small zone has entries to begin with, and each start of nginx is another.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use super::check::check;
use super::crash::{end, fork};
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::failpoint::{Step, armed};
use crate::store::layout::header;
use crate::store::{Applied, Condition, Life, StoreError, lock};

/// As different as those of real nodes.
fn node(n: u16) -> Identity {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Identity(bytes)
}

/// A record of one of these nodes, with a key of its own.
fn write_of(zone: &Zone, n: u16) -> Applied {
    write(zone, n, &n.to_be_bytes(), START + u64::from(n))
}

/// Its number is the value. One whose entry went to another in between is sent again.
fn write(zone: &Zone, n: u16, key: &[u8], at: Millis) -> Applied {
    let version = Version { stamp: Stamp::at(at), origin: node(n) };
    let value = n.to_be_bytes();
    let record = Record { kind: Kind::Register, version, key, value: Some(&value), expires: None, shortened: false };
    loop {
        match zone.apply(&record, at, 60_000) {
            Err(StoreError::Busy) => {}
            done => return done.expect("applied"),
        }
    }
}

#[test]
fn zones_of_every_size_note_as_many_nodes_as_they_serve() {
    // What docs/operations.md says, of zones as nginx gives them: it keeps a part for itself.
    for (size, incarnations) in [(32 << 10, 65), (64 << 10, 125), (128 << 10, 270), (256 << 10, 600), (512 << 10, 1000)]
    {
        let zone = Fixture::new(size - 4096, None, true);
        for n in 0..incarnations {
            assert!(zone.admits(node(n), None, START));
            assert_eq!(write_of(&zone, n), Applied::Newer, "{size} bytes, node {n}");
            assert!(zone.advance(node(n), Stamp::at(START + 1000)));
        }
        let stats = zone.stats();
        assert_eq!((stats.incomplete, stats.origins), (0, u64::from(incarnations) + 1), "{size} bytes");
        assert_eq!(zone.positions().len(), usize::from(incarnations) + 1);
        // What is noted is there for who takes the zone up, also its own entry if that is one of the last.
        let params = Params { sync: true, ..Params::new(node(incarnations)) };
        let again = Zone::attach(zone.region, &params).expect("the zone");
        assert!(again.params().node == node(incarnations));
        let again = Zone::attach(zone.region, &params).expect("the zone once more");
        for n in 0..incarnations {
            let mut value = Vec::new();
            let found = again.get(&n.to_be_bytes(), START, &mut value).expect("a look-up").expect("the record");
            assert_eq!(again.version(&found).origin, node(n));
            assert_eq!(again.position(node(n)), Stamp::at(START + 1000));
        }
        check(&zone);
    }
}

#[test]
fn a_table_that_cannot_grow_any_more_leaves_out_and_says_so() {
    let zone = Fixture::new(32 << 10, None, true);
    let full = (0..1000).find(|n| write_of(&zone, *n) == Applied::Full).expect("an end");
    assert!(full > 63, "{full} nodes");
    let stats = zone.stats();
    assert_eq!((stats.origins, stats.origins_room, stats.incomplete), (u64::from(full) + 1, 0, 1));
    assert!(!zone.admits(node(full), None, START) && zone.is_lacking());
    assert!((0..full).all(|n| value(&zone, &n.to_be_bytes(), START).is_some()), "nobody gives way who has records");
    // When one of them has none any more, its entry goes to another.
    zone.set(&0_u16.to_be_bytes(), b"ours", Life::Default, Condition::Always, START + 2000).expect("room");
    look(&zone, START + 2000);
    assert_eq!(write_of(&zone, full), Applied::Newer);
    check(&zone);
}

#[test]
fn who_makes_up_origins_gets_an_eighth_of_the_zone() {
    let zone = Fixture::new(64 << 10, None, true);
    let free = zone.stats().pages_free;
    (0..5000).for_each(|n| _ = zone.admits(node(n), Some(Stamp(9)), START) && zone.advance(node(n), Stamp(9)));
    let stats = zone.stats();
    assert!(stats.pages_free >= free * 7 / 8 && stats.origins_room == 0, "{free}, now {stats:?}");
    check(&zone);
}

/// Upkeep, to the end of a walk if one is due.
fn look(zone: &Zone, now: Millis) {
    while zone.find_idle_origins(now, 10) > 0 {}
}

/// A zone whose table is full: all nodes have positions, and every other one has a record. And how many there are.
fn full() -> (Fixture, u16) {
    let zone = Fixture::new(32 << 10, None, true);
    let count = (0..1000)
        .take_while(|n| {
            (n % 2 == 1 || write_of(&zone, *n) == Applied::Newer)
                && zone.advance(node(*n), Stamp::at(START + u64::from(*n)))
        })
        .count() as u16;
    assert!(count > 60 && zone.stats().origins_room == 0, "{count} nodes");
    (zone, count)
}

#[test]
fn upkeep_finds_in_short_steps_whose_entries_can_be_given_to_others() {
    let (zone, count) = full();
    assert_eq!(write_of(&zone, 2000), Applied::Full, "nobody looks for room while a record stands at the door");
    let steps = (0..1000).take_while(|_| zone.find_idle_origins(START, 10) > 0).count();
    assert!(steps >= usize::from(count / 2 / 10), "{count} records in {steps} steps");
    // Those that have nothing go, the one first that was gone first.
    for (new, gone) in (2000..2010).zip((1..count).step_by(2)) {
        assert_ne!(zone.position(node(gone)), Stamp::ZERO, "not before it has to");
        assert_eq!(write_of(&zone, new), Applied::Newer);
        assert_eq!(zone.position(node(gone)), Stamp::ZERO);
    }
    assert!((0..count).step_by(2).all(|n| records_of(&zone, n) == 1 && zone.position(node(n)) > Stamp::ZERO));
    assert!((2000..2010).all(|n| records_of(&zone, n) == 1));
    check(&zone);
}

#[test]
fn nobody_looks_again_and_again_where_nothing_is_to_be_found() {
    let zone = Fixture::new(32 << 10, None, true);
    let full = (0..1000).find(|n| write_of(&zone, *n) == Applied::Full).expect("an end");
    assert!(zone.find_idle_origins(START, usize::MAX) > usize::from(full));
    assert_eq!(zone.find_idle_origins(START + 3_600_000, usize::MAX), 0, "nobody has asked");
    assert_eq!(write_of(&zone, full), Applied::Full);
    assert_eq!(zone.find_idle_origins(START + 59_999, usize::MAX), 0, "once a minute");
    assert!(zone.find_idle_origins(START + 60_000, usize::MAX) > usize::from(full));
}

/// All that others see of the table.
fn seen(zone: &Zone, count: u16) -> impl PartialEq + std::fmt::Debug + use<> {
    let known: Vec<bool> = (0..count).map(|n| zone.admits(node(n), None, START)).collect();
    (zone.positions(), zone.claims(), zone.lacks().of, zone.is_unsettled(), zone.stats().origins, known)
}

#[test]
fn a_walk_under_way_is_nothing_to_others() {
    let (zone, count) = full();
    assert_eq!(write_of(&zone, 2000), Applied::Full);
    // Something unsettled, and something lacking.
    zone.shard(0).expect("the lock").leave_out(zone.origin_index(node(2)), Stamp::at(START));
    zone.note_met(zone.origin_index(node(4)).expect("known"), Stamp::at(START + 90_000));
    let before = seen(&zone, count);
    let mut late = 0;
    for _ in 0..1000 {
        if zone.find_idle_origins(START, 1) == 0 {
            break;
        }
        assert_eq!(seen(&zone, count), before);
        check(&zone);
        // A record of one that has none yet, wherever the walk is.
        if zone.walked().is_some() && late < 5 {
            late += 1;
            assert_eq!(rewrite_of(&zone, 4 * late + 1), Applied::Newer);
            check(&zone);
        }
    }
    assert!(late == 5 && zone.walked().is_none());
    // They keep their entries; so does one of those that were found, when a record of it comes.
    assert_eq!(rewrite_of(&zone, 3), Applied::Newer);
    check(&zone);
    let found = (2000..3000).take_while(|n| write_of(&zone, *n) == Applied::Newer).count();
    assert!(found + 7 >= usize::from(count / 2), "{found} of {count}");
    assert!([3, 5, 9, 13, 17, 21].iter().all(|n| records_of(&zone, *n) == 1));
    check(&zone);
}

/// A record of a node in the place of one of its neighbour's, so that a full zone has room for it.
fn rewrite_of(zone: &Zone, n: u16) -> Applied {
    write(zone, n, &(n - 1).to_be_bytes(), START + 50_000)
}

#[test]
fn who_is_killed_in_a_walk_leaves_all_that_was_known() {
    for step in [Step::OriginUnmet, Step::OriginsMet, Step::OriginIdle, Step::OriginGivenUp, Step::OriginHalf] {
        for nth in [1, 2, 15] {
            let (zone, count) = full();
            assert_eq!(write_of(&zone, 2000), Applied::Full);
            let (before, positions) = (seen(&zone, count), zone.positions());
            let child = fork(|| {
                armed::arm(step, nth, libc::SIGKILL);
                while zone.find_idle_origins(START, 1) > 0 {}
                (2000..2030).for_each(|n| _ = write_of(&zone, n));
            });
            assert_eq!(end(child, 0), Some(libc::SIGKILL), "{step:?}, time {nth}: it never came");
            if matches!(step, Step::OriginUnmet | Step::OriginsMet | Step::OriginIdle) {
                assert_eq!(seen(&zone, count), before, "{step:?}, time {nth}");
            }
            let lost = positions.iter().filter(|(origin, _)| zone.origin_index(*origin).is_none()).count();
            assert!(lost <= nth as usize, "{step:?}, time {nth}: {lost} are forgotten");
            check(&zone);
            // A record of one of those that had none, and then others go on where the dead stopped.
            let last = count / 2 * 2 - 1;
            assert_eq!(rewrite_of(&zone, last), Applied::Newer, "{step:?}, time {nth}");
            (0..3).for_each(|minute| look(&zone, START + minute * 60_000));
            check(&zone);
            assert_eq!(write_of(&zone, 3000), Applied::Newer, "{step:?}, time {nth}");
            assert_eq!(records_of(&zone, last), 1);
            assert!(
                (0..count - 2).step_by(2).all(|n| n + 1 == last || records_of(&zone, n) == 1),
                "{step:?}, time {nth}"
            );
            check(&zone);
        }
    }
}

/// More nodes than there are entries, and few keys: each entry is given to others again and again.
#[test]
fn a_record_is_of_its_writer_whoever_looks_for_entries_meanwhile() {
    const NODES: u64 = 300;
    const KEYS: u64 = 40;
    const WRITES: u64 = 30_000;
    let zone = Fixture::new(64 << 10, None, true);
    let memory = Region::anonymous(4096).expect("memory");
    let region = memory.region();
    let next = || START + region.word64(0).expect("a word").fetch_add(1, SeqCst);
    let is_true = |record: &Record<'_>| {
        let n = record.value.and_then(|value| <[u8; 2]>::try_from(value).ok()).map(u16::from_be_bytes);
        n.is_none_or(|n| record.version.origin == node(n))
    };
    let writers = [1_u64, 2].map(|seed| {
        fork(|| {
            let mut random = seed;
            let mut newer = 0;
            for _ in 0..WRITES {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (n, key) = ((random >> 33) % NODES, (random >> 45) % KEYS);
                newer += u64::from(write(&zone, n as u16, &key.to_be_bytes(), next()) == Applied::Newer);
                let mut right = true;
                zone.show(&key.to_be_bytes(), &mut |record| right = is_true(record)).expect("the lock");
                assert!(right, "a record has another writer");
            }
            assert!(newer > WRITES / 10, "{newer} of {WRITES}");
        })
    });
    let walker = fork(|| {
        (0..u64::MAX).for_each(|minute| while zone.find_idle_origins(START + minute * 60_000, 3) > 0 {});
    });
    let ended = writers.map(status);
    assert_eq!(end(walker, libc::SIGKILL), Some(libc::SIGKILL));
    assert_eq!(ended, [0, 0], "a writer found something wrong");
    let mut records = 0;
    for key in 0..KEYS {
        let look = &mut |record: &Record<'_>| {
            records += 1;
            assert!(is_true(record), "a record has another writer");
        };
        zone.show(&key.to_be_bytes(), look).expect("the lock");
    }
    assert_eq!(records, KEYS);
    check(&zone);
}

/// How a child ended.
fn status(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a child of ours that wasn't waited for yet.
    unsafe { libc::waitpid(child, &mut status, 0) };
    status
}

#[test]
fn who_holds_the_table_and_does_not_go_on_is_in_no_reloads_way() {
    let zone = Fixture::new(64 << 10, None, true);
    let attach = |n, timeout| Zone::attach(zone.region, &Params { timeout, ..Params::new(n) }).expect("the zone");
    zone.stop_in_origins();
    let again = attach(identity(1), Some(5));
    assert!(again.is_of(identity(1)) && again.params().timeout == Some(5));
    // Another identity needs the lock. All else is as it was asked for, and the identity may follow later.
    let again = attach(identity(2), Some(6));
    assert!(again.is_of(identity(1)) && again.params().timeout == Some(6));
    zone.go_on_in_origins();
    assert!(attach(identity(2), None).is_of(identity(2)));
    check(&zone);
}

#[test]
fn who_holds_the_pool_and_does_not_go_on_costs_nobody_an_entry() {
    let zone = Fixture::new(64 << 10, None, true);
    // As many as there is room for without another page, and none of them has a record.
    let count = zone.geometry.origins as u16 - 1;
    assert!((0..count).all(|n| zone.advance(node(n), Stamp::at(START + u64::from(n)))));
    zone.want_idle();
    look(&zone, START);
    assert_eq!(zone.annexes(), 0);
    let pool = |owner| zone.region.store64(header::POOL_LOCK, owner, SeqCst);
    pool(lock::this_thread());
    let version = Version { stamp: Stamp::at(START), origin: node(count) };
    let record = Record { kind: Kind::Register, version, key: b"k", value: None, expires: None, shortened: false };
    assert_eq!(zone.apply(&record, START, 0), Err(StoreError::Busy), "it is to be sent again");
    assert_eq!(zone.advance_from(node(count), Stamp::ZERO, version.stamp, false), Err(StoreError::Busy));
    pool(0);
    assert!((1..count).all(|n| zone.position(node(n)) > Stamp::ZERO) && !zone.is_lacking());
    assert_eq!(write_of(&zone, count), Applied::Newer);
    assert_eq!((zone.annexes(), zone.positions().len()), (1, usize::from(count) + 2));
    check(&zone);
}

#[test]
fn a_mark_is_another_one_exactly_when_something_else_is_told() {
    let (zone, count) = full();
    let table = |zone: &Zone| {
        let (mut marks, mut known) = (BTreeMap::new(), BTreeMap::new());
        zone.known_marks(|number, mark| _ = marks.insert(number, mark));
        zone.known_of_others(|number, of| _ = known.insert(number, of));
        assert!(marks.keys().eq(known.keys()) && known.iter().all(|(number, of)| zone.known_of(*number) == Some(*of)));
        (marks, known)
    };
    let (mut marks, mut known) = table(&zone);
    assert_eq!(marks.len(), usize::from(count));
    let mut changes = |zone: &Zone| {
        let (new_marks, new_known) = table(zone);
        let of = |number: &usize| known.get(number).map(|of| of.origin) != new_known.get(number).map(|of| of.origin);
        let (mut whose, mut told) = (0, 0);
        for (number, mark) in &new_marks {
            let before = marks.get(number);
            assert_eq!(before.map(|mark| mark.whose) != Some(mark.whose), of(number), "whose {number} is");
            assert_eq!(before != Some(mark), known.get(number) != new_known.get(number), "what is told of {number}");
            (whose, told) = (whose + usize::from(of(number)), told + usize::from(before != Some(mark)));
        }
        (marks, known) = (new_marks, new_known);
        (whose, told)
    };
    assert_eq!(changes(&zone), (0, 0));
    assert!(zone.advance(node(2), Stamp::at(START + 70_000)));
    assert_eq!(changes(&zone), (0, 1));
    zone.shard(0).expect("the lock").leave_out(zone.origin_index(node(4)), Stamp::at(START));
    assert_eq!(changes(&zone), (0, 1));
    assert!(zone.has_left_out());
    // What was left out of a node that isn't in the table may be of any.
    assert_eq!(write_of(&zone, 2000), Applied::Full);
    assert_eq!(changes(&zone), (0, usize::from(count) - 1));
    // An entry goes to another node.
    look(&zone, START);
    assert_eq!(changes(&zone), (0, 0));
    assert_eq!(write_of(&zone, 2000), Applied::Newer);
    assert_eq!(changes(&zone), (1, 1));
}

/// A node's records, all of them.
fn records_of(zone: &Zone, n: u16) -> usize {
    let (mut found, mut place) = (0, Some(Default::default()));
    while let Some(at) = place {
        place =
            zone.survey(at, &mut |record| found += usize::from(record.version.origin == node(n))).expect("the lock");
    }
    found
}
