//! What nodes show.

use crate::limits;
use crate::node::{SimNode, ZONES};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use zonemesh::record::{Millis, Version};
use zonemesh::store::{ScanPlace, StoreError};

/// A record as a look-up sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Live {
    pub value: Vec<u8>,
    pub version: Version,
    pub expires: Option<Millis>,
}

impl Live {
    fn is_there(&self, now: Millis) -> bool {
        self.expires.is_none_or(|end| end > now)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {:?}, until {:?}", self.value.len(), self.version, self.expires)
    }
}

/// What a zone held when its changes were counted last.
pub type Seen = Option<(u64, Rc<BTreeMap<Vec<u8>, Live>>)>;

/// The live records of a zone.
pub struct Shown {
    held: Rc<BTreeMap<Vec<u8>, Live>>,
    now: Millis,
}

impl Shown {
    pub fn get(&self, key: &[u8]) -> Option<&Live> {
        self.held.get(key).filter(|live| live.is_there(self.now))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Live)> {
        self.held.iter().filter(|(_, live)| live.is_there(self.now))
    }
}

/// All live records of a zone.
pub fn contents(node: &SimNode, zone: usize, now: Millis) -> Result<Shown, StoreError> {
    Ok(Shown { held: held(node, zone)?, now })
}

/// All records of a zone that are no tombstones, also such as have ended. Looked at again only if the zone has changed.
fn held(node: &SimNode, zone: usize) -> Result<Rc<BTreeMap<Vec<u8>, Live>>, StoreError> {
    let changes = node.zone(zone).changes();
    if let Some((then, held)) = &*node.seen[zone].borrow()
        && *then == changes
    {
        return Ok(held.clone());
    }
    let held = if node.limits(zone) { limits::shares(node, zone)? } else { listed(node, zone)? };
    let held = Rc::new(held);
    *node.seen[zone].borrow_mut() = Some((changes, held.clone()));
    Ok(held)
}

/// What a listing shows.
fn listed(node: &SimNode, zone: usize) -> Result<BTreeMap<Vec<u8>, Live>, StoreError> {
    let mut records = BTreeMap::new();
    let mut place = Some(ScanPlace::default());
    while let Some(at) = place {
        let mut met = Vec::new();
        place =
            node.zone(zone).scan(at, 0, &mut |key, value, found| met.push((key.to_vec(), value.to_vec(), found)))?;
        for (key, value, found) in met {
            let live = Live { value, version: node.zone(zone).version(&found), expires: found.expires };
            let again = records.insert(key.clone(), live);
            assert!(again.is_none(), "a listing met the key {key:?} twice");
        }
    }
    Ok(records)
}

/// The live records that all of these nodes hold in a zone, or where two differ; `None`: there are no nodes.
pub fn agreed(nodes: &[(usize, &SimNode)], zone: usize, now: Millis) -> Result<Option<Shown>, String> {
    let text = |error: StoreError| error.to_string();
    let Some(((at_first, first), rest)) = nodes.split_first() else { return Ok(None) };
    let first = contents(first, zone, now).map_err(text)?;
    for (at, node) in rest {
        let records = contents(node, zone, now).map_err(text)?;
        if Rc::ptr_eq(&first.held, &records.held) {
            continue;
        }
        if first.held == records.held {
            // Not compared again until one of the two changes.
            if let Some((_, held)) = &mut *node.seen[zone].borrow_mut() {
                *held = first.held.clone();
            }
            continue;
        }
        if !first.iter().eq(records.iter()) {
            let keys = || first.iter().chain(records.iter()).map(|(key, _)| key);
            let key = keys().find(|key| first.get(key) != records.get(key));
            let (a, b) = (key.and_then(|key| first.get(key)), key.and_then(|key| records.get(key)));
            let name = ZONES[zone].name;
            return Err(format!("zone {name}, key {key:?}: node {at_first} holds {a:?} and node {at} {b:?}"));
        }
    }
    Ok(Some(first))
}
