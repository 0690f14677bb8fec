//! Key-values below `/zonemesh/keyvals/`: what the documented paths can't do, for zones of http and stream alike.
//!
//! [`page`] lists, [`pairs`] reads bodies, [`put`] writes, [`batch`] imports lines, [`remove`] deletes by pattern.

mod batch;
mod page;
mod pairs;
mod put;
mod remove;

use super::args;
use super::condition::{self, Precondition, Seen};
use super::error::Error;
use super::json;
use super::shape::{self, Meta};
use super::write;
use super::{Answer, NamedZone, Request, Response};
use crate::store::StoreError;

/// GET and HEAD of a zone or one of its pairs.
pub(super) fn show(request: &Request<'_>, zone: &NamedZone) -> Result<Answer, Error> {
    match args::first(request.args, "key") {
        Some(key) => one(request, zone, &key),
        None => page::answer(request, zone),
    }
}

/// PUT, POST and DELETE. `changed` becomes true if a synchronized zone was changed.
pub(super) fn change(request: &Request<'_>, zone: &NamedZone, changed: &mut bool) -> Result<Answer, Error> {
    let sync = zone.zone.announces();
    let key = args::first(request.args, "key");
    match (request.method, key) {
        ("PUT", key) => Ok(put::answer(request, zone, key.as_deref())),
        ("POST", None) if Precondition::of(request) != Precondition::None => Err(Error::ConditionOfMany),
        ("POST", None) => Ok(Answer::Later(Box::new(batch::Import::new(request, zone)))),
        ("POST", Some(_)) => Err(Error::BadArgument("POST imports many pairs: \"key\" goes with PUT")),
        (_, Some(key)) => {
            write::delete(&zone.zone, &key, &Precondition::of(request), request.now)?;
            *changed |= sync;
            Ok(Response::empty(204).into())
        }
        (_, None) => remove::answer(request, zone),
    }
}

/// One pair, with its version as tag.
fn one(request: &Request<'_>, zone: &NamedZone, key: &[u8]) -> Result<Answer, Error> {
    let mut value = Vec::new();
    let found = match zone.zone.get(key, request.now, &mut value) {
        Ok(found) => found.ok_or(Error::KeyvalKeyNotFound)?,
        // No pair can have a key that the store refuses.
        Err(StoreError::BadKey) => return Err(Error::KeyvalKeyNotFound),
        Err(error) => return Err(error.into()),
    };
    let version = zone.zone.version(&found);
    let headers = vec![("ETag", condition::tag(version))];
    let response = match Precondition::of(request).seen(version) {
        Seen::Failed => return Err(Error::PreconditionFailed),
        Seen::Unmodified => Response { headers, ..Response::empty(304) },
        Seen::Good => {
            let expire = found.expires.map(|end| end.saturating_sub(request.now));
            let meta = with_meta(request)?.then_some(Meta { expire, version });
            let mut body = vec![b'{'];
            shape::pair(&mut body, key, &value, meta.as_ref());
            body.push(b'}');
            Response { headers, ..Response::ok(body) }
        }
    };
    Ok(response.into())
}

/// `meta`: whether to tell all that is known of a pair.
fn with_meta(request: &Request<'_>) -> Result<bool, Error> {
    match args::first(request.args, "meta").as_deref() {
        None | Some(b"0") => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) => Err(Error::BadArgument("\"meta\" is 0 or 1")),
    }
}

/// `{"created":1,...}`
fn counts(list: &[(&str, u64)]) -> Vec<u8> {
    json::object(&args::Fields::All, |object| {
        for (name, count) in list {
            object.number(name, *count);
        }
    })
}
