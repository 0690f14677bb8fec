//! What must hold at every moment, and what when all is quiet.

use super::World;
use super::operations::MOST_KEYS;
use crate::check::{agreed, contents};
use crate::limits::check_buckets;
use crate::node::{SCARCE, SimNode, ZONES};
use zonemesh::sync::{Pull, Push};

/// No record is as long as this.
const LARGEST_RECORD: usize = 8 * 1024;

impl World {
    /// Looks whether what a node shows is true, whatever state the cluster is in.
    pub(super) fn look_at_one(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        let clock = self.nodes[at].clock(self.now);
        self.is_bounded(at)?;
        self.vouches(at)?;
        self.history.note_given_up(at, &self.nodes[at]);
        self.note_clocks();
        for zone in 0..self.zones() {
            let live = contents(&self.nodes[at], zone, clock).map_err(|error| error.to_string())?;
            self.history.check_now(at, zone, &live, clock)?;
            if self.nodes[at].limits(zone) {
                let all = (false, self.tellers());
                check_buckets(&self.history.ledger, (at, &self.nodes[at]), zone, all, clock)?;
            }
            self.history.learn(at, zone, &self.nodes[at], clock);
        }
        if self.rng.one_in(4) {
            self.nodes[at].save();
        }
        Ok(())
    }

    /// Whether a node that evicts promises no more than it has had. Others show by what they lack in the end; of what is evicted
    /// nobody misses anything. Nor is that known where clocks are set by minutes.
    pub(super) fn vouches(&self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        for zone in (0..self.zones()).filter(|zone| ZONES[*zone].evict && !self.sets_clocks) {
            let live = contents(node, zone, node.clock(self.now)).map_err(|error| error.to_string())?;
            self.history.check_vouched(at, node, zone, &live, self.now)?;
        }
        Ok(())
    }

    /// Whether nodes agree; on a zone that is too small, those that show nothing as missing.
    pub(super) fn holds(&self) -> Result<(), String> {
        self.agrees(|node| node.zone(SCARCE).incomplete() == 0)
    }

    /// Whether all nodes agree on everything.
    pub(super) fn holds_all(&self) -> Result<(), String> {
        self.agrees(|_| true)
    }

    pub(super) fn agrees(&self, scarce: impl Fn(&SimNode) -> bool) -> Result<(), String> {
        let clock = self.nodes.iter().map(|node| node.clock(self.now)).max().unwrap_or(self.now);
        for (zone, kind) in ZONES.iter().enumerate().take(self.zones()).filter(|(_, kind)| !kind.evict) {
            let all = self.nodes.iter().enumerate();
            let nodes: Vec<_> = all.filter(|(_, node)| zone != SCARCE || scarce(node)).collect();
            if let Some((at, _)) = nodes.iter().find(|(_, node)| node.zone(zone).incomplete() > 0) {
                let lacks = self.nodes[*at].zone(zone).lacks();
                return Err(format!("zone {} of node {at} shows records as missing: {lacks:?}", kind.name));
            }
            if let Some(live) = agreed(&nodes, zone, clock)? {
                self.history.check(zone, &live, clock)?;
            }
            for (at, node) in nodes.into_iter().filter(|(_, node)| node.limits(zone)) {
                let all = (true, self.tellers());
                check_buckets(&self.history.ledger, (at, node), zone, all, node.clock(self.now))?;
            }
        }
        Ok(())
    }

    /// Whether what sessions of a node hold is bounded by what there is to know, however long they live.
    pub(super) fn is_bounded(&self, at: usize) -> Result<(), String> {
        let (zones, origins) = (self.zones(), self.identities);
        let mut walkers = 0;
        for link in &self.links {
            let push = link.push.as_ref().filter(|_| link.from == at).map(Push::held);
            let pull = link.pull.as_ref().filter(|_| link.to == at).map(Pull::held);
            walkers += push.map_or(0, |held| held.walkers);
            for held in [push, pull].into_iter().flatten() {
                let input = self.limits.recv_buffer + 4 + LARGEST_RECORD;
                let compared = zones * 2 * (MOST_KEYS as usize + 64);
                if held.bytes > input || held.origins > (3 * zones + 1) * origins || held.compared > compared {
                    let (from, to) = (link.from, link.to);
                    return Err(format!("node {at} holds too much for the session from {from} to {to}: {held:?}"));
                }
            }
        }
        let taken: usize = (0..zones).map(|zone| self.nodes[at].zone(zone).walkers()).sum();
        if taken != walkers {
            return Err(format!("{taken} walkers are in zones of node {at}, of which sessions have {walkers}"));
        }
        Ok(())
    }
}
