//! The API as its callers see it, with a host made up for the purpose and zones in real shared memory.

mod counters;
mod keyvals;
mod limit_reqs;
mod metrics;
mod own;
mod peers;
mod raw;
mod routes;
mod shapes;

use super::*;
use crate::record::Identity;
use crate::store::{Certificate, LinkState, Params, Pulse, Region, Side, Traffic, region::Mapping};
use serde_json::Value;
use std::cell::RefCell;

/// The time of every request that doesn't say otherwise.
const NOW: Millis = 1_700_000_000_123;

/// A host with figures that are easy to tell apart.
struct Fake {
    http: Vec<NamedZone>,
    stream: Option<Vec<NamedZone>>,
    limits: Vec<NamedZone>,
    sync: Option<ZoneSync>,
    respawned: Option<u64>,
    resets: RefCell<Vec<String>>,
    hub: watch::Hub,
    /// Keeps the memory of the zones.
    mappings: Vec<Mapping>,
}

impl Fake {
    /// Neither zones nor a stream block.
    fn bare() -> Fake {
        Fake {
            http: Vec::new(),
            stream: None,
            limits: Vec::new(),
            sync: None,
            respawned: Some(3),
            resets: RefCell::new(Vec::new()),
            hub: watch::Hub::new(|| ()),
            mappings: Vec::new(),
        }
    }

    /// With a stream block and a cluster.
    fn cluster() -> Fake {
        let zones = vec![
            ("a/b".to_owned(), Stats { records: 7, pending: 2, ..Stats::default() }),
            ("one".to_owned(), Stats { records: 1, ..Stats::default() }),
        ];
        let sync = ZoneSync {
            zones,
            bytes_in: 11,
            msgs_in: 12,
            msgs_out: 13,
            bytes_out: 14,
            nodes_online: 2,
            sessions_waited: 15,
            heard: vec![HeardNode { node: PEER, at: NOW - 500, traffic: traffic(20) }],
            peers: vec![
                LinkFigures {
                    server: "node2:9000".to_owned(),
                    address: "10.0.0.2:9000".to_owned(),
                    state: LinkState::Connected,
                    node: Some(PEER),
                    since: NOW - 700,
                    certificate: Some(Certificate { name: "node2".to_owned(), ends: NOW + 1000 }),
                    error: Some(("can't be reached".to_owned(), NOW - 800)),
                    traffic: traffic(10),
                    pending: 15,
                    behind: Some(NOW - 16),
                    pulse: Some(Pulse { round_trip: 1_017, ahead: -18 }),
                },
                LinkFigures {
                    server: "10.0.0.1:9000".to_owned(),
                    address: "10.0.0.1:9000".to_owned(),
                    state: LinkState::Itself,
                    since: NOW - 900,
                    ..LinkFigures::default()
                },
            ],
            drifts: vec![
                Drift { peer: PEER, zone: "a \"b\"".to_owned(), side: Side::There, reason: "missing".to_owned() },
                Drift { peer: Identity([1; 16]), zone: "c".to_owned(), side: Side::Here, reason: "gone".to_owned() },
            ],
        };
        Fake { stream: Some(Vec::new()), sync: Some(sync), ..Fake::bare() }
    }

    fn zone(&mut self, name: &str, len: usize, timeout: Option<Millis>, sync: bool) -> NamedZone {
        self.zone_of(name, len, Params { timeout, sync, ..Params::new(Identity([7; 16])) })
    }

    fn zone_of(&mut self, name: &str, len: usize, params: Params) -> NamedZone {
        let mapping = Region::anonymous(len).unwrap();
        let timeout = params.timeout;
        let zone = Zone::create(mapping.region(), &params).unwrap();
        self.mappings.push(mapping);
        NamedZone { name: name.to_owned(), zone, timeout: timeout.is_some() }
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Response {
        self.ask_with(method, target, body, |_| ())
    }

    fn ask_with(&self, method: &str, target: &str, body: &[u8], set: impl FnOnce(&mut Request<'_>)) -> Response {
        self.ask_headed(method, target, body, &[], set)
    }

    fn ask_headed(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        headers: &[(&str, &str)],
        set: impl FnOnce(&mut Request<'_>),
    ) -> Response {
        let pieces = || -> Box<dyn Pieces> { Box::new(InPieces { rest: body.to_vec(), waited: false }) };
        self.ask_for(method, target, body, headers, &pieces, set)
    }

    /// With a body that comes as `pieces` say.
    fn ask_in_pieces(&self, method: &str, target: &str, pieces: &dyn Fn() -> Box<dyn Pieces>) -> Response {
        self.ask_for(method, target, b"", &[], pieces, |_| ())
    }

    fn ask_for(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        headers: &[(&str, &str)],
        pieces: &dyn Fn() -> Box<dyn Pieces>,
        set: impl FnOnce(&mut Request<'_>),
    ) -> Response {
        let (path, args) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method,
            path,
            args,
            body: Some(body),
            write: true,
            request_id: "0123abcd",
            now: NOW,
            header: &|name| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned()),
            pieces,
        };
        set(&mut request);
        let now = request.now;
        match handle(&request, self) {
            Answer::Now(response) => whole(response),
            Answer::Later(mut job) => loop {
                match job.step(now) {
                    Step::Done(response) => break Response { changed: job.wakes(), ..whole(response) },
                    Step::More | Step::Wait | Step::Pause(_) => {}
                    Step::Refused(status) => break refused(status, path, "0123abcd"),
                }
            },
        }
    }

    fn get(&self, target: &str) -> Value {
        let response = self.ask("GET", target, b"");
        assert_eq!(response.status, 200, "{target}: {response:?}");
        json(&response)
    }

    /// Asks for what must fail, checks that the answer is a whole error object, and gives its status and code.
    fn failure(&self, method: &str, target: &str, body: &[u8]) -> (u16, String) {
        let response = self.ask(method, target, body);
        check_failure(&response);
        (response.status, json(&response)["error"]["code"].as_str().unwrap().to_owned())
    }
}

/// A body that comes a few bytes at a time, and has to be waited for.
struct InPieces {
    rest: Vec<u8>,
    waited: bool,
}

impl Pieces for InPieces {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Piece, u16> {
        self.waited = !self.waited;
        if self.waited {
            return Ok(Piece::Wait);
        }
        let n = self.rest.len().min(7.max(self.rest.len() / 64));
        out.extend(self.rest.drain(..n));
        Ok(if n > 0 { Piece::Some } else { Piece::End })
    }
}

/// A body that nginx can't read any further.
struct Unreadable(u16);

impl Pieces for Unreadable {
    fn next(&mut self, _: &mut Vec<u8>) -> Result<Piece, u16> {
        Err(self.0)
    }
}

/// The response with its body made to the end.
fn whole(mut response: Response) -> Response {
    if let Body::Stream(mut bytes, mut rest) = response.body {
        while match rest.produce(&mut bytes, NOW) {
            Produced::More => true,
            Produced::End => false,
            other => panic!("{other:?}"),
        } {}
        response.body = bytes.into();
    }
    response
}

/// The bytes of a whole response's body.
fn bytes(response: &Response) -> &[u8] {
    match &response.body {
        Body::Bytes(bytes) => bytes,
        Body::Stream(..) => panic!("a body that isn't made yet"),
    }
}

/// The body as JSON.
fn json(response: &Response) -> Value {
    serde_json::from_slice(bytes(response)).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// Every failure carries what clients decode.
fn check_failure(response: &Response) {
    let body = json(response);
    assert!(response.status >= 400, "{body}");
    assert_eq!(body["error"]["status"], response.status);
    assert!(body["error"]["text"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    assert_eq!(body["request_id"], "0123abcd");
    assert!(body["href"].as_str().unwrap().starts_with("https://"));
}

/// Another node.
const PEER: Identity = Identity([0xab; 16]);

fn traffic(from: u64) -> Traffic {
    Traffic { bytes_in: from + 1, bytes_out: from + 2, msgs_in: from + 3, msgs_out: from + 4 }
}

impl Host for Fake {
    fn http_zones(&self) -> &[NamedZone] {
        &self.http
    }
    fn stream_zones(&self) -> &[NamedZone] {
        self.stream.as_deref().unwrap_or_default()
    }
    fn limit_zones(&self) -> &[NamedZone] {
        &self.limits
    }
    fn all_zones(&self) -> Vec<&NamedZone> {
        let mut all: Vec<&NamedZone> =
            self.http.iter().chain(self.stream.iter().flatten()).chain(&self.limits).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
    fn has_stream(&self) -> bool {
        self.stream.is_some()
    }
    fn nginx(&self) -> Nginx {
        Nginx {
            version: "1.22.1".to_owned(),
            build: "a \"build\"".to_owned(),
            address: "127.0.0.1".to_owned(),
            generation: 4,
            load_timestamp: NOW - 1000,
            pid: 22,
            ppid: 21,
        }
    }
    fn respawned(&self) -> Option<u64> {
        self.respawned
    }
    fn connections(&self) -> Connections {
        Connections { accepted: 31, dropped: 32, active: 33, idle: 34 }
    }
    fn requests(&self) -> Requests {
        Requests { total: 41, current: 42 }
    }
    fn workers(&self) -> Vec<Worker> {
        (0..2).map(|id| Worker { id, pid: 71 + id as u32, idle: 73 + id, requests: 75 + id }).collect()
    }
    fn slabs(&self) -> Vec<(String, Slab)> {
        let slots = vec![
            Slot { size: 8, used: 1, free: 2, reqs: 3, fails: 4 },
            Slot { size: 2048, used: 5, free: 6, reqs: 7, fails: 8 },
        ];
        let slab = |used| Slab { pages_used: used, pages_free: 52, slots: slots.clone() };
        vec![("cache".to_owned(), slab(51)), ("a/b".to_owned(), slab(61))]
    }
    fn zone_sync(&self) -> Option<ZoneSync> {
        self.sync.clone()
    }
    fn watch(&self, zone: &NamedZone, order: watch::Order, now: Millis) -> Option<Box<dyn Produce>> {
        self.hub.join(zone, order, now)
    }
    fn status_zones(&self, kind: StatusKind) -> Vec<String> {
        match kind {
            StatusKind::HttpServer => vec!["a/b".to_owned(), "site".to_owned()],
            StatusKind::HttpLocation => vec!["images".to_owned()],
            StatusKind::StreamServer => vec!["tcp".to_owned()],
        }
    }
    fn status_zone(&self, kind: StatusKind, name: &str) -> Option<Figures> {
        let codes = vec![(101, 1), (200, 2), (204, 3), (301, 4), (403, 5), (404, 6), (502, 7)];
        let figures = Figures { processing: 61, total: 99, codes, other: 8, discarded: 62, received: 63, sent: 64 };
        self.status_zones(kind).iter().any(|zone| zone == name).then_some(figures)
    }
    fn reset(&self, what: Reset<'_>) -> bool {
        self.resets.borrow_mut().push(format!("{what:?}"));
        match what {
            Reset::Slab(name) => name == "cache",
            Reset::Worker(id) => id < 2,
            Reset::Status(kind, name) => self.status_zones(kind).iter().any(|zone| zone == name),
            _ => true,
        }
    }
}
