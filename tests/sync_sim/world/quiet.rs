//! The end of a world: everything heals, and then all must agree, and go on agreeing.

use super::World;
use super::operations::SCARCE_KEYS;
use crate::check::{Live, contents};
use crate::node::{SCARCE, SimNode, ZONES};
use zonemesh::record::{Millis, Version};
use zonemesh::store::Comparisons;

/// True time that a quiet cluster may take to agree.
const PATIENCE: Millis = 180_000;
/// Bytes of frames of records that tell no record.
const JOIN_EXTRA: u64 = 200;

impl World {
    /// Everything heals; then all must agree within some time, and go on agreeing.
    pub(super) fn quiet(&mut self) -> Result<(), String> {
        self.links.iter_mut().for_each(|link| link.held_until = 0);
        self.mend_clocks();
        self.look_at_links(|_| true);
        let begun = self.now;
        for node in &mut self.nodes {
            node.down_until = node.down_until.min(begun + 500);
            node.no_agent_until = node.no_agent_until.min(begun + 500);
        }
        self.counts.settled = self.until(World::holds)? - begun;
        self.counts.mended = self.mended();
        (0..self.nodes.len()).try_for_each(|at| self.vouches(at))?;
        self.recovers()?;
        if self.is_well() {
            match self.rng.below(5) {
                // In large clusters both take as long as a hundred other seeds, so some do it whenever they can.
                _ if self.joins_large => self.joins()?,
                0 if self.nodes.len() < 10 => self.stays_well()?,
                1 if self.nodes.len() < 10 => self.joins()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until something has held for a while; returns since when.
    pub(super) fn until(&mut self, holds: impl Fn(&World) -> Result<(), String>) -> Result<Millis, String> {
        let begun = self.now;
        let mut since: Option<Millis> = None;
        loop {
            self.pass(250)?;
            self.keep_up();
            match holds(self) {
                Ok(()) => {
                    let since = *since.get_or_insert(self.now);
                    if self.now >= since + 2_000 {
                        self.all_is_told()?;
                        return Ok(since);
                    }
                }
                // After a while of agreement there is nothing left that could end it.
                Err(wrong) if self.now > begun + PATIENCE.max(40 * self.limits.timeout) => return Err(wrong),
                Err(_) => since = None,
            }
        }
    }

    /// Whether agents have looked at all changes that there are.
    pub(super) fn all_is_told(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            self.announce_changes(at);
            if (0..self.zones()).any(|zone| self.nodes[at].zone(zone).take_dirty() != 0) {
                return Err(format!("node {at} has changes that its agent wasn't told of"));
            }
        }
        Ok(())
    }

    /// Where something found no room, room is made. Then all must have all of it, and show nothing as missing.
    pub(super) fn recovers(&mut self) -> Result<(), String> {
        let lacks = |node: &SimNode| node.zone(SCARCE).incomplete() > 0;
        if self.zones() <= SCARCE || !self.nodes.iter().any(lacks) {
            return Ok(());
        }
        self.trace(|| "room is made".into());
        self.counts.recovered += 1;
        for at in 0..self.nodes.len() {
            let now = self.nodes[at].clock(self.now);
            self.written[at] = true;
            for number in (0..SCARCE_KEYS).filter(|number| number % 8 != 0) {
                let key = format!("key {number}").into_bytes();
                let replaced = self.nodes[at].version(SCARCE, &key, now);
                let deleted = self.nodes[at].zone(SCARCE).delete(&key, now);
                self.note(at, SCARCE, &key, deleted, true, now, replaced);
            }
        }
        self.until(World::holds_all)?;
        Ok(())
    }

    /// A node that joins a settled cluster costs one copy of the data, and then has it.
    pub(super) fn joins(&mut self) -> Result<(), String> {
        self.pass(self.limits.timeout * 3)?;
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        self.trace(|| format!("node {at} begins anew"));
        let copy: u64 =
            (0..SCARCE).map(|zone| self.nodes.iter().map(|node| node.size_of_state(zone)).max().unwrap_or(0)).sum();
        self.counts.moved.data_to = Some(at);
        self.replace(at, 0, false);
        self.until(|world| {
            let joins = (0..world.zones()).any(|zone| !world.nodes[at].zone(zone).joined());
            if joins { Err(format!("node {at} doesn't join")) } else { world.holds() }
        })?;
        // Long enough for all others to have offered what they know of the node that it replaces.
        self.pass(self.limits.timeout * 5)?;
        let moved = self.counts.moved.data;
        self.counts.joined = (copy, moved);
        self.counts.joins = (1, u64::from(self.nodes.len() >= 50));
        // What is to be said besides counts where there is little data. An origin that died while its clock was ahead left no position:
        // what it wrote is sent by each who relays something.
        // The last kind of fault is a clock that is set by minutes.
        let clocks_were_right = self.counts.faults.last() == Some(&0);
        if clocks_were_right && moved > copy * 6 / 5 + JOIN_EXTRA {
            return Err(format!("a node that joined was sent {moved} bytes of records, where {copy} are a copy"));
        }
        Ok(())
    }

    /// Whether clocks agree so well that nobody takes new writes for old ones.
    pub(super) fn is_well(&self) -> bool {
        let skews = self.nodes.iter().map(|node| node.skew);
        let spread = skews.clone().max().unwrap_or(0).abs_diff(skews.min().unwrap_or(0));
        spread <= self.limits.timeout / 2
    }

    /// Where all is well, comparing finds nothing, also beside new writes and what ends.
    pub(super) fn stays_well(&mut self) -> Result<(), String> {
        // What was begun before may still be on its way, and what is of the future for some clock isn't compared yet.
        let ahead = if self.sets_clocks { self.ahead_of_clocks() } else { 0 };
        self.pass(self.limits.timeout * 15 + ahead)?;
        let (before, compared) = (self.mended(), self.compared());
        self.trace(|| "all is well now".into());
        let end = self.now + self.limits.timeout * 25;
        let lasting = self.lasting(end)?;
        while self.now < end {
            self.operation();
            let pause = self.rng.between(100, 2_000);
            self.pass(pause)?;
            self.keep_up();
        }
        self.counts.well += 1;
        let after = self.mended();
        if self.lie.is_none() && after != before {
            return Err(format!("comparing mended {} records where nothing was wrong", after - before));
        }
        // Who compares nothing mends nothing.
        let rounds = compared.iter().zip(self.compared()).enumerate();
        let idle = rounds.clone().find(|(_, (before, after))| after.ended <= before.ended);
        if let Some((place, _)) = idle.filter(|_| self.lie.is_none()) {
            let zones = self.zones().min(SCARCE);
            return Err(format!("node {} ended no comparison of zone {}", place / zones, place % zones));
        }
        // In some worlds nothing is left by then that lasts, or it is of a clock that was ahead.
        let kept = self.lasting(end)?;
        let is_about_none = rounds.clone().all(|(_, (before, after))| after.records == before.records);
        if self.lie.is_none() && is_about_none && lasting.iter().any(|record| kept.contains(record)) {
            return Err("comparisons were about no record".into());
        }
        Ok(())
    }

    /// How long it takes until all clocks show what some zone has seen of them, or of stamps.
    fn ahead_of_clocks(&self) -> Millis {
        let zones = self.nodes.iter().flat_map(|node| node.node.zones.iter().map(|zone| zone.zone));
        let seen = zones.map(|zone| zone.last_stamp().millis().max(zone.expired_to())).max().unwrap_or(0);
        let slowest = self.nodes.iter().map(|node| node.clock(self.now)).min().unwrap_or(self.now);
        seen.saturating_sub(slowest)
    }

    /// Which records there are that every comparison until `end` is about, but for the first ones: no clock says that they are of
    /// the future, and they don't end, nor are they given up for others.
    pub(super) fn lasting(&self, end: Millis) -> Result<Vec<(usize, Vec<u8>, Version)>, String> {
        let (node, mut lasting) = (&self.nodes[0], Vec::new());
        let (clock, end) = (node.clock(self.now), node.clock(end) + self.limits.timeout * 5);
        let is_plain = |zone: &usize| !(ZONES[*zone].evict || ZONES[*zone].counts && self.numbers.have_parts());
        for zone in (0..self.zones().min(SCARCE)).filter(is_plain) {
            let live = contents(node, zone, clock).map_err(|error| error.to_string())?;
            let lasts = |live: &Live| live.version.stamp.millis() <= clock && live.expires.is_none_or(|at| at > end);
            lasting.extend(
                live.iter().filter(|(_, live)| lasts(live)).map(|(key, live)| (zone, key.clone(), live.version)),
            );
        }
        Ok(lasting)
    }

    /// What each node has compared, in its zones that have room.
    pub(super) fn compared(&self) -> Vec<Comparisons> {
        let zones = self.nodes.iter().flat_map(|node| node.node.zones.iter().take(SCARCE));
        zones.map(|zone| zone.zone.stats().comparisons).collect()
    }

    /// Of zones that have room.
    pub(super) fn mended(&self) -> u64 {
        let stats =
            self.nodes.iter().flat_map(|node| node.node.zones.iter().take(SCARCE).map(|zone| zone.zone.stats()));
        stats.map(|stats| stats.mended + stats.retired).sum()
    }
}
