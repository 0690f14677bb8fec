//! The replication protocol, sans-IO: bytes, feed positions and the time go in, frames and operations come out.
//!
//! The node that dials pushes ([`Push`]), the node that was dialled pulls ([`Pull`]): data flows one way on a
//! connection, and two nodes have two. `docs/protocol.md` tells what they say to each other and which promises hold.
//!
//! `frame` and `message` are the wire; `outgoing` and `incoming` are one zone of a session; `push` and `pull` are the
//! session around them. `compare` finds what two nodes hold unlike, with the help of `answer` on the other side; `digest` is
//! what they compare. `clock` is what a node makes of its own clock beside those of others. `admission` says how many sessions
//! are begun, where anybody may.
#![forbid(unsafe_code)]

pub mod admission;
mod answer;
pub mod clock;
mod compare;
mod digest;
mod frame;
mod incoming;
mod message;
mod outgoing;
mod positions;
mod pull;
mod push;
mod records;
mod session;
mod telling;
#[cfg(test)]
mod tests;
mod write;

pub use message::Pong;
pub use pull::Pull;
pub use push::Push;

use crate::record::Millis;
use crate::store::{Control, Zone};
use std::sync::Arc;

/// A synchronized zone by its name.
#[derive(Clone)]
pub struct SyncZone {
    /// As the configuration has it; peers find their zone by it.
    pub name: String,
    /// Its handle.
    pub zone: Zone,
}

/// What sessions of a node share.
#[derive(Clone)]
pub struct Node {
    /// The node's control region: identity, who was heard of, counters.
    pub control: Control,
    /// Sorted by name.
    pub zones: Arc<[SyncZone]>,
    /// Times and sizes.
    pub limits: Limits,
}

impl Node {
    /// Whether the agent sleeps while there is something to send. Merging makes that, too: a bucket that has become so full that
    /// others must know, and the end of a counter's part.
    pub fn must_tell(&self) -> bool {
        self.control.is_asleep() && self.zones.iter().any(|sync| sync.zone.is_dirty())
    }
}

/// Times and sizes (from the zone_sync_* directives).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// zone_sync_timeout.
    pub timeout: Millis,
    /// Largest frame that is sent (size of zone_sync_buffers).
    pub frame_size: usize,
    /// Bytes of frames made ahead for one zone (number x size).
    pub window: usize,
    /// zone_sync_recv_buffer_size: bytes of received, unparsed input that are held.
    pub recv_buffer: usize,
    /// zone_sync_max_drift.
    pub max_drift: Millis,
}

/// What a session holds in memory, for who looks whether that is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of input that isn't a whole frame, and of records that travel in parts.
    pub bytes: usize,
    /// Entries about origins: positions, numbers, what the peer has.
    pub origins: usize,
    /// Entries about records and parts of zones, while the two nodes compare.
    pub compared: usize,
    /// Places in change feeds.
    pub walkers: usize,
}

/// Why a session ends. The text is ready for the log (without the peer's address).
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer is this node.
    #[error("the peer is this node itself")]
    Itself,
    /// The peer broke the protocol, speaks none of its versions that this node speaks, or is no zonemesh node.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// Nothing came for this long.
    #[error("no sign of life for {0} ms")]
    Silent(Millis),
    /// This node becomes another one.
    #[error("this node goes on under another identity, as its clock was ahead and was mended")]
    Renewed,
    /// The peer said goodbye and why.
    #[error("the peer ended the session: {0}")]
    Bye(String),
}

/// Something worth a log line.
#[derive(Debug, Clone)]
pub struct Note {
    /// How urgent.
    pub level: NoteLevel,
    /// Without the peer's address, which the caller knows.
    pub text: String,
}

/// How urgent a log line is; the names are nginx's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "nginx's own levels")]
pub enum NoteLevel {
    Info,
    Notice,
    Warn,
    Error,
}
