//! Processes killed in the middle of limiting requests: what was admitted, here and elsewhere, is known and counts once.

use std::collections::BTreeMap;

use super::check::check;
use super::crash::{Ledger, end, fork, walk_now_and_then};
use super::*;
use crate::record::{Bucket, Kind, PartId, Record, Role, Share, Stamp, Version};
use crate::store::failpoint::{ALL, OF_LIMITS, Step, armed};
use crate::store::limit::pad;
use crate::store::{Applied, Matching};

const KEYS: u64 = 8;
/// Other nodes.
const OTHERS: u64 = 3;
/// Requests of keys that nobody follows go round so many.
const ASIDE: u64 = 2000;
/// One request a second. All happens within some tenths of one.
const RATE: u64 = 1000;

fn zone(size: usize) -> Fixture {
    let params = Params { sync: true, evict: true, matching: Matching::Limit, rate: RATE, ..Params::new(identity(1)) };
    Fixture::with(size, params)
}

fn now(n: u64) -> Millis {
    START + n / 64
}

/// Where the ledger has what was admitted of a key, here (0) or by another node.
fn at(key: u64, node: u64) -> u64 {
    key * (1 + OTHERS) + node
}

fn part(node: u64) -> PartId {
    PartId([node as u8; 8])
}

/// Another node tells that it has admitted so many in all.
fn tell(zone: &Zone, key: u64, node: u64, admitted: u64, now: Millis) -> Applied {
    let record_key = Role::Part(part(node)).of(&key.to_be_bytes());
    // Little is in its bucket: what this node knows of all is news to whoever comes new, and is told anew.
    let bucket = Bucket { excess: 3000, last: now as u32 };
    let share = Share { begun: START as u32, admitted: admitted as u32, mixed: true, bucket, ..Share::default() };
    let value = [&vec![0; pad(record_key.len())][..], &share.to_bytes()].concat();
    // One more each time, so that its stamps follow each other.
    let version = Version { stamp: Stamp(Stamp::at(START).0 + admitted), origin: Identity([0x40 + node as u8; 16]) };
    let record = Record {
        kind: Kind::Limit,
        version,
        key: &record_key,
        value: Some(&value),
        expires: Some(now + 600_000),
        shortened: false,
    };
    zone.apply(&record, now, 60_000).expect("an answer")
}

/// One step of a child's work.
fn work(zone: &Zone, ledger: &Ledger, n: u64) {
    let (key, node, now) = (n / (1 + OTHERS) % KEYS, n % (1 + OTHERS), now(n));
    let next = ledger.noted(at(key, node)) + 1;
    let done = match node {
        0 => zone.admit(&key.to_be_bytes(), RATE, None, now).is_ok(),
        _ => tell(zone, key, node, next, now) == Applied::Newer,
    };
    if done {
        ledger.note(at(key, node), next);
    }
    let _ = zone.admit(format!("aside {}", n % ASIDE).as_bytes(), RATE, Some(0), now);
    // One that begins here with what another node has.
    tell(zone, KEYS + n, 1, 1, now);
    let _ = zone.admit(&(KEYS + n).to_be_bytes(), RATE, None, now);
    zone.upkeep(now, 5);
    zone.take_dirty();
    walk_now_and_then(zone, n);
}

/// What is here of a key, by the node that admitted it.
fn shares(zone: &Zone, key: u64) -> BTreeMap<u64, Share> {
    let own = zone.own_part();
    let place = zone.place(&Role::Part(own).of(&key.to_be_bytes()));
    let mut shares = BTreeMap::new();
    zone.parts_each(place, &key.to_be_bytes(), |id, met| {
        let node = if id == own { 0 } else { u64::from(id.0[0]) };
        if let Some(share) = zone.share_in(met) {
            assert!(shares.insert(node, share).is_none(), "a part is there once");
        }
    });
    shares
}

/// After a death: the next call repairs, and then each request counts once.
fn examine(zone: &Zone, ledger: &Ledger, what: &str) {
    let now = now(10_000);
    zone.limited(b"absent", RATE, now).unwrap_or_else(|error| panic!("{what}: {error}"));
    check(zone);
    let evicted = zone.stats().evicted > 0;
    let mut lost = 0;
    for key in 0..KEYS {
        let shares = shares(zone, key);
        for node in 0..=OTHERS {
            let noted = ledger.noted(at(key, node));
            let Some(share) = shares.get(&node) else {
                assert!(noted == 0 || evicted, "{what}: key {key}: what node {node} has admitted is lost");
                continue;
            };
            let admitted = u64::from(share.admitted);
            // What was killed may have done one more than it could note; what was given up began anew.
            let is_right = (noted..=noted + 1).contains(&admitted) || (evicted && admitted <= noted);
            assert!(is_right, "{what}: key {key}: node {node} has admitted {admitted}, not {noted}");
        }
        // They say again what they haven't heard to have been taken, and go on.
        for node in 1..=OTHERS {
            for admitted in [ledger.noted(at(key, node)), ledger.noted(at(key, node)) + 1] {
                if admitted > 0 {
                    tell(zone, key, node, admitted, now);
                }
            }
        }
        let shares = self::shares(zone, key);
        let Some(own) = shares.get(&0).filter(|_| !evicted) else { continue };
        let sum: u64 = shares.values().map(|share| u64::from(share.admitted)).sum();
        // All in it, but for what has run out; as many as a bucket without the last request.
        let counted = (own.bucket.level(RATE, now) + 500) / 1000;
        assert!(counted <= sum, "{what}: key {key}: {counted} count, of {sum} admitted");
        lost += sum - counted;
    }
    // What was killed between taking what another node says and counting it.
    assert!(lost <= 1, "{what}: {lost} don't count");
}

/// A child lives in the zone until it dies after a step. Returns whether it came to that.
fn dies(zone: &Zone, step: Step, nth: u32) -> (Ledger, bool) {
    let ledger = Ledger::new();
    for key in 0..KEYS {
        // Before the others', so that all of these are news.
        zone.admit(&key.to_be_bytes(), RATE, None, START).expect("room");
        ledger.note(at(key, 0), 1);
    }
    let child = fork(|| {
        armed::arm(step, nth, libc::SIGKILL);
        (0..4000).for_each(|n| work(zone, &ledger, n));
    });
    let killed = end(child, 0);
    assert!(killed.is_none() || killed == Some(libc::SIGKILL), "{step:?}: {killed:?}");
    (ledger, killed.is_some())
}

#[test]
fn a_request_that_was_admitted_counts_once_whoever_is_killed() {
    let (mut deaths, mut steps) = (0, 0);
    for &step in ALL.iter().chain(OF_LIMITS) {
        let mut came = false;
        // In the small one keys are given up.
        for size in [512 << 10, 32 << 10] {
            for nth in [1, 2, 7, 90] {
                let zone = zone(size);
                let (ledger, died) = dies(&zone, step, nth);
                if !died {
                    break;
                }
                examine(&zone, &ledger, &format!("{step:?}, time {nth}, {size} bytes"));
                (deaths, came) = (deaths + 1, true);
            }
        }
        assert!(came || !OF_LIMITS.contains(&step), "nobody died after step {step:?}: it never came");
        steps += u32::from(came);
    }
    println!("{deaths} deaths, after each of {steps} steps");
    assert!(steps >= 24, "of all steps only {steps} came");
}
