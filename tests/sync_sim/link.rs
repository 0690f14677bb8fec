//! A connection between two nodes: two pipes of bytes that are cut, delayed, held up and lost; a session at each end.

use crate::lies::Lie;
use crate::node::SCARCE;
use crate::rng::Rng;
use std::collections::VecDeque;
use zonemesh::record::Millis;
use zonemesh::sync::{Pull, Push, SessionError};

/// Bytes that have arrived are kept up to here.
const KEPT: usize = 16 * 1024;

/// Bytes on their way in one direction; what is sent first arrives first.
#[derive(Default)]
pub struct Pipe {
    /// When each piece arrives, and how long it is.
    pieces: VecDeque<(Millis, usize)>,
    /// Those bytes, after some that have arrived.
    bytes: Vec<u8>,
    arrived: usize,
    /// The sender has closed its end; seen when all before it has arrived.
    closed_at: Option<Millis>,
    last: Millis,
}

impl Pipe {
    fn send(&mut self, rng: &mut Rng, now: Millis, delay: Millis, mut bytes: &[u8]) {
        if self.arrived == self.bytes.len() || self.arrived > KEPT {
            self.bytes.drain(..self.arrived);
            self.arrived = 0;
        }
        self.bytes.extend_from_slice(bytes);
        while !bytes.is_empty() {
            let most = match rng.below(4) {
                0 => 7,
                1 => 200,
                _ => 5000,
            };
            let (piece, rest) = bytes.split_at(bytes.len().min(rng.between(1, most) as usize));
            self.last = self.last.max(now + rng.between(1, delay));
            self.pieces.push_back((self.last, piece.len()));
            bytes = rest;
        }
    }

    fn close(&mut self, now: Millis, delay: Millis) {
        self.closed_at.get_or_insert(self.last.max(now) + delay);
    }

    fn receive(&mut self, now: Millis) -> Option<&[u8]> {
        self.pieces.front().filter(|(at, _)| *at <= now)?;
        let (_, length) = self.pieces.pop_front()?;
        let from = self.arrived;
        self.arrived += length;
        Some(&self.bytes[from..self.arrived])
    }

    fn in_flight(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// What is under way is lost, but for the first pieces.
    fn lose(&mut self, keep: usize) {
        self.pieces.truncate(keep);
        self.bytes.truncate(self.arrived + self.pieces.iter().map(|(_, length)| length).sum::<usize>());
    }

    fn ended(&self, now: Millis) -> bool {
        self.pieces.is_empty() && self.closed_at.is_some_and(|at| at <= now)
    }
}

/// From the dialer `from` to the node `to`.
pub struct Link {
    pub from: usize,
    pub to: usize,
    pub push: Option<Push>,
    pub pull: Option<Pull>,
    forth: Pipe,
    back: Pipe,
    /// Something has happened to the dialer's session since it had nothing to send.
    pub may_send: bool,
    /// When the two sessions want to be called, by their nodes' clocks.
    push_due: Millis,
    pull_due: Millis,
    /// Longest delay of a piece.
    pub delay: Millis,
    /// Nothing moves until then.
    pub held_until: Millis,
    /// What the dialer sends goes nowhere, and neither end is told; and what the dialled node sends.
    pub black_forth: bool,
    pub black_back: bool,
    /// Until then the dialled node takes little at a time.
    pub slow_until: Millis,
}

/// Kinds of frames, for the counts.
pub const FRAME_NAMES: [&str; 8] =
    ["records", "parts of records", "positions", "have", "subscriptions", "acknowledgements", "comparing", "others"];

/// What links did, for the counts.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    pub bytes: u64,
    pub pieces: u64,
    /// Bytes of frames of records that were sent to one node, of zones that have room.
    pub data: u64,
    pub data_to: Option<usize>,
    /// Frames and their bytes, by the index of their kind.
    pub frames: [(u64, u64); FRAME_NAMES.len()],
    /// Bytes that were made at once beyond what was asked for, at most.
    pub beyond: usize,
    /// Log lines, and whose.
    pub notes: Vec<(usize, String)>,
    /// Stands for every byte that was sent, and when: what changes nothing but the speed leaves it as it is.
    pub trace: u64,
}

impl Moved {
    pub fn add(&mut self, other: &Moved) {
        self.bytes += other.bytes;
        self.pieces += other.pieces;
        self.data += other.data;
        for (sum, (frames, bytes)) in self.frames.iter_mut().zip(other.frames) {
            *sum = (sum.0 + frames, sum.1 + bytes);
        }
        // In whatever order seeds end.
        self.trace = self.trace.wrapping_add(other.trace);
    }

    fn note(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn count(&mut self, to: Option<usize>, now: Millis, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        self.bytes += out.len() as u64;
        let (words, tail) = out.as_chunks::<8>();
        words.iter().for_each(|word| self.note(u64::from_le_bytes(*word)));
        self.note(tail.iter().fold(now, |word, byte| word << 8 | u64::from(*byte)));
        let mut rest = out;
        while let Some((prefix, body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*prefix) as usize;
            let kind = match body[0] {
                9 => 0,
                10 => 1,
                12 => 2,
                14 => 3,
                7 => 4,
                13 => 5,
                0x80.. => 6,
                _ => 7,
            };
            // What there is no room for is asked for again and again.
            if kind <= 1 && to == self.data_to && usize::from(body[1]) != SCARCE {
                self.data += 4 + length as u64;
            }
            self.frames[kind].0 += 1;
            self.frames[kind].1 += 4 + length as u64;
            rest = &body[length..];
        }
    }
}

impl Link {
    pub fn new(from: usize, to: usize, push: Push, pull: Pull, delay: Millis) -> Link {
        Link {
            from,
            to,
            may_send: true,
            push_due: push.deadline(),
            pull_due: pull.deadline(),
            push: Some(push),
            pull: Some(pull),
            forth: Pipe::default(),
            back: Pipe::default(),
            delay,
            held_until: 0,
            black_forth: false,
            black_back: false,
            slow_until: 0,
        }
    }

    pub fn dead(&self) -> bool {
        self.push.is_none() && self.pull.is_none()
    }

    /// The dialer's end notices that the connection is gone; the other end goes on with what is on its way.
    pub fn drop_push(&mut self, now: Millis, tidy: bool) {
        if let Some(mut push) = self.push.take()
            && tidy
        {
            push.close(&mut Vec::new(), "the connection is gone");
        }
        self.forth.close(now, self.delay);
    }

    /// The same of the other end.
    pub fn drop_pull(&mut self, now: Millis, tidy: bool) {
        if let Some(mut pull) = self.pull.take()
            && tidy
        {
            pull.close(&mut Vec::new(), "the connection is gone");
        }
        self.back.close(now, self.delay);
    }

    /// What is under way towards the dialled node is lost, from some byte on.
    pub fn lose_forth(&mut self, rng: &mut Rng) {
        let keep = rng.below(self.forth.pieces.len() as u64 + 1) as usize;
        self.forth.lose(keep);
    }

    /// Lets both ends do what is due. `clocks`: of the dialer and of the dialled node; `out` is used for what they send.
    pub fn step(
        &mut self,
        rng: &mut Rng,
        now: Millis,
        (here, there): (Millis, Millis),
        lie: Option<Lie>,
        moved: &mut Moved,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        if self.dead() {
            return Ok(());
        }
        let held = now < self.held_until;
        let mut failed = Ok(());
        if let Some(push) = self.push.as_mut() {
            out.clear();
            let result = call_push(push, self.push_due, &mut self.back, held, now, here).and_then(|called| {
                self.may_send |= called;
                let budget = (self.forth.in_flight() < 20_000).then(|| rng.between(100, 16_000) as usize);
                if !self.may_send {
                    return Ok(());
                }
                if let Some(budget) = budget {
                    push.fill(out, budget, here)?;
                    self.may_send = !out.is_empty();
                    moved.beyond = moved.beyond.max(out.len().saturating_sub(budget));
                }
                self.push_due = push.deadline();
                Ok(())
            });
            moved.notes.extend(push.notes().into_iter().map(|note| (self.from, note.text)));
            if let Some(lie) = lie {
                *out = lie.tell(rng, std::mem::take(out));
            }
            moved.count(Some(self.to), now, out);
            if !self.black_forth {
                self.forth.send(rng, now, self.delay, out);
            }
            let ended = self.back.ended(now) && !held;
            if result.is_err() || ended {
                let mut bye = Vec::new();
                push.close(&mut bye, "end");
                self.forth.send(rng, now, self.delay, &bye);
                self.drop_push(now, true);
                failed = result;
            }
        }
        if let Some(pull) = self.pull.as_mut() {
            out.clear();
            let (mut result, mut called) = (Ok(()), false);
            while result.is_ok()
                && !held
                && let Some(bytes) = self.forth.receive(now)
            {
                moved.pieces += 1;
                called = true;
                result = pull.handle(bytes, out, there);
                if now < self.slow_until {
                    self.held_until = now + 20;
                    break;
                }
            }
            if called {
                self.pull_due = pull.deadline();
            }
            if result.is_ok() && self.pull_due <= there {
                result = pull.tick(out, there);
                self.pull_due = pull.deadline();
            }
            moved.notes.extend(pull.notes().into_iter().map(|note| (self.to, note.text)));
            moved.count(None, now, out);
            if !self.black_back {
                self.back.send(rng, now, self.delay, out);
            }
            let ended = self.forth.ended(now) && !held;
            if result.is_err() || ended {
                self.drop_pull(now, true);
                failed = failed.and(result);
            }
        }
        failed
    }

    /// When something happens next, in true time.
    pub fn next(&self, now: Millis, (skew_here, skew_there): (i64, i64)) -> Millis {
        let mut next = Millis::MAX;
        if self.push.is_some() {
            next = next.min(self.push_due.saturating_add_signed(-skew_here));
        }
        if self.pull.is_some() {
            next = next.min(self.pull_due.saturating_add_signed(-skew_there));
        }
        for pipe in [&self.forth, &self.back] {
            let piece = pipe.pieces.front().map(|(at, _)| *at);
            let at = piece.or(pipe.closed_at).map_or(Millis::MAX, |at| at.max(self.held_until));
            next = next.min(at);
        }
        next.max(now + 1)
    }
}

/// What has come, and what is due by then, at the dialer's end; `true`: there was something.
fn call_push(
    push: &mut Push,
    mut due: Millis,
    back: &mut Pipe,
    held: bool,
    now: Millis,
    here: Millis,
) -> Result<bool, SessionError> {
    let mut called = false;
    while !held && let Some(bytes) = back.receive(now) {
        push.handle(bytes, here)?;
        called = true;
    }
    if called {
        due = push.deadline();
    }
    if due <= here {
        push.tick(here)?;
        called = true;
    }
    Ok(called)
}
