//! Several processes over one region at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::check::check;
use super::*;
use crate::store::{Condition, Life};

const KEYS: u64 = 24;

/// Bytes that tell a torn value from a whole one, of lengths that change from write to write.
fn value_of(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(2 + (n * 7 % 600) as usize)
}

#[test]
fn readers_see_whole_values_while_others_write() {
    let zone = Fixture::new(1 << 20, None, true);
    for key in 0..KEYS {
        zone.set(&key.to_be_bytes(), &value_of(key), Life::Default, Condition::Always, START).expect("room");
    }
    let writers: Vec<_> = (0..2u64)
        .map(|writer| {
            // SAFETY: the child touches shared memory and its own copy of this process, and is killed at the end.
            let child = unsafe { libc::fork() };
            if child == 0 {
                for n in 0..u64::MAX {
                    let n = n * 2 + writer;
                    let key = n.wrapping_mul(0x9e37_79b9) % KEYS;
                    let _ = zone.set(&key.to_be_bytes(), &value_of(n), Life::Default, Condition::Always, START);
                }
            }
            child
        })
        .collect();
    let until = Instant::now() + Duration::from_millis(700);
    let (mut reads, mut changes, mut last) = (0u64, 0u64, HashMap::new());
    while Instant::now() < until || (changes < 1000 && Instant::now() < until + Duration::from_secs(10)) {
        let key = reads % KEYS;
        let found = value(&zone, &key.to_be_bytes(), START).expect("a key that is only ever replaced is always there");
        let n = u64::from_le_bytes(found[..8].try_into().expect("eight bytes"));
        assert!(found == value_of(n), "a torn value");
        changes += u64::from(last.insert(key, n) != Some(n));
        reads += 1;
    }
    for child in writers {
        // SAFETY: a child of ours, not waited for yet.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    println!("{reads} reads beside two writers, {changes} of them of a new value");
    assert!(changes >= 1000, "the writers wrote");
    zone.set(b"alive", b"", Life::Default, Condition::Always, START).expect("it goes on");
    check(&zone);
}

#[test]
fn keys_that_collide_in_one_zone_do_not_in_another() {
    let zones = [Fixture::new(1 << 20, None, false), Fixture::new(1 << 20, None, false)];
    let [ours, theirs] = &zones;
    let target = ours.place(b"the first");
    let chosen: Vec<_> = (0u64..)
        .map(u64::to_be_bytes)
        .filter(|key| (ours.place(key).shard, ours.place(key).bucket) == (target.shard, target.bucket))
        .take(60)
        .collect();
    let mut spread = HashMap::new();
    for key in &chosen {
        let place = theirs.place(key);
        *spread.entry((place.shard, place.bucket)).or_insert(0) += 1;
    }
    let longest = spread.values().max().copied().unwrap_or(0);
    assert!(longest <= 4, "{longest} of 60 keys that share a chain here share one there");
}
