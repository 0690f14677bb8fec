//! What must hold: all nodes have the same live records, and nothing acknowledged is lost.

use crate::node::{SimNode, ZONES};
use std::collections::{BTreeMap, HashMap};
use zonemesh::record::{Millis, Stamp, Version};
use zonemesh::store::{ScanPlace, StoreError};

/// A record as a look-up sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub value: Vec<u8>,
    pub version: Version,
    pub expires: Option<Millis>,
}

/// An operation that a node acknowledged.
#[derive(Clone, Debug)]
pub enum Act {
    Put { value: Vec<u8>, expires: Option<Millis> },
    Delete,
}

/// Under which version, by which node, and what was done.
type Acknowledged = (Version, usize, Act);

/// All that was acknowledged in a simulation.
#[derive(Default)]
pub struct History {
    /// By zone and key.
    acts: BTreeMap<(usize, Vec<u8>), Vec<Acknowledged>>,
    /// By zone: stamp and node.
    clears: Vec<(usize, Stamp, usize)>,
    pub count: u64,
}

impl History {
    pub fn act(&mut self, node: usize, zone: usize, key: &[u8], version: Version, act: Act) {
        self.acts.entry((zone, key.to_vec())).or_default().push((version, node, act));
        self.count += 1;
    }

    pub fn cleared(&mut self, node: usize, zone: usize, stamp: Stamp) {
        self.clears.push((zone, stamp, node));
        self.count += 1;
    }

    /// What a node that lost its memory had acknowledged before binds nobody, but may still be around.
    pub fn forget(&mut self, node: usize) {
        const NOBODY: usize = usize::MAX;
        let acts = self.acts.values_mut().flatten().map(|(_, by, _)| by);
        acts.chain(self.clears.iter_mut().map(|(_, _, by)| by)).filter(|by| **by == node).for_each(|by| *by = NOBODY);
    }

    /// Whether `live`, which all nodes hold, keeps every promise.
    pub fn check(&self, zone: usize, live: &BTreeMap<Vec<u8>, Live>, now: Millis) -> Result<(), String> {
        let versions: HashMap<(&[u8], Version), &Act> = self
            .acts
            .iter()
            .filter(|((z, _), _)| *z == zone)
            .flat_map(|((_, key), acts)| acts.iter().map(move |(version, _, act)| ((key.as_slice(), *version), act)))
            .collect();
        for (key, record) in live {
            match versions.get(&(key.as_slice(), record.version)) {
                Some(Act::Put { value, expires }) if *value == record.value && *expires == record.expires => {}
                found => return Err(format!("key {key:?} holds {record:?}, which nobody wrote ({found:?})")),
            }
            if let Some((_, stamp, _)) = self
                .clears
                .iter()
                .find(|(z, stamp, by)| *z == zone && *by != usize::MAX && *stamp >= record.version.stamp)
            {
                return Err(format!("key {key:?} holds {record:?}, older than the emptying at {stamp:?}"));
            }
        }
        for ((_, key), acts) in self.acts.iter().filter(|((z, _), _)| *z == zone) {
            let Some((version, by, act)) =
                acts.iter().filter(|(_, by, _)| *by != usize::MAX).max_by_key(|(version, _, _)| *version)
            else {
                continue;
            };
            match live.get(key) {
                Some(record) if record.version >= *version => {}
                Some(record) => {
                    return Err(format!(
                        "key {key:?}: node {by} acknowledged {act:?} at {version:?}, and {record:?} is there"
                    ));
                }
                None if self.explained(zone, acts, *version, now) => {}
                None => {
                    return Err(format!("key {key:?}: node {by} acknowledged {act:?} at {version:?}, and it is gone"));
                }
            }
        }
        Ok(())
    }

    /// Whether something at or after `version` says that the record is gone.
    fn explained(&self, zone: usize, acts: &[Acknowledged], version: Version, now: Millis) -> bool {
        let over = acts.iter().filter(|(v, _, _)| *v >= version).any(|(_, _, act)| match act {
            Act::Delete => true,
            Act::Put { expires, .. } => expires.is_some_and(|at| at <= now),
        });
        over || self.clears.iter().any(|(z, stamp, _)| *z == zone && *stamp >= version.stamp)
    }
}

/// All live records of a zone.
pub fn contents(node: &SimNode, zone: usize, now: Millis) -> Result<BTreeMap<Vec<u8>, Live>, StoreError> {
    let mut records = BTreeMap::new();
    let mut place = Some(ScanPlace::default());
    while let Some(at) = place {
        let mut met = Vec::new();
        place =
            node.zone(zone).scan(at, now, &mut |key, value, found| met.push((key.to_vec(), value.to_vec(), found)))?;
        for (key, value, found) in met {
            let live = Live { value, version: node.zone(zone).version(&found), expires: found.expires };
            let again = records.insert(key.clone(), live);
            assert!(again.is_none(), "a listing met the key {key:?} twice");
        }
    }
    Ok(records)
}

/// The records that all nodes hold, by zone, or where two differ.
pub fn agreed(nodes: &[SimNode], now: Millis) -> Result<Vec<BTreeMap<Vec<u8>, Live>>, String> {
    let mut all = Vec::new();
    for (zone, (name, _, _)) in ZONES.iter().enumerate() {
        let mut common: Option<BTreeMap<Vec<u8>, Live>> = None;
        for (at, node) in nodes.iter().enumerate() {
            let records = contents(node, zone, now).map_err(|error| error.to_string())?;
            let Some(first) = &common else {
                common = Some(records);
                continue;
            };
            if *first != records {
                let keys = first.keys().chain(records.keys());
                let key = keys.into_iter().find(|key| first.get(*key) != records.get(*key));
                let (a, b) = (key.and_then(|key| first.get(key)), key.and_then(|key| records.get(key)));
                return Err(format!("zone {name}, key {key:?}: node 0 holds {a:?} and node {at} {b:?}"));
            }
        }
        all.push(common.unwrap_or_default());
    }
    Ok(all)
}
