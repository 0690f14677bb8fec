//! The receiving side of a session: the node that was dialled.

use super::frame::{self, Input};
use super::incoming::{Context, Incoming};
use super::message::{self, MAX_NAME, MAX_RECORD, MAX_ZONES, Message, Pong};
use super::outgoing::frame_bound;
use super::positions::Defined;
use super::session::{self, Ending, Notes, Pace, Seldom, accepted_bound, own_hello};
use super::write;
use super::{Held, Node, Note, NoteLevel, SessionError};
use crate::record::{Identity, Kind, Millis};
use crate::store::control::Counter;
use crate::store::{Drift, Matching, Side, Traffic};
use std::collections::BTreeMap;

/// Entries of HAVE that a session keeps, over all zones.
const MAX_HAVE: usize = 65_536;
/// Refused zones are shown up to here: each is looked for in a table, and a peer may announce thousands.
const MAX_SHOWN: usize = 64;
/// How soon a zone that waits is looked at again, milliseconds.
const SOON: u64 = 200;
/// Acknowledgements wait for so long, milliseconds: a peer that writes all the time needn't be woken for each change, and
/// who reads here needn't wait while one is sent.
const ACK_DELAY: u64 = 5;
/// A record's buffer above this is given back once the record is there.
const KEPT_BUFFER: usize = 64 * 1024;

/// One inbound session.
///
/// Each call works in proportion to the bytes it is given. The caller should not read on while what was appended to
/// `out` can't be sent. At the end, whatever the reason, call [`Pull::close`].
pub struct Pull {
    node: Node,
    own: Identity,
    /// That of this node when the session began.
    incarnation: u64,
    token: u64,
    pace: Pace,
    input: Input,
    peer: Option<Identity>,
    /// Largest frame to send.
    bound: usize,
    ended: Option<u8>,
    /// By the numbers that the peer gave; `None`: refused. Boxed, as a peer may announce many that aren't here.
    zones: BTreeMap<u64, Option<Box<Incoming>>>,
    defined: Defined,
    chunks: Option<Chunks>,
    /// The time in a ping that wants an answer.
    echo: Option<Millis>,
    /// When acknowledgements are due, if there are any.
    acks_at: Option<u64>,
    heard: u64,
    sent: u64,
    /// When the control region was last told that the peer lives.
    told: Option<u64>,
    /// What passed since then.
    traffic: Traffic,
    have_room: usize,
    steer_at: u64,
    /// How far the peer's clock is ahead of ours, milliseconds.
    ahead: i64,
    notes: Notes,
    refusals: Seldom,
}

/// A record that arrives in parts.
struct Chunks {
    zone: u64,
    epoch: u64,
    total: usize,
    bytes: Vec<u8>,
}

impl Pull {
    /// `token`: not 0, unlike that of every other session of the node.
    pub fn new(node: Node, token: u64, now: Millis) -> Pull {
        Pull {
            // Read first: if the identity changes between, the session ends.
            incarnation: node.control.incarnation(),
            own: node.control.identity(),
            token,
            pace: Pace::new(now),
            input: Input::new(session::first_bound()),
            peer: None,
            bound: frame::SMALLEST_BOUND,
            ended: None,
            zones: BTreeMap::new(),
            defined: Defined::default(),
            chunks: None,
            echo: None,
            acks_at: None,
            heard: 0,
            sent: 0,
            told: None,
            traffic: Traffic::default(),
            have_room: MAX_HAVE,
            steer_at: 0,
            ahead: 0,
            notes: Notes::default(),
            refusals: Seldom::default(),
            node,
        }
    }

    /// Bytes came from the peer; replies are appended to `out`. On an error `out` may hold a goodbye that is worth
    /// sending.
    pub fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>, now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let t = self.advance(now);
        // Who hasn't said hello has one timeout in all, however slowly it speaks.
        if !bytes.is_empty() && self.peer.is_some() {
            self.heard = t;
        }
        let start = out.len();
        let mut input = std::mem::replace(&mut self.input, Input::new(0));
        let mut count = 0;
        let result = self.take_all(&mut input, bytes, out, now, &mut count);
        self.input = input;
        self.node.control.count(Counter::MsgsIn, count);
        self.traffic.bytes_in += bytes.len() as u64;
        self.traffic.msgs_in += count;
        if self.told.is_none_or(|told| t >= told + 100) {
            self.tell_heard(now);
        }
        let result = result.map_err(|ending| self.end(ending, out));
        if result.is_ok() {
            self.answer(out, now);
        }
        self.count_sent(out, start);
        result
    }

    /// Time passed.
    pub fn tick(&mut self, out: &mut Vec<u8>, now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let t = self.advance(now);
        let start = out.len();
        if t.saturating_sub(self.heard) > self.node.limits.timeout {
            let error = self.end(Ending::silent(self.node.limits.timeout), out);
            self.count_sent(out, start);
            return Err(error);
        }
        self.answer(out, now);
        if self.peer.is_some() && out.len() == start && t >= self.ping_due() {
            write::ping(out, now);
        }
        self.count_sent(out, start);
        Ok(())
    }

    /// When `tick` wants to be called next.
    pub fn deadline(&self) -> Millis {
        self.pace.wall_at(self.due())
    }

    /// Whether it wants to be called now.
    pub fn is_due(&self, now: Millis) -> bool {
        self.pace.is_due(now, self.due())
    }

    fn advance(&mut self, now: Millis) -> u64 {
        let due = self.due();
        self.pace.advance(now, due, &self.node.limits)
    }

    /// The same as `deadline`, in the session's time.
    fn due(&self) -> u64 {
        let silent = self.heard.saturating_add(self.node.limits.timeout).saturating_add(1);
        if self.peer.is_none() {
            return silent;
        }
        let compares = self.zones.values().flatten().map(|incoming| incoming.compare.at());
        let own = silent.min(self.ping_due()).min(self.steer_at).min(self.acks_at.unwrap_or(u64::MAX));
        compares.fold(own, u64::min)
    }

    /// Whether a valid hello was received (until then the connection may be reused by nginx).
    pub fn established(&self) -> bool {
        self.peer.is_some()
    }

    /// Who the peer is.
    pub fn peer(&self) -> Option<Identity> {
        self.peer
    }

    /// What it holds in memory.
    pub fn held(&self) -> Held {
        let chunks = self.chunks.as_ref().map_or(0, |chunks| chunks.bytes.len());
        let mut held = Held { bytes: self.input.held() + chunks, origins: self.defined.len(), ..Held::default() };
        self.zones.values().flatten().for_each(|incoming| incoming.add_held(&mut held));
        held
    }

    /// Log lines since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    /// The session is over (for whatever reason): claims are given back, a goodbye appended.
    pub fn close(&mut self, out: &mut Vec<u8>, why: &str) {
        self.release();
        if self.ended.is_none() && self.peer.is_some() {
            write::bye(out, message::BYE_END, why);
            self.node.control.count(Counter::MsgsOut, 1);
        }
        self.ended = Some(message::BYE_END);
    }

    fn check(&self) -> Result<(), SessionError> {
        match self.ended {
            // Who says hello is told why there is no session.
            None if self.peer.is_none() => Ok(()),
            None => session::check_incarnation(&self.node, self.incarnation),
            Some(_) => Err(SessionError::Protocol("the session has ended".into())),
        }
    }

    /// Ends the session; who hasn't said a valid hello isn't answered.
    fn end(&mut self, ending: Ending, out: &mut Vec<u8>) -> SessionError {
        self.release();
        self.ended = Some(ending.code);
        let told_already = matches!(ending.error, SessionError::Bye(_));
        let greeted = matches!(ending.code, message::BYE_ITSELF | message::BYE_VERSION)
            || matches!(ending.error, SessionError::Renewed);
        if !told_already && (self.peer.is_some() || greeted) {
            write::bye(out, ending.code, &ending.error.to_string());
        }
        ending.error
    }

    fn release(&mut self) {
        for incoming in self.zones.values_mut().flatten() {
            incoming.close(&self.node, self.token);
        }
        self.zones.clear();
        self.chunks = None;
    }

    fn count_sent(&mut self, out: &[u8], start: usize) {
        let new = out.get(start..).unwrap_or_default();
        if !new.is_empty() {
            self.sent = self.pace.t;
            let count = frame::count(new);
            self.node.control.count(Counter::MsgsOut, count);
            self.traffic.msgs_out += count;
            self.traffic.bytes_out += new.len() as u64;
        }
    }

    /// Tells the control region that the peer lives, and what passed.
    fn tell_heard(&mut self, now: Millis) {
        if let Some(peer) = self.peer {
            self.told = Some(self.pace.t);
            self.node.control.heard(peer, now, &std::mem::take(&mut self.traffic));
        }
    }

    fn ping_due(&self) -> u64 {
        self.sent.saturating_add((self.node.limits.timeout / 3).max(1))
    }

    fn take_all(
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
            self.take(&message, out, now)?;
            if matches!(message, Message::Hello(_)) {
                input.set_bound(accepted_bound(&self.node.limits));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &Message<'_>, out: &mut Vec<u8>, now: Millis) -> Result<(), Ending> {
        let Some(peer) = self.peer else {
            return match *message {
                Message::Hello(hello) => self.greet(&hello, out, now),
                Message::Bye { code, text } => Err(Ending::bye(code, text)),
                _ => Err(Ending::protocol("a message before the hello")),
            };
        };
        match *message {
            Message::Bye { code, text } => return Err(Ending::bye(code, text)),
            Message::Ping { time } => {
                self.echo = Some(time);
                self.ahead = ahead(time, now);
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
                while !records.is_empty() {
                    match message::decode_record(&mut records, peer, |number| defined.get(number))? {
                        Some(record) => incoming.apply(&mut cx, &record),
                        None => incoming.skipped(&mut cx),
                    }
                }
            }
            Message::Chunk { zone, epoch, first, last, total, bytes } => {
                self.expected(zone, Some(epoch), peer, now)?;
                if let Some(record) = self.chunk(zone, epoch, (first, last), total, bytes)? {
                    self.whole(zone, epoch, &record, peer, now)?;
                    if record.capacity() <= KEPT_BUFFER {
                        self.chunks = Some(Chunks { zone, epoch, total: 0, bytes: record });
                    }
                }
            }
            Message::Clear { zone, stamp } => {
                let (incoming, (mut cx, _)) = self.expected(zone, None, peer, now)?;
                incoming.clear(&mut cx, stamp);
            }
            Message::Position { zone, epoch, complete, positions, evicted } => {
                let (incoming, (mut cx, _)) = self.expected(zone, Some(epoch), peer, now)?;
                incoming.position(&mut cx, epoch, complete, positions, evicted);
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
        Ok(())
    }

    fn greet(&mut self, hello: &message::Hello, out: &mut Vec<u8>, now: Millis) -> Result<(), Ending> {
        let renewed = session::check_incarnation(&self.node, self.incarnation);
        renewed.map_err(|error| Ending { code: message::BYE_END, error })?;
        // Also to who is sent away: it learns our version and identity from it.
        write::hello(out, &own_hello(&self.node, now));
        let accepted = session::check_hello(hello, self.own)?;
        self.bound = frame_bound(&self.node.limits, accepted);
        self.peer = Some(hello.identity);
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
            if self.zones.len() <= MAX_SHOWN {
                let drift = Drift { peer, zone: name.clone(), side: Side::Here, reason: reason.clone() };
                self.node.control.show_drift(&drift, now);
            }
            if self.refusals.happened(self.pace.t).is_some() || self.zones.len() <= 8 {
                let text = format!("zone \"{name}\" of the peer is not synchronized: on this node {reason}");
                self.notes.add(NoteLevel::Warn, text);
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
        if epoch.is_some() {
            incoming.moved(self.pace.t);
        }
        let cx = Context {
            node: &self.node,
            own: self.own,
            peer,
            token: self.token,
            bound: self.bound,
            now,
            t: self.pace.t,
            notes: &mut self.notes,
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

    /// A record that came in parts is there.
    fn whole(&mut self, zone: u64, epoch: u64, bytes: &[u8], peer: Identity, now: Millis) -> Result<(), Ending> {
        let (incoming, (mut cx, defined)) = self.expected(zone, Some(epoch), peer, now)?;
        let mut reader = frame::Reader::new(bytes);
        match message::decode_record(&mut reader, peer, |number| defined.get(number))? {
            Some(record) if reader.is_empty() => incoming.apply(&mut cx, &record),
            Some(_) => return Err(Ending::protocol("a record with something behind it")),
            None => incoming.skipped(&mut cx),
        }
        Ok(())
    }

    /// Appends what is due: acknowledgements, an answer to a ping, subscriptions.
    fn answer(&mut self, out: &mut Vec<u8>, now: Millis) {
        let Some(peer) = self.peer else { return };
        let t = self.pace.t;
        if self.acks_at.take_if(|at| t >= *at).is_some() {
            self.each(peer, now, |incoming, cx| incoming.acknowledge(cx, out));
        }
        if let Some(echo) = self.echo.take() {
            write::pong(out, echo, Pong { clock: now, shared: self.node.control.upgrading() });
        }
        if t >= self.steer_at {
            self.steer(peer, out, now);
        }
        let (ahead, mut rounds) = (self.ahead, self.rounds());
        self.each(peer, now, |incoming, cx| {
            let before = incoming.compare.is_under_way();
            incoming.compare(cx, ahead, rounds < session::COMPARED_AT_ONCE, out);
            rounds += usize::from(!before && incoming.compare.is_under_way());
        });
    }

    /// How many zones are being compared.
    fn rounds(&self) -> usize {
        self.zones.values().flatten().filter(|incoming| incoming.compare.is_under_way()).count()
    }

    /// Looks in each zone whether another subscription is due.
    fn steer(&mut self, peer: Identity, out: &mut Vec<u8>, now: Millis) {
        let (mut restless, mut owes_ack) = (false, false);
        self.each(peer, now, |incoming, cx| {
            incoming.steer(cx, out);
            restless |= incoming.restless();
            owes_ack |= incoming.owes_ack();
        });
        if owes_ack {
            self.acks_at.get_or_insert(self.pace.t.saturating_add(ACK_DELAY));
        }
        let beat = (self.node.limits.timeout / 3).max(1);
        self.steer_at = self.pace.t + if restless { SOON.min(beat) } else { beat };
    }

    /// Does something with each zone that is taken.
    fn each(&mut self, peer: Identity, now: Millis, mut act: impl FnMut(&mut Incoming, &mut Context<'_>)) {
        let t = self.pace.t;
        for incoming in self.zones.values_mut().flatten() {
            let mut cx = Context {
                node: &self.node,
                own: self.own,
                peer,
                token: self.token,
                bound: self.bound,
                now,
                t,
                notes: &mut self.notes,
            };
            act(incoming, &mut cx);
        }
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
