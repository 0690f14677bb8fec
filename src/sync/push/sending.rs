//! What the dialer has to say: zones, what it has of others, and changes by turns.

use super::super::outgoing::{Context, State, Step};
use super::super::session::{self, Heard};
use super::super::{NoteLevel, message, write};
use super::Push;
use crate::record::{Identity, Millis};
use crate::store::Rule;

impl Push {
    /// Announces zones that the peer hasn't been told of.
    pub(super) fn announce(&mut self, out: &mut Vec<u8>, until: usize) {
        while out.len() < until
            && let (Some(zone), Some(outgoing)) =
                (self.node.zones.get(self.announced), self.zones.get_mut(self.announced))
        {
            if zone.name.len() > message::MAX_NAME || self.announced as u64 >= message::MAX_ZONES {
                outgoing.refuse();
                let text = format!(
                    "zone \"{}\" is not synchronized: a node shares at most {} zones, with names of at most {} bytes",
                    zone.name,
                    message::MAX_ZONES,
                    message::MAX_NAME
                );
                self.notes.add(NoteLevel::Error, text);
            } else {
                outgoing.joined = zone.zone.joined();
                write::zone(out, self.announced as u64, zone.zone.params().matching, outgoing.joined, &zone.name);
            }
            self.announced += 1;
        }
    }

    /// Tells what this node has of other origins, and of zones that have joined meanwhile.
    pub(super) fn tell(&mut self, peer: Identity, out: &mut Vec<u8>, until: usize, now: Millis) {
        // A while after the start everybody seems to be gone, as they do when the clock has leapt.
        let settled = self.pace.t > session::patience(&self.node.limits) && !self.pace.has_leapt(&self.node.limits);
        let looks = settled && self.telling.is_some();
        let (mark, heard) = (looks.then(|| Heard::mark(&self.node, now)), Heard::new(&self.node, now));
        let gone = |origin| looks && heard.gone(origin);
        while let Some(at) = self.telling
            && at < self.announced
            && out.len() < until
        {
            self.telling = Some(at + 1);
            let (Some(zone), Some(outgoing)) = (self.node.zones.get(at), self.zones.get_mut(at)) else { continue };
            if outgoing.state() == State::Refused {
                continue;
            }
            let joined = zone.zone.joined();
            if joined != outgoing.joined {
                outgoing.joined = joined;
                write::zone(out, at as u64, zone.zone.params().matching, joined, &zone.name);
            }
            let cx = Context {
                zone: &zone.zone,
                number: at as u64,
                own: self.own,
                owner: self.owner,
                bound: self.bound,
                numbers: &mut self.numbers,
                large: &mut self.large,
                now,
                t: self.pace.t,
            };
            outgoing.have(&cx, peer, out, mark, gone);
        }
        if self.telling.is_some_and(|at| at >= self.zones.len()) {
            self.telling = None;
        }
    }

    /// Gives each zone its turn, a frame at a time, until the budget or every zone's window is used up. `true`: neither is, and
    /// there is no more to send.
    pub(super) fn send(&mut self, out: &mut Vec<u8>, until: usize, now: Millis) -> bool {
        let window = self.node.limits.window.max(self.bound);
        self.zones.iter_mut().for_each(|outgoing| outgoing.used = 0);
        let mut idle = 0;
        let (mut working, mut held_up) = (false, false);
        while (out.len() < until || !Rule::Budget.holds()) && idle < self.zones.len() {
            let at = self.turn.checked_rem(self.zones.len()).unwrap_or(0);
            self.turn = at + 1;
            let (Some(zone), Some(outgoing)) = (self.node.zones.get(at), self.zones.get_mut(at)) else { break };
            idle += 1;
            if outgoing.used >= window {
                held_up = true;
                continue;
            }
            let mut cx = Context {
                zone: &zone.zone,
                number: at as u64,
                own: self.own,
                owner: self.owner,
                bound: self.bound,
                numbers: &mut self.numbers,
                large: &mut self.large,
                now,
                t: self.pace.t,
            };
            let before = out.len();
            let may_answer = self.answering.is_none_or(|zone| zone == at);
            match outgoing.step(&mut cx, may_answer, out) {
                Step::Sent => idle = 0,
                Step::Working => working = true,
                Step::Idle => {}
            }
            if may_answer {
                self.answering = outgoing.answer.under_way(self.pace.t).then_some(at);
            }
            outgoing.used += out.len() - before;
            // To a peer that lacks little of a node that is gone, the full state is next to nothing.
            if let Some(records) = outgoing.gave_all(self.pace.t) {
                let text = format!("zone \"{}\": {records} records of the full state were sent to it", zone.name);
                self.notes.add(NoteLevel::Notice, text);
            }
            if outgoing.lacks_walker() && self.lacked.happened(self.pace.t).is_some() {
                let text =
                    format!("zone \"{}\" has no place for another walker of its changes; this peer waits", zone.name);
                self.notes.add(NoteLevel::Warn, text);
            }
            if let Some(millis) = outgoing.busy_for(self.pace.t)
                && self.busy.happened(self.pace.t).is_some()
            {
                let text = format!(
                    "zone \"{}\" is busy: a process that holds one of its locks does not go on, and for {millis} ms a part \
                     of its changes has waited for that; the others are sent",
                    zone.name
                );
                self.notes.add(NoteLevel::Warn, text);
            }
        }
        self.working = working;
        idle >= self.zones.len() && !working && !held_up
    }
}
