//! What must hold: at every moment, no node shows what nobody wrote, or what it knows to be over. In the end, all nodes have
//! the same live records, and nothing acknowledged is lost.

use crate::counts::Ledger;
use crate::node::{SimNode, ZONES};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use zonemesh::record::{Identity, Millis, Stamp, Version};
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

/// An operation that a node acknowledged.
#[derive(Clone, Debug)]
pub enum Act {
    Put { value: Vec<u8>, expires: Option<Millis> },
    Delete,
}

/// The node of an act that binds nobody, as its node has lost its memory. It may still be around.
const NOBODY: usize = usize::MAX;

#[derive(Debug)]
struct Acknowledged {
    version: Version,
    by: usize,
    act: Act,
    /// The node's clock.
    at: Millis,
    /// What it had of others then, and the record that it replaced.
    positions: Vec<(Identity, Stamp)>,
    replaced: Option<Version>,
}

impl Acknowledged {
    /// Whether the node knew of this version when it acted.
    fn knew(&self, version: Version) -> bool {
        version.origin == self.version.origin
            || self.replaced == Some(version)
            || self.positions.iter().any(|(origin, stamp)| *origin == version.origin && *stamp >= version.stamp)
    }

    /// When what it did was over, if it is: a delete at once, a record at its end.
    fn over_since(&self, now: Millis) -> Option<Millis> {
        match self.act {
            Act::Delete => Some(self.at),
            Act::Put { expires, .. } => expires.filter(|at| *at <= now).map(|at| at.max(self.at)),
        }
    }
}

/// All that was acknowledged in a simulation.
pub struct History {
    /// By zone and key.
    acts: BTreeMap<(usize, Vec<u8>), Vec<Acknowledged>>,
    /// By zone: stamp and node.
    clears: Vec<(usize, Stamp, usize)>,
    /// How long tombstones live.
    retention: Millis,
    pub count: u64,
    /// What was added in zones of counters.
    pub ledger: Ledger,
}

impl History {
    pub fn new(retention: Millis) -> History {
        History { acts: BTreeMap::new(), clears: Vec::new(), retention, count: 0, ledger: Ledger::default() }
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing to remember")]
    pub fn act(
        &mut self,
        by: usize,
        node: &SimNode,
        zone: usize,
        key: &[u8],
        version: Version,
        act: Act,
        at: Millis,
        replaced: Option<Version>,
    ) {
        let positions = node.zone(zone).positions();
        let acknowledged = Acknowledged { version, by, act, at, positions, replaced };
        self.acts.entry((zone, key.to_vec())).or_default().push(acknowledged);
        self.count += 1;
    }

    pub fn cleared(&mut self, node: usize, zone: usize, stamp: Stamp) {
        self.clears.push((zone, stamp, node));
        self.count += 1;
    }

    /// What a node that lost its memory had acknowledged before binds nobody, but may still be around.
    pub fn forget(&mut self, node: usize) {
        self.ledger.forget(node);
        let acts = self.acts.values_mut().flatten().map(|act| &mut act.by);
        acts.chain(self.clears.iter_mut().map(|(_, _, by)| by)).filter(|by| **by == node).for_each(|by| *by = NOBODY);
    }

    /// Whether what `node` shows now can be true.
    pub fn check_now(
        &self,
        node: usize,
        zone: usize,
        live: &BTreeMap<Vec<u8>, Live>,
        now: Millis,
    ) -> Result<(), String> {
        if ZONES[zone].counts {
            return self.ledger.check_now(node, zone, live);
        }
        self.check_true(zone, live)?;
        for (key, record) in live {
            let own = |by: &usize| *by == node;
            let emptied =
                self.clears.iter().any(|(z, stamp, by)| *z == zone && own(by) && *stamp >= record.version.stamp);
            let acts = self.acts.get(&(zone, key.clone())).map_or(&[][..], Vec::as_slice);
            let last =
                acts.iter().filter(|act| own(&act.by) && act.version > record.version).map(|act| act.version).max();
            if emptied || last.is_some_and(|last| !self.forgotten(zone, acts, last, record.version, now)) {
                return Err(format!("node {node} shows {record:?} for key {key:?} again, which was over for it"));
            }
        }
        Ok(())
    }

    /// Whether `live`, which all nodes hold, keeps every promise.
    pub fn check(&self, zone: usize, live: &BTreeMap<Vec<u8>, Live>, now: Millis) -> Result<(), String> {
        if ZONES[zone].counts {
            return self.ledger.check(zone, live);
        }
        self.check_true(zone, live)?;
        for (key, record) in live {
            if let Some((_, stamp, _)) =
                self.clears.iter().find(|(z, stamp, by)| *z == zone && *by != NOBODY && *stamp >= record.version.stamp)
            {
                return Err(format!("key {key:?} holds {record:?}, older than the emptying at {stamp:?}"));
            }
        }
        for ((_, key), acts) in self.acts.iter().filter(|((z, _), _)| *z == zone) {
            let Some(last) = acts.iter().filter(|act| act.by != NOBODY).max_by_key(|act| act.version) else { continue };
            match live.get(key) {
                Some(record) if record.version >= last.version => {}
                Some(record) if self.forgotten(zone, acts, last.version, record.version, now) => {}
                Some(record) => {
                    return Err(format!("key {key:?}: {last:?} was acknowledged, and {record:?} is there"));
                }
                None if self.explained(zone, acts, last.version, now) => {}
                None => return Err(format!("key {key:?}: {last:?} was acknowledged, and it is gone")),
            }
        }
        Ok(())
    }

    /// Whether all of it was written by somebody.
    fn check_true(&self, zone: usize, live: &BTreeMap<Vec<u8>, Live>) -> Result<(), String> {
        for (key, record) in live {
            let acts = self.acts.get(&(zone, key.clone())).into_iter().flatten();
            match acts.map(|act| (act.version, &act.act)).find(|(version, _)| *version == record.version) {
                Some((_, Act::Put { value, expires })) if *value == record.value && *expires == record.expires => {}
                found => return Err(format!("key {key:?} holds {record:?}, which nobody wrote ({found:?})")),
            }
        }
        Ok(())
    }

    /// Whether what was done at `last` has to make way for something older: it, or what came after it, is over for longer
    /// than that is remembered, by a node that didn't know of the older or lost its memory. A zone without room remembers
    /// nothing.
    fn forgotten(&self, zone: usize, acts: &[Acknowledged], last: Version, older: Version, now: Millis) -> bool {
        acts.iter().filter(|act| act.version >= last).any(|act| {
            let remembered = match act.act {
                _ if ZONES[zone].is_tight => 0,
                Act::Delete => self.retention,
                Act::Put { .. } => self.retention.min(60_000),
            };
            let is_over = act.over_since(now).is_some_and(|since| now.saturating_sub(since) + 100 >= remembered);
            is_over && (!act.knew(older) || act.by == NOBODY || ZONES[zone].is_tight && !self.author_lives(acts, older))
        })
    }

    fn author_lives(&self, acts: &[Acknowledged], version: Version) -> bool {
        acts.iter().any(|act| act.version == version && act.by != NOBODY)
    }

    /// Whether something at or after `version` says that the record is gone.
    fn explained(&self, zone: usize, acts: &[Acknowledged], version: Version, now: Millis) -> bool {
        acts.iter().any(|act| act.version >= version && act.over_since(now).is_some())
            || self.clears.iter().any(|(z, stamp, _)| *z == zone && *stamp >= version.stamp)
    }
}

/// What a zone held when its changes were counted last.
pub type Seen = Option<(u64, Rc<BTreeMap<Vec<u8>, Live>>)>;

/// All live records of a zone.
pub fn contents(node: &SimNode, zone: usize, now: Millis) -> Result<BTreeMap<Vec<u8>, Live>, StoreError> {
    let held = held(node, zone)?;
    Ok(held.iter().filter(|(_, live)| live.is_there(now)).map(|(key, live)| (key.clone(), live.clone())).collect())
}

/// All records of a zone that are no tombstones, also such as have ended. Looked at again only if the zone has changed.
fn held(node: &SimNode, zone: usize) -> Result<Rc<BTreeMap<Vec<u8>, Live>>, StoreError> {
    let changes = node.zone(zone).changes();
    if let Some((then, held)) = &*node.seen[zone].borrow()
        && *then == changes
    {
        return Ok(held.clone());
    }
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
    let held = Rc::new(records);
    *node.seen[zone].borrow_mut() = Some((changes, held.clone()));
    Ok(held)
}

/// The records that all nodes hold, by zone, or where two differ. Zones that evict may differ.
pub fn agreed(nodes: &[SimNode], now: Millis) -> Result<Vec<BTreeMap<Vec<u8>, Live>>, String> {
    let mut all = Vec::new();
    for (zone, kind) in ZONES.iter().enumerate().filter(|(_, kind)| !kind.evict) {
        let text = |error: StoreError| error.to_string();
        let first = contents(&nodes[0], zone, now).map_err(text)?;
        for (at, node) in nodes.iter().enumerate().skip(1) {
            let records = held(node, zone).map_err(text)?;
            if !first.iter().eq(records.iter().filter(|(_, live)| live.is_there(now))) {
                let records = contents(node, zone, now).map_err(text)?;
                let keys = first.keys().chain(records.keys());
                let key = keys.into_iter().find(|key| first.get(*key) != records.get(*key));
                let (a, b) = (key.and_then(|key| first.get(key)), key.and_then(|key| records.get(key)));
                return Err(format!("zone {}, key {key:?}: node 0 holds {a:?} and node {at} {b:?}", kind.name));
            }
        }
        all.push(first);
    }
    Ok(all)
}
