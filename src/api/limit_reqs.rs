//! `/http/limit_reqs/`: what became of requests under `limit_req`, by zone; those zones that zonemesh counts in.

use super::NamedZone;
use super::args::Fields;
use super::error::Error;
use super::json::{self, Object};
use crate::store::{Outcome, Zone};

/// All zones. `fields` chooses among the figures of each; empty, it leaves the names of the zones.
pub(super) fn list(zones: &[NamedZone], fields: &Fields) -> Vec<u8> {
    json::collection(fields, |object| {
        for NamedZone { name, zone, .. } in zones {
            object.member(name.as_bytes(), |out| write(out, zone, fields));
        }
    })
}

/// One zone.
pub(super) fn show(zones: &[NamedZone], name: &[u8], fields: &Fields) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    write(&mut body, find(zones, name)?, fields);
    Ok(body)
}

/// Lets its figures begin at zero.
pub(super) fn reset(zones: &[NamedZone], name: &[u8]) -> Result<(), Error> {
    find(zones, name).map(Zone::reset_limited)
}

fn find<'z>(zones: &'z [NamedZone], name: &[u8]) -> Result<&'z Zone, Error> {
    let found = zones.iter().find(|zone| zone.name.as_bytes() == name);
    found.map(|found| &found.zone).ok_or(Error::LimitReqNotFound)
}

fn write(out: &mut Vec<u8>, zone: &Zone, fields: &Fields) {
    let mut object = Object::new(out, fields);
    for outcome in Outcome::ALL {
        object.number(outcome.name(), zone.limited_total(outcome));
    }
    object.end();
}
