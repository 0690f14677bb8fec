//! From a path and a method to the answer.
//!
//! Every endpoint is found with and without a slash at its end, and slashes that follow each other count as one.

use super::args::{self, Fields};
use super::error::Error;
use super::watch::Order;
use super::{
    Answer, Body, Host, NamedZone, Request, Reset, Response, StatusKind, Worker, ZoneSync, json, keyvals, limit_reqs,
    metrics, own, peers, status, status_zones,
};

/// Versions of the API. They are answered alike, but for the shape of errors.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=9;

/// Splits the version off the path; `None`: there is none, or one that isn't known.
pub(super) fn version(path: &str) -> (Option<u8>, &str) {
    let (first, rest) = segment(path);
    (VERSIONS.into_iter().find(|version| version.to_string() == first), rest)
}

/// Answers the request; `path` is what follows the version. `changed` becomes true if a synchronized zone was changed.
pub(super) fn answer(
    request: &Request<'_>,
    version: Option<u8>,
    path: &str,
    host: &dyn Host,
    changed: &mut bool,
) -> Result<Answer, Error> {
    let endpoint = match version {
        Some(_) => find(path, host)?,
        None if segment(request.path).0.is_empty() => Endpoint::Versions,
        None => return Err(Error::UnknownVersion),
    };
    match (request.method, endpoint.methods()) {
        ("GET" | "HEAD", _) => show(request, host, &endpoint),
        ("OPTIONS", methods) => {
            Ok(Response { allow: Some(methods.allow(request.write)), ..Response::empty(204) }.into())
        }
        ("DELETE", Methods::Reset)
        | ("POST" | "PATCH" | "DELETE", Methods::Pairs)
        | ("PUT" | "POST" | "DELETE", Methods::Own)
            if !request.write =>
        {
            Err(Error::MethodDisabled { allow: endpoint.methods().allow(false) })
        }
        ("DELETE", Methods::Reset) => reset(host, &endpoint).map(Answer::Now),
        ("POST" | "PATCH" | "DELETE", Methods::Pairs) => change(request, &endpoint, changed),
        ("PUT" | "POST" | "DELETE", Methods::Own) => {
            let Endpoint::OwnKeyval(name) = &endpoint else { return Err(Error::PathNotFound) };
            own::change(request, own_zone(host, name)?, changed)
        }
        (_, methods) => Err(Error::MethodNotSupported { allow: methods.allow(request.write) }),
    }
}

/// What a path means.
enum Endpoint<'h> {
    Versions,
    Root,
    Nginx,
    Processes(u64),
    Connections,
    Workers,
    Worker(Worker),
    Slabs,
    Slab(String),
    Http,
    Requests,
    Stream,
    ZoneSync(ZoneSync),
    StatusZones(StatusKind),
    StatusZone(StatusKind, String),
    LimitReqs,
    LimitReq(Vec<u8>),
    Keyvals(&'h [NamedZone]),
    Keyval(&'h [NamedZone], Vec<u8>),
    /// A collection of things that don't exist here: clients insist on an answer, and `{}` is the true one.
    Nothing,
    /// Our own: the names below `/zonemesh/`, those of zones, and one zone.
    Zonemesh,
    Zones,
    Zone(Vec<u8>),
    /// Key-values as zonemesh has them: the names of the zones, and one zone.
    OwnKeyvals,
    OwnKeyval(Vec<u8>),
    /// Its changes.
    Watch(Vec<u8>),
    Metrics,
    Peers(ZoneSync),
    Sync(ZoneSync),
}

/// Which methods an endpoint has.
#[derive(Clone, Copy)]
enum Methods {
    Read,
    /// DELETE sets figures to zero.
    Reset,
    /// POST adds pairs, PATCH changes one, DELETE removes all.
    Pairs,
    /// PUT creates or replaces pairs, POST imports lines of them, DELETE removes some.
    Own,
}

impl Methods {
    /// The value of `Allow`.
    fn allow(self, write: bool) -> &'static str {
        match self {
            Methods::Reset if write => "GET, HEAD, DELETE, OPTIONS",
            Methods::Pairs if write => "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
            Methods::Own if write => "GET, HEAD, PUT, POST, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

impl Endpoint<'_> {
    fn methods(&self) -> Methods {
        match self {
            Endpoint::Processes(_) | Endpoint::Connections | Endpoint::Requests | Endpoint::Slab(_) => Methods::Reset,
            Endpoint::Workers | Endpoint::Worker(_) | Endpoint::StatusZone(..) => Methods::Reset,
            Endpoint::LimitReq(_) => Methods::Reset,
            Endpoint::Keyval(..) => Methods::Pairs,
            Endpoint::OwnKeyval(_) => Methods::Own,
            _ => Methods::Read,
        }
    }
}

/// The names below `/{version}/`, as far as they exist here.
fn root_names(host: &dyn Host) -> Vec<&'static str> {
    let mut names = vec!["nginx", "connections", "slabs", "http", "resolvers", "ssl", "workers"];
    if host.respawned().is_some() {
        names.insert(1, "processes");
    }
    if host.has_stream() {
        names.push("stream");
    }
    names
}

/// The names below `/{version}/http/`.
const HTTP_NAMES: [&str; 8] =
    ["requests", "server_zones", "location_zones", "caches", "limit_conns", "limit_reqs", "keyvals", "upstreams"];

/// The names below `/{version}/stream/`, as far as they exist here. Clients look for `limit_conns` before they ask for
/// `zone_sync`.
fn stream_names(host: &dyn Host) -> Vec<&'static str> {
    let mut names = vec!["server_zones", "limit_conns", "keyvals", "upstreams"];
    if host.zone_sync().is_some() {
        names.push("zone_sync");
    }
    names
}

/// Finds the endpoint of a path without its version.
fn find<'h>(path: &str, host: &'h dyn Host) -> Result<Endpoint<'h>, Error> {
    let (first, rest) = segment(path);
    let (second, third) = segment(rest);
    let in_stream = host.has_stream();
    // Zone names are all that is left of the path: a slash in them may be encoded or not.
    let endpoint = match (first, second) {
        ("slabs", "") => Endpoint::Slabs,
        ("slabs", _) => Endpoint::Slab(String::from_utf8_lossy(&zone_name(rest)).into_owned()),
        ("http", "keyvals") => keyval_endpoint(host.http_zones(), third),
        ("stream", "keyvals") if in_stream => keyval_endpoint(host.stream_zones(), third),
        ("zonemesh", "keyvals") if let Some(name) = watched(third) => Endpoint::Watch(name),
        ("zonemesh", "keyvals") => match zone_name(third) {
            name if name.is_empty() => Endpoint::OwnKeyvals,
            name => Endpoint::OwnKeyval(name),
        },
        ("http", "server_zones") => status_endpoint(StatusKind::HttpServer, third),
        ("http", "location_zones") => status_endpoint(StatusKind::HttpLocation, third),
        ("http", "limit_reqs") => match zone_name(third) {
            name if name.is_empty() => Endpoint::LimitReqs,
            name => Endpoint::LimitReq(name),
        },
        ("stream", "server_zones") if in_stream => status_endpoint(StatusKind::StreamServer, third),
        ("zonemesh", "zones") => match zone_name(third) {
            name if name.is_empty() => Endpoint::Zones,
            name => Endpoint::Zone(name),
        },
        _ if !segment(third).0.is_empty() => return Err(Error::PathNotFound),
        ("", "") => Endpoint::Root,
        ("nginx", "") => Endpoint::Nginx,
        ("processes", "") => Endpoint::Processes(host.respawned().ok_or(Error::PathNotFound)?),
        ("connections", "") => Endpoint::Connections,
        ("workers", "") => Endpoint::Workers,
        ("workers", id) => Endpoint::Worker(worker(host, id)?),
        ("resolvers" | "ssl", "") => Endpoint::Nothing,
        ("zonemesh", "") => Endpoint::Zonemesh,
        ("zonemesh", "metrics") => Endpoint::Metrics,
        ("zonemesh", "sync") => Endpoint::Sync(host.zone_sync().ok_or(Error::PathNotFound)?),
        ("zonemesh", "peers") => Endpoint::Peers(host.zone_sync().ok_or(Error::PathNotFound)?),
        ("http", "") => Endpoint::Http,
        ("http", "requests") => Endpoint::Requests,
        ("stream", "") if in_stream => Endpoint::Stream,
        ("stream", "zone_sync") if in_stream => Endpoint::ZoneSync(host.zone_sync().ok_or(Error::PathNotFound)?),
        ("http", name) if HTTP_NAMES.contains(&name) => Endpoint::Nothing,
        ("stream", "limit_conns" | "upstreams") if in_stream => Endpoint::Nothing,
        _ => return Err(Error::PathNotFound),
    };
    Ok(endpoint)
}

fn keyval_endpoint<'h>(zones: &'h [NamedZone], rest: &str) -> Endpoint<'h> {
    match zone_name(rest) {
        name if name.is_empty() => Endpoint::Keyvals(zones),
        name => Endpoint::Keyval(zones, name),
    }
}

fn status_endpoint<'h>(kind: StatusKind, rest: &str) -> Endpoint<'h> {
    match String::from_utf8_lossy(&zone_name(rest)).into_owned() {
        name if name.is_empty() => Endpoint::StatusZones(kind),
        name => Endpoint::StatusZone(kind, name),
    }
}

/// GET, and HEAD, which differs in the sending only.
fn show(request: &Request<'_>, host: &dyn Host, endpoint: &Endpoint<'_>) -> Result<Answer, Error> {
    let fields = Fields::of(request.args);
    let body = match endpoint {
        Endpoint::Watch(name) => return watch(request, host, name),
        Endpoint::Versions => {
            let list: Vec<String> = VERSIONS.map(|version| version.to_string()).collect();
            format!("[{}]", list.join(",")).into_bytes()
        }
        Endpoint::Root => json::names(root_names(host)),
        Endpoint::Http => json::names(HTTP_NAMES),
        Endpoint::Stream => json::names(stream_names(host)),
        Endpoint::Zonemesh if host.zone_sync().is_some() => {
            json::names(["keyvals", "metrics", "peers", "sync", "zones"])
        }
        Endpoint::Zonemesh => json::names(["keyvals", "metrics", "zones"]),
        Endpoint::Peers(sync) => peers::list(sync, request.now, &fields),
        Endpoint::Sync(sync) => status::sync(sync, &fields),
        Endpoint::Metrics => {
            let body = metrics::text(&host.all_zones(), host.limit_zones(), host.zone_sync().as_ref(), request.now);
            return Ok(Answer::Now(Response { content_type: metrics::TEXT, ..Response::ok(body) }));
        }
        Endpoint::Zones => json::names(host.all_zones().into_iter().map(|zone| zone.name.as_str())),
        Endpoint::OwnKeyvals => {
            let mut names: Vec<&str> = own_zones(host).map(|zone| zone.name.as_str()).collect();
            names.sort_unstable();
            json::names(names)
        }
        Endpoint::Zone(name) => {
            let found = host.all_zones().into_iter().find(|zone| zone.name.as_bytes() == name);
            status::zone(&found.ok_or(Error::ZoneNotFound)?.zone, request.now, &fields)
        }
        Endpoint::Nothing => json::collection(&fields, |_| ()),
        Endpoint::Nginx => status::nginx(&host.nginx(), request.now, &fields),
        Endpoint::Processes(respawned) => status::processes(*respawned, &fields),
        Endpoint::Connections => status::connections(&host.connections(), &fields),
        Endpoint::Workers => status::workers(&host.workers(), &fields),
        Endpoint::Worker(worker) => status::worker(worker, &fields),
        Endpoint::Requests => status::requests(&host.requests(), &fields),
        Endpoint::Slabs => status::slabs(&host.slabs(), &fields),
        Endpoint::Slab(name) => {
            let slabs = host.slabs();
            let (_, slab) = slabs.iter().find(|(found, _)| found == name).ok_or(Error::SlabNotFound)?;
            status::slab(slab, &fields)
        }
        Endpoint::ZoneSync(sync) => status::zone_sync(sync, &fields),
        Endpoint::StatusZones(kind) => status_zones::list(host, *kind, version(request.path).0, &fields),
        Endpoint::StatusZone(kind, name) => status_zones::show(host, *kind, name, version(request.path).0, &fields)?,
        Endpoint::LimitReqs => limit_reqs::list(host.limit_zones(), &fields),
        Endpoint::LimitReq(name) => limit_reqs::show(host.limit_zones(), name, &fields)?,
        Endpoint::Keyvals(zones) => return keyvals::list(zones, request.now, fields).map(Answer::ok),
        Endpoint::Keyval(zones, name) => {
            let (zone, key) = (keyvals::find(zones, name)?, args::first(request.args, "key"));
            return keyvals::show(zone, request.now, key, fields).map(Answer::ok);
        }
        Endpoint::OwnKeyval(name) => return own::show(request, own_zone(host, name)?),
    };
    Ok(Answer::ok(body))
}

/// A stream of the changes of a zone.
fn watch(request: &Request<'_>, host: &dyn Host, name: &[u8]) -> Result<Answer, Error> {
    let zone = own_zone(host, name)?;
    let order = Order::parse(request.args, (request.header)("last-event-id").as_deref()).ok_or(Error::WatchPosition)?;
    let body = host.watch(zone, order, request.now).ok_or(Error::KeyvalBusy)?;
    let headers = vec![("X-Accel-Buffering", "no".to_owned())];
    let body = Body::Stream(Vec::new(), body);
    Ok(Answer::Now(Response { content_type: "text/event-stream", headers, ..Response::ok(body) }))
}

/// The name of the zone in `{zone}/watch`: where that is the end of the path, a slash before it is none of a name.
fn watched(rest: &str) -> Option<Vec<u8>> {
    let name = zone_name(rest.trim_end_matches('/').strip_suffix("/watch")?);
    (!name.is_empty()).then_some(name)
}

/// All zones of key-values, whichever block they are declared in: a name is there once.
fn own_zones(host: &dyn Host) -> impl Iterator<Item = &NamedZone> {
    host.http_zones().iter().chain(host.stream_zones())
}

fn own_zone<'h>(host: &'h dyn Host, name: &[u8]) -> Result<&'h NamedZone, Error> {
    own_zones(host).find(|zone| zone.name.as_bytes() == name).ok_or(Error::KeyvalNotFound)
}

/// The worker of this number.
fn worker(host: &dyn Host, id: &str) -> Result<Worker, Error> {
    let id: Option<u64> = id.parse().ok();
    host.workers().into_iter().find(|worker| Some(worker.id) == id).ok_or(Error::WorkerNotFound)
}

/// DELETE of figures.
fn reset(host: &dyn Host, endpoint: &Endpoint<'_>) -> Result<Response, Error> {
    let (what, otherwise) = match endpoint {
        Endpoint::LimitReq(name) => {
            return limit_reqs::reset(host.limit_zones(), name).map(|()| Response::empty(204));
        }
        Endpoint::Processes(_) => (Reset::Processes, Error::PathNotFound),
        Endpoint::Connections => (Reset::Connections, Error::PathNotFound),
        Endpoint::Requests => (Reset::Requests, Error::PathNotFound),
        Endpoint::Workers => (Reset::Workers, Error::PathNotFound),
        Endpoint::Worker(worker) => (Reset::Worker(worker.id), Error::WorkerNotFound),
        Endpoint::Slab(name) => (Reset::Slab(name), Error::SlabNotFound),
        Endpoint::StatusZone(kind, name) => (Reset::Status(*kind, name), status_zones::not_found(*kind)),
        _ => return Err(Error::PathNotFound),
    };
    if host.reset(what) { Ok(Response::empty(204)) } else { Err(otherwise) }
}

/// POST, PATCH and DELETE of pairs.
fn change(request: &Request<'_>, endpoint: &Endpoint<'_>, changed: &mut bool) -> Result<Answer, Error> {
    let Endpoint::Keyval(zones, name) = endpoint else { return Err(Error::PathNotFound) };
    let zone = keyvals::find(zones, name)?;
    match request.method {
        "POST" => Ok(keyvals::add(request, zone)),
        "PATCH" => Ok(keyvals::update(request, zone)),
        _ => {
            keyvals::clear(zone, request.now, changed)?;
            Ok(Response::empty(204).into())
        }
    }
}

/// The first part of a path that has more than slashes, and what follows it.
fn segment(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

/// The name that the rest of a path gives, decoded; one slash at its end doesn't belong to it.
fn zone_name(rest: &str) -> Vec<u8> {
    let rest = rest.trim_start_matches('/');
    args::decode(rest.strip_suffix('/').unwrap_or(rest)).into_owned()
}
