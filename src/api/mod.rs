//! The REST API as functions: a request goes in, a response comes out. No nginx, no sockets.
#![forbid(unsafe_code)]

use crate::record::Millis;
use crate::store::{Stats, Slot, Zone};

/// A request, as the glue took it from nginx.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// As sent: GET, POST, PATCH, ...
    pub method: &'a str,
    /// What follows the location's name in the path, still percent-encoded: `/9/http/keyvals/one`, `` or `/`.
    pub path: &'a str,
    /// The query string, without `?`.
    pub args: &'a str,
    /// The whole body; `None`: it couldn't be read.
    pub body: Option<&'a [u8]>,
    /// `api write=on`.
    pub write: bool,
    /// `$request_id`.
    pub request_id: &'a str,
    /// Now.
    pub now: Millis,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// JSON (possibly none).
    pub body: Vec<u8>,
    /// Value of `Allow`, if one is to be sent.
    pub allow: Option<&'static str>,
    /// Value of `Location`, if any
    pub location: Option<String>,
    /// A synchronized zone was changed: the agent is to be woken.
    pub changed: bool,
}

/// A zone and its name.
#[derive(Clone)]
pub struct NamedZone { /// x
 pub name: String,
 /// x
 pub zone: Zone,
 /// keyval_zone has a timeout: pairs may have an `expire`.
 pub timeout: bool }

/// What the API shows; the glue implements it.
pub trait Host {
    /// keyval zones declared in http, sorted by name.
    fn http_zones(&self) -> &[NamedZone];
    /// The same in stream.
    fn stream_zones(&self) -> &[NamedZone];
    /// Whether the configuration has a `stream` block.
    fn has_stream(&self) -> bool;
    /// `/nginx`.
    fn nginx(&self) -> Nginx;
    /// `/processes`; `None`: not known.
    fn respawned(&self) -> Option<u64>;
    /// `/connections`.
    fn connections(&self) -> Connections;
    /// `/http/requests`.
    fn requests(&self) -> Requests;
    /// `/slabs`.
    fn slabs(&self) -> Vec<(String, Slab)>;
    /// `/stream/zone_sync`; `None`: no server with zone_sync.
    fn zone_sync(&self) -> Option<ZoneSync>;
    /// DELETE on `/processes`, `/connections`, `/http/requests`, `/slabs/{zone}`. `false`: no such slab zone.
    fn reset(&self, what: Reset<'_>) -> bool;
}
/// x
pub enum Reset<'a> { /// x
 Processes, /// x
 Connections, /// x
 Requests, /// x
 Slab(&'a str) }
/// x
#[derive(Clone, Debug, Default)]
pub struct Nginx { /// x
 pub version: String, /// x
 pub build: String, /// x
 pub address: String, /// x
 pub generation: u64, /// x
 pub load_timestamp: Millis, /// x
 pub pid: u32, /// x
 pub ppid: u32 }
/// x
#[derive(Clone, Debug, Default)]
pub struct Connections { /// x
 pub accepted: u64, /// x
 pub dropped: u64, /// x
 pub active: u64, /// x
 pub idle: u64 }
/// x
#[derive(Clone, Debug, Default)]
pub struct Requests { /// x
 pub total: u64, /// x
 pub current: u64 }
/// x
#[derive(Clone, Debug, Default)]
pub struct Slab { /// x
 pub pages_used: u64, /// x
 pub pages_free: u64, /// x
 pub slots: Vec<Slot> }
/// x
#[derive(Clone, Debug, Default)]
pub struct ZoneSync { /// Every synchronized zone of any kind.
 pub zones: Vec<(String, Stats)>, /// x
 pub bytes_in: u64, /// x
 pub msgs_in: u64, /// x
 pub msgs_out: u64, /// x
 pub bytes_out: u64, /// x
 pub nodes_online: u64 }

/// Answers a request.
pub fn handle(_request: &Request<'_>, _host: &dyn Host) -> Response { todo!() }
