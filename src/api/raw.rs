//! `keyval_rest`: values as bodies, one record a path.
//!
//! The key is what follows the location's name, the value is the body as it is, the version is the `ETag`, and a record's
//! end is in `Expires`.

use super::condition::{self, Precondition, Seen};
use super::error::{Error, FormatError};
use super::keyvals::{MAX_EXPIRE, check_key};
use super::response::Body;
use super::write::{self, Put};
use super::{NamedZone, Request, Response, time};
use crate::record::Millis;
use crate::store::{Life, MAX_VALUE, StoreError, Written};

const ALLOW: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
const BYTES: &str = "application/octet-stream";

/// Answers a request; `request.path` is the key, decoded, and `request.write` doesn't matter.
pub fn handle(request: &Request<'_>, key: &[u8], zone: &NamedZone) -> Response {
    let mut changed = false;
    let answer = answer(request, key, zone, &mut changed);
    let mut response = answer.unwrap_or_else(|error| error.response(None, request.request_id));
    response.changed = changed && zone.zone.announces();
    response
}

fn answer(request: &Request<'_>, key: &[u8], zone: &NamedZone, changed: &mut bool) -> Result<Response, Error> {
    match request.method {
        "GET" | "HEAD" => show(request, key, zone),
        "PUT" | "POST" => store(request, key, zone, changed),
        "DELETE" => {
            write::delete(&zone.zone, key, &Precondition::of(request), request.now)?;
            *changed = true;
            Ok(Response::empty(204))
        }
        "OPTIONS" => Ok(Response { allow: Some(ALLOW), ..Response::empty(204) }),
        _ => Err(Error::MethodNotSupported { allow: ALLOW }),
    }
}

fn show(request: &Request<'_>, key: &[u8], zone: &NamedZone) -> Result<Response, Error> {
    let mut value = Vec::new();
    let found = match zone.zone.get(key, request.now, &mut value) {
        Ok(found) => found.ok_or(Error::KeyvalKeyNotFound)?,
        // No record can have a key that the store refuses.
        Err(StoreError::BadKey) => return Err(Error::KeyvalKeyNotFound),
        Err(error) => return Err(error.into()),
    };
    let version = zone.zone.version(&found);
    let mut headers = vec![("ETag", condition::tag(version))];
    headers.extend(found.expires.map(|end| ("Expires", time::http_date(end))));
    let response = match Precondition::of(request).seen(version) {
        Seen::Failed => return Err(Error::PreconditionFailed),
        Seen::Unmodified => Response::empty(304),
        Seen::Good => Response { content_type: BYTES, body: Body::Bytes(value), ..Response::empty(200) },
    };
    // It may be kept, and is asked for again by its tag.
    Ok(Response { headers, cache_control: "no-cache", ..response })
}

/// PUT creates or replaces, POST only creates.
fn store(request: &Request<'_>, key: &[u8], zone: &NamedZone, changed: &mut bool) -> Result<Response, Error> {
    let value = request.body.ok_or(Error::BodyRead)?;
    check_key(key, zone.zone.params().matching)?;
    if value.len() > MAX_VALUE {
        return Err(Error::BodyTooLarge);
    }
    let life = life(request, zone.timeout)?;
    let precondition = Precondition::of(request);
    let put = if request.method == "POST" {
        write::check(&zone.zone, key, &precondition, request.now)?;
        match zone.zone.set(key, value, life, crate::store::Condition::Absent, request.now)? {
            Written::Done(version) => Put::Created(version),
            Written::Unmet => return Err(Error::KeyvalKeyExists),
        }
    } else {
        write::put(&zone.zone, key, value, life, &precondition, request.now)?
    };
    *changed = true;
    let (status, version) = match put {
        Put::Created(version) => (201, version),
        Put::Replaced(version) => (204, version),
    };
    Ok(Response { headers: vec![("ETag", condition::tag(version))], ..Response::empty(status) })
}

/// `X-TTL: seconds`, `Cache-Control: max-age=seconds`, or `Expires: date`, whichever of them comes first here; without any,
/// the zone's timeout.
fn life(request: &Request<'_>, timeout: bool) -> Result<Life, Error> {
    let header = |name| (request.header)(name);
    let max_age = || {
        let control = header("cache-control")?;
        let directive = |part: &str| Some(part.trim().strip_prefix("max-age=")?.trim_matches('"').to_owned());
        control.split(',').find_map(directive)
    };
    let Some(text) = header("x-ttl").or_else(max_age) else {
        return header("expires").map_or(Ok(Life::Default), |date| until(&date, timeout, request.now));
    };
    if !timeout {
        return Err(FormatError::NoTimeout.into());
    }
    match text.trim().parse::<Millis>() {
        Ok(seconds @ 1..) if seconds <= MAX_EXPIRE / 1000 => Ok(Life::For(seconds * 1000)),
        _ => Err(Error::BadArgument(
            "a life (X-TTL, max-age) is a whole number of seconds, 1 or more, 100 years at most",
        )),
    }
}

/// The life that ends at a date.
fn until(date: &str, timeout: bool, now: Millis) -> Result<Life, Error> {
    const BAD: Error = Error::BadArgument("\"Expires\" is a date of HTTP, such as \"Sun, 06 Nov 1994 08:49:37 GMT\"");
    if !timeout {
        return Err(FormatError::NoTimeout.into());
    }
    match time::parse_http_date(date.trim()).ok_or(BAD)?.saturating_sub(now) {
        0 => Err(Error::BadArgument("\"Expires\" is in the past")),
        life if life <= MAX_EXPIRE => Ok(Life::For(life)),
        _ => Err(Error::BadArgument("\"Expires\" is more than 100 years ahead")),
    }
}
