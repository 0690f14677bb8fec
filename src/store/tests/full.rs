//! Full zones: whatever is there can be written again, as long as it isn't longer.

use std::sync::atomic::Ordering::SeqCst;

use super::check::check;
use super::crash::{end, fork};
use super::*;
use crate::record::{Kind, Record};
use crate::store::failpoint::{Step, armed};
use crate::store::layout::{CLASS_SIZES, header};
use crate::store::{Applied, Batch, Condition, DumpPlace, Dumped, Life, StoreError};

/// Refusals in a row, of different keys, after which a zone is taken to be full.
const REFUSALS: u32 = 200;

fn key(n: u32) -> Vec<u8> {
    format!("key {n:012}").into_bytes()
}

fn set(zone: &Zone, n: u32, len: usize, condition: Condition) -> Result<(), StoreError> {
    zone.set(&key(n), &vec![n as u8; len], Life::Default, condition, START).map(drop)
}

/// Fills a zone with values of these lengths until none fits in any shard; returns which keys are there.
fn fill(zone: &Zone, lens: &[usize]) -> Vec<(u32, usize)> {
    let (mut there, mut refused) = (Vec::new(), 0);
    for (n, len) in (0..).zip(lens.iter().cycle()) {
        match set(zone, n, *len, Condition::Absent) {
            Ok(()) => {
                there.push((n, *len));
                refused = 0;
            }
            Err(error) => {
                assert_eq!(error, StoreError::NoMemory);
                refused += 1;
            }
        }
        if refused == REFUSALS * lens.len() as u32 {
            break;
        }
    }
    there
}

fn lengths_of_all_classes() -> Vec<usize> {
    CLASS_SIZES.iter().map(|size| size.saturating_sub(56).max(1)).chain([5_000, 20_000]).collect()
}

#[test]
fn every_record_of_a_full_zone_can_be_written_again() {
    let all = lengths_of_all_classes();
    let cases: [(usize, &[usize]); 11] = [
        (32 << 10, &[16]),
        (64 << 10, &[100, 700]),
        (512 << 10, &all),
        (1 << 20, &all),
        (3 << 20, &[1_400]),
        (3 << 20, &all),
        (9 << 20, &[16]),
        (9 << 20, &[1_400]),
        (9 << 20, &[3_000]),
        (9 << 20, &[20_000]),
        (9 << 20, &all),
    ];
    for (size, lens) in cases {
        let zone = Fixture::new(size, None, size.is_multiple_of(2 << 20));
        let there = fill(&zone, lens);
        let what = format!("{size} bytes of {} lengths, {} records", lens.len(), there.len());
        for round in 0..3 {
            // The last ones first, then the others: as shards have filled up, and as they have not.
            let order: Vec<_> = if round == 1 { there.clone() } else { there.iter().rev().copied().collect() };
            for (n, len) in order {
                let written = set(&zone, n, len, Condition::Present);
                assert_eq!(written, Ok(()), "update of key {n}, of {len} bytes, in round {round}: {what}");
            }
        }
        check(&zone);
        for (n, len) in &there {
            assert_eq!(set(&zone, *n, len * 2 / 3, Condition::Present), Ok(()), "a shorter one of {len} bytes: {what}");
        }
        check(&zone);
        for (n, len) in &there {
            let _ = set(&zone, *n, *len, Condition::Present);
            assert_eq!(set(&zone, *n, len * 2 / 3, Condition::Present), Ok(()), "after others have grown: {what}");
        }
        check(&zone);
    }
}

#[test]
fn records_of_whole_pages_are_written_again_by_many_at_once() {
    for len in [3_000, 100_000] {
        let zone = Fixture::new(9 << 20, None, false);
        let there = fill(&zone, &[len]);
        std::thread::scope(|scope| {
            for part in there.chunks(there.len().div_ceil(4)) {
                let zone = &zone;
                scope.spawn(move || {
                    for (n, len) in part.iter().cycle().take(3_000) {
                        let written = set(zone, *n, *len, Condition::Present);
                        assert!(matches!(written, Ok(()) | Err(StoreError::Busy)), "{written:?}");
                    }
                });
            }
        });
        check(&zone);
        assert_eq!(zone.region.load64(header::BORROW_LOCK, SeqCst), 0);
        assert_eq!(zone.stats().refused, u64::from(REFUSALS));
    }
}

#[test]
fn what_the_dead_borrowed_is_given_back_for_the_next_who_needs_it() {
    let zone = Fixture::new(9 << 20, None, false);
    let there = fill(&zone, &[100_000]);
    let first = there[0].0;
    let child = fork(|| {
        armed::arm(Step::OverflowTaken, 24, libc::SIGKILL);
        let _ = set(&zone, first, 100_000, Condition::Present);
    });
    assert_eq!(end(child, 0), Some(libc::SIGKILL));
    assert_ne!(zone.region.load64(header::BORROW_LOCK, SeqCst), 0);
    let shard = zone.place(&key(first)).shard;
    let other = there.iter().find(|(n, _)| zone.place(&key(*n)).shard != shard).expect("another shard's");
    assert_eq!(set(&zone, other.0, 100_000, Condition::Present), Ok(()));
    check(&zone);
}

#[test]
fn what_a_full_zone_holds_fits_into_a_new_one_with_its_seed() {
    let all = lengths_of_all_classes();
    let cases: [(usize, &[usize]); 9] = [
        (64 << 10, &[100, 700]),
        (64 << 10, &all),
        (1 << 20, &[16]),
        (1 << 20, &all),
        (4 << 20, &[16]),
        (4 << 20, &all),
        (9 << 20, &[16]),
        (9 << 20, &[1_400, 3_000]),
        (9 << 20, &all),
    ];
    let mut packed = 0;
    for (size, lens) in cases {
        for changes in [0, 1, 3] {
            let zone = Fixture::new(size, None, false);
            let there = fill(&zone, lens);
            let (mut random, mut changed) = (size, 0);
            for _ in 0..changes * there.len() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (key, len) = (there[(random >> 33) % there.len()].0, lens[(random >> 20) % lens.len()]);
                changed += usize::from(set(&zone, key, len, Condition::Present).is_ok());
            }
            let what = format!("{size} bytes of {} lengths, {} records, {changed} changes", lens.len(), there.len());
            let memory = Region::anonymous(size).expect("memory");
            let params = Params::new(identity(1));
            let again = match zone.seed() {
                Some(seed) => Zone::create_seeded(memory.region(), &params, seed),
                None => Zone::create(memory.region(), &params),
            };
            let again = again.expect("a zone");
            if !restore(&zone, &again, false) {
                again.begin_anew().expect("a zone");
                packed += 1;
                assert!(restore(&zone, &again, true), "{what}");
            }
            assert_eq!(listing(&again, START), listing(&zone, START), "{what}");
            check(&again);
            assert!(again.mark() != zone.mark() && again.scan_mark() != zone.scan_mark(), "it is another zone");
        }
    }
    assert!(packed > 0, "some fit only when they are packed");
}

/// Whether all records of a zone fit into another; `packed`: the largest first.
fn restore(zone: &Zone, again: &Zone, packed: bool) -> bool {
    let (mut place, mut batch, mut all) = (DumpPlace::default(), Batch::default(), Vec::new());
    while zone.dump(&mut place, &mut batch).expect("a dump") {
        all.extend(batch.records().map(|Dumped { record, .. }| {
            (record.version, record.key.to_vec(), record.value.expect("a record").to_vec())
        }));
    }
    if packed {
        all.sort_by_key(|(_, key, value)| std::cmp::Reverse(key.len() + value.len()));
    }
    all.iter().all(|(version, key, value)| {
        let (kind, version, value) = (Kind::Register, *version, Some(&**value));
        let record = Record { kind, version, key, value, expires: None, shortened: false };
        again.restore(&record, START, packed) == Ok(Applied::Newer)
    })
}

#[test]
fn a_zone_with_much_room_tells_no_seed() {
    let zone = Fixture::new(4 << 20, None, false);
    assert_eq!(zone.seed(), None);
    fill(&zone, &[1_400]);
    assert!(zone.seed().is_some());
}
