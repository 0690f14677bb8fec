//! The sending side of a session: the node that dialled.

mod messages;
mod sending;

use super::frame::{self, Input};
use super::message::{self, Pong};
use super::outgoing::Outgoing;
use super::positions::Numbers;
use super::records::Large;
use super::session::{self, Ending, Notes, Pace, Seldom, own_hello};
use super::write;
use super::{Held, Node, Note, SessionError};
use crate::record::{Identity, Millis, Stamp};
use crate::store::control::Counter;
use crate::store::{ShardMask, Sparing};
use std::collections::VecDeque;

/// One outbound session.
///
/// After each of `handle`, `mark` and `tick`, call [`Push::fill`] until it appends nothing; then wait for input, for
/// changes, or for [`Push::deadline`]. At the end, whatever the reason, call [`Push::close`].
pub struct Push {
    node: Node,
    own: Identity,
    /// That of this node when the session began.
    incarnation: u64,
    owner: u64,
    pace: Pace,
    input: Input,
    peer: Option<Identity>,
    /// Of the protocol, once the peer has said hello.
    version: u16,
    /// Largest frame to send.
    bound: usize,
    said_hello: bool,
    ended: Option<u8>,
    zones: Vec<Outgoing>,
    /// Zones announced so far.
    announced: usize,
    /// Whose turn it is.
    turn: usize,
    /// The zone of which a question is being answered.
    answering: Option<usize>,
    /// Zones with questions, in the order in which those were asked.
    questions: VecDeque<usize>,
    numbers: Numbers,
    large: Option<Large>,
    /// The time in a ping that wants an answer.
    echo: Option<Millis>,
    heard: u64,
    /// When the peer is next pinged and told what this node has of others: it is woken once for both.
    beat_at: u64,
    /// A ping was appended since the caller last asked.
    pinged: bool,
    /// What came since the caller last asked.
    pong: Option<Pong>,
    /// Received and sent.
    messages: (u64, u64),
    /// The zone whose positions are told next, in a round that is under way.
    telling: Option<usize>,
    /// `fill` stopped because it had worked enough, not because there was nothing to do.
    working: bool,
    /// `fill` left nothing to send, and nothing has happened since that would change that.
    idle: bool,
    /// When a zone wanted to be stepped again, as of the last `fill`.
    wakes: u64,
    /// `tick` was called and `fill` was not since: a caller whose output is stuck isn't asked again and again.
    owed: bool,
    notes: Notes,
    lacked: Seldom,
    busy: Seldom,
}

impl Push {
    /// `owner`: the lease's number, for feed cursors.
    pub fn new(node: Node, owner: u64, now: Millis) -> Push {
        Push {
            // Read first: if the identity changes between, the session ends.
            incarnation: node.control.incarnation(),
            own: node.control.identity(),
            owner,
            pace: Pace::new(now),
            input: Input::new(session::first_bound()),
            peer: None,
            version: message::LOWEST,
            bound: frame::SMALLEST_BOUND,
            said_hello: false,
            ended: None,
            zones: node.zones.iter().map(|_| Outgoing::new()).collect(),
            announced: 0,
            turn: 0,
            answering: None,
            questions: VecDeque::new(),
            numbers: Numbers::default(),
            large: None,
            echo: None,
            heard: 0,
            beat_at: 0,
            pinged: false,
            pong: None,
            messages: (0, 0),
            telling: None,
            working: false,
            idle: false,
            wakes: u64::MAX,
            owed: false,
            notes: Notes::default(),
            lacked: Seldom::default(),
            busy: Seldom::default(),
            node,
        }
    }

    /// Bytes came from the peer.
    pub fn handle(&mut self, bytes: &[u8], now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let _sparing = Sparing::begin();
        let t = self.advance(now);
        if !bytes.is_empty() {
            self.heard = t;
        }
        let mut input = std::mem::replace(&mut self.input, Input::new(0));
        let mut count = 0;
        let result = self.take_all(&mut input, bytes, now, &mut count);
        self.input = input;
        self.node.control.count(Counter::MsgsIn, count);
        self.messages.0 += count;
        result.map_err(|ending| self.end(ending))
    }

    /// Shards of zone number `zone` (its index in `Node::zones`) have changed.
    pub fn mark(&mut self, zone: usize, shards: ShardMask) {
        self.idle = false;
        if let Some(outgoing) = self.zones.get_mut(zone) {
            outgoing.mark(shards);
        }
    }

    /// Appends frames to send, about `budget` bytes at most; nothing appended: nothing to send now.
    pub fn fill(&mut self, out: &mut Vec<u8>, budget: usize, now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let t = self.advance(now);
        if self.idle && t < self.wakes.min(self.beat_at) {
            return Ok(());
        }
        let _sparing = Sparing::begin();
        let start = out.len();
        self.owed = false;
        if !self.said_hello {
            self.said_hello = true;
            write::hello(out, &own_hello(&self.node, now));
        }
        if let Some(peer) = self.peer {
            if let Some(echo) = self.echo.take() {
                write::pong(out, echo, Pong { clock: now, shared: false });
            }
            // A sign of life where there is no other, and what measures the way to the peer.
            if t >= self.beat_at {
                write::ping(out, now);
                self.pinged = true;
                self.telling.get_or_insert(0);
                self.beat_at = t.saturating_add((self.node.limits.timeout / 3).max(1));
            }
            self.announce(out, start.saturating_add(budget));
            self.tell(peer, out, start.saturating_add(budget), now);
            let sent_all = self.send(out, start.saturating_add(budget), now);
            self.idle = sent_all && self.announced == self.zones.len() && self.telling.is_none();
            let zones = self.zones.iter().enumerate();
            let wakes = zones.filter_map(|(at, zone)| zone.wakes(t, self.may_answer(at)));
            self.wakes = wakes.min().unwrap_or(u64::MAX);
        }
        if out.len() > start {
            let count = frame::count(out.get(start..).unwrap_or_default());
            self.node.control.count(Counter::MsgsOut, count);
            self.messages.1 += count;
        }
        Ok(())
    }

    /// Time passed: heartbeats, silence.
    pub fn tick(&mut self, now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let t = self.advance(now);
        if t.saturating_sub(self.heard) > self.node.limits.timeout {
            return Err(self.end(Ending::silent(self.node.limits.timeout)));
        }
        (self.owed, self.idle) = (true, false);
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
        // Bytes come in many pieces at once, and what is due next is asked of every zone.
        if !self.pace.has_moved(now) {
            return self.pace.t;
        }
        let due = self.due();
        self.pace.advance(now, due, &self.node.limits)
    }

    /// The same as `deadline`, in the session's time.
    fn due(&self) -> u64 {
        let silent = self.heard.saturating_add(self.node.limits.timeout).saturating_add(1);
        if self.owed || self.peer.is_none() {
            return silent;
        }
        if self.working || self.telling.is_some() {
            return self.pace.t;
        }
        silent.min(self.beat_at).min(self.wakes)
    }

    /// Every change so far was sent and acknowledged.
    pub fn flushed(&self) -> bool {
        self.peer.is_some()
            && self.announced == self.zones.len()
            && self.large.is_none()
            && self.zones.iter().zip(self.node.zones.iter()).all(|(outgoing, zone)| outgoing.flushed(&zone.zone))
    }

    /// The zones, by index, in which the peer had no room for some of what this node wrote, as it last said.
    pub fn left_out(&self) -> impl Iterator<Item = usize> {
        self.zones.iter().enumerate().filter(|(_, outgoing)| outgoing.is_left_out()).map(|(at, _)| at)
    }

    /// Who the peer is, once its hello came.
    pub fn peer(&self) -> Option<Identity> {
        self.peer
    }

    /// Records that wait, by zone index (an upper bound).
    pub fn pending(&self, zone: usize) -> u64 {
        match (self.peer, self.zones.get(zone), self.node.zones.get(zone)) {
            (Some(_), Some(outgoing), Some(zone)) => outgoing.pending(&zone.zone),
            _ => 0,
        }
    }

    /// Up to where the peer has confirmed what this node wrote, by zone index; `None`: all of it.
    pub fn unconfirmed(&self, zone: usize) -> Option<Stamp> {
        let (outgoing, zone) = self.zones.get(zone).zip(self.node.zones.get(zone))?;
        (!outgoing.flushed(&zone.zone)).then(|| outgoing.acked())
    }

    /// Messages received and sent.
    pub fn messages(&self) -> (u64, u64) {
        self.messages
    }

    /// What it holds in memory.
    pub fn held(&self) -> Held {
        let large = self.large.as_ref().map_or(0, |large| large.held());
        let mut held = Held { bytes: self.input.held() + large, origins: self.numbers.len(), ..Held::default() };
        self.zones.iter().for_each(|zone| zone.add_held(&mut held));
        held
    }

    /// Whether a ping was appended since the last call.
    pub fn pinged(&mut self) -> bool {
        std::mem::take(&mut self.pinged)
    }

    /// The answer to one that came since the last call.
    pub fn pong(&mut self) -> Option<Pong> {
        self.pong.take()
    }

    /// Log lines since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    /// Says goodbye (appended to `out`) and gives feed cursors back.
    pub fn close(&mut self, out: &mut Vec<u8>, why: &str) {
        for (outgoing, zone) in self.zones.iter_mut().zip(self.node.zones.iter()) {
            outgoing.close(&zone.zone);
        }
        if self.said_hello {
            write::bye(out, self.ended.unwrap_or(message::BYE_END), why);
            self.node.control.count(Counter::MsgsOut, 1);
        }
        self.ended = Some(message::BYE_END);
        self.said_hello = false;
    }

    fn check(&self) -> Result<(), SessionError> {
        match self.ended {
            None => session::check_incarnation(&self.node, self.incarnation),
            Some(_) => Err(SessionError::Protocol("the session has ended".into())),
        }
    }

    fn end(&mut self, ending: Ending) -> SessionError {
        self.ended = Some(ending.code);
        ending.error
    }

    /// Whether this zone may answer questions now.
    fn may_answer(&self, at: usize) -> bool {
        self.answering.is_none_or(|zone| zone == at)
    }
}
