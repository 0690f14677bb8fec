//! Several processes at work in several shards, one of which is killed again and again: the others take its locks, repair and
//! go on, readers never notice, and each process finds just what was acknowledged to it.

use std::time::{Duration, Instant};

use super::check::check;
use super::crash::{Ledger, end, fork};
use super::*;
use crate::store::{Condition, Life, StoreError, Written};

const CHILDREN: u64 = 3;
/// Keys of each child.
const KEYS: u64 = 20;
const ROUNDS: u64 = 150;
/// Words of the ledger behind those of the keys: the operation that each child has begun.
const BEGUN: u64 = CHILDREN * KEYS;
/// Marks, in the ledger, an operation that was a delete.
const DELETED: u64 = 1 << 63;

fn key_of(child: u64, n: u64) -> u64 {
    child * KEYS + n % KEYS
}

fn is_delete(n: u64) -> bool {
    n % 7 == 3
}

fn value_of(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(3 + (n * 31 % 200) as usize)
}

/// What a child does for ever: sets and deletes its own keys, and notes what was acknowledged.
fn work(zone: &Zone, ledger: &Ledger, child: u64) {
    for n in ledger.noted(BEGUN + child) + 1.. {
        ledger.note(BEGUN + child, n);
        let (key, now) = (key_of(child, n), START + n);
        if is_delete(n) {
            if zone.delete(&key.to_be_bytes(), now).is_ok() {
                ledger.note(key, n | DELETED);
            }
        } else if let Ok(Written::Done(_)) =
            zone.set(&key.to_be_bytes(), &value_of(n), Life::For(10_000_000), Condition::Always, now)
        {
            ledger.note(key, n);
        }
        zone.upkeep(now, 3);
    }
}

/// What there is of a key: the number of its value, none if there is no record.
fn found(zone: &Zone, key: u64) -> Option<u64> {
    let value = value(zone, &key.to_be_bytes(), START)?;
    let n = u64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
    assert!(value == value_of(n), "key {key} is torn");
    Some(n)
}

/// Each of a dead child's keys is as it was acknowledged, but for the one that it was about to change.
fn examine(zone: &Zone, ledger: &Ledger, child: u64) {
    let begun = ledger.noted(BEGUN + child);
    for key in child * KEYS..(child + 1) * KEYS {
        let noted = ledger.noted(key);
        let effect = |n: u64| (n != 0 && n & DELETED == 0).then_some(n);
        let begun = (key == key_of(child, begun)).then(|| if is_delete(begun) { None } else { Some(begun) });
        let found = found(zone, key);
        assert!(found == effect(noted) || Some(found) == begun, "key {key}: {found:?}, not {noted}, nor {begun:?}");
    }
}

#[test]
fn survivors_repair_and_readers_do_not_notice() {
    for sync in [false, true] {
        let zone = Fixture::new(1 << 20, None, sync);
        let ledger = Ledger::new();
        let still = |n: u64| (1_000 + n).to_be_bytes();
        for n in 0..50 {
            zone.set(&still(n), &value_of(n), Life::Default, Condition::Always, START).expect("room");
        }
        let start = |child| fork(|| work(&zone, &ledger, child));
        let mut children: Vec<_> = (0..CHILDREN).map(start).collect();
        let mut locked = 0;
        for round in 0..ROUNDS {
            let victim = round % CHILDREN;
            let before: Vec<u64> = (0..CHILDREN).map(|child| ledger.noted(BEGUN + child)).collect();
            let until = Instant::now() + Duration::from_secs(20);
            // All go on: whoever met a lock of the dead has repaired.
            while (0..CHILDREN).any(|child| ledger.noted(BEGUN + child) < before[child as usize] + 3) {
                let n = ledger.noted(BEGUN) % 50;
                let whole = value(&zone, &still(n), START) == Some(value_of(n));
                assert!(whole, "what nobody changes is always there");
                assert!(Instant::now() < until, "all go on");
            }
            end(children[victim as usize], libc::SIGKILL);
            let held = |index: &u32| zone.shard_unlocked(*index).is_locked();
            locked += u64::from((0..zone.geometry.shards).any(|index| held(&index)));
            // Provokes the repair of whatever is still in the hand of the dead.
            for index in 0..zone.geometry.shards {
                let until = Instant::now() + Duration::from_secs(20);
                while let Err(error) = zone.shard(index).map(drop) {
                    assert!(error == StoreError::Busy && Instant::now() < until, "{error}");
                }
            }
            examine(&zone, &ledger, victim);
            children[victim as usize] = start(victim);
        }
        for child in children {
            end(child, libc::SIGKILL);
        }
        (0..zone.geometry.shards).for_each(|index| drop(zone.shard(index).expect("the lock")));
        (0..CHILDREN).for_each(|child| examine(&zone, &ledger, child));
        zone.set(b"alive", b"yes", Life::Default, Condition::Always, START).expect("it goes on");
        check(&zone);
        println!("{ROUNDS} killed beside others, {locked} times with a lock in some hand");
    }
}
