//! The REST API as functions: a request goes in, a response comes out. No nginx, no sockets.
//!
//! [`route`] finds what a path means and which methods it has; [`keyvals`] and [`status`] answer; [`body`] reads pairs,
//! [`json`] reads and writes JSON, [`args`] the query string; [`error`] makes every failure the JSON object that clients
//! decode. What is large is a [`Body::Stream`], made while it is sent; [`watch`] has one that goes on.
#![forbid(unsafe_code)]

mod args;
mod body;
mod condition;
mod copied;
mod error;
mod job;
mod json;
mod keyvals;
mod limit_reqs;
mod metrics;
mod own;
mod peers;
pub mod raw;
mod response;
mod route;
mod shape;
mod status;
mod status_zones;
mod time;
pub mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use job::{Answer, Job, Piece, Pieces, Step, after_body};
pub use response::{Body, Produce, Produced, Response};

use crate::record::Millis;
use crate::store::{Drift, Figures, HeardNode, LinkFigures, Slot, Stats, Zone};

/// A request, as the glue took it from nginx.
#[derive(Clone)]
pub struct Request<'a> {
    /// As sent: GET, POST, PATCH, ...
    pub method: &'a str,
    /// What follows the location's name in the path, still percent-encoded: `/9/http/keyvals/one`, `` or `/`.
    pub path: &'a str,
    /// The query string, without `?`.
    pub args: &'a str,
    /// The whole body, for [`raw`] alone; `None`: it couldn't be read.
    pub body: Option<&'a [u8]>,
    /// `api write=on`.
    pub write: bool,
    /// `$request_id`.
    pub request_id: &'a str,
    /// Now.
    pub now: Millis,
    /// A header by its name in lower case; several of one name are joined by commas.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// The body for all others, who read it piece by piece.
    pub pieces: &'a dyn Fn() -> Box<dyn Pieces>,
}

/// A zone and its name.
#[derive(Clone)]
pub struct NamedZone {
    /// As in `zone=name:size`.
    pub name: String,
    /// The zone.
    pub zone: Zone,
    /// keyval_zone has a timeout: pairs may have an `expire`.
    pub timeout: bool,
}

/// What the API shows; the glue implements it.
pub trait Host {
    /// keyval zones declared in http, sorted by name.
    fn http_zones(&self) -> &[NamedZone];
    /// The same in stream.
    fn stream_zones(&self) -> &[NamedZone];
    /// Zones of `limit_req_zone ... sync`, sorted by name.
    fn limit_zones(&self) -> &[NamedZone];
    /// Every zone, whatever it is for: those above and those of sessions, sorted by name. Each name is there once.
    fn all_zones(&self) -> Vec<&NamedZone>;
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
    /// `/workers/`, by number.
    fn workers(&self) -> Vec<Worker>;
    /// `/slabs`.
    fn slabs(&self) -> Vec<(String, Slab)>;
    /// `/stream/zone_sync`; `None`: no server with zone_sync.
    fn zone_sync(&self) -> Option<ZoneSync>;
    /// What a client that watches a zone gets; `None`: the zone can have no more walkers.
    fn watch(&self, zone: &NamedZone, order: watch::Order, now: Millis) -> Option<Box<dyn Produce>>;
    /// Names of what `status_zone` counts, sorted.
    fn status_zones(&self, kind: StatusKind) -> Vec<String>;
    /// What was counted under one of the names.
    fn status_zone(&self, kind: StatusKind, name: &str) -> Option<Figures>;
    /// DELETE on `/processes`, `/connections`, `/http/requests`, `/slabs/{zone}` and on status zones. `false`: no such zone.
    fn reset(&self, what: Reset<'_>) -> bool;
}

/// Which figures DELETE sets to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset<'a> {
    /// Respawned processes.
    Processes,
    /// Accepted and dropped connections.
    Connections,
    /// The total of requests.
    Requests,
    /// Requests and failures of the slots of this shared memory zone.
    Slab(&'a str),
    /// Requests of all workers.
    Workers,
    /// Requests of the worker of this number.
    Worker(u64),
    /// What `status_zone` has counted under this name.
    Status(StatusKind, &'a str),
}

/// What a `status_zone` stands in. Names of one kind are none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusKind {
    /// A server of http.
    HttpServer,
    /// A location.
    HttpLocation,
    /// A server of stream.
    StreamServer,
}

/// The running nginx.
#[derive(Clone, Debug, Default)]
pub struct Nginx {
    /// Such as 1.22.1.
    pub version: String,
    /// `--build`, possibly empty.
    pub build: String,
    /// The address that took the request.
    pub address: String,
    /// How many configurations were loaded before.
    pub generation: u64,
    /// When this one was.
    pub load_timestamp: Millis,
    /// The worker that answers.
    pub pid: u32,
    /// Its master.
    pub ppid: u32,
}

/// Client connections of all workers.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Since the start.
    pub accepted: u64,
    /// Since the start.
    pub dropped: u64,
    /// Now.
    pub active: u64,
    /// Now, waiting for a request.
    pub idle: u64,
}

/// One worker process.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// Its number, from 0.
    pub id: u64,
    /// Its process.
    pub pid: u32,
    /// Client connections that wait for a request, a tenth of a second ago at most.
    pub idle: u64,
    /// Requests since it began, or since the last reset.
    pub requests: u64,
}

/// HTTP requests of all workers.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Since the start.
    pub total: u64,
    /// Now.
    pub current: u64,
}

/// Fill of one shared memory zone.
#[derive(Clone, Debug, Default)]
pub struct Slab {
    /// Pages in use.
    pub pages_used: u64,
    /// Pages free.
    pub pages_free: u64,
    /// Size classes, smallest first.
    pub slots: Vec<Slot>,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct ZoneSync {
    /// Every synchronized zone of any kind.
    pub zones: Vec<(String, Stats)>,
    /// Received from peers.
    pub bytes_in: u64,
    /// Frames received.
    pub msgs_in: u64,
    /// Frames sent.
    pub msgs_out: u64,
    /// Sent to peers.
    pub bytes_out: u64,
    /// Peers this node is connected to.
    pub nodes_online: u64,
    /// New sessions that had to wait for their turn.
    pub sessions_waited: u64,
    /// Nodes that ever dialled this one, and what came of it. Nodes that are no more are among them.
    pub heard: Vec<HeardNode>,
    /// Those that this node dials.
    pub peers: Vec<LinkFigures>,
    /// Zones that aren't shared with one of them, as configurations differ.
    pub drifts: Vec<Drift>,
}

/// Answers a request.
pub fn handle(request: &Request<'_>, host: &dyn Host) -> Answer {
    let (version, path) = route::version(request.path);
    let mut changed = false;
    match route::answer(request, version, path, host, &mut changed) {
        Ok(Answer::Now(response)) => Answer::Now(Response { changed, ..response }),
        Ok(later) => later,
        Err(error) => Answer::Now(Response { changed, ..error.response(version, request.request_id) }),
    }
}

/// The answer in place of nginx's own to a request that it refused with this status, of 400 or more.
pub fn refused(status: u16, path: &str, request_id: &str) -> Response {
    error::Error::Refused(status).response(route::version(path).0, request_id)
}
