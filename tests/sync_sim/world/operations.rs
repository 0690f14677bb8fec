//! What clients do.

use super::World;
use crate::check::Act;
use crate::limits;
use crate::node::{Numbers, SCARCE, ZONES};
use zonemesh::record::{Millis, Version};
use zonemesh::store::{Condition, Counted, Life, Limited, Missing, StoreError, Written};

/// How many keys are written to: in zones with room for all, in the one that refuses some, and in the one that gives some up.
const KEYS: u64 = 24;
pub(super) const SCARCE_KEYS: u64 = 48;
pub(super) const MOST_KEYS: u64 = 10 * KEYS;

impl World {
    /// One operation on some node; `false`: the node is down.
    pub(super) fn operation(&mut self) -> bool {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[at].up(self.now) {
            return false;
        }
        self.counts.operations += 1;
        self.written[at] = true;
        self.note_apart(at);
        let zone_at = self.rng.below(self.zones() as u64) as usize;
        let zone_at = self.leans_to.filter(|_| self.rng.one_in(2)).unwrap_or(zone_at);
        let zone = self.nodes[at].zone(zone_at);
        let now = self.nodes[at].clock(self.now);
        if self.numbers.have_parts() && ZONES[zone_at].counts {
            match self.numbers {
                Numbers::Limits => self.admit(at, zone_at, now),
                _ => self.add(at, zone_at, now),
            }
            return true;
        }
        // More keys than the zone that evicts has room for.
        let keys = match zone_at {
            SCARCE => SCARCE_KEYS,
            _ if ZONES[zone_at].evict => MOST_KEYS,
            _ => KEYS,
        };
        let key = format!("key {}", self.rng.below(keys)).into_bytes();
        let life = match self.rng.below(6) {
            0 => Life::For(self.rng.between(50, 3_000)),
            1 => Life::For(self.rng.between(3_000, 3_600_000)),
            2 => Life::Keep,
            _ => Life::Default,
        };
        let replaced = self.nodes[at].version(zone_at, &key, now);
        let what = self.rng.below(100);
        let written = match what {
            0..=1 => match zone.clear(now) {
                Ok(stamp) => {
                    self.history.cleared(at, &self.nodes[at], zone_at, stamp);
                    self.trace(|| format!("node {at} empties zone {zone_at}: {stamp:?}"));
                    return true;
                }
                Err(error) => Err(error),
            },
            2..=19 => zone.delete(&key, now),
            20..=29 => zone.touch(&key, life, now),
            30..=33 => {
                zone.upkeep(now, 100);
                return true;
            }
            _ => {
                let value = self.value(zone_at);
                let condition = match self.rng.below(8) {
                    0 => Condition::Absent,
                    1 => Condition::Present,
                    _ => Condition::Always,
                };
                zone.set(&key, &value, life, condition, now)
            }
        };
        self.note(at, zone_at, &key, written, what < 20, now, replaced);
        true
    }

    /// One operation on a counter. Some are only added to; others are set and deleted as well.
    pub fn add(&mut self, at: usize, zone_at: usize, now: Millis) {
        let zone = self.nodes[at].zone(zone_at);
        let amount = self.rng.between(1, 9) as i64;
        let missing = Missing::Begin(0, Life::Default);
        if self.rng.one_in(3) {
            return self.mix(at, zone_at, amount, now);
        }
        let key = format!("count {}", self.rng.below(8)).into_bytes();
        let counted = zone.count(&key, amount, missing, now);
        self.trace(|| format!("node {at} zone {zone_at} {} + {amount}: {counted:?}", String::from_utf8_lossy(&key)));
        if let Ok(Counted::Done { version, .. }) = counted {
            self.counts.acknowledged += 1;
            self.history.ledger.add(at, zone_at, &key, amount, Some(version));
        }
    }

    /// One operation on a counter that is set and deleted as well.
    fn mix(&mut self, at: usize, zone_at: usize, amount: i64, now: Millis) {
        let key = format!("mixed {}", self.rng.below(4)).into_bytes();
        let what = self.rng.below(6);
        self.mix_one(at, zone_at, &key, (what, amount), now);
        // What is deleted often begins anew at once.
        if what == 0 && self.rng.one_in(2) {
            self.mix_one(at, zone_at, &key, (2, amount), now);
        }
    }

    fn mix_one(&mut self, at: usize, zone_at: usize, key: &[u8], (what, amount): (u64, i64), now: Millis) {
        let zone = self.nodes[at].zone(zone_at);
        let (amount, start) = if what == 2 { (-amount, 50) } else { (amount, 0) };
        let written = match what {
            0 => zone.delete(key, now),
            1 => zone.set(key, amount.to_string().as_bytes(), Life::Default, Condition::Always, now),
            _ => {
                let counted = zone.count(key, amount, Missing::Begin(start, Life::Default), now);
                self.trace(|| format!("node {at} zone {zone_at} {}: {counted:?}", String::from_utf8_lossy(key)));
                if let (Ok(Counted::Done { created, version, .. }), Some(mixed)) = (counted, &mut self.history.mixed) {
                    let start = if created { start } else { 0 };
                    mixed.add(at, &self.nodes[at], key, version, (amount, start));
                }
                return;
            }
        };
        let value = (what == 1).then_some(amount);
        self.trace(|| format!("node {at} zone {zone_at} {}: {value:?} {written:?}", String::from_utf8_lossy(key)));
        if let (Ok(Written::Done(version)), Some(mixed)) = (written, &mut self.history.mixed) {
            mixed.base(at, key, version, value);
        }
    }

    /// One request that is limited, or some at once.
    pub(super) fn admit(&mut self, at: usize, zone_at: usize, now: Millis) {
        let key = format!("limit {}", self.rng.below(6)).into_bytes();
        let burst = self.rng.one_in(4).then(|| self.rng.between(1_000, 20_000));
        for _ in 0..self.rng.between(1, 3) {
            let asked = self.nodes[at].zone(zone_at).admit(&key, limits::RATE, burst, now);
            self.trace(|| format!("node {at} zone {zone_at} {} + 1: {asked:?}", String::from_utf8_lossy(&key)));
            if let Ok(Limited::Within(_)) = asked {
                self.counts.acknowledged += 1;
                self.history.ledger.add(at, zone_at, &key, 1, None);
            }
        }
    }

    /// Now and then one that is larger than a frame.
    pub(super) fn value(&mut self, zone: usize) -> Vec<u8> {
        let length = match (zone, self.rng.below(20)) {
            (0, _) => self.rng.between(100, 400),
            (SCARCE, _) => self.rng.between(600, 1_400),
            (1, 0) => self.rng.between(4_000, 6_000),
            _ => self.rng.below(150),
        };
        (0..length).map(|_| self.rng.next() as u8).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing to note")]
    pub(super) fn note(
        &mut self,
        at: usize,
        zone_at: usize,
        key: &[u8],
        written: Result<Written, StoreError>,
        deleted: bool,
        now: Millis,
        replaced: Option<Version>,
    ) {
        let Ok(Written::Done(version)) = written else { return };
        let mut value = Vec::new();
        let found = self.nodes[at].zone(zone_at).get(key, now, &mut value);
        let act = match found {
            _ if deleted => Act::Delete,
            Ok(Some(found)) if self.nodes[at].zone(zone_at).version(&found) == version => {
                Act::Put { value, expires: found.expires }
            }
            found => panic!("node {at} acknowledged {version:?} for {key:?} and then found {found:?}"),
        };
        self.trace(|| format!("node {at} zone {zone_at} {}: {act:?} {version:?}", String::from_utf8_lossy(key)));
        self.counts.acknowledged += 1;
        self.history.act(at, &self.nodes[at], zone_at, key, version, act, now, replaced);
    }
}
