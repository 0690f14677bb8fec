//! Counters that are set and deleted as well: what their sums may be.
//!
//! A sum is what was set last, and what was added after that. Whether an addition came after it depends on what its node knew:
//! if that knew of it, the addition counts; if its stamp is earlier, it doesn't; else it may, as its part may have been begun
//! before or after. Deletes are told apart from what never was by tombstones: this holds as long as those live, and clocks
//! aren't so far apart that stamps are given anew.

use crate::node::SimNode;
use std::collections::BTreeMap;
use zonemesh::record::{Record, Role, Version};

/// What was done to such counters of a zone.
pub struct Mixed {
    zone: usize,
    counters: BTreeMap<Vec<u8>, Done>,
}

/// What was done to one.
#[derive(Default)]
struct Done {
    bases: Vec<Base>,
    added: Vec<Added>,
}

/// It was set, or deleted.
#[derive(Debug)]
struct Base {
    version: Version,
    /// `None`: deleted.
    value: Option<i64>,
    /// Who is known to have it: who did it, or another one if that has lost its memory. `None`: it may still be around.
    by: Option<usize>,
}

struct Added {
    node: usize,
    is_lost: bool,
    version: Version,
    /// What the node knew to be set or deleted last.
    after: Option<Version>,
    amount: i64,
    /// What the counter began with, if it wasn't there. It counts once, however many nodes begin it.
    start: i64,
}

impl Mixed {
    pub fn new(zone: usize) -> Mixed {
        Mixed { zone, counters: BTreeMap::new() }
    }

    /// A node has set a counter, or deleted it.
    pub fn base(&mut self, node: usize, key: &[u8], version: Version, value: Option<i64>) {
        self.counters.entry(key.to_vec()).or_default().bases.push(Base { version, value, by: Some(node) });
    }

    /// A node has added to a counter, and began it with `start` if that isn't 0.
    pub fn add(&mut self, at: usize, node: &SimNode, key: &[u8], version: Version, (amount, start): (i64, i64)) {
        let after = base_of(node, self.zone, key);
        let added = Added { node: at, is_lost: false, version, after, amount, start };
        self.counters.entry(key.to_vec()).or_default().added.push(added);
    }

    /// A node has lost its memory. What it set or deleted binds another one that has it now.
    pub fn forget(&mut self, node: usize, nodes: &[SimNode]) {
        for (key, done) in &mut self.counters {
            done.added.iter_mut().filter(|added| added.node == node).for_each(|added| added.is_lost = true);
            for base in done.bases.iter_mut().filter(|base| base.by == Some(node)) {
                let has_it = |other: &SimNode| base_of(other, self.zone, key) == Some(base.version);
                base.by = (0..nodes.len()).find(|at| *at != node && has_it(&nodes[*at]));
            }
        }
    }

    /// Whether what `node` shows now can be true: it knows what it did itself.
    pub fn check_now(&self, node: usize, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(shown, |by| by == node)
    }

    /// Whether what all nodes show has everything.
    pub fn check(&self, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(shown, |_| true)
    }

    fn check_with(
        &self,
        shown: impl Fn(&[u8]) -> Option<i64>,
        is_known_of: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        for (key, done) in &self.counters {
            let shown = shown(key);
            let may_be = done.may_be(&is_known_of);
            if !shown.is_some_and(|shown| may_be.iter().any(|(least, most)| (*least..=*most).contains(&shown))) {
                let key = String::from_utf8_lossy(key);
                return Err(format!("\"{key}\" shows {shown:?}, where it may be {may_be:?}"));
            }
        }
        Ok(())
    }
}

impl Done {
    /// The least and the most that the sum may be, for each of what may have been set or deleted last.
    fn may_be(&self, is_known_of: impl Fn(usize) -> bool) -> Vec<(i64, i64)> {
        let known = self.bases.iter().filter(|base| base.by.is_some_and(&is_known_of)).map(|base| base.version).max();
        let later = self.bases.iter().filter(|base| Some(base.version) >= known).map(Some);
        let none = known.is_none().then_some(None);
        later.chain(none).map(|last| self.sum(last, &is_known_of)).collect()
    }

    fn sum(&self, last: Option<&Base>, is_known_of: impl Fn(usize) -> bool) -> (i64, i64) {
        let version = last.map(|base| base.version);
        let value = last.and_then(|base| base.value);
        let (mut least, mut most) = (value.unwrap_or(0), value.unwrap_or(0));
        let (mut starts, mut may_start) = (0, 0);
        for added in self.added.iter().filter(|added| version.is_none_or(|last| added.version.stamp > last.stamp)) {
            let counts = !added.is_lost && is_known_of(added.node) && added.after >= version;
            least += if counts { added.amount } else { added.amount.min(0) };
            most += if counts { added.amount } else { added.amount.max(0) };
            may_start = added.start.max(may_start);
            starts = if counts { added.start.max(starts) } else { starts };
        }
        // It doesn't count beside a value that was set.
        if value.is_none() {
            least += starts;
            most += may_start;
        }
        (least, most)
    }
}

/// Under which version a node has what was set or deleted last.
fn base_of(node: &SimNode, zone: usize, key: &[u8]) -> Option<Version> {
    let mut base = None;
    let see = &mut |record: &Record<'_>| base = Some(record.version);
    node.zone(zone).show(&Role::Base.of(key), see).expect("the lock");
    base
}
