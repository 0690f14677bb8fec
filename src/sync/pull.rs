//! The receiving side of a session: the node that was dialled.

mod messages;

use super::frame::{self, Input};
use super::incoming::{Context, Incoming};
use super::message::{self, Pong};
use super::positions::Defined;
use super::session::{self, Ending, Notes, Pace};
use super::write;
use super::{Held, Node, Note, SessionError};
use crate::record::{Identity, Millis};
use crate::store::control::Counter;
use crate::store::{Sparing, Traffic};
use messages::{Chunks, Waiting};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// Entries of HAVE that a session keeps, over all zones.
const MAX_HAVE: usize = 65_536;
/// How soon a zone that waits is looked at again, milliseconds.
const SOON: u64 = 200;
/// Acknowledgements wait for so long, milliseconds: a peer that writes all the time needn't be woken for each change, and
/// who reads here needn't wait while one is sent.
const ACK_DELAY: u64 = 5;
/// How long a lock that is in the way of something is waited for, in all and between two tries, milliseconds; and how much may
/// come meanwhile, bytes.
const PATIENCE: u64 = 100;
const NAP: u64 = 5;
const MAX_WAITING: usize = 64 * 1024;

/// One inbound session.
///
/// Each call works in proportion to the bytes it is given. The caller should not read on while what was appended to
/// `out` can't be sent, nor while the session [waits](Pull::is_waiting). At the end, whatever the reason, call
/// [`Pull::close`] or [`Pull::lost`].
pub struct Pull {
    node: Node,
    own: Identity,
    /// That of this node when the session began.
    incarnation: u64,
    token: u64,
    pace: Pace,
    input: Input,
    peer: Option<Identity>,
    /// Of the protocol, once the peer has said hello.
    version: u16,
    /// Largest frame to send.
    bound: usize,
    ended: Option<u8>,
    /// By the numbers that the peer gave; `None`: refused. Boxed, as a peer may announce many that aren't here.
    zones: BTreeMap<u64, Option<Box<Incoming>>>,
    defined: Defined,
    chunks: Option<Chunks>,
    /// What a lock is in the way of, and what came after it.
    waiting: Option<Waiting>,
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
    /// When a zone is next to be compared.
    compare_at: u64,
    /// How far the peer's clock is ahead of ours, milliseconds.
    ahead: i64,
    notes: Notes,
    /// Zones of the peer that this node doesn't take.
    refused: usize,
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
            version: message::LOWEST,
            bound: frame::SMALLEST_BOUND,
            ended: None,
            zones: BTreeMap::new(),
            defined: Defined::default(),
            chunks: None,
            waiting: None,
            echo: None,
            acks_at: None,
            heard: 0,
            sent: 0,
            told: None,
            traffic: Traffic::default(),
            have_room: MAX_HAVE,
            steer_at: 0,
            compare_at: 0,
            ahead: 0,
            notes: Notes::default(),
            refused: 0,
            node,
        }
    }

    /// Bytes came from the peer; replies are appended to `out`. On an error `out` may hold a goodbye that is worth
    /// sending.
    pub fn handle(&mut self, bytes: &[u8], out: &mut Vec<u8>, now: Millis) -> Result<(), SessionError> {
        self.check()?;
        let _sparing = Sparing::begin();
        let t = self.advance(now);
        // Who hasn't said hello has one timeout in all, however slowly it speaks.
        if !bytes.is_empty() && self.peer.is_some() {
            self.heard = t;
        }
        let start = out.len();
        let result = self.take_all(bytes, out, now);
        self.traffic.bytes_in += bytes.len() as u64;
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
        let _sparing = Sparing::begin();
        let t = self.advance(now);
        let start = out.len();
        if t.saturating_sub(self.heard) > self.node.limits.timeout {
            let error = self.end(Ending::silent(self.node.limits.timeout), out);
            self.count_sent(out, start);
            return Err(error);
        }
        if self.is_waiting()
            && let Err(ending) = self.take_all(&[], out, now)
        {
            let error = self.end(ending, out);
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
        if self.peer.is_none() {
            return silent;
        }
        let own = silent.min(self.ping_due()).min(self.steer_at).min(self.acks_at.unwrap_or(u64::MAX));
        let own = own.min(self.waiting.as_ref().map_or(u64::MAX, |waiting| waiting.again_at));
        own.min(self.compare_at)
    }

    /// Whether a valid hello was received (until then the connection may be reused by nginx).
    pub fn established(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether it takes nothing just now, as a lock is in the way of what came before. That is over before long.
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Who the peer is.
    pub fn peer(&self) -> Option<Identity> {
        self.peer
    }

    /// What it holds in memory.
    pub fn held(&self) -> Held {
        let chunks = self.chunks.as_ref().map_or(0, |chunks| chunks.bytes.len());
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.body.len() + waiting.behind.len());
        let mut held =
            Held { bytes: self.input.held() + chunks + waiting, origins: self.defined.len(), ..Held::default() };
        self.zones.values().flatten().for_each(|incoming| incoming.add_held(&mut held));
        held
    }

    /// Log lines since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    /// The session is over (for whatever reason): claims are given back, a goodbye appended.
    pub fn close(&mut self, out: &mut Vec<u8>, why: &str) {
        if self.ended.is_none() && self.peer.is_some() {
            write::bye(out, message::BYE_END, why);
            self.node.control.count(Counter::MsgsOut, 1);
        }
        self.lost();
    }

    /// The same where nobody is there to hear a goodbye.
    pub fn lost(&mut self) {
        self.release();
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
        (self.chunks, self.waiting) = (None, None);
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

    /// How often the peer pings, if it is set up alike. It is answered, and zones are looked at, when it does: so that is done
    /// unasked only when it is late.
    fn beat(&self) -> u64 {
        (self.node.limits.timeout / 3).max(1)
    }

    fn late(&self) -> u64 {
        self.beat().saturating_add(self.beat() / 2)
    }

    fn ping_due(&self) -> u64 {
        self.sent.saturating_add(self.late())
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
        if t >= self.compare_at {
            self.compare(peer, out, now);
        }
    }

    /// Goes on comparing where that is due.
    fn compare(&mut self, peer: Identity, out: &mut Vec<u8>, now: Millis) {
        let (ahead, mut rounds, mut next) = (self.ahead, self.rounds(), u64::MAX);
        self.each(peer, now, |incoming, cx| {
            let before = incoming.compare.is_under_way();
            incoming.compare(cx, ahead, rounds < session::COMPARED_AT_ONCE, out);
            rounds += usize::from(!before && incoming.compare.is_under_way());
            next = next.min(incoming.compare.at());
        });
        self.compare_at = next;
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
        self.steer_at = self.pace.t.saturating_add(if restless { SOON.min(self.beat()) } else { self.late() });
        // A subscription, or somebody who is gone, changes when that is.
        self.compare_at = 0;
    }

    /// Does something with each zone that is taken.
    fn each(&mut self, peer: Identity, now: Millis, mut act: impl FnMut(&mut Incoming, &mut Context<'_>)) {
        let (t, leapt) = (self.pace.t, self.pace.has_leapt(&self.node.limits));
        let mut heard_mark = OnceCell::new();
        for incoming in self.zones.values_mut().flatten() {
            let mut cx = Context {
                node: &self.node,
                own: self.own,
                peer,
                token: self.token,
                version: self.version,
                bound: self.bound,
                now,
                t,
                leapt,
                may_wait: false,
                notes: &mut self.notes,
                heard_mark,
            };
            act(incoming, &mut cx);
            heard_mark = cx.heard_mark;
        }
    }
}
