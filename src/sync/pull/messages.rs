//! What the dialer says, message by message.

use super::super::frame::{self, Input};
use super::super::incoming::{Context, Incoming};
use super::super::message::{self, MAX_NAME, MAX_RECORD, MAX_ZONES, Message};
use super::super::outgoing::frame_bound;
use super::super::positions::Defined;
use super::super::session::{self, Ending, accepted_bound, own_hello};
use super::super::{NoteLevel, write};
use super::{ACK_DELAY, MAX_WAITING, NAP, PATIENCE, Pull};
use crate::record::{Identity, Kind, Millis};
use crate::store::control::Counter;
use crate::store::{Drift, Matching, Side};
use std::cell::OnceCell;

/// Refused zones are shown up to here: each is looked for in a table, and a peer may announce thousands.
const MAX_SHOWN: usize = 64;
/// Lines about them in the log, before one that says that there are more.
const MAX_NAMED: usize = 8;
/// A record's buffer above this is given back once the record is there.
const KEPT_BUFFER: usize = 64 * 1024;

/// A record that arrives in parts.
pub(super) struct Chunks {
    zone: u64,
    epoch: u64,
    total: usize,
    pub(super) bytes: Vec<u8>,
}

/// A frame that a lock is in the way of, or what is left of it, and what came behind it.
///
/// A lock whose owner runs, or would if others didn't, is free again soon. So that its record isn't refused, with all positions
/// of the epoch, nothing is taken for a moment. For who stands still that is in vain, and other zones and shards have to wait
/// as well: so what isn't taken then is refused.
pub(super) struct Waiting {
    kind: u8,
    pub(super) body: Vec<u8>,
    pub(super) behind: Vec<u8>,
    since: u64,
    pub(super) again_at: u64,
}

impl Pull {
    /// Takes what has waited, and then what has come.
    pub(super) fn take_all(&mut self, bytes: &[u8], out: &mut Vec<u8>, now: Millis) -> Result<(), Ending> {
        let mut input = std::mem::replace(&mut self.input, Input::new(0));
        let mut count = 0;
        let result = match self.waiting.take() {
            None => self.take_frames(&mut input, bytes, out, now, &mut count),
            Some(mut waiting) => {
                waiting.behind.extend_from_slice(bytes);
                self.try_again(waiting, out, now).and_then(|behind| {
                    behind.map_or(Ok(()), |behind| self.take_frames(&mut input, &behind, out, now, &mut count))
                })
            }
        };
        self.input = input;
        self.node.control.count(Counter::MsgsIn, count);
        self.traffic.msgs_in += count;
        result
    }

    /// What came behind it if it is taken now.
    fn try_again(&mut self, waiting: Waiting, out: &mut Vec<u8>, now: Millis) -> Result<Option<Vec<u8>>, Ending> {
        let Waiting { kind, body, behind, since, .. } = waiting;
        let t = self.pace.t;
        let may_wait = t.saturating_sub(since) < PATIENCE && behind.len() <= MAX_WAITING;
        let message = message::decode(kind, &body)?;
        Ok(match self.take(&message, may_wait, out, now)? {
            Taken::Whole => Some(behind),
            Taken::Later(left) => {
                let (kind, body) = left.unwrap_or((kind, body));
                self.waiting = Some(Waiting { kind, body, behind, since, again_at: t + NAP });
                None
            }
        })
    }

    fn take_frames(
        &mut self,
        input: &mut Input,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        now: Millis,
        count: &mut u64,
    ) -> Result<(), Ending> {
        while let Some((kind, body)) = input.next(&mut bytes)? {
            *count += 1;
            let message = message::decode(kind, body)?;
            if let Taken::Later(left) = self.take(&message, true, out, now)? {
                let (kind, body) = left.unwrap_or_else(|| (kind, body.to_vec()));
                let t = self.pace.t;
                self.waiting = Some(Waiting { kind, body, behind: bytes.to_vec(), since: t, again_at: t + NAP });
                return Ok(());
            }
            if matches!(message, Message::Hello(_)) {
                input.set_bound(accepted_bound(&self.node.limits));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Message<'_>, may_wait: bool, out: &mut Vec<u8>, now: Millis) -> Result<Taken, Ending> {
        let Some(peer) = self.peer else {
            return match *message {
                Message::Hello(hello) => self.greet(&hello, out, now).map(|()| Taken::Whole),
                Message::Bye { code, text } => Err(Ending::bye(code, text)),
                _ => Err(Ending::protocol("a message before the hello")),
            };
        };
        match *message {
            Message::Bye { code, text } => return Err(Ending::bye(code, text)),
            Message::Ping { time } => {
                self.echo = Some(time);
                self.ahead = ahead(time, now);
                // Not each time for who pings more often.
                if self.steer_at <= self.pace.t.saturating_add(self.beat()) {
                    self.steer_at = 0;
                }
            }
            Message::Pong(_) | Message::Unknown => {}
            Message::Zone { number, kind, matching, joined, name } => {
                self.announced(number, (kind, matching), joined, name, (peer, now), out)?;
            }
            Message::Origin { number, identity } => {
                if !self.defined.define(number, identity) {
                    return Err(Ending::protocol("an origin of too high a number"));
                }
            }
            Message::Records { zone, epoch, mut records } => {
                let (incoming, (mut cx, defined)) = self.expected(zone, Some(epoch), peer, now)?;
                cx.may_wait = may_wait;
                while !records.is_empty() {
                    let left = records;
                    match message::decode_record(&mut records, peer, |number| defined.get(number))? {
                        Some(record) if incoming.apply(&mut cx, &record) => {}
                        Some(_) => return Ok(Taken::later_of(zone, epoch, left)),
                        None => incoming.skipped(&mut cx),
                    }
                }
            }
            Message::Chunk { zone, epoch, first, last, total, bytes } => {
                self.expected(zone, Some(epoch), peer, now)?;
                if let Some(record) = self.chunk(zone, epoch, (first, last), total, bytes)? {
                    if !self.whole(zone, epoch, &record, (may_wait, peer, now))? {
                        return Ok(Taken::later_of(zone, epoch, frame::Reader::new(&record)));
                    }
                    if record.capacity() <= KEPT_BUFFER {
                        self.chunks = Some(Chunks { zone, epoch, total: 0, bytes: record });
                    }
                } else {
                    let stamp = self.chunks.as_ref().map(|chunks| message::stamp_of(&chunks.bytes));
                    let (incoming, (cx, _)) = self.expected(zone, Some(epoch), peer, now)?;
                    incoming.moved(cx.t, stamp);
                }
            }
            Message::Clear { zone, stamp } => {
                let (incoming, (mut cx, _)) = self.expected(zone, None, peer, now)?;
                cx.may_wait = may_wait;
                if !incoming.clear(&cx, stamp) {
                    return Ok(Taken::Later(None));
                }
            }
            Message::Position { zone, epoch, complete, positions, evicted } => {
                let (incoming, (mut cx, _)) = self.expected(zone, Some(epoch), peer, now)?;
                cx.may_wait = may_wait;
                if !incoming.position(&mut cx, epoch, complete, positions, evicted) {
                    return Ok(Taken::Later(None));
                }
                self.acks_at.get_or_insert(self.pace.t.saturating_add(ACK_DELAY));
                if complete {
                    self.steer_at = 0;
                }
            }
            Message::Have { zone, positions } => {
                // A refusal may be on its way while this is: no error.
                if let Some(incoming) = self.zones.get_mut(&zone).ok_or_else(not_announced)? {
                    incoming.have(positions, &mut self.have_room);
                }
            }
            Message::Hello(_) => return Err(Ending::protocol("a second hello")),
            Message::Digests { zone, round, first, floor, digests } => {
                let (incoming, (cx, _)) = self.expected(zone, None, peer, now)?;
                incoming.compare.digests(&cx, round, (first, floor), digests).ok_or_else(not_asked)?;
            }
            Message::Versions { zone, round, versions } => {
                let (incoming, (cx, _)) = self.expected(zone, None, peer, now)?;
                incoming.compare.versions(&cx, round, versions).ok_or_else(not_asked)?;
            }
            Message::Listed { zone, round, more, trusted, evicted, positions } => {
                let (incoming, (cx, _)) = self.expected(zone, None, peer, now)?;
                incoming.compare.listed(&cx, round, more, (trusted, evicted), positions).ok_or_else(not_asked)?;
            }
            Message::Sent { zone, round } => {
                let (incoming, (mut cx, _)) = self.expected(zone, None, peer, now)?;
                incoming.compare.sent(&mut cx, round);
            }
            Message::Total { zone, epoch, records } => {
                let (incoming, (cx, _)) = self.expected(zone, Some(epoch), peer, now)?;
                incoming.total(&cx, epoch, records);
            }
            Message::Refuse { .. }
            | Message::Subscribe { .. }
            | Message::Ack { .. }
            | Message::Compare { .. }
            | Message::List { .. }
            | Message::Want { .. } => {
                return Err(Ending::protocol("a message that the dialling node doesn't send"));
            }
        }
        Ok(Taken::Whole)
    }

    fn greet(&mut self, hello: &message::Hello, out: &mut Vec<u8>, now: Millis) -> Result<(), Ending> {
        let renewed = session::check_incarnation(&self.node, self.incarnation);
        renewed.map_err(|error| Ending { code: message::BYE_END, error })?;
        // Also to who is sent away: it learns our version and identity from it.
        write::hello(out, &own_hello(&self.node, now));
        let accepted = session::check_hello(hello, self.own)?;
        self.bound = frame_bound(&self.node.limits, accepted);
        self.peer = Some(hello.identity);
        self.version = session::version(hello);
        self.heard = self.pace.t;
        self.ahead = ahead(hello.now, now);
        self.node.control.forget_drifts(hello.identity, Side::Here);
        session::compare_clocks(&mut self.notes, hello.now, now, &self.node.limits);
        Ok(())
    }

    /// Takes or refuses a zone. Announced again, it may say that it has joined meanwhile.
    fn announced(
        &mut self,
        number: u64,
        (kind, matching): (u8, u8),
        joined: bool,
        name: &[u8],
        (peer, now): (Identity, Millis),
        out: &mut Vec<u8>,
    ) -> Result<(), Ending> {
        if number >= MAX_ZONES || name.is_empty() || name.len() > MAX_NAME {
            return Err(Ending::protocol("a zone of too high a number or too long a name"));
        }
        let index = self.node.zones.binary_search_by(|zone| zone.name.as_bytes().cmp(name)).ok();
        let own = index.and_then(|at| self.node.zones.get(at)).map(|zone| zone.zone.params().matching);
        let reason = match own {
            None => Some("there is no zone of this name with sync".to_owned()),
            Some(own) if own as u8 != matching => {
                let other = Matching::from_byte(matching).map_or("another type", |other| other.name());
                Some(format!("the zone of this name is of type={}, not {other}", own.name()))
            }
            Some(_) if Kind::from_byte(kind).is_none() => Some("the zone of this name is of another kind".to_owned()),
            Some(_) => None,
        };
        let taken = index.filter(|_| reason.is_none());
        match self.zones.get_mut(&number) {
            Some(None) => return Ok(()),
            Some(Some(incoming)) if taken == Some(incoming.index) => {
                incoming.peer_joined = joined;
                self.steer_at = 0;
                return Ok(());
            }
            Some(Some(_)) => return Err(Ending::protocol("two zones of one number")),
            None => {}
        }
        let Some(at) = taken else {
            let reason = reason.unwrap_or_default();
            write::refuse(out, number, &reason);
            self.zones.insert(number, None);
            let name = message::printable(name);
            self.refused += 1;
            if self.refused <= MAX_SHOWN {
                let drift = Drift { peer, zone: name.clone(), side: Side::Here, reason: reason.clone() };
                self.node.control.show_drift(&drift, now);
            }
            if self.refused <= MAX_NAMED {
                let text = format!("zone \"{name}\" of the peer is not synchronized: on this node {reason}");
                self.notes.add(NoteLevel::Warn, text);
            } else if self.refused == MAX_NAMED + 1 {
                let text =
                    "more zones of the peer are not synchronized: \"refused\" in /zonemesh/peers has their names";
                self.notes.add(NoteLevel::Warn, text.to_owned());
            }
            return Ok(());
        };
        if self.zones.values().flatten().any(|incoming| incoming.index == at) {
            return Err(Ending::protocol("two numbers for one zone"));
        }
        self.zones.insert(number, Some(Box::new(Incoming::new(at, number, joined))));
        self.steer_at = 0;
        Ok(())
    }

    /// A zone that the peer may send records of, and what is needed to take them.
    fn expected(
        &mut self,
        number: u64,
        epoch: Option<u64>,
        peer: Identity,
        now: Millis,
    ) -> Result<(&mut Incoming, (Context<'_>, &Defined)), Ending> {
        let incoming = self.zones.get_mut(&number).and_then(Option::as_deref_mut).ok_or_else(not_announced)?;
        if !incoming.expects(epoch.unwrap_or(1)) {
            return Err(Ending::protocol("records that were not asked for"));
        }
        // Whatever comes of it may change when the zone is to be compared.
        self.compare_at = 0;
        let cx = Context {
            node: &self.node,
            own: self.own,
            peer,
            token: self.token,
            version: self.version,
            bound: self.bound,
            now,
            t: self.pace.t,
            leapt: self.pace.has_leapt(&self.node.limits),
            may_wait: false,
            notes: &mut self.notes,
            heard_mark: OnceCell::new(),
        };
        Ok((incoming, (cx, &self.defined)))
    }

    /// Takes a part of a record; gives the whole one when that was the last. Grows with what came, not with what was
    /// announced.
    fn chunk(
        &mut self,
        zone: u64,
        epoch: u64,
        (first, last): (bool, bool),
        total: u64,
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>, Ending> {
        let total = usize::try_from(total).ok().filter(|total| (1..=MAX_RECORD).contains(total));
        let total = total.ok_or_else(|| Ending::protocol("a record of too many bytes"))?;
        let mut chunks = match self.chunks.take() {
            Some(mut chunks) if first => {
                chunks.bytes.clear();
                Chunks { zone, epoch, total, bytes: chunks.bytes }
            }
            None if first => Chunks { zone, epoch, total, bytes: Vec::new() },
            Some(chunks) if (chunks.zone, chunks.epoch, chunks.total) == (zone, epoch, total) => chunks,
            _ => return Err(Ending::protocol("a part of a record that was not begun")),
        };
        let length = chunks.bytes.len() + bytes.len();
        if length > total || last != (length == total) || bytes.is_empty() {
            return Err(Ending::protocol("parts of a record that don't add up"));
        }
        chunks.bytes.extend_from_slice(bytes);
        if last {
            return Ok(Some(chunks.bytes));
        }
        self.chunks = Some(chunks);
        Ok(None)
    }

    /// A record that came in parts is there; `false`: a lock is in its way, and it is to be tried again.
    fn whole(
        &mut self,
        zone: u64,
        epoch: u64,
        bytes: &[u8],
        (may_wait, peer, now): (bool, Identity, Millis),
    ) -> Result<bool, Ending> {
        let (incoming, (mut cx, defined)) = self.expected(zone, Some(epoch), peer, now)?;
        cx.may_wait = may_wait;
        let mut reader = frame::Reader::new(bytes);
        match message::decode_record(&mut reader, peer, |number| defined.get(number))? {
            Some(record) if reader.is_empty() => return Ok(incoming.apply(&mut cx, &record)),
            Some(_) => return Err(Ending::protocol("a record with something behind it")),
            None => incoming.skipped(&mut cx),
        }
        Ok(true)
    }
}

/// What became of a message.
enum Taken {
    Whole,
    /// A lock is in the way: the message is to be tried again, or, if there is one, another frame instead, of what is left of it.
    Later(Option<(u8, Vec<u8>)>),
}

impl Taken {
    /// These records are left.
    fn later_of(zone: u64, epoch: u64, mut records: frame::Reader<'_>) -> Taken {
        let mut body = Vec::new();
        write::put_records_head(&mut body, zone, epoch);
        body.extend_from_slice(records.rest());
        Taken::Later(Some((message::kind::RECORDS, body)))
    }
}

/// How far a clock that says `theirs` is ahead of one that says `ours`.
fn ahead(theirs: Millis, ours: Millis) -> i64 {
    i64::try_from(theirs).unwrap_or(i64::MAX).saturating_sub(i64::try_from(ours).unwrap_or(i64::MAX))
}

fn not_asked() -> Ending {
    Ending::protocol("an answer to what was not asked")
}

fn not_announced() -> Ending {
    Ending::protocol("a zone that was not announced")
}
