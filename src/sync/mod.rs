//! The replication protocol, sans-IO: bytes, feed positions and the time go in, frames and operations come out.
#![forbid(unsafe_code)]

mod push;
mod pull;
pub use push::*;
pub use pull::*;

use crate::record::Millis;
use crate::store::{Control, Zone};
use std::sync::Arc;

/// A synchronized zone by its name.
#[derive(Clone)]
pub struct SyncZone { /// x
 pub name: String,
 /// x
 pub zone: Zone }

/// What sessions of a node share.
#[derive(Clone)]
pub struct Node { /// x
 pub control: Control,
 /// Sorted by name.
 pub zones: Arc<[SyncZone]>,
 /// x
 pub limits: Limits }

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

/// Why a session ends. The text is ready for the log (without the peer's address).
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer is this node.
    #[error("the peer is this node itself")]
    Itself,
    /// x
    #[error("protocol error: {0}")]
    Protocol(String),
    /// x
    #[error("no sign of life for {0} ms")]
    Silent(Millis),
    /// The peer said goodbye and why.
    #[error("the peer ended the session: {0}")]
    Bye(String),
}

/// Something worth a log line.
#[derive(Debug, Clone)]
pub struct Note { /// x
 pub level: NoteLevel,
 /// x
 pub text: String }
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteLevel { /// x
 Info, /// x
 Notice, /// x
 Warn, /// x
 Error }
