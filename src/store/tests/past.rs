//! What is past: records that were here and are over don't come back, whatever is still remembered of them.

use super::check::check;
use super::crash::{end, fork};
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::control::CONTROL_SIZE;
use crate::store::failpoint::{Step, armed};
use crate::store::{Applied, Condition, Control, Known, Lacks, Life, StoreError, Written};

const DRIFT: Millis = 60_000;
const HOUR: Millis = 3_600_000;

fn stamp(count: u64) -> Stamp {
    Stamp(Stamp::at(START).0 + count)
}

fn record(value: Option<&'static [u8]>, count: u64, node: u8) -> Record<'static> {
    let version = Version { stamp: stamp(count), origin: identity(node) };
    Record { kind: Kind::Register, version, key: b"k", value, expires: None, shortened: false }
}

#[test]
fn what_positions_cover_and_is_not_there_is_over() {
    let zone = Fixture::new(64 << 10, None, true);
    let apply = |record, now| zone.apply(&record, now, DRIFT).expect("applied");
    assert_eq!(apply(record(Some(b"a"), 5, 7), START), Applied::Newer);
    zone.advance(identity(7), stamp(9));
    zone.delete(b"k", START).expect("deleted");
    let later = START + 2 * HOUR;
    zone.upkeep(later, 1000);
    assert_eq!(zone.stats().tombstones, 0, "nothing tells of it any more");
    assert_eq!(apply(record(Some(b"a"), 5, 7), later), Applied::Stale);
    assert_eq!(apply(record(None, 6, 7), later), Applied::Stale, "a tombstone of it is of no use either");
    assert_eq!(value(&zone, b"k", later), None);
    // Something older that nobody knew of makes way for what was over before.
    assert_eq!(apply(record(Some(b"older"), 3, 8), later), Applied::Newer);
    assert_eq!(apply(record(Some(b"a"), 5, 7), later), Applied::Newer);
    assert_eq!(value(&zone, b"k", later), None);
    assert_eq!(apply(record(Some(b"new"), 10, 7), later), Applied::Newer, "what came later is news");
    check(&zone);
}

#[test]
fn what_found_no_room_may_come_again() {
    let zone = Fixture::new(64 << 10, None, true);
    zone.advance(identity(7), stamp(9));
    zone.count_lacked(stamp(6));
    assert_eq!((zone.stats().incomplete, zone.stats().left_out), (1, 1));
    let apply = |record| zone.apply(&record, START, DRIFT).expect("applied");
    assert_eq!(apply(Record { key: b"other", ..record(Some(b"a"), 7, 7) }), Applied::Stale);
    assert_eq!(apply(record(Some(b"a"), 6, 7)), Applied::Newer);
    // What is left out meanwhile keeps it from being made up for.
    zone.count_lacked(stamp(8));
    assert!(!zone.made_up(&Lacks { any: stamp(6), count: 1, ..Lacks::default() }, &[], &[]));
    assert_eq!(zone.lacks(), Lacks { any: stamp(8), count: 2, ..Lacks::default() });
    let lacks = zone.lacks();
    assert!(zone.made_up(&lacks, &[], &[]));
    assert!(!zone.made_up(&lacks, &[], &[]), "it is complete already");
    assert_eq!((zone.is_lacking(), zone.stats().incomplete, zone.stats().left_out), (false, 0, 2));
}

#[test]
fn what_is_left_out_while_all_seems_to_be_made_up_is_still_lacking() {
    let zone = Fixture::new(64 << 10, None, true);
    zone.count_lacked(stamp(9));
    let child = fork(|| {
        armed::arm(Step::MadeUp, 1, libc::SIGSTOP);
        zone.made_up(&zone.lacks(), &[], &[]);
    });
    let mut status = 0;
    // SAFETY: a child of ours; this returns when it has stopped.
    unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status) && !zone.is_lacking());
    zone.count_lacked(stamp(5));
    // SAFETY: a child of ours goes on.
    unsafe { libc::kill(child, libc::SIGCONT) };
    assert_eq!(end(child, 0), None);
    assert_eq!(zone.lacks(), Lacks { any: stamp(9), count: 2, of: Vec::new() });
}

#[test]
fn a_full_zone_gives_up_what_positions_tell_before_what_they_do_not() {
    let zone = Fixture::new(32 << 10, None, true);
    assert_eq!(zone.apply(&record(Some(b"a"), 5, 7), START, DRIFT).expect("applied"), Applied::Newer);
    zone.delete(b"k", START).expect("deleted");
    // As large as what needs their room.
    for n in 0..10u8 {
        zone.set(&[n; 44], b"mine", Life::Default, Condition::Always, START).expect("room");
        zone.delete(&[n; 44], START + 1).expect("deleted");
    }
    let set = |n: u32| zone.set(&n.to_be_bytes(), &[0; 40], Life::Default, Condition::Always, START + 2);
    let mut tombstones = Vec::new();
    for n in 0.. {
        let written = set(n);
        tombstones.push(zone.stats().tombstones);
        if written.is_err() || tombstones.ends_with(&[1]) {
            break;
        }
    }
    assert_eq!(tombstones.last(), Some(&1), "the others made room: {tombstones:?}");
    assert_eq!(zone.apply(&record(Some(b"a"), 5, 7), START + 3, DRIFT).expect("applied"), Applied::Stale);
    // Where there are no others, a delete isn't worth more than what is written now.
    (0..1000).for_each(|n| _ = set(n));
    assert_eq!(zone.stats().tombstones, 0);
    check(&zone);
}

#[test]
fn a_delete_of_what_is_not_promised_yet_is_remembered_until_it_is() {
    let zone = Fixture::new(64 << 10, None, true);
    let apply = |record, now| zone.apply(&record, now, DRIFT).expect("applied");
    // Replaced first, and deleted then; and the other way round, a record that comes when the delete is here.
    apply(record(Some(b"a"), 5, 7), START);
    zone.set(b"k", b"mine", Life::Default, Condition::Always, START).expect("room");
    zone.delete(b"k", START).expect("deleted");
    let late = Record { key: b"late", ..record(Some(b"a"), 4, 7) };
    apply(Record { key: b"late", ..record(None, 6, 8) }, START);
    zone.advance(identity(8), stamp(6));
    assert_eq!(apply(late, START), Applied::Stale);
    let day = START + 24 * HOUR;
    (START..day).step_by(HOUR as usize).for_each(|now| _ = zone.upkeep(now, 1000));
    assert_eq!(zone.stats().tombstones, 2, "its origin may not have lived to promise it");
    assert_eq!(apply(record(Some(b"a"), 5, 7), day), Applied::Stale);
    assert_eq!(apply(late, day), Applied::Stale);
    zone.advance(identity(7), stamp(5));
    (day..day + 3 * HOUR).step_by(HOUR as usize).for_each(|now| _ = zone.upkeep(now, 1000));
    assert_eq!(zone.stats().tombstones, 0);
    assert_eq!(apply(record(Some(b"a"), 5, 7), day + HOUR), Applied::Stale);
    check(&zone);
}

#[test]
fn memory_made_anew_begins_after_all_stamps_of_the_memory_before() {
    let mapping = Region::private(CONTROL_SIZE).expect("memory");
    let control = Control::create_with(mapping.region(), identity(1)).expect("a control region");
    assert_eq!(control.born(START), None, "in the first configuration there was nothing before");
    control.next_generation();
    assert_eq!(control.born(START), Some(START));

    // A peer whose clock is ahead pulls the stamps along.
    let before = Fixture::new(64 << 10, None, true);
    let ahead = Version { stamp: Stamp::at(START + DRIFT), origin: identity(2) };
    assert_eq!(before.apply(&Record { version: ahead, ..record(Some(b"v"), 0, 2) }, START, DRIFT), Ok(Applied::Newer));
    let write = |zone: &Zone| match zone.set(b"k", b"w", Life::Default, Condition::Always, START) {
        Ok(Written::Done(version)) => version.stamp,
        other => panic!("{other:?}"),
    };
    let given = write(&before);
    assert!(given > ahead.stamp);
    control.leave_behind(before.last_stamp());
    let born = control.born(START);
    let anew = Fixture::with(64 << 10, Params { sync: true, born, ..Params::new(identity(1)) });
    assert!(write(&anew) > given);
    // What was closed there counts as well: peers are sent only what is above it.
    let (closed, _) = before.close(START + HOUR);
    control.leave_behind(before.last_stamp());
    assert!(control.born(START).is_some_and(|born| Stamp::at(born) > closed));
}

#[test]
fn memory_made_anew_takes_its_nodes_older_writes_back() {
    let born = Some(START + 1000);
    let zone = Fixture::with(64 << 10, Params { sync: true, born, ..Params::new(identity(1)) });
    assert!(zone.claims().is_empty());
    assert_eq!(zone.apply(&record(Some(b"mine"), 5, 1), START + 2000, DRIFT), Ok(Applied::Newer));
    // The clock was set back: stamps come after the beginning all the same.
    zone.set(b"new", b"v", Life::Default, Condition::Always, START).expect("room");
    let version_of = |key: &[u8], now| {
        let found = zone.get(key, now, &mut Vec::new()).expect("a look-up").expect("a record");
        zone.version(&found)
    };
    assert!(version_of(b"new", START).stamp > Stamp::at(START + 1000));
    let later = START + HOUR;
    zone.set(b"new", b"w", Life::Default, Condition::Always, later).expect("room");
    let again = Record { key: b"new", version: version_of(b"new", later), ..record(Some(b"w"), 0, 1) };
    zone.close(later);
    zone.delete(b"new", later).expect("deleted");
    zone.upkeep(later + 2 * HOUR, 1000);
    assert_eq!(zone.stats().tombstones, 0, "nothing tells of it any more");
    // Others can't know which writes of this node went to this memory, so they would keep it.
    assert_eq!(zone.apply(&again, later + 2 * HOUR, DRIFT), Ok(Applied::Newer));
}

#[test]
fn memory_made_anew_tells_what_it_lacks_of_its_nodes_older_writes() {
    let born = Some(START + 1000);
    let zone = Fixture::with(64 << 10, Params { sync: true, born, ..Params::new(identity(1)) });
    let fits = |n: u32| zone.set(&n.to_le_bytes(), &[0; 700], Life::Default, Condition::Always, START).is_ok();
    (0..200).for_each(|n| _ = fits(n));
    let older = Record { value: Some(&[1; 700]), ..record(None, 5, 1) };
    assert_eq!(zone.apply(&older, START + 2000, DRIFT), Ok(Applied::Full));
    assert_eq!((zone.stats().incomplete, zone.lacks().of), (1, vec![(identity(1), stamp(5))]));
}

#[test]
fn what_a_clock_ahead_let_go_may_come_again() {
    let zone = Fixture::new(64 << 10, None, true);
    let mortal = Record { expires: Some(START + HOUR), ..record(Some(b"a"), 5, 7) };
    assert_eq!(zone.apply(&mortal, START, DRIFT), Ok(Applied::Newer));
    zone.advance(identity(7), stamp(9));
    (1..4).for_each(|hours| _ = zone.upkeep(START + hours * HOUR, 1000));
    assert_eq!(zone.stats().tombstones, 0);
    assert_eq!(zone.apply(&mortal, START, DRIFT), Ok(Applied::Newer));
    assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"a"[..]));
}

#[test]
fn what_a_zone_that_evicts_lacks_may_have_been_given_up_before_it_was_sent() {
    let zone = Fixture::with(64 << 10, Params { sync: true, evict: true, ..Params::new(identity(1)) });
    let apply = |record| zone.apply(&record, START, DRIFT).expect("applied");
    assert_eq!(apply(record(Some(b"old"), 5, 7)), Applied::Newer);
    zone.advance(identity(7), stamp(9));
    assert_eq!(apply(record(Some(b"new"), 8, 7)), Applied::Newer);
    assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"new"[..]));
    check(&zone);
}

#[test]
fn what_others_are_told_of_origins_is_what_each_look_by_itself_says() {
    let zone = Fixture::new(64 << 10, None, true);
    (7..60).for_each(|node| _ = zone.advance(identity(node), stamp(node.into())));
    assert_eq!(zone.advance_from(identity(9), stamp(9), stamp(9), true), Ok(true));
    let told = || {
        let mut told = Vec::new();
        zone.known_of_others(|_, known| told.push(known));
        told
    };
    let alone = || {
        let others = zone.positions().into_iter().filter(|(origin, _)| *origin != identity(1));
        let known = others.map(|(origin, position)| Known {
            origin,
            position,
            is_lacking: zone.lacks().of(origin) > Stamp::ZERO,
            is_whole: zone.is_whole(origin),
        });
        known.collect::<Vec<_>>()
    };
    assert_eq!((told(), told().len()), (alone(), 53));
    assert_eq!(told().iter().filter(|known| !known.is_whole).count(), 1);
    assert!(!zone.has_left_out() && told().iter().all(|known| !known.is_lacking));
    zone.count_lacked(stamp(6));
    assert!(zone.has_left_out() && told().iter().all(|known| known.is_lacking));
    assert_eq!(told(), alone());
}

#[test]
fn what_is_left_out_is_noted_whoever_stands_still_with_a_lock() {
    let zone = Fixture::new(64 << 10, None, true);
    (0..zone.geometry.shards).for_each(|shard| zone.stop_in(shard));
    zone.stop_in_origins();
    zone.count_lacked(stamp(6));
    zone.count_lacked(stamp(4));
    assert_eq!(zone.lacks(), Lacks { any: stamp(6), count: 2, of: Vec::new() });
}

#[test]
fn what_is_noted_of_origins_is_noted_whole_or_not_at_all() {
    let zone = Fixture::new(64 << 10, None, true);
    let of = identity(7);
    zone.advance(of, stamp(9));
    zone.count_lacked(stamp(6));
    let lacks = zone.lacks();
    zone.stop_in_origins();
    assert_eq!(zone.advance_from(of, stamp(9), stamp(12), true), Err(StoreError::Busy));
    assert!(!zone.made_up(&lacks, &[], &[of]), "it is to be found out again");
    assert_eq!((zone.position(of), zone.is_whole(of), zone.lacks()), (stamp(9), true, lacks.clone()));
    zone.go_on_in_origins();
    assert_eq!(zone.advance_from(of, stamp(9), stamp(12), true), Ok(true));
    assert_eq!((zone.position(of), zone.is_whole(of)), (stamp(12), false));
    assert!(zone.made_up(&lacks, &[], &[of]));
    assert_eq!((zone.position(of), zone.is_lacking()), (Stamp::ZERO, false));
}
