//! Clocks that are minutes off, and the agents' part when one was mended.

use crate::node::{Numbers, SimNode, ZONES};
use crate::world::World;
use std::collections::BTreeMap;
use zonemesh::record::{Identity, Millis, Stamp, Version};
use zonemesh::store::{Renewal, ScanPlace};
use zonemesh::sync::clock::{Clocks, Verdict};

/// The version of each key of a zone, tombstones too.
pub type Versions = BTreeMap<Vec<u8>, Version>;

impl World {
    /// A clock jumps by minutes, mostly ahead, or one that did is mended.
    pub fn set_clock(&mut self, mut at: usize) {
        let far = self.rng.between(61_000, 150_000) as i64;
        // In some worlds there is never more than one whose clock is far off.
        if self.one_ahead {
            at = *self.ahead.get_or_insert(at);
        }
        let far = if self.rng.one_in(4) { -far } else { far };
        let skew = self.nodes[at].skew;
        let skew = if self.is_far(&self.nodes[at]) { self.rng.around(self.reach) } else { skew + far };
        self.set_skew(at, skew);
        self.look_at_links(|node| node == at);
    }

    /// All clocks are mended.
    pub fn mend_clocks(&mut self) {
        for at in 0..self.nodes.len() {
            if self.is_far(&self.nodes[at]) {
                let skew = self.rng.around(self.reach);
                self.set_skew(at, skew);
            }
        }
    }

    fn set_skew(&mut self, at: usize, skew: i64) {
        for skew in [self.nodes[at].skew, skew] {
            self.nodes[at].skew = skew;
            self.history.clock_ran_to(at, self.nodes[at].clock(self.now));
            self.note_clocks();
        }
    }

    /// Clocks that are minutes apart let go what others hold.
    pub fn note_clocks(&mut self) {
        if self.nodes.iter().any(|node| self.is_far(node)) {
            let latest = self.nodes.iter().map(|node| node.clock(self.now)).max();
            self.history.far_clocks_ran_to(latest.unwrap_or_default());
        }
    }

    /// How often a node stamped anew what others had, where more than one clock may have been ahead by minutes.
    pub fn tellers(&self) -> i64 {
        if self.one_ahead { 0 } else { self.counts.renewals as i64 }
    }

    fn is_far(&self, node: &SimNode) -> bool {
        node.skew.abs() > self.reach * 2
    }

    /// The agents' part: who was ahead, and isn't any more, stamps anew what it wrote.
    pub fn renew(&mut self) {
        for at in 0..self.nodes.len() {
            let (own, max_drift) = (self.nodes[at].clock(self.now), self.limits.max_drift);
            let zones = self.nodes[at].node.zones.clone();
            // Hardly ever there is anything to ask the others about.
            if !zones.iter().any(|sync| sync.zone.is_ahead(own, max_drift)) || !self.nodes[at].has_agent(self.now) {
                continue;
            }
            let peers = self.clocks_of_peers(at);
            let clocks = Clocks { own, peers: &peers, max_drift };
            if clocks.judge(&zones) == Verdict::Mended {
                self.renew_node(at, own, Renewal::latest(clocks.latest(), max_drift));
            }
        }
    }

    /// The clocks of those that it has sessions to.
    fn clocks_of_peers(&self, at: usize) -> Vec<Millis> {
        let reached = |to: &usize| {
            self.links.iter().any(|link| {
                let push = link.push.as_ref().filter(|_| link.from == at && link.to == *to);
                push.is_some_and(|push| push.peer() == Some(self.nodes[*to].node.control.identity()))
            })
        };
        (0..self.nodes.len()).filter(reached).map(|to| self.nodes[to].clock(self.now)).collect()
    }

    fn renew_node(&mut self, at: usize, clock: Millis, latest: Stamp) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.rng.next().to_le_bytes());
        let all =
            |node: &SimNode| -> Vec<Versions> { (0..node.node.zones.len()).map(|zone| versions(node, zone)).collect() };
        let before = all(&self.nodes[at]);
        let emptied: Vec<Stamp> = (0..self.zones()).map(|zone| self.nodes[at].zone(zone).cleared()).collect();
        let control = self.nodes[at].node.control;
        let identity = control.begin_renewal(Identity(bytes));
        for (zone, kind) in ZONES.iter().enumerate().take(self.zones()) {
            // Some agents die while they are at it.
            let patience = if self.rng.one_in(3) { self.rng.below(40) } else { 0 };
            for steps in [patience, u64::MAX] {
                let mut renewal = Renewal::new(self.nodes[at].zone(zone), identity, control.last_identity(), latest);
                let done = (0..steps).find_map(|_| renewal.step(clock).expect("the lock"));
                // Others go on writing meanwhile.
                if done.is_none() && self.numbers == Numbers::Counters && kind.counts {
                    (0..self.rng.below(8)).for_each(|_| self.add(at, zone, clock));
                }
            }
        }
        control.end_renewal();
        self.counts.renewals += 1;
        self.identities += 1;
        for (zone, (before, after)) in before.iter().zip(all(&self.nodes[at])).enumerate() {
            let emptied = (emptied[zone], self.nodes[at].zone(zone).cleared());
            self.history.renewed(at, zone, latest, (before, &after), emptied);
        }
        self.trace(|| format!("node {at} becomes node {identity}"));
        self.look_at_links(|node| node == at);
        self.lost = true;
    }
}

/// What a node has in a zone.
pub fn versions(node: &SimNode, zone: usize) -> Versions {
    let (mut versions, mut place) = (BTreeMap::new(), Some(ScanPlace::default()));
    while let Some(at) = place {
        let keep = &mut |record: &zonemesh::store::Surveyed<'_>| {
            versions.insert(record.key.to_vec(), record.version);
        };
        place = node.zone(zone).survey(at, keep).expect("the lock");
    }
    versions
}
