//! Requests to the API with any path, arguments, headers and body.

use super::script::items;
use zonemesh::api::{
    self, Answer, Body, Connections, Host, NamedZone, Nginx, Piece, Pieces, Produce, Produced, Request, Requests,
    Reset, Response, Slab, StatusKind, Step, Worker, ZoneSync, watch,
};
use zonemesh::record::Identity;
use zonemesh::store::{Figures, Mapping, Matching, Params, Region, Zone};

const NOW: u64 = 1_700_000_000_000;
const METHODS: [&str; 8] = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "BREW"];
/// Pieces of a body, and steps of a job.
const STEPS: usize = 10_000;

/// Each item is a request: its type names the method, its body is the target up to a line feed, headers (`name value`) up
/// to an empty line, and the request's body.
pub fn run(data: &[u8]) {
    let site = Site::new();
    for item in items(data).into_iter().take(32) {
        let method = METHODS[usize::from(item.kind) % METHODS.len()];
        let mut lines = item.body.splitn(2, |byte| *byte == b'\n');
        // nginx hands over what is UTF-8.
        let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let (headers, body) = headers(lines.next().unwrap_or_default());
        let (path, args) = target.split_once('?').unwrap_or((&target, ""));
        let pieces = || -> Box<dyn Pieces> { Box::new(InPieces(body.to_vec())) };
        let header =
            |name: &str| headers.iter().find(|(found, _)| found.as_str() == name).map(|(_, value)| value.clone());
        let request = Request {
            method,
            path,
            args,
            body: Some(body),
            write: item.kind & 0x80 == 0,
            request_id: "0123abcd",
            now: NOW,
            header: &header,
            pieces: &pieces,
        };
        if let Some(response) = answered(&request, &site) {
            check(response, &target);
        }
    }
}

fn headers(bytes: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (String::from_utf8_lossy(&rest[..end]), &rest[end + 1..]);
        rest = after;
        match line.split_once(' ') {
            Some((name, value)) => all.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    (all, rest)
}

/// `None`: nginx is to answer.
fn answered(request: &Request<'_>, site: &Site) -> Option<Response> {
    let mut job = match api::handle(request, site) {
        Answer::Now(response) => return Some(response),
        Answer::Later(job) => job,
    };
    for _ in 0..STEPS {
        match job.step(NOW) {
            Step::Done(response) => return Some(response),
            Step::Refused(_) => return None,
            Step::More | Step::Wait | Step::Pause(_) => {}
        }
    }
    panic!("a job without an end")
}

/// A failure is an error object, a body comes to its end (but for what a client watches).
fn check(response: Response, target: &str) {
    assert!((200..=599).contains(&response.status), "{target}: {}", response.status);
    let mut body = match response.body {
        Body::Bytes(bytes) => bytes,
        Body::Stream(mut bytes, mut rest) => {
            let ended = (0..STEPS).any(|_| rest.produce(&mut bytes, NOW) != Produced::More);
            assert!(ended, "{target}: a body without an end");
            bytes
        }
    };
    if response.status >= 400 {
        let text = String::from_utf8(std::mem::take(&mut body)).expect("an error is text");
        assert!(text.contains("\"error\":{\"status\":") && text.contains("\"request_id\":"), "{target}: {text}");
    }
}

struct InPieces(Vec<u8>);

impl Pieces for InPieces {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Piece, u16> {
        let n = self.0.len().min(7);
        out.extend(self.0.drain(..n));
        Ok(if n > 0 { Piece::Some } else { Piece::End })
    }
}

/// Zones of each type, and nothing else.
struct Site {
    http: Vec<NamedZone>,
    stream: Vec<NamedZone>,
    hub: watch::Hub,
    _memory: Vec<Mapping>,
}

impl Site {
    fn new() -> Site {
        let mut memory = Vec::new();
        let mut zone = |name: &str, params: Params| {
            let mapping = Region::anonymous(32 * 1024).expect("memory");
            let zone = Zone::create_with(mapping.region(), &params, [3; 16]).expect("a zone");
            memory.push(mapping);
            NamedZone { name: name.to_owned(), zone, timeout: params.timeout.is_some() }
        };
        let plain = Params::new(Identity([1; 16]));
        let http = vec![
            zone("a/b", Params { timeout: Some(60_000), sync: true, ..plain }),
            zone("counts", Params { matching: Matching::Counter, timeout: Some(60_000), ..plain }),
            zone("ip", Params { matching: Matching::Ip, evict: true, ..plain }),
            zone("one", plain),
        ];
        let stream = vec![zone("p", Params { matching: Matching::Prefix, ..plain })];
        Site { http, stream, hub: watch::Hub::new(|| ()), _memory: memory }
    }
}

impl Host for Site {
    fn http_zones(&self) -> &[NamedZone] {
        &self.http
    }
    fn stream_zones(&self) -> &[NamedZone] {
        &self.stream
    }
    fn limit_zones(&self) -> &[NamedZone] {
        &[]
    }
    fn all_zones(&self) -> Vec<&NamedZone> {
        self.http.iter().chain(&self.stream).collect()
    }
    fn has_stream(&self) -> bool {
        true
    }
    fn nginx(&self) -> Nginx {
        Nginx { version: "1.22.1".to_owned(), ..Nginx::default() }
    }
    fn respawned(&self) -> Option<u64> {
        Some(0)
    }
    fn connections(&self) -> Connections {
        Connections::default()
    }
    fn requests(&self) -> Requests {
        Requests::default()
    }
    fn workers(&self) -> Vec<Worker> {
        vec![Worker::default()]
    }
    fn slabs(&self) -> Vec<(String, Slab)> {
        vec![("one".to_owned(), Slab::default())]
    }
    fn zone_sync(&self) -> Option<ZoneSync> {
        Some(ZoneSync::default())
    }
    fn watch(&self, zone: &NamedZone, order: watch::Order, now: u64) -> Option<Box<dyn Produce>> {
        self.hub.join(zone, order, now)
    }
    fn status_zones(&self, _: StatusKind) -> Vec<String> {
        vec!["site".to_owned()]
    }
    fn status_zone(&self, _: StatusKind, name: &str) -> Option<Figures> {
        (name == "site").then(|| Figures {
            processing: 0,
            total: 1,
            codes: vec![(200, 1)],
            other: 0,
            discarded: 0,
            received: 1,
            sent: 1,
        })
    }
    fn reset(&self, _: Reset<'_>) -> bool {
        true
    }
}
