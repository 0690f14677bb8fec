//! `/http/server_zones/`, `/http/location_zones/`, `/stream/server_zones/`: what `status_zone` has counted.

use super::args::Fields;
use super::error::Error;
use super::json::{self, Object};
use super::{Host, StatusKind};
use crate::store::Figures;

/// The version of the API that brought the number of responses by code.
const CODES_SINCE: u8 = 7;

/// All zones of a kind. `fields` chooses among the figures of each; empty, it leaves the names of the zones.
pub(super) fn list(host: &dyn Host, kind: StatusKind, version: Option<u8>, fields: &Fields) -> Vec<u8> {
    json::collection(fields, |object| {
        for name in host.status_zones(kind) {
            object.member(name.as_bytes(), |out| {
                let figures = host.status_zone(kind, &name).unwrap_or_default();
                write(out, kind, &figures, version, fields);
            });
        }
    })
}

/// One zone.
pub(super) fn show(
    host: &dyn Host,
    kind: StatusKind,
    name: &str,
    version: Option<u8>,
    fields: &Fields,
) -> Result<Vec<u8>, Error> {
    let figures = host.status_zone(kind, name).ok_or(not_found(kind))?;
    let mut body = Vec::new();
    write(&mut body, kind, &figures, version, fields);
    Ok(body)
}

/// There is no zone of this name.
pub(super) fn not_found(kind: StatusKind) -> Error {
    match kind {
        StatusKind::HttpServer | StatusKind::StreamServer => Error::ServerZoneNotFound,
        StatusKind::HttpLocation => Error::LocationZoneNotFound,
    }
}

fn write(out: &mut Vec<u8>, kind: StatusKind, figures: &Figures, version: Option<u8>, fields: &Fields) {
    let mut object = Object::new(out, fields);
    // A request is counted for a location when it ends there, and so is never being processed.
    if kind != StatusKind::HttpLocation {
        object.number("processing", figures.processing);
    }
    if kind == StatusKind::StreamServer {
        object.number("connections", figures.total).object(b"sessions", |sessions| {
            classes(sessions, &["2xx", "4xx", "5xx"], figures);
            sessions.number("total", figures.answered());
        });
    } else {
        object.number("requests", figures.total).object(b"responses", |responses| {
            classes(responses, &["1xx", "2xx", "3xx", "4xx", "5xx"], figures);
            if version.is_some_and(|version| version >= CODES_SINCE) {
                responses.object(b"codes", |codes| {
                    for (code, count) in &figures.codes {
                        codes.number(&code.to_string(), *count);
                    }
                });
            }
            responses.number("total", figures.answered());
        });
    }
    object.number("discarded", figures.discarded).number("received", figures.received).number("sent", figures.sent);
    object.end();
}

fn classes(object: &mut Object<'_>, names: &[&str], figures: &Figures) {
    for name in names {
        let class = name.bytes().next().map_or(0, |digit| u16::from(digit.saturating_sub(b'0')));
        object.number(name, figures.class(class));
    }
}
