//! Full zones with `evict` and records of several sizes: what is in use outlives what isn't, whatever either is long.

use super::check::check;
use super::*;
use crate::record::Role;
use crate::store::layout::BUCKET_LINKS;
use crate::store::{Condition, Keeping, Life, Limited, Matching, Told, Use};

/// One request a minute.
const RATE: u64 = 1000 / 60;
const KIB: usize = 1 << 10;

fn limits(size: usize) -> Fixture {
    let params = Params { sync: true, evict: true, matching: Matching::Limit, rate: RATE, ..Params::new(identity(1)) };
    Fixture::with(size, params)
}

/// A key of so many bytes.
fn key(n: usize, len: usize) -> Vec<u8> {
    let mut key = vec![b'k'; len];
    key.iter_mut().zip(n.to_le_bytes()).for_each(|(byte, digit)| *byte = digit);
    key
}

fn is_known(zone: &Zone, key: &[u8], now: Millis) -> bool {
    zone.has_record(&Role::Part(zone.own_part()).of(key), now)
}

/// Fills a zone of limits with keys of one length; returns how many came.
fn fill(zone: &Zone, len: usize, now: impl Fn(usize) -> Millis) -> usize {
    for n in 1.. {
        assert_eq!(zone.admit(&key(n, len), RATE, Some(0), now(n)), Ok(Limited::Within(0)));
        if zone.stats().evicted > 0 {
            return n;
        }
    }
    0
}

/// Whether a record has a mark of use for itself: those in the chain of a bucket share one, and with it their luck.
fn has_own_mark(zone: &Zone, record_key: &[u8]) -> bool {
    let place = zone.place(record_key);
    let from = zone.find(place, record_key).expect("it was written").from;
    from < zone.geometry.bucket(place.shard, place.bucket) + (BUCKET_LINKS - 1) * 4
}

/// A key that is at its limit from now on.
fn begin_busy(zone: &Zone, len: usize, now: Millis) -> Vec<u8> {
    let busy = (1..100).map(|n| key(n << 24, len)).find(|busy| {
        assert_eq!(zone.admit(busy, RATE, Some(0), now), Ok(Limited::Within(0)));
        has_own_mark(zone, &Role::Part(zone.own_part()).of(busy))
    });
    busy.expect("a key with a mark of its own")
}

/// Lengths of keys that fill a zone, and of those that come after them: addresses of both kinds, and longer ones.
const LENGTHS: [(usize, usize); 6] = [(16, 4), (4, 16), (4, 40), (40, 4), (16, 100), (300, 16)];

#[test]
fn a_key_that_is_refused_stays_though_others_are_of_another_length() {
    for size in [128 * KIB, 1024 * KIB, 4096 * KIB] {
        for (filling, coming) in LENGTHS {
            for len in [filling, coming] {
                let zone = limits(size);
                // All within some seconds: the bucket stays full.
                let now = |n: usize| START + (n as u64 * KIB as u64 * 16 / size as u64);
                let filled = fill(&zone, filling, now);
                let busy = begin_busy(&zone, len, now(filled));
                let mut lost = 0;
                for n in filled + 1..4 * filled {
                    zone.admit(&key(n, coming), RATE, Some(0), now(n)).expect("room");
                    if n.is_multiple_of((filled / 20).max(1)) {
                        let asked = zone.admit(&busy, RATE, Some(0), now(n)).expect("an answer");
                        lost += u32::from(matches!(asked, Limited::Within(_)));
                    }
                }
                assert_eq!(lost, 0, "{size}: one of {len} bytes among {filling} and {coming}: {:?}", zone.stats());
                assert_eq!(zone.stats().refused, 0);
                check(&zone);
            }
        }
    }
}

#[test]
fn the_oldest_go_first_whatever_their_length() {
    for size in [128 * KIB, 4096 * KIB] {
        for (filling, coming) in LENGTHS {
            let zone = limits(size);
            let now = |n: usize| START + (n as u64 * KIB as u64 * 16 / size as u64);
            let filled = fill(&zone, filling, now);
            // As many bytes as half of those that are there.
            let count = filled * (filling + 65) / (coming + 65) / 2;
            for n in filled + 1..=filled + count {
                zone.admit(&key(n, coming), RATE, Some(0), now(n)).expect("room");
            }
            let later = now(filled + count);
            let what = format!("{size}: {filling}, then {coming}");
            let last = (filled + 1..=filled + count).filter(|n| is_known(&zone, &key(*n, coming), later)).count();
            assert!(last * 10 >= count * 9, "{what}: {last} of the last {count} are known");
            let known = |range: std::ops::Range<usize>| {
                let count = range.len();
                (range.filter(|n| is_known(&zone, &key(*n, filling), later)).count() * 100 / count) as u32
            };
            let (old, new) = (known(1..filled / 4), known(filled * 3 / 4..filled));
            assert!(old <= 10 && new >= 80, "{what}: {old}% of the first quarter, {new}% of the last one");
            check(&zone);
        }
    }
}

#[test]
fn a_key_that_is_refused_outlives_those_that_nobody_asks_for() {
    for size in [128 * KIB, 4096 * KIB] {
        let zone = limits(size);
        let now = |n: usize| START + (n as u64 * KIB as u64 * 16 / size as u64);
        let filled = fill(&zone, 4, now);
        let busy = begin_busy(&zone, 4, now(filled));
        let writes = |zone: &Zone| (0..zone.shard_count()).map(|shard| zone.writes(shard)).sum::<u64>();
        let (before, count) = (writes(&zone), 6 * filled);
        for n in filled + 1..=filled + count {
            zone.admit(&key(n, 4), RATE, Some(0), now(n)).expect("room");
            if n.is_multiple_of(filled / 4) {
                // Whether it counts with it alone, or is looked at among several.
                let excess = match n.is_multiple_of(filled / 2) {
                    true => zone.admit(&busy, RATE, Some(0), now(n)),
                    false => zone.look(&busy, RATE, 0, now(n)),
                };
                assert!(matches!(excess, Ok(Limited::Beyond(_))), "{size}: after {n} of {filled}: {excess:?}");
            }
        }
        assert_eq!(writes(&zone) - before, count as u64, "a refused request is no change");
        // Once nobody asks for it any more it goes as all others do.
        for n in filled + count + 1..5 * filled + count {
            zone.admit(&key(n, 4), RATE, Some(0), now(n)).expect("room");
        }
        assert!(!is_known(&zone, &busy, now(5 * filled + count)));
        check(&zone);
    }
}

#[test]
fn sessions_in_use_stay_though_servers_names_are_of_several_lengths() {
    let answered = |zone: &Zone, n: usize, len: usize, create: bool, now: Millis| {
        let server = vec![b's'; len];
        let used = Use { server: &server, create, told: Told::Nothing };
        zone.use_session(&key(n, 16), used, Keeping { timeout: 600_000, salt: 1 }, now)
    };
    for size in [128 * KIB, 4096 * KIB] {
        for (filling, coming) in [(32, 8), (8, 32), (32, 120), (32, 32)] {
            let params = Params::new(identity(1));
            let zone = Fixture::with(size, Params { matching: Matching::Session, evict: true, sync: true, ..params });
            let begin = |n: usize, len| {
                let begun = answered(&zone, n, len, true, START);
                assert_eq!(begun, Ok(true), "{n}: {:?}", zone.stats());
            };
            let mut filled = 0;
            while zone.stats().evicted == 0 {
                filled += 1;
                begin(filled, filling);
            }
            // Those that came last, and one that comes now.
            begin(filled + 1, coming);
            let used = (filled - 20..filled).map(|n| (n, filling)).chain([(filled + 1, coming)]);
            let used: Vec<(usize, usize)> = used.filter(|(n, _)| has_own_mark(&zone, &key(*n, 16))).collect();
            for n in filled + 2..5 * filled {
                begin(n, coming);
                if n.is_multiple_of(filled / 10) {
                    let lost = |(n, len): &&(usize, usize)| {
                        let found = answered(&zone, *n, *len, false, START + 1);
                        found != Ok(false) || value(&zone, &key(*n, 16), START + 1).is_none()
                    };
                    let lost = used.iter().filter(lost).count();
                    assert_eq!(lost, 0, "{size}: {filling}, then {coming}: lost after {n} of {filled}");
                }
            }
            let old = (1..filled - 20).filter(|n| value(&zone, &key(*n, 16), START + 1).is_some()).count();
            assert!(
                old * 20 <= filled,
                "{size}: {filling}, then {coming}: {old} of {filled} that nobody used are left"
            );
            assert_eq!(zone.stats().refused, 0);
            check(&zone);
        }
    }
}

#[test]
fn pairs_in_use_stay_though_values_are_of_several_lengths() {
    for size in [128 * KIB, 4096 * KIB] {
        for (filling, coming) in [(40, 100), (100, 40), (20, 60), (40, 200)] {
            let zone = Fixture::with(size, Params { evict: true, ..Params::new(identity(1)) });
            let set = |n: usize, len| {
                zone.set(&key(n, 12), &vec![1; len], Life::Default, Condition::Always, START).expect("room");
            };
            let mut filled = 0;
            while zone.stats().evicted == 0 {
                filled += 1;
                set(filled, filling);
            }
            let used = filled / 2..filled / 2 + 40;
            let lost = || used.clone().filter(|n| value(&zone, &key(*n, 12), START).is_none()).count();
            let before = lost();
            for n in filled + 1..5 * filled {
                set(n, coming);
                if n.is_multiple_of(filled / 20) {
                    lost();
                }
            }
            let what = format!("{size}: {filling}, then {coming}");
            assert!(lost() <= before + 4, "{what}: {} of 40 in use are lost", lost() - before);
            let old = (1..filled).filter(|n| !used.contains(n) && value(&zone, &key(*n, 12), START).is_some()).count();
            assert!(old * 10 <= filled, "{what}: {old} of {filled} that nobody used are left");
            assert_eq!(zone.stats().refused, 0);
            check(&zone);
        }
    }
}
