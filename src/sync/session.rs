//! What both ends of a session share: its time, its log lines, its hello and its goodbye.

use super::frame::{HELLO_BOUND, LARGEST_BOUND, Malformed, SMALLEST_BOUND};
use super::message::{self, BYE_END, BYE_ITSELF, BYE_PROTOCOL, BYE_VERSION, HIGHEST, Hello, LOWEST};
use super::{Limits, Node, Note, NoteLevel, SessionError};
use crate::record::{Identity, Millis};

/// Log lines that are kept until somebody takes them.
const MAX_NOTES: usize = 64;

/// How much later than asked for a session may be called, at most, as a part of the timeout. What comes later came from a clock
/// that was set forward, or from a process that stood still, and neither is a peer's silence.
const LATE_PART: u64 = 4;

/// A session's own time: milliseconds since it began, which never go back when the node's clock does, and don't leap with it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    wall: Millis,
    /// The session's time as of the last call.
    pub t: u64,
    /// Its time when the clock last leapt, or the process had stood still.
    leapt: Option<u64>,
}

impl Pace {
    /// Begins now.
    pub const fn new(now: Millis) -> Pace {
        Pace { wall: now, t: 0, leapt: None }
    }

    /// The clock says `now`, and the session wanted to be called at `due` of its time; returns that time.
    pub fn advance(&mut self, now: Millis, due: u64, limits: &Limits) -> u64 {
        let latest = due.saturating_add(limits.timeout / LATE_PART);
        let (passed, before) = (now.saturating_sub(self.wall), self.t);
        self.t = before.saturating_add(passed).min(latest.max(before));
        let left_out = passed.saturating_sub(self.t.saturating_sub(before));
        if left_out.max(self.wall.saturating_sub(now)) > limits.timeout {
            self.leapt = Some(self.t);
        }
        self.wall = now;
        self.t
    }

    /// Whether the clock has just leapt, so that everybody seems to have been silent for that long.
    pub fn has_leapt(&self, limits: &Limits) -> bool {
        self.leapt.is_some_and(|at| self.t.saturating_sub(at) <= patience(limits))
    }

    /// Whether the clock says something else than at the last call: if not, no time has passed, whatever was due.
    pub const fn has_moved(&self, now: Millis) -> bool {
        now != self.wall
    }

    /// Whether it is `due`, or the clock was set back, so that nobody knows when that is.
    pub const fn is_due(&self, now: Millis, due: u64) -> bool {
        now < self.wall || now >= self.wall_at(due)
    }

    /// What the clock will say at `t`.
    pub const fn wall_at(&self, t: u64) -> Millis {
        self.wall.saturating_add(t.saturating_sub(self.t))
    }
}

/// Log lines, bounded: a peer can't make this node remember more.
#[derive(Debug, Default)]
pub struct Notes {
    kept: Vec<Note>,
    left_out: u64,
}

impl Notes {
    /// Adds one.
    pub fn add(&mut self, level: NoteLevel, text: String) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push(Note { level, text });
        } else {
            self.left_out += 1;
        }
    }

    /// Hands them over.
    pub fn take(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.kept);
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            notes.push(Note {
                level: NoteLevel::Warn,
                text: format!("{left_out} more messages of this session were left out"),
            });
        }
        notes
    }
}

/// Something that may happen often and is worth a line now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    next: u64,
    since: u64,
}

impl Seldom {
    /// It happened: how often since the last line, if it is time for another.
    pub const fn happened(&mut self, t: u64) -> Option<u64> {
        self.since += 1;
        if t < self.next {
            return None;
        }
        let count = self.since;
        self.since = 0;
        self.next = t + 10_000;
        Some(count)
    }
}

/// How long the longest frame is that this node accepts from a peer.
pub fn accepted_bound(limits: &Limits) -> usize {
    limits.recv_buffer.clamp(SMALLEST_BOUND, LARGEST_BOUND)
}

/// The hello of this node.
pub fn own_hello(node: &Node, now: Millis) -> Hello {
    Hello {
        lowest: LOWEST,
        highest: HIGHEST,
        identity: node.control.identity(),
        now,
        bound: accepted_bound(&node.limits) as u32,
    }
}

/// Zones that are compared with one peer at the same time: a round of a large one keeps some megabytes.
pub const COMPARED_AT_ONCE: usize = 2;

/// Why a session ended, with the code that a goodbye carries.
#[derive(Debug)]
pub struct Ending {
    /// Of the goodbye.
    pub code: u8,
    /// For the caller.
    pub error: SessionError,
}

impl Ending {
    /// The peer broke the protocol.
    pub fn protocol(text: impl Into<String>) -> Ending {
        Ending { code: BYE_PROTOCOL, error: SessionError::Protocol(text.into()) }
    }

    /// The peer was silent.
    pub const fn silent(millis: Millis) -> Ending {
        Ending { code: BYE_END, error: SessionError::Silent(millis) }
    }

    /// The peer said goodbye.
    pub fn bye(code: u8, text: &[u8]) -> Ending {
        match code {
            BYE_ITSELF => Ending { code, error: SessionError::Itself },
            _ => Ending { code, error: SessionError::Bye(message::printable(text)) },
        }
    }
}

impl From<Malformed> for Ending {
    fn from(malformed: Malformed) -> Ending {
        Ending::protocol(malformed.to_string())
    }
}

/// Whether this node is still what it was when the session began, and isn't about to become another one.
pub fn check_incarnation(node: &Node, then: u64) -> Result<(), SessionError> {
    if node.control.incarnation() == then && !node.control.is_renewing() { Ok(()) } else { Err(SessionError::Renewed) }
}

/// The version that both speak.
pub fn version(peer: &Hello) -> u16 {
    peer.highest.min(HIGHEST)
}

/// Checks a peer's hello against this node. The returned bound is that of frames sent to it.
pub fn check_hello(hello: &Hello, own: Identity) -> Result<usize, Ending> {
    if hello.identity == own {
        return Err(Ending { code: BYE_ITSELF, error: SessionError::Itself });
    }
    if hello.lowest > hello.highest || hello.highest < LOWEST || hello.lowest > HIGHEST {
        let text = format!(
            "the peer speaks versions {} to {} of the protocol and this node {LOWEST} to {HIGHEST}: \
             upgrade the older of the two",
            hello.lowest, hello.highest
        );
        return Err(Ending { code: BYE_VERSION, error: SessionError::Protocol(text) });
    }
    if (hello.bound as usize) < SMALLEST_BOUND {
        return Err(Ending::protocol(format!("the peer accepts no frames above {} bytes", hello.bound)));
    }
    Ok((hello.bound as usize).min(LARGEST_BOUND))
}

/// Says when the clocks of two nodes are apart so far that records may be refused.
pub fn compare_clocks(notes: &mut Notes, peer: Millis, now: Millis, limits: &Limits) {
    if peer.abs_diff(now) > limits.max_drift / 2 {
        let side = if peer > now { "ahead" } else { "behind" };
        notes.add(
            NoteLevel::Warn,
            format!(
                "the peer's clock is {} ms {side}; records more than {} ms ahead of a node's clock are refused \
                 (zone_sync_max_drift): check the time service of both",
                peer.abs_diff(now),
                limits.max_drift
            ),
        );
    }
}

/// The bound of frames before the peer's hello.
pub const fn first_bound() -> usize {
    HELLO_BOUND
}

/// For so long a node may be silent before others speak for it.
pub const fn patience(limits: &Limits) -> Millis {
    limits.timeout.saturating_mul(2)
}

/// Who was heard of lately: others may speak for who was not.
pub struct Heard<'a> {
    node: &'a Node,
    now: Millis,
    patience: Millis,
}

impl Heard<'_> {
    /// As of now.
    pub fn new(node: &Node, now: Millis) -> Heard<'_> {
        Heard { node, now, patience: patience(&node.limits) }
    }

    /// A number that stands for all that [`Heard::gone`] says, and costs less: another one when that is another.
    pub fn mark(node: &Node, now: Millis) -> u64 {
        let patience = patience(&node.limits);
        node.control.heard_mark(now.saturating_sub(patience)..=now.saturating_add(patience))
    }

    /// Whether nothing was heard of an origin for so long that others may speak for it.
    pub fn gone(&self, origin: Identity) -> bool {
        let heard = self.node.control.heard_at(origin).unwrap_or(0);
        // Heard of in the future: by a clock that was ahead, and not since it was mended.
        self.now.abs_diff(heard) > self.patience
    }
}
