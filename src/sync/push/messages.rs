//! What the dialled node says, message by message.

use super::super::NoteLevel;
use super::super::answer::Answer;
use super::super::digest::{self, Terms};
use super::super::frame::Input;
use super::super::message::{self, MAX_RANGE_BITS, Message, Mode};
use super::super::outgoing::{Outgoing, State, Subscription, frame_bound};
use super::super::session::{self, Ending, accepted_bound};
use super::Push;
use crate::record::{Identity, Millis};
use crate::store::{Drift, Side, Zone};

impl Push {
    pub(super) fn take_all(
        &mut self,
        input: &mut Input,
        mut bytes: &[u8],
        now: Millis,
        count: &mut u64,
    ) -> Result<(), Ending> {
        while let Some((kind, body)) = input.next(&mut bytes)? {
            *count += 1;
            let message = message::decode(kind, body)?;
            self.take(&message, now)?;
            if matches!(message, Message::Hello(_)) {
                input.set_bound(accepted_bound(&self.node.limits));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Message<'_>, now: Millis) -> Result<(), Ending> {
        // All others may want an answer.
        self.idle &= matches!(message, Message::Pong(_) | Message::Ack { .. } | Message::Unknown);
        match (*message, self.peer) {
            (Message::Hello(hello), None) => {
                let accepted = session::check_hello(&hello, self.own)?;
                self.bound = frame_bound(&self.node.limits, accepted);
                self.peer = Some(hello.identity);
                self.version = session::version(&hello);
                self.node.control.forget_drifts(hello.identity, Side::There);
                session::compare_clocks(&mut self.notes, hello.now, now, &self.node.limits);
            }
            (Message::Bye { code, text }, _) => return Err(Ending::bye(code, text)),
            (_, None) => return Err(Ending::protocol("a message before the hello")),
            (Message::Ping { time }, _) => self.echo = Some(time),
            (Message::Pong(pong), _) => self.pong = Some(pong),
            (Message::Unknown, _) => {}
            (Message::Refuse { number, reason }, Some(peer)) => self.refused(number, reason, peer, now)?,
            (Message::Subscribe { zone, epoch, mode, more, cleared, positions }, _) => {
                let mode =
                    Mode::from_byte(mode).ok_or_else(|| Ending::protocol("a subscription of an unknown mode"))?;
                let at = self.announced_zone(zone)?;
                let (Some(outgoing), Some(sync_zone)) = (self.zones.get_mut(at), self.node.zones.get(at)) else {
                    return Ok(());
                };
                let asked = Subscription { epoch, mode, more, cleared };
                outgoing
                    .subscribe(&sync_zone.zone, zone, &asked, positions, &mut self.large)
                    .ok_or_else(|| Ending::protocol("a subscription out of order"))?;
            }
            (Message::Ack { zone, epoch, stamp, lacking }, _) => {
                let at = self.announced_zone(zone)?;
                let acked = self.zones.get_mut(at).and_then(|outgoing| outgoing.ack(epoch, stamp, lacking));
                acked.ok_or_else(|| Ending::protocol("an acknowledgement of what was not sent"))?;
            }
            (Message::Compare { zone, round, seed, bits, until, ends, evicted }, _) => {
                if bits > MAX_RANGE_BITS {
                    return Err(Ending::protocol("a comparison in too many parts"));
                }
                let version = self.version;
                if let Some((outgoing, zone)) = self.answering(zone)? {
                    let terms =
                        Terms::new(seed, bits, until, ends, evicted).by_counter(digest::by_counter(zone, version));
                    outgoing.answer.compare(zone, round, terms);
                }
            }
            (Message::List { zone, round, more, ranges }, _) => {
                if let Some((outgoing, zone)) = self.answering(zone)? {
                    let ranges = ranges.map(|range| u16::from_le_bytes(*range));
                    let taken = outgoing.answer.list(zone, round, more, ranges);
                    taken.ok_or_else(|| Ending::protocol("a part of the zone that there isn't"))?;
                }
            }
            (Message::Want { zone, round, more, hashes }, _) => {
                if let Some((outgoing, _)) = self.answering(zone)? {
                    let hashes = hashes.map(|hash| u64::from_le_bytes(*hash));
                    let taken = outgoing.answer.want(round, more, hashes);
                    taken.ok_or_else(|| Ending::protocol("too many records are asked for at once"))?;
                }
            }
            _ => return Err(Ending::protocol("a message that the dialled node doesn't send")),
        }
        Ok(())
    }

    /// The index of a zone that the peer may speak of.
    fn announced_zone(&self, number: u64) -> Result<usize, Ending> {
        usize::try_from(number)
            .ok()
            .filter(|at| *at < self.announced)
            .ok_or_else(|| Ending::protocol("a zone that was not announced"))
    }

    /// The zone that a question is about. Who asks about more zones at once than nodes do gets no answer for those that were asked
    /// about first: what questions and answers hold is bounded, however many zones there are.
    fn answering(&mut self, number: u64) -> Result<Option<(&mut Outgoing, &Zone)>, Ending> {
        let at = self.announced_zone(number)?;
        let holds = |zone: &usize| self.zones.get(*zone).is_some_and(|outgoing| outgoing.answer.held() > 0);
        self.questions.retain(|zone| *zone != at && holds(zone));
        self.questions.push_back(at);
        if self.questions.len() > session::COMPARED_AT_ONCE
            && let Some(outgoing) = self.questions.pop_front().and_then(|first| self.zones.get_mut(first))
        {
            outgoing.answer = Answer::default();
        }
        Ok(self.zones.get_mut(at).zip(self.node.zones.get(at).map(|zone| &zone.zone)))
    }

    fn refused(&mut self, number: u64, reason: &[u8], peer: Identity, now: Millis) -> Result<(), Ending> {
        let at = self.announced_zone(number)?;
        if let (Some(outgoing), Some(zone)) = (self.zones.get_mut(at), self.node.zones.get(at))
            && outgoing.state() != State::Refused
        {
            outgoing.refuse();
            outgoing.close(&zone.zone);
            let reason = message::printable(reason);
            let text = format!("zone \"{}\" is not synchronized: on the peer {reason}", zone.name);
            self.notes.add(NoteLevel::Warn, text);
            let drift = Drift { peer, zone: zone.name.clone(), side: Side::There, reason };
            self.node.control.show_drift(&drift, now);
        }
        Ok(())
    }
}
