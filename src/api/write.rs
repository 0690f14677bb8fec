//! Writing one pair, created or replaced, under a precondition; adding to a counter.

use super::condition::Precondition;
use super::error::Error;
use super::{Response, shape};
use crate::record::{Millis, Version};
use crate::store::{Condition, Counted, Life, Missing, StoreError, Written, Zone};

/// How often a record that changes under our eyes is looked at again.
const TRIES: usize = 16;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Created(Version),
    Replaced(Version),
}

/// Sets a pair, whether it is there or not.
pub(super) fn put(
    zone: &Zone,
    key: &[u8],
    value: &[u8],
    life: Life,
    precondition: &Precondition,
    now: Millis,
) -> Result<Put, Error> {
    for _ in 0..TRIES {
        let condition = condition(zone, key, precondition, now)?;
        // The store doesn't tell whether it found a record: so one of two conditions is tried after the other.
        let tried: &[Condition] = match condition {
            Condition::Always => &[Condition::Present, Condition::Absent],
            ref other => std::slice::from_ref(other),
        };
        for &condition in tried {
            match zone.set(key, value, life, condition, now)? {
                Written::Done(version) if condition == Condition::Absent => return Ok(Put::Created(version)),
                Written::Done(version) => return Ok(Put::Replaced(version)),
                Written::Unmet => {}
            }
        }
    }
    Err(unmet(precondition))
}

/// Adds to a counter, and tells what it is now.
pub(super) fn count(zone: &Zone, key: &[u8], by: i64, missing: Missing, now: Millis) -> Result<Response, Error> {
    match zone.count(key, by, missing, now)? {
        Counted::Unmet => Err(Error::KeyvalKeyNotFound),
        Counted::Done { sum, created, .. } => {
            let mut body = vec![b'{'];
            shape::pair(&mut body, key, sum.to_string().as_bytes(), None);
            body.push(b'}');
            Ok(Response { body: body.into(), ..Response::empty(if created { 201 } else { 200 }) })
        }
    }
}

/// Removes a pair.
pub(super) fn delete(zone: &Zone, key: &[u8], precondition: &Precondition, now: Millis) -> Result<(), Error> {
    for _ in 0..TRIES {
        let condition = match condition(zone, key, precondition, now)? {
            // Of what isn't there nothing can be removed.
            Condition::Absent => return Err(Error::KeyvalKeyNotFound),
            condition => condition,
        };
        match zone.delete_if(key, condition, now) {
            Ok(Written::Done(_)) => return Ok(()),
            Ok(Written::Unmet) if condition == Condition::Always => return Err(Error::KeyvalKeyNotFound),
            Ok(Written::Unmet) => {}
            Err(StoreError::BadKey) => return Err(Error::KeyvalKeyNotFound),
            Err(error) => return Err(error.into()),
        }
    }
    Err(unmet(precondition))
}

/// Whether a precondition holds now.
pub(super) fn check(zone: &Zone, key: &[u8], precondition: &Precondition, now: Millis) -> Result<(), Error> {
    condition(zone, key, precondition, now).map(drop)
}

/// What must hold under the lock.
fn condition(zone: &Zone, key: &[u8], precondition: &Precondition, now: Millis) -> Result<Condition, Error> {
    if *precondition == Precondition::None {
        return Ok(Condition::Always);
    }
    let current = match zone.get(key, now, &mut Vec::new()) {
        Ok(found) => found.map(|found| zone.version(&found)),
        Err(StoreError::BadKey) => None,
        Err(error) => return Err(error.into()),
    };
    precondition.write(current).ok_or(Error::PreconditionFailed)
}

/// Others were quicker each time.
fn unmet(precondition: &Precondition) -> Error {
    if *precondition == Precondition::None { Error::KeyvalBusy } else { Error::PreconditionFailed }
}
