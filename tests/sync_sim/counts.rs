//! Counters, and what limits admit: what was added on every node. Of what a memory had that is lost, others may know a part:
//! that, and all else, must be in the sums, once.

use crate::node::SimNode;
use std::collections::BTreeMap;
use zonemesh::record::{Count, Record, Role, Version};
use zonemesh::store::{ScanPlace, Surveyed};

/// All that was acknowledged to those who add.
#[derive(Default)]
pub struct Ledger {
    /// By zone and key.
    added: BTreeMap<(usize, Vec<u8>), Vec<Added>>,
}

/// What one memory was given to add.
struct Added {
    node: usize,
    amount: i64,
    is_lost: bool,
    /// Under which versions, the first and the last. `None`: nobody knows, as of what is limited, or they were changed since.
    versions: Option<(Version, Version)>,
    /// If it is lost: another node, which had so much of it when the memory, or who had it until then, was lost.
    heir: Option<(usize, i64)>,
}

impl Added {
    /// How much of it `who` must have.
    fn bound(&self, who: &impl Fn(usize) -> bool) -> i64 {
        match (self.is_lost, self.heir) {
            (false, _) if who(self.node) => self.amount,
            (true, Some((heir, amount))) if who(heir) => amount,
            _ => 0,
        }
    }
}

impl Ledger {
    /// A node has acknowledged it.
    pub fn add(&mut self, node: usize, zone: usize, key: &[u8], amount: i64, version: Option<Version>) {
        let all = self.added.entry((zone, key.to_vec())).or_default();
        match all.iter_mut().find(|added| added.node == node && !added.is_lost) {
            Some(added) => {
                added.amount += amount;
                added.versions = added.versions.zip(version).map(|((first, _), last)| (first, last));
            }
            None => {
                let versions = version.map(|version| (version, version));
                all.push(Added { node, amount, is_lost: false, versions, heir: None });
            }
        }
    }

    /// A node has lost its memory. How much of what was in it another one has, that is bound to keep it; gives how often there
    /// was one.
    pub fn forget(&mut self, node: usize, nodes: &[SimNode]) -> u64 {
        let mut inherited = 0;
        for ((zone, key), all) in &mut self.added {
            let lost = |added: &Added| match added.is_lost {
                true => added.heir.is_some_and(|(heir, _)| heir == node),
                false => added.node == node,
            };
            for added in all.iter_mut().filter(|added| lost(added)) {
                added.is_lost = true;
                let others = nodes.iter().enumerate().filter(|(at, _)| *at != node);
                let held = added.versions.into_iter().flat_map(|versions| {
                    others.clone().map(move |(at, other)| (at, held(other, *zone, key, versions)))
                });
                added.heir = held.filter(|(_, amount)| *amount > 0).max_by_key(|(_, amount)| *amount);
                inherited += u64::from(added.heir.is_some());
            }
        }
        inherited
    }

    /// Versions were changed: what a memory has added isn't found by them any more.
    pub fn renewed(&mut self) {
        self.added.values_mut().flatten().for_each(|added| (added.versions, added.heir) = (None, None));
    }

    /// Whether what `node` shows now can be true: all that it added itself, and nothing that nobody added.
    pub fn check_now(&self, node: usize, zone: usize, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(zone, shown, |at| at == node)
    }

    /// Whether what all nodes show has everything.
    pub fn check(&self, zone: usize, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(zone, shown, |_| true)
    }

    /// Of each key of a zone: what `node` has added, what any other has at most, both in memory that lives, and what all have.
    pub fn amounts(&self, zone: usize, node: usize) -> impl Iterator<Item = (&[u8], [i64; 3])> {
        self.added.range((zone, Vec::new())..(zone + 1, Vec::new())).map(move |((_, key), all)| {
            let living = |own: bool| {
                let of = all.iter().filter(move |added| !added.is_lost && (added.node == node) == own);
                of.map(|added| added.amount).max().unwrap_or(0)
            };
            (key.as_slice(), [living(true), living(false), all.iter().map(|added| added.amount).sum()])
        })
    }

    fn check_with(
        &self,
        zone: usize,
        shown: impl Fn(&[u8]) -> Option<i64>,
        who: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        for ((_, key), all) in self.added.iter().filter(|((at, _), _)| *at == zone) {
            let least: i64 = all.iter().map(|added| added.bound(&who)).sum();
            let most: i64 = all.iter().map(|added| added.amount).sum();
            let shown = shown(key);
            if shown.is_none_or(|shown| shown < least || shown > most) {
                let key = String::from_utf8_lossy(key);
                return Err(format!("\"{key}\" shows {shown:?}, where {least} to {most} were added"));
            }
        }
        Ok(())
    }
}

/// How much a node has of what one memory added to a key under these versions, from the first on.
fn held(node: &SimNode, zone: usize, key: &[u8], (first, last): (Version, Version)) -> i64 {
    let (mut parts, mut place) = (Vec::new(), Some(ScanPlace::default()));
    while let Some(at) = place {
        let see = &mut |record: &Surveyed<'_>| {
            let is_it = record.version.origin == last.origin && (first..=last).contains(&record.version);
            if is_it && matches!(Role::split(record.key), Some((of, Role::Part(_))) if of == key) {
                parts.push(record.key.to_vec());
            }
        };
        place = node.zone(zone).survey(at, see).expect("the lock");
    }
    let mut held = 0;
    for part in parts {
        let see = &mut |record: &Record<'_>| {
            held = record.value.and_then(Count::read).map_or(0, |count| count.amount).max(held);
        };
        node.zone(zone).show(&part, see).expect("the lock");
    }
    held
}
