//! `/http/keyvals/` and `/stream/keyvals/`: pairs of keys and values.

mod add;
mod listing;
mod pairs;

pub(super) use pairs::{MAX_EXPIRE, check_key, life_of};

use super::args::Fields;
use super::error::{Error, FormatError};
use super::{Answer, Body, NamedZone, Request, Response, json};
use crate::record::Millis;
use crate::store::{Condition, StoreError, Written, Zone};
use add::Add;
use listing::Listing;
use pairs::{Change, Pair};

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
pub(super) fn add(request: &Request<'_>, zone: &NamedZone, body: &[u8], changed: &mut bool) -> Result<Answer, Error> {
    let pairs = pairs::parse(body, zone.zone.params().matching, zone.timeout)?;
    if pairs.iter().any(|pair| !matches!(pair.change, Change::Set { .. })) {
        return Err(FormatError::ValueRequired.into());
    }
    let now = request.now;
    if let [Pair { key, change: Change::Set { value, life } }] = pairs.as_slice() {
        return match zone.zone.set(key.as_bytes(), value.as_bytes(), *life, Condition::Absent, now)? {
            Written::Unmet => Err(Error::KeyvalKeyExists),
            Written::Done(_) => {
                *changed |= zone.zone.announces();
                Ok(Response::empty(201).into())
            }
        };
    }
    Ok(Answer::Later(Box::new(Add::new(request, zone, pairs))))
}

/// PATCH: changes, touches or deletes one pair.
pub(super) fn update(zone: &NamedZone, body: &[u8], now: Millis, changed: &mut bool) -> Result<(), Error> {
    let pairs = pairs::parse(body, zone.zone.params().matching, zone.timeout)?;
    let [Pair { key, change }] = pairs.as_slice() else { return Err(FormatError::OneUpdated.into()) };
    let key = key.as_bytes();
    let written = match change {
        Change::Set { value, life } => zone.zone.set(key, value.as_bytes(), *life, Condition::Present, now)?,
        Change::Touch(life) => zone.zone.touch(key, *life, now)?,
        Change::Delete => zone.zone.delete(key, now)?,
    };
    match written {
        Written::Unmet => Err(Error::KeyvalKeyNotFound),
        Written::Done(_) => {
            *changed |= zone.zone.announces();
            Ok(())
        }
    }
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
