//! Rounds: a stamp is closed, each shard that may have something at or below it is walked, and then the stamp is promised.

use super::super::frame::{PREFIX, begin};
use super::super::message::{Entry, kind};
use super::super::records::{Filter, Frame, Stop, Wanted, send_chunk};
use super::super::telling::known;
use super::super::write;
use super::{Context, Outgoing, State, Step};
use crate::record::Stamp;
use crate::store::{FeedEnd, Rule, ShardMask, Zone};

/// Calls of the feed in one step, so that a walk over records that the peer has already doesn't hold up other zones.
const CALLS_A_STEP: u32 = 256;
/// How long a zone rests that has no walker to spare, and a shard whose lock doesn't come free, milliseconds.
const REST: u64 = 100;

/// A walk after which a position is sent.
#[derive(Debug)]
pub(super) struct Round {
    /// The stamp that was closed at its beginning.
    until: Stamp,
    todo: ShardMask,
    /// Positions of other origins, read before the walk: they may be promised when it is complete.
    others: Option<Vec<Entry>>,
    /// There is something to promise.
    worth: bool,
    /// Writes of this node before it.
    writes: u64,
    /// See [`Filter`].
    ordered: bool,
}

impl Outgoing {
    pub(super) fn step_records(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Step {
        if self.state != State::Subscribed || cx.t < self.rest_until {
            return Step::Idle;
        }
        if let Some(large) = cx.large.take_if(|large| large.zone == cx.number) {
            *cx.large = send_chunk(large, self.epoch, cx.bound, out);
            return Step::Sent;
        }
        if !self.place(cx) {
            return Step::Idle;
        }
        if cx.t >= self.aside_until {
            self.aside = 0;
        }
        let before = out.len();
        if self.round.is_none() {
            if self.marked == 0 {
                self.tell_cleared(cx, out);
                return if out.len() > before { Step::Sent } else { Step::Idle };
            }
            let round = self.begin_round(cx);
            if round.others.is_some() {
                let (records, tombstones) = cx.zone.held();
                write::total(out, cx.number, self.epoch, records.saturating_add(tombstones));
            }
            self.round = Some(round);
        } else if self.waits() {
            if self.marked & !self.aside == 0 {
                return Step::Idle;
            }
            self.prolong(cx);
        }
        let done = self.walk(cx, out);
        if done && let Some(round) = self.round.take() {
            self.end_round(cx, round, out);
        }
        match out.len() > before {
            true => Step::Sent,
            false if self.round.is_none() && self.marked == 0 => Step::Idle,
            false if self.waits() && self.marked & !self.aside == 0 => Step::Idle,
            false if cx.large.as_ref().is_some_and(|large| large.zone != cx.number) => Step::Idle,
            false => Step::Working,
        }
    }

    /// Whether what is left of the round are shards that are let alone for now.
    fn waits(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.todo != 0 && round.todo & !self.aside == 0)
    }

    /// The round waits, and something has changed elsewhere: it closes a later stamp, so that this goes on. What it promises in
    /// the end is that, and not before all that it still has to walk.
    fn prolong(&mut self, cx: &Context<'_>) {
        let (writes, ordered) = (writes(cx.zone), !cx.zone.is_moving());
        let (until, held) = cx.zone.close(cx.now);
        let changed = held | std::mem::take(&mut self.marked);
        if let Some(round) = &mut self.round {
            (round.until, round.writes, round.ordered) = (until, writes, ordered);
            round.todo |= changed;
        }
    }

    /// Has a walker stand where it should; `false`: not now.
    fn place(&mut self, cx: &Context<'_>) -> bool {
        let placed = match self.cursor.as_mut() {
            None => {
                self.cursor = cx.zone.feed_open(cx.owner);
                self.no_walker = self.cursor.is_none();
                self.cursor.is_some()
            }
            Some(cursor) => {
                if self.rewind {
                    cx.zone.feed_rewind(cursor);
                }
                true
            }
        };
        self.rewind &= !placed;
        if !placed {
            self.rest_until = cx.t + REST;
        }
        placed
    }

    fn begin_round(&mut self, cx: &Context<'_>) -> Round {
        // Read first, and closed second: what the positions cover was applied before the walk, and lies in its way. Once nothing
        // moves any more, what was merged is below each stamp that is closed.
        let (writes, ordered) = (writes(cx.zone), !cx.zone.is_moving());
        let others = (self.full && !self.begun).then(|| known(cx.zone, 0));
        let (until, held) = cx.zone.close(cx.now);
        let todo = held | std::mem::take(&mut self.marked);
        let todo = if others.is_some() { cx.zone.all_shards() } else { todo };
        Round { until, todo, others, worth: !self.begun, writes, ordered }
    }

    fn end_round(&mut self, cx: &Context<'_>, round: Round, out: &mut Vec<u8>) {
        self.writes = round.writes;
        // Asked for after the walk: an emptying at or below the closed stamp held shards that were walked.
        let worth = self.tell_cleared(cx, out) | round.worth;
        if !worth {
            return;
        }
        let complete = round.others.is_some();
        let anew = !cx.zone.is_whole(cx.own);
        let mut positions = vec![Entry { identity: cx.own, stamp: round.until, gone: false, anew }];
        positions.extend(round.others.into_iter().flatten().filter(|entry| entry.stamp > Stamp::ZERO));
        // Asked for after the walk: what was given up before the walk came to it is among this. Of what this node wrote itself
        // nobody else was to send it anything.
        let evicted = if complete { cx.zone.may_lack() } else { cx.zone.evicted_here() };
        let evicted = if Rule::GivenUp.holds() { evicted } else { Stamp::ZERO };
        write::position(out, cx.bound, cx.number, self.epoch, complete, &positions, evicted);
        if complete {
            self.given_all = Some(self.given);
        }
        self.begun = true;
        self.sent = round.until;
    }

    fn tell_cleared(&mut self, cx: &Context<'_>, out: &mut Vec<u8>) -> bool {
        let cleared = cx.zone.cleared();
        let newer = cleared > self.cleared;
        if newer {
            write::clear(out, cx.number, cleared);
            self.cleared = cleared;
        }
        newer
    }

    /// Walks on and appends a frame of what it meets, if anything. `true`: the round's walk is complete.
    fn walk(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        let (Some(cursor), Some(round)) = (self.cursor.as_mut(), self.round.as_mut()) else { return false };
        let mut filter = Filter {
            positions: &mut self.filter,
            own: cx.own,
            others: self.full,
            until: round.until,
            ordered: round.ordered,
        };
        // Past the first round of a full state only our own writes go on.
        filter.others &= !self.begun;
        let filter_others = filter.others;
        let start = begin(out, kind::RECORDS);
        write::put_records_head(out, cx.number, self.epoch);
        let body = out.len();
        let mut frame = Frame { limit: start + PREFIX + cx.bound, body, stop: Stop::No };
        for _ in 0..CALLS_A_STEP {
            let todo = round.todo & !self.aside;
            if todo == 0 {
                break;
            }
            let shard = todo.trailing_zeros();
            let fed = cx.zone.feed(cursor, shard, &mut |record| {
                if frame.stop != Stop::No {
                    return false;
                }
                let pass = match filter.wants(record) {
                    Wanted::No => true,
                    Wanted::Later => {
                        frame.stop = Stop::Later;
                        false
                    }
                    Wanted::Yes => {
                        let put = frame.put(record, cx.own, cx.number, cx.numbers, cx.large, out);
                        round.worth |= put && record.version.origin == cx.own;
                        self.given += u64::from(put && filter_others);
                        put
                    }
                };
                self.walked += u64::from(pass);
                pass
            });
            if fed.is_ok() {
                self.busy.take_if(|(busy, _)| *busy == shard);
            }
            match fed {
                Ok(FeedEnd::Drained) if frame.stop == Stop::No => round.todo &= !(1 << shard),
                Ok(FeedEnd::Reset) => {
                    round.todo = cx.zone.all_shards();
                    (self.walked, self.given) = (0, 0);
                }
                Ok(_) => {}
                Err(_) => {
                    self.aside |= 1 << shard;
                    self.aside_until = cx.t.saturating_add(REST);
                    self.busy.get_or_insert((shard, cx.t));
                }
            }
            match frame.stop {
                // The rest of this shard is for the next round.
                Stop::Later => {
                    round.todo &= !(1 << shard);
                    self.marked |= 1 << shard;
                    frame.stop = Stop::No;
                }
                Stop::No => {}
                _ => break,
            }
        }
        frame.close(start, self.epoch, cx.bound, cx.numbers, cx.large, out);
        // A record in chunks has to be there before what follows it is promised.
        round.todo == 0 && frame.stop == Stop::No
    }
}

/// Writes of this node, ever.
pub(super) fn writes(zone: &Zone) -> u64 {
    (0..zone.all_shards().count_ones()).map(|shard| zone.writes(shard)).sum()
}
