//! The helper thread: it moves bytes between sockets and the sync state machine, and keeps the zones up.

pub mod tls;

use crate::record::Millis;
use crate::store::{Control, control::Lease, Zone};
use crate::sync::{Node, NoteLevel};
use std::time::Duration;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target { /// host (name or address, IPv6 without brackets) and port; resolved by the glue at start to these addresses.
 Tcp { /// x
 host: String, /// x
 address: std::net::SocketAddr },
 /// x
 Unix(std::path::PathBuf) }

/// One node to dial.
#[derive(Clone, Debug)]
pub struct Peer { /// As the configuration has it, for the log.
 pub text: String,
 /// x
 pub target: Target }

/// The cluster part.
pub struct Cluster { /// x
 pub node: Node,
 /// x
 pub peers: Vec<Peer>,
 /// zone_sync_connect_timeout
 pub connect_timeout: Millis,
 /// zone_sync_connect_retry_interval
 pub retry_interval: Millis,
 /// zone_sync_interval, if set: batching delay.
 pub interval: Option<Millis>,
 /// zone_sync_ssl
 pub tls: Option<tls::Tls> }

/// All that the thread needs; owned, nothing of nginx.
pub struct Config { /// x
 pub control: Control,
 /// x
 pub lease: Lease,
 /// Zones to keep up (expiry, tombstones): all of the node.
 pub zones: Vec<Zone>,
 /// x
 pub cluster: Option<Cluster> }

/// A line for nginx's error log.
#[derive(Clone, Debug)]
pub struct LogLine { /// x
 pub level: NoteLevel, /// x
 pub text: String }

/// The running thread.
pub struct Agent {}

impl Agent {
    /// Starts the thread, with all signals blocked in it. Log lines go to the returned channel; after each send the
    /// eventfd `log_ready` is written, so that the worker's event loop can take them.
    pub fn start(_config: Config, _log_ready: std::os::fd::RawFd) -> std::io::Result<(Agent, crossbeam_channel::Receiver<LogLine>)> { todo!() }
    /// Asks it to send what was accepted and wait for acknowledgements, at most `limit`, then to end and release the lease.
    pub fn finish(&self, _limit: Duration) { todo!() }
    /// Asks it to end at once and release the lease.
    pub fn stop(&self) { todo!() }
    /// Whether the thread has ended.
    pub fn ended(&self) -> bool { todo!() }
    /// Waits for the end, at most `limit`; `false`: it has not ended.
    pub fn join(&mut self, _limit: Duration) -> bool { todo!() }
}
