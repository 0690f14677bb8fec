//! `/http/keyvals/` and `/stream/keyvals/`: pairs of keys and values.

mod add;
mod listing;
mod pairs;

pub(super) use pairs::{MAX_EXPIRE, check_change, check_key, life_of, whole};

use super::args::Fields;
use super::body::{self, Change, Packed, Pair, Understand};
use super::error::{Error, FormatError};
use super::{Answer, Body, NamedZone, Request, Response, json, route, write};
use crate::record::Millis;
use crate::store::{Condition, Missing, StoreError, Written, Zone};
use add::Add;
use listing::Listing;
use std::cell::Cell;
use std::rc::Rc;

/// The zone of this name.
pub(super) fn find<'h>(zones: &'h [NamedZone], name: &[u8]) -> Result<&'h NamedZone, Error> {
    zones.iter().find(|zone| zone.name.as_bytes() == name).ok_or(Error::KeyvalNotFound)
}

/// All zones with all their pairs. `fields` chooses keys; empty, it leaves the names of the zones.
pub(super) fn list(zones: &[NamedZone], now: Millis, fields: Fields) -> Result<Body, Error> {
    if fields == Fields::Names {
        return Ok(json::names(zones.iter().map(|zone| zone.name.as_str())).into());
    }
    Listing::of_all(zones, fields).body(now)
}

/// The pairs of one zone, or the one pair that `?key=` asks for.
pub(super) fn show(
    zone: &NamedZone,
    now: Millis,
    key: Option<impl AsRef<[u8]>>,
    fields: Fields,
) -> Result<Body, Error> {
    match key {
        None => Listing::of(zone, fields).body(now),
        Some(key) => one_pair(&zone.zone, now, key.as_ref()).map(Body::Bytes),
    }
}

/// POST: adds one pair, or several to an empty zone: all of them, or none.
pub(super) fn add(request: &Request<'_>, zone: &NamedZone) -> Answer {
    let counts = Rc::new(Cell::new(false));
    let (understand, zone) = (added(zone, counts.clone()), zone.clone());
    let announces = zone.zone.announces();
    let (version, request_id) = (route::version(request.path).0, request.request_id.to_owned());
    let then = move |pairs: Packed, now| match pairs.only() {
        Some(Pair { key, change: Change::Set { value, life } }) => {
            match zone.zone.set(&key, &value, life, Condition::Absent, now)? {
                Written::Unmet => Err(Error::KeyvalKeyExists),
                Written::Done(_) => Ok(Response::empty(201).into()),
            }
        }
        Some(Pair { key, change: Change::Count { by, init, life } }) => {
            // Others may have begun it already.
            let missing = Missing::Begin(init.unwrap_or(0), life);
            write::count(&zone.zone, &key, by, missing, now).map(Answer::Now)
        }
        _ if pairs.len() == 0 => Err(FormatError::KeyRequired.into()),
        _ if counts.get() => Err(FormatError::OneCounted.into()),
        _ => Ok(Answer::Later(Box::new(Add::new(zone.zone, pairs, version, request_id)))),
    };
    body::pairs(request, announces, understand, Box::new(then))
}

/// PATCH: changes, touches or deletes one pair, or adds to a counter.
pub(super) fn update(request: &Request<'_>, zone: &NamedZone) -> Answer {
    let (understand, zone) = (pairs::understand(zone), zone.zone);
    let then = move |pairs: Packed, now| {
        let written = match pairs.only() {
            Some(Pair { key, change: Change::Set { value, life } }) => {
                zone.set(&key, &value, life, Condition::Present, now)?
            }
            Some(Pair { key, change: Change::Touch(life) }) => zone.touch(&key, life, now)?,
            Some(Pair { key, change: Change::Count { by, init, life } }) => {
                let missing = init.map_or(Missing::Leave, |init| Missing::Begin(init, life));
                return write::count(&zone, &key, by, missing, now).map(Answer::Now);
            }
            Some(Pair { key, change: Change::Delete }) => zone.delete(&key, now)?,
            None if pairs.len() == 0 => return Err(FormatError::KeyRequired.into()),
            None => return Err(FormatError::OneUpdated.into()),
        };
        match written {
            Written::Unmet => Err(Error::KeyvalKeyNotFound),
            Written::Done(_) => Ok(Response::empty(204).into()),
        }
    };
    body::pairs(request, zone.announces(), understand, Box::new(then))
}

/// Pairs that are added have values, or are counters. `counts`: one of them is.
fn added(zone: &NamedZone, counts: Rc<Cell<bool>>) -> Understand {
    let understand = pairs::understand(zone);
    Box::new(move |name, json| match understand(name, json)? {
        pair @ Pair { change: Change::Set { .. }, .. } => Ok(pair),
        pair @ Pair { change: Change::Count { .. }, .. } => {
            counts.set(true);
            Ok(pair)
        }
        _ => Err(FormatError::ValueRequired),
    })
}

/// DELETE: removes every pair.
pub(super) fn clear(zone: &NamedZone, now: Millis, changed: &mut bool) -> Result<(), Error> {
    zone.zone.clear(now)?;
    *changed |= zone.zone.announces();
    Ok(())
}

fn one_pair(zone: &Zone, now: Millis, key: &[u8]) -> Result<Vec<u8>, Error> {
    let mut value = Vec::new();
    match zone.get(key, now, &mut value) {
        Ok(Some(_)) => {}
        // No pair can have a key that the store refuses.
        Ok(None) | Err(StoreError::BadKey) => return Err(Error::KeyvalKeyNotFound),
        Err(error) => return Err(error.into()),
    }
    Ok(json::object(&Fields::All, |object| {
        object.member(key, |out| json::string(out, &value));
    }))
}
