//! A node: real zones and a real control region in memory, and a clock that is wrong.

use crate::rng::Rng;
use std::sync::Arc;
use zonemesh::record::{Identity, Millis};
use zonemesh::store::control::CONTROL_SIZE;
use zonemesh::store::{Control, Params, Region, Zone};
use zonemesh::sync::{Limits, Node, SyncZone};

/// Sizes of the zones of every node, by name. The last one gives its records a life.
pub const ZONES: [(&str, usize, Option<Millis>); 2] =
    [("lasting", 256 * 1024, None), ("passing", 128 * 1024, Some(20_000))];

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
    tokens: u64,
    // Unmapped after the handles above are gone.
    _memory: Vec<zonemesh::store::region::Mapping>,
}

impl SimNode {
    pub fn new(rng: &mut Rng, skew: i64, limits: Limits) -> SimNode {
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
            .map(|(name, size, timeout)| {
                let params = Params { timeout: *timeout, sync: true, ..Params::new(identity) };
                SyncZone {
                    name: (*name).into(),
                    zone: Zone::create_with(region(*size), &params, bytes).expect("a zone"),
                }
            })
            .collect();
        SimNode {
            node: Node { control, zones: Arc::from(zones), limits },
            skew,
            owner: 1,
            down_until: 0,
            no_agent_until: 0,
            tokens: 0,
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

    /// Another agent takes the lease: walkers of the old one are swept.
    pub fn next_agent(&mut self) {
        self.owner += 1;
        for zone in self.node.zones.iter() {
            zone.zone.feed_sweep(self.owner);
        }
    }
}
