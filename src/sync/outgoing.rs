//! One zone on its way to one peer: which records it still has to get, and what may be promised after them.
//!
//! Work goes in rounds. A round closes a stamp, walks the shards that may hold a write at or below it to their end, and
//! only then sends the position: never a promise before the records that it covers.

mod rounds;

use super::answer::Answer;
use super::message::{Entry, Mode};
use super::positions::{Numbers, Positions};
use super::records::Large;
use super::session::Seldom;
use super::telling::Telling;
use super::write;
use super::{Held, Limits};
use crate::record::{Identity, Millis, Stamp};
use crate::store::{Cursor, Rule, ShardMask, Zone};
use rounds::{Round, writes};

/// A shard that is busy for longer is worth a word.
const TOLD_AFTER: u64 = 1_000;

/// What a step works with; belongs to the session.
pub struct Context<'a> {
    /// The zone.
    pub zone: &'a Zone,
    /// Its number.
    pub number: u64,
    /// This node.
    pub own: Identity,
    /// Whose walkers are opened.
    pub owner: u64,
    /// Largest frame.
    pub bound: usize,
    /// Numbers of origins.
    pub numbers: &'a mut Numbers,
    /// The record that is under way in chunks.
    pub large: &'a mut Option<Large>,
    /// The clock.
    pub now: Millis,
    /// The session's time.
    pub t: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Frames were appended.
    Sent,
    /// The step's work was used up before there was anything to send: call again.
    Working,
    /// Nothing to do, or nothing that can be done now.
    Idle,
}

/// Where a peer stands with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not answered yet.
    Announced,
    /// It lacks this zone or has another of its name.
    Refused,
    /// It waits for the full state of another node.
    Waiting,
    /// It takes records.
    Subscribed,
}

/// One zone of one session.
#[derive(Debug)]
pub struct Outgoing {
    state: State,
    epoch: u64,
    gathered: Option<Gathered>,
    filter: Positions,
    /// The emptying that the peer has.
    cleared: Stamp,
    full: bool,
    cursor: Option<Cursor>,
    rewind: bool,
    /// Shards that have changed since the round began.
    marked: ShardMask,
    round: Option<Round>,
    /// A position of this epoch was sent.
    begun: bool,
    walked: u64,
    /// Records of a full state that were sent.
    given: u64,
    /// A full state was sent whole, with so many records.
    given_all: Option<u64>,
    gave: Seldom,
    /// Writes of this node before the last round that is complete.
    writes: u64,
    sent: Stamp,
    acked: Stamp,
    /// The peer had no room for some of what this node wrote, as it last said.
    left_out: bool,
    telling: Telling,
    rest_until: u64,
    no_walker: bool,
    /// Shards whose locks didn't come free, and until when they are let alone. What is in them waits, and no position is told;
    /// the others go on.
    aside: ShardMask,
    aside_until: u64,
    /// One of these, and since when it is.
    busy: Option<(u32, u64)>,
    /// Bytes appended in the present call of fill.
    pub used: usize,
    /// What the last announcement said of joining.
    pub joined: bool,
    /// The peer's questions, if it compares.
    pub answer: Answer,
}

/// What a frame of a subscription says, but for the positions.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// Counts up.
    pub epoch: u64,
    /// What is wanted.
    pub mode: Mode,
    /// More frames of it follow.
    pub more: bool,
    /// The emptying that the peer has.
    pub cleared: Stamp,
}

/// A subscription of which more frames are to come.
#[derive(Debug)]
struct Gathered {
    epoch: u64,
    mode: Mode,
    cleared: Stamp,
    positions: Vec<(Identity, Stamp)>,
}

impl Outgoing {
    /// Before the zone is announced.
    pub fn new() -> Outgoing {
        Outgoing {
            state: State::Announced,
            epoch: 0,
            gathered: None,
            filter: Positions::default(),
            cleared: Stamp::ZERO,
            full: false,
            cursor: None,
            rewind: false,
            marked: 0,
            round: None,
            begun: false,
            walked: 0,
            given: 0,
            given_all: None,
            gave: Seldom::default(),
            writes: 0,
            sent: Stamp::ZERO,
            acked: Stamp::ZERO,
            left_out: false,
            telling: Telling::default(),
            rest_until: 0,
            no_walker: false,
            aside: 0,
            aside_until: 0,
            busy: None,
            used: 0,
            joined: false,
            answer: Answer::default(),
        }
    }

    /// Where the peer stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The peer doesn't take this zone.
    pub fn refuse(&mut self) {
        self.state = State::Refused;
        self.answer = Answer::default();
    }

    /// Shards have changed.
    pub const fn mark(&mut self, shards: ShardMask) {
        self.marked |= shards;
    }

    /// A frame of a subscription came; the last one of it starts everything over. `None`: it is out of order.
    pub fn subscribe(
        &mut self,
        zone: &Zone,
        number: u64,
        asked: &Subscription,
        positions: impl Iterator<Item = Entry>,
        large: &mut Option<Large>,
    ) -> Option<()> {
        let Subscription { epoch, mode, more, cleared } = *asked;
        let gathered = match self.gathered.take() {
            Some(gathered) if gathered.epoch == epoch && gathered.mode == mode => Some(gathered),
            Some(_) => None,
            None if epoch > self.epoch => Some(Gathered { epoch, mode, cleared, positions: Vec::new() }),
            None => None,
        };
        let mut gathered = gathered?;
        // Bounded twice what `Positions` keeps: what is forgotten only costs sending more.
        let room = 8192usize.saturating_sub(gathered.positions.len());
        gathered.positions.extend(positions.take(room).map(|entry| (entry.identity, entry.stamp)));
        if more {
            self.gathered = Some(gathered);
            return Some(());
        }
        if large.as_ref().is_some_and(|large| large.zone == number) {
            *large = None;
        }
        self.epoch = epoch;
        self.state = if mode == Mode::None { State::Waiting } else { State::Subscribed };
        self.full = mode == Mode::Full;
        self.filter = Positions::new(gathered.positions.into_iter());
        self.cleared = gathered.cleared;
        self.rewind = true;
        self.marked = zone.all_shards();
        self.round = None;
        self.begun = false;
        self.walked = 0;
        self.given = 0;
        self.rest_until = 0;
        self.aside = 0;
        // Who subscribes anew gives up what it compared.
        self.answer = Answer::default();
        Some(())
    }

    /// The peer has applied our own writes up to here, and lacks some of them for want of room or doesn't. `None`: of an epoch
    /// that it never asked for.
    pub fn ack(&mut self, epoch: u64, stamp: Stamp, lacking: bool) -> Option<()> {
        if epoch == self.epoch {
            self.acked = self.acked.max(stamp);
            self.left_out = lacking;
        }
        (epoch <= self.epoch).then_some(())
    }

    /// Nothing is waiting, and the peer has said so of all that was sent.
    pub fn flushed(&self, zone: &Zone) -> bool {
        match self.state {
            State::Refused => true,
            State::Announced | State::Waiting => false,
            State::Subscribed => self.caught_up(zone) && self.acked >= self.sent,
        }
    }

    /// Whether the peer had no room for some of what this node wrote, as it last said.
    pub const fn is_left_out(&self) -> bool {
        self.left_out
    }

    /// Up to where the peer has what this node wrote.
    pub const fn acked(&self) -> Stamp {
        self.acked
    }

    /// Records that wait, at most.
    pub fn pending(&self, zone: &Zone) -> u64 {
        let all = || {
            let (records, tombstones) = zone.held();
            records.saturating_add(tombstones)
        };
        match self.state {
            State::Refused => 0,
            State::Announced | State::Waiting => all(),
            State::Subscribed if self.caught_up(zone) => 0,
            State::Subscribed if !self.begun => all().saturating_sub(self.walked).max(1),
            State::Subscribed => writes(zone).saturating_sub(self.writes).clamp(1, all().max(1)),
        }
    }

    fn caught_up(&self, zone: &Zone) -> bool {
        self.begun && self.marked == 0 && self.round.is_none() && zone.cleared() <= self.cleared
    }

    /// When this zone wants to be stepped again although nothing changed, if it rests.
    pub fn wakes(&self, t: u64, may_answer: bool) -> Option<u64> {
        if self.state != State::Subscribed {
            return None;
        }
        let aside_until = if self.aside == 0 { 0 } else { self.aside_until };
        let rests = [self.rest_until, aside_until].into_iter().filter(|until| *until > t);
        rests.chain(self.answer.wakes().filter(|_| may_answer)).min()
    }

    /// No walker could be had; told once.
    pub const fn lacks_walker(&mut self) -> bool {
        std::mem::replace(&mut self.no_walker, false)
    }

    /// For how long some shard has been busy, milliseconds, if that is worth telling.
    pub fn busy_for(&self, t: u64) -> Option<u64> {
        self.busy.map(|(_, since)| t.saturating_sub(since)).filter(|millis| *millis >= TOLD_AFTER)
    }

    /// A full state was sent: how many records that were; told once, and not each time to a peer that asks all the time.
    pub fn gave_all(&mut self, t: u64) -> Option<u64> {
        let records = self.given_all.take().filter(|records| *records > 0)?;
        self.gave.happened(t).map(|_| records)
    }

    /// Adds what it holds.
    pub fn add_held(&self, held: &mut Held) {
        let gathered = self.gathered.as_ref().map_or(0, |gathered| gathered.positions.len());
        held.origins += gathered + self.filter.len() + self.telling.held();
        held.compared += self.answer.held();
        held.walkers += usize::from(self.cursor.is_some());
    }

    /// Gives the walker back.
    pub fn close(&mut self, zone: &Zone) {
        if let Some(cursor) = self.cursor.take_if(|_| Rule::Walkers.holds()) {
            zone.feed_close(cursor);
        }
    }

    /// Appends what this node has of other origins, as far as it is told now; see [`Telling::next`].
    pub fn have(
        &mut self,
        cx: &Context<'_>,
        peer: Identity,
        out: &mut Vec<u8>,
        mark: Option<u64>,
        gone: impl Fn(Identity) -> bool,
    ) {
        if matches!(self.state, State::Refused) {
            return;
        }
        let tell = self.telling.next(cx.zone, peer, mark, gone);
        if !tell.is_empty() {
            write::have(out, cx.bound, cx.number, &tell);
        }
    }

    /// Appends at most one frame of records, and what else is due before and after it; of answers if nothing else waits and
    /// it is this zone's turn to answer.
    pub fn step(&mut self, cx: &mut Context<'_>, may_answer: bool, out: &mut Vec<u8>) -> Step {
        match self.step_records(cx, out) {
            Step::Idle if may_answer && self.state == State::Subscribed => self.answer.step(cx, self.epoch, out),
            done => done,
        }
    }
}

/// The largest frame to send to a peer that accepts `peer` bytes.
pub fn frame_bound(limits: &Limits, peer: usize) -> usize {
    limits.frame_size.clamp(super::frame::SMALLEST_BOUND, peer.max(super::frame::SMALLEST_BOUND))
}
