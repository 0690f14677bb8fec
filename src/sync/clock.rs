//! What a node makes of its clock when that is far behind its own stamps: whether it was ahead and has been mended.
//!
//! A clock that jumps back may be right now or wrong: the peers' clocks tell. As long as more of them hold with the stamps than
//! with the clock, stamps go on from where they are.

use super::SyncZone;
use crate::record::Millis;

/// The clocks that a node sees, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clocks<'a> {
    /// Its own.
    pub own: Millis,
    /// Those of the nodes that it has a session to.
    pub peers: &'a [Millis],
    /// zone_sync_max_drift.
    pub max_drift: Millis,
}

/// What they say of the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stamps are where clocks are, or not so far ahead that peers refuse them.
    Fine,
    /// It was ahead, and is right now: what it stamped then is to be stamped anew.
    Mended,
    /// It goes on from its stamps: so many peers' clocks aren't behind them.
    Wrong(usize),
    /// Nobody is there to tell. Nothing is lost by waiting.
    Alone,
}

impl Clocks<'_> {
    /// The latest that may be right, beside its own: who has it takes later stamps than others do.
    pub fn latest(&self) -> Millis {
        self.peers.iter().copied().filter(|clock| !self.is_far_ahead(*clock)).fold(self.own, Millis::max)
    }

    /// By how much the clock is behind the last stamp of these zones, milliseconds.
    pub fn behind(&self, zones: &[SyncZone]) -> Millis {
        zones.iter().map(|sync| sync.zone.ahead(self.own)).max().unwrap_or(0)
    }

    /// What is to be thought of the clock, beside the stamps of these zones.
    pub fn judge(&self, zones: &[SyncZone]) -> Verdict {
        let latest = self.latest();
        if !zones.iter().any(|sync| sync.zone.is_ahead(latest, self.max_drift)) {
            return Verdict::Fine;
        }
        // The stamps are too far ahead for all that may be right. Those that are far ahead of this node's don't say that it is
        // right, whatever they say of the stamps.
        let against = self.peers.iter().filter(|clock| self.is_far_ahead(**clock)).count();
        let with = self.peers.len() - against;
        // This node's own clock counts, too, but not alone.
        match (with, against) {
            (0, 0) => Verdict::Alone,
            _ if with + 1 > against => Verdict::Mended,
            _ => Verdict::Wrong(against),
        }
    }

    fn is_far_ahead(&self, clock: Millis) -> bool {
        clock > self.own.saturating_add(self.max_drift)
    }
}
