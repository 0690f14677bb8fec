//! The helper thread: it moves bytes between sockets and the sync state machine, and keeps the zones up.
//!
//! One worker of the node runs it, the one that holds the lease. Inside is one tokio runtime on that one thread:
//!
//! ```text
//! change in a zone ─ eventfd ─> changes ── marks ──> session of peer 1 ── socket ──> peer 1
//!                                  └────── marks ──> session of peer 2 ── socket ──> peer 2
//! ```
//!
//! `thread` starts it and catches its panics, `node` is its main loop, `changes` tells the sessions what has changed, `dial`
//! keeps one connection to each peer, `session` moves the bytes of one, `upkeep` takes away what is over, `moving` merges what
//! workers of the last configuration still write to the memory of a zone that has another size now, `renew` stamps anew what
//! a clock that was ahead has written, `state_file` writes what zones hold to files. Nothing here knows of nginx.

mod apart;
mod changes;
mod dial;
mod finish;
mod hub;
mod link;
mod log;
mod moving;
mod node;
mod renew;
mod rest;
mod retry;
mod session;
pub mod state_file;
mod sys;
mod thread;
pub mod tls;
mod upgrade;
mod upkeep;
mod waiting;
mod wake;

pub use log::LogLine;
pub use thread::Agent;
pub use upgrade::PidFiles;

use crate::record::Millis;
use crate::store::{Control, Handover, Zone, control::Lease};
use crate::sync::Node;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Over TCP.
    Tcp {
        /// Name or address as the configuration has it, without port; IPv6 without brackets.
        host: String,
        /// What it was resolved to when the configuration was read.
        address: SocketAddr,
    },
    /// Over a socket in the file system.
    Unix(PathBuf),
}

impl Target {
    /// Whether both are the same place, whatever name led there.
    fn is_same_place(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Tcp { address, .. }, Target::Tcp { address: other, .. }) => address == other,
            _ => self == other,
        }
    }
}

/// One node to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As the configuration has it, for the log.
    pub text: String,
    /// Where it is.
    pub target: Target,
}

impl Peer {
    /// What is dialled.
    fn address(&self) -> String {
        match &self.target {
            Target::Tcp { address, .. } => address.to_string(),
            Target::Unix(_) => self.text.clone(),
        }
    }
}

/// What is needed to share zones with other nodes.
pub struct Cluster {
    /// The zones to share, and the limits of sessions.
    pub node: Node,
    /// Every `zone_sync_server` without `resolve`, each address one; this node itself may be among them. Those of names that
    /// are resolved while the node runs come with [`Agent::meet`].
    pub peers: Vec<Peer>,
    /// `zone_sync_connect_timeout`: for connecting and the TLS handshake together.
    pub connect_timeout: Millis,
    /// `zone_sync_connect_retry_interval`.
    pub retry_interval: Millis,
    /// `zone_sync_interval` if it was set: changes leave at most once in this time. Unset: at once.
    pub interval: Option<Millis>,
    /// `zone_sync_ssl on`.
    pub tls: Option<tls::Tls>,
}

/// All that the thread needs; owned, nothing of nginx.
pub struct Config {
    /// The node's control region.
    pub control: Control,
    /// Held by this process. The thread releases it when it ends.
    pub lease: Lease,
    /// Zones to keep up (expiry, tombstones): all of the node.
    pub zones: Vec<Zone>,
    /// Zones whose records old workers still write to other memory.
    pub handovers: Vec<Handover>,
    /// Zones whose state is kept in a file.
    pub states: Vec<state_file::StateFile>,
    /// Where upgrades of nginx's binary show; `None`: there is no master.
    pub pid_files: Option<PidFiles>,
    /// Present if the node has a `zone_sync` server.
    pub cluster: Option<Cluster>,
}

/// The time, as records have it.
fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
}

#[cfg(test)]
mod tests;
