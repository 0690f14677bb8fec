//! What is asked of the peer, and when: its own writes, the full state, what it relays, and again what was refused.

use super::super::message::{Entry, Mode};
use super::super::{NoteLevel, SyncZone, write};
use super::{AGAIN, Context, Incoming, Progress};
use crate::record::{Identity, Stamp};
use crate::store::{Joining, Rule};

impl Incoming {
    /// Looks whether another subscription is due, and appends it.
    pub fn steer(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let Some(SyncZone { name, zone }) = cx.node.zones.get(self.index) else { return };
        // Who ends says whom it leaves without something: what had found no room may be here by now.
        let said = self.acked.filter(|(_, lacking)| *lacking != zone.lacks_of(cx.peer));
        self.ack = self.ack.or(said.map(|(stamp, _)| stamp));
        let patience = cx.node.limits.timeout.max(1_000);
        if self.filling {
            // Who has lost the claim goes on: two full states at once cost time, not truth. Who sends nothing loses it, and who
            // sends nothing but what is written: a shard of the rest may be busy there for long.
            if cx.t.saturating_sub(self.moved) <= patience {
                zone.claim_donor(cx.token, cx.now, patience);
            }
            return;
        }
        let joined = zone.joined();
        // What the peer wrote is on its way: from a donor it would come once more. Who sends nothing isn't waited for.
        if !joined && self.mode == Mode::Own && !self.begun && cx.t.saturating_sub(self.moved) <= patience {
            zone.claim_donor(cx.token, cx.now, patience);
            return;
        }
        // A node that never joined has little but its own writes, and may itself be new: others go first.
        let patient = !self.peer_joined && cx.t < cx.node.limits.timeout;
        let full = if joined { self.relay_due(cx) } else { (!patient).then_some(Stamp::ZERO) };
        if let Some(after) = full.filter(|_| zone.claim_donor(cx.token, cx.now, patience)) {
            self.subscribe(cx, Mode::Full, after, out);
            if !joined {
                zone.set_joining(Joining::default());
                self.joining = Some(Progress::new(cx.t));
                let text = format!("zone \"{name}\" joins: it takes the full state of node {}", cx.peer);
                cx.notes.add(NoteLevel::Info, text);
            }
            return;
        }
        let mode = if joined || !self.peer_joined { Mode::Own } else { Mode::None };
        let again = self.again_at.is_some_and(|at| cx.t >= at);
        if self.epoch == 0 || mode != self.mode || again {
            self.subscribe(cx, mode, Stamp::ZERO, out);
            if !joined && mode == Mode::Own {
                zone.claim_donor(cx.token, cx.now, patience);
            }
        }
    }

    /// `after`: no record up to this stamp is wanted, but of the peer itself.
    fn subscribe(&mut self, cx: &Context<'_>, mode: Mode, after: Stamp, out: &mut Vec<u8>) {
        let Some(SyncZone { zone, .. }) = cx.node.zones.get(self.index) else { return };
        self.epoch += 1;
        self.begun = false;
        self.compare.rest(u64::MAX);
        self.mode = mode;
        self.filling = mode == Mode::Full;
        self.moved = cx.t;
        self.asked = Stamp::at(cx.now.saturating_add(cx.node.limits.timeout));
        self.joining = None;
        self.held = false;
        self.again_at = None;
        (self.ack, self.acked) = (None, None);
        self.base = match mode {
            Mode::None => Vec::new(),
            Mode::Own => vec![(cx.peer, zone.position(cx.peer))],
            Mode::Full => {
                zone.positions().into_iter().filter(|(origin, _)| *origin != cx.own || zone.is_whole(cx.own)).collect()
            }
        }
        .into_iter()
        .filter(|(_, stamp)| *stamp > Stamp::ZERO && Rule::Filtered.holds())
        .collect();
        self.base.sort_unstable();
        self.spared = match after {
            Stamp::ZERO => Vec::new(),
            _ => zone.positions().into_iter().map(|(origin, _)| origin).filter(|origin| *origin != cx.peer).collect(),
        };
        let goes_on = |origin: &Identity| {
            let at = self.base.binary_search_by_key(origin, |(base, _)| *base);
            at.is_ok_and(|at| self.base.get(at).is_some_and(|(_, stamp)| *stamp >= after))
        };
        self.spared.retain(|origin| !goes_on(origin));
        self.spared.sort_unstable();
        self.base.retain(|(origin, _)| self.spared.binary_search(origin).is_err());
        let entry = |(identity, stamp)| Entry { identity, stamp, gone: false, anew: false };
        let asked = self.base.iter().copied().chain(self.spared.iter().map(|origin| (*origin, after)));
        let positions: Vec<Entry> = asked.map(entry).collect();
        write::subscribe(out, cx.bound, self.number, self.epoch, mode, zone.cleared(), &positions);
    }

    /// Whether the peer has something of an origin that doesn't speak for itself here. Each is asked about only when who was heard
    /// of has changed.
    fn has_lost(&mut self, cx: &Context<'_>) -> bool {
        let mark = cx.heard_mark();
        if let Some((_, any)) = self.looked.filter(|(then, _)| *then == mark) {
            return any;
        }
        let (heard, mut any) = (cx.heard(), false);
        for have in &mut self.have {
            let origin = have.entry.identity;
            have.lost = origin != cx.own && origin != cx.peer && heard.gone(origin);
            any |= have.lost;
        }
        self.looked = Some((mark, any));
        any
    }

    /// Whether the peer has something of origins that this node hasn't heard of for long: if so, after which stamp. What such
    /// an origin wrote is older than that only if it is here already, and what has taken its place on the peer is later still.
    fn relay_due(&mut self, cx: &Context<'_>) -> Option<Stamp> {
        let timeout = cx.node.limits.timeout;
        let SyncZone { zone, .. } = cx.node.zones.get(self.index)?;
        if self.again_at.is_some() || cx.t < self.look_at || !cx.may_tell_who_is_gone() {
            return None;
        }
        self.look_at = cx.t.saturating_add(timeout / 2);
        if !self.has_lost(cx) {
            return None;
        }
        // Each with what the peer has, and what this node has: few, and in their order.
        let mut gone: Vec<(Identity, Stamp, Stamp)> = Vec::new();
        for have in self.have.iter_mut().filter(|have| have.lost) {
            let Entry { identity, stamp, gone: gone_there, .. } = have.entry;
            gone.push((identity, stamp, Stamp::ZERO));
            // What both have of it above any position would be sent again by each peer; comparing tells what is unlike.
            if gone_there && !have.compared {
                have.compared = self.compare.soon(cx.t);
            }
        }
        zone.known_of_others(|_, known| {
            let place = gone.binary_search_by_key(&known.origin, |(origin, ..)| *origin).ok();
            if let Some((.., had)) = place.and_then(|at| gone.get_mut(at)) {
                *had = known.position;
            }
        });
        // What the table of origins has no room for would be asked for again and again.
        let due = |(origin, has, had): &(_, _, _)| has > had && zone.would_admit(*origin, *has, cx.now);
        gone.into_iter().filter(due).map(|(.., had)| had).min()
    }

    /// Holds the epoch's positions back until what was refused has been offered again.
    pub(super) fn hold(&mut self, t: u64) {
        self.held = true;
        if self.again_at.is_none() {
            self.again_at = Some(t.saturating_add(self.again_after));
            self.again_after = (self.again_after * 2).min(AGAIN.1);
        }
    }
}
