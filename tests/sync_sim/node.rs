//! A node: real zones and a real control region in memory, and a clock that is wrong.

use crate::check::Seen;
use crate::rng::Rng;
use std::cell::RefCell;
use std::sync::Arc;
use zonemesh::record::{Identity, Kind, Millis, Record, Version};
use zonemesh::store::control::CONTROL_SIZE;
use zonemesh::store::{Control, Matching, Params, Region, ScanPlace, Zone};
use zonemesh::sync::{Limits, Node, SyncZone};

/// A zone of every node.
pub struct ZoneKind {
    pub name: &'static str,
    size: usize,
    timeout: Option<Millis>,
    pub evict: bool,
    /// What is written to it doesn't fit.
    pub is_tight: bool,
    /// Nodes add to what it holds.
    pub counts: bool,
}

/// By name. One gives its records a life, one is too small for what is written to it. The others have a table of origins
/// for the 50 nodes of the largest clusters, and for their incarnations.
pub const ZONES: [ZoneKind; 4] = [
    ZoneKind { name: "cache", size: 32 * 1024, timeout: None, evict: true, is_tight: true, counts: false },
    ZoneKind { name: "lasting", size: 256 * 1024, timeout: None, evict: false, is_tight: false, counts: false },
    ZoneKind { name: "numbers", size: 256 * 1024, timeout: None, evict: false, is_tight: false, counts: true },
    ZoneKind { name: "passing", size: 256 * 1024, timeout: Some(20_000), evict: false, is_tight: false, counts: false },
];

/// A record in a state file.
pub type Saved = (Version, Vec<u8>, Option<Vec<u8>>, Option<Millis>, bool);

/// The true time at which a simulation begins.
pub const EPOCH: Millis = 1_700_000_000_000;

pub struct SimNode {
    pub node: Node,
    /// Milliseconds that its clock is ahead.
    pub skew: i64,
    /// The lease's number: counts up with each agent.
    pub owner: u64,
    /// While this is in the future (true time), the whole node is down.
    pub down_until: Millis,
    /// While this is, it has no agent: nobody dials.
    pub no_agent_until: Millis,
    /// What its state files hold, by zone; some time old.
    pub saved: Vec<Vec<Saved>>,
    tokens: u64,
    /// What checks have seen, by zone.
    pub seen: [RefCell<Seen>; ZONES.len()],
    // Unmapped after the handles above are gone.
    _memory: Vec<zonemesh::store::region::Mapping>,
}

impl SimNode {
    pub fn new(rng: &mut Rng, skew: i64, limits: Limits, retention: Millis) -> SimNode {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.next().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.next().to_le_bytes());
        let identity = Identity(bytes);
        let mut memory = Vec::new();
        let mut region = |size| -> Region {
            let mapping = Region::anonymous(size).expect("memory for a simulated node");
            let region = mapping.region();
            memory.push(mapping);
            region
        };
        let control = Control::create_with(region(CONTROL_SIZE), identity).expect("a control region");
        let zones: Vec<SyncZone> = ZONES
            .iter()
            .map(|kind| {
                let (timeout, evict) = (kind.timeout, kind.evict);
                let matching = if kind.counts { Matching::Counter } else { Matching::Exact };
                let params = Params { timeout, sync: true, evict, matching, retention, ..Params::new(identity) };
                let zone = Zone::create_with(region(kind.size), &params, bytes).expect("a zone");
                SyncZone { name: kind.name.into(), zone }
            })
            .collect();
        SimNode {
            node: Node { control, zones: Arc::from(zones), limits },
            skew,
            owner: 1,
            down_until: 0,
            no_agent_until: 0,
            saved: vec![Vec::new(); ZONES.len()],
            tokens: 0,
            seen: Default::default(),
            _memory: memory,
        }
    }

    /// What its clock says.
    pub fn clock(&self, now: Millis) -> Millis {
        now.saturating_add_signed(self.skew)
    }

    pub fn up(&self, now: Millis) -> bool {
        now >= self.down_until
    }

    pub fn has_agent(&self, now: Millis) -> bool {
        self.up(now) && now >= self.no_agent_until
    }

    pub fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    pub fn zone(&self, zone: usize) -> Zone {
        self.node.zones[zone].zone
    }

    /// Writes its state files.
    pub fn save(&mut self) {
        for (zone, saved) in self.node.zones.iter().zip(&mut self.saved) {
            saved.clear();
            let (mut keys, mut place) = (Vec::new(), Some(ScanPlace::default()));
            while let Some(at) = place {
                place = zone.zone.survey(at, &mut |record| keys.push(record.key.to_vec())).expect("the lock");
            }
            for key in keys {
                let keep = &mut |record: &Record<'_>| {
                    let value = record.value.map(<[u8]>::to_vec);
                    saved.push((record.version, key.clone(), value, record.expires, record.shortened));
                };
                zone.zone.show(&key, keep).expect("the lock");
            }
        }
    }

    /// Begins with what the state files of another life hold.
    pub fn load(&mut self, saved: Vec<Vec<Saved>>, now: Millis) {
        for ((zone, records), kind) in self.node.zones.iter().zip(&saved).zip(&ZONES) {
            let kind = if kind.counts { Kind::Counter } else { Kind::Register };
            for (version, key, value, expires, shortened) in records {
                let (value, shortened, version) = (value.as_deref(), *shortened, *version);
                let record = Record { kind, version, key, value, expires: *expires, shortened };
                zone.zone.apply(&record, now, Millis::MAX).expect("a saved record");
            }
        }
        self.saved = saved;
    }

    /// Another agent takes the lease: walkers of the old one are swept.
    pub fn next_agent(&mut self) {
        self.owner += 1;
        for zone in self.node.zones.iter() {
            zone.zone.feed_sweep(self.owner);
        }
    }
}
