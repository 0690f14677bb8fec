//! PUT: one pair, or many.

use super::counts;
use super::pairs;
use crate::api::body::{self, Change, Packed, Pair, Place};
use crate::api::condition::{self, Precondition};
use crate::api::error::{Error, FormatError};
use crate::api::write::{self, Put};
use crate::api::{Answer, Job, NamedZone, Request, Response, Step, route};
use crate::record::Millis;
use crate::store::{Counted, Missing, StoreError, Written};

/// `key`: the body is the value of this one.
pub(super) fn answer(request: &Request<'_>, zone: &NamedZone, key: Option<&[u8]>) -> Answer {
    let (precondition, announces) = (Precondition::of(request), zone.zone.announces());
    let (version, request_id) = (route::version(request.path).0, request.request_id.to_owned());
    let named = zone.clone();
    let then = Box::new(move |pairs: Packed, now| match pairs.only() {
        Some(pair) => one(&named, &pair, &precondition, now),
        None if pairs.len() == 0 => Err(FormatError::KeyRequired.into()),
        None if precondition == Precondition::None => {
            Ok(Answer::Later(Box::new(Many::new(named, pairs, version, request_id))))
        }
        None => Err(Error::ConditionOfMany),
    });
    match key {
        Some(key) => body::value(request, announces, pairs::understand_value(key, zone), then),
        None => body::pairs(request, announces, pairs::understand(zone), then),
    }
}

fn one(zone: &NamedZone, pair: &Pair<'_>, precondition: &Precondition, now: Millis) -> Result<Answer, Error> {
    let response = match &pair.change {
        Change::Set { value, life } => {
            let put = write::put(&zone.zone, &pair.key, value, *life, precondition, now)?;
            let (status, version) = match put {
                Put::Created(version) => (201, version),
                Put::Replaced(version) => (204, version),
            };
            Response { headers: vec![("ETag", condition::tag(version))], ..Response::empty(status) }
        }
        Change::Count { .. } if *precondition != Precondition::None => return Err(Error::ConditionOfCount),
        Change::Count { by, init, life } => {
            let missing = Missing::Begin(init.unwrap_or(0), *life);
            write::count(&zone.zone, &pair.key, *by, missing, now)?
        }
        Change::Touch(_) | Change::Delete => {
            write::delete(&zone.zone, &pair.key, precondition, now)?;
            Response::empty(204)
        }
    };
    Ok(response.into())
}

/// Counts of what was done.
#[derive(Default)]
pub(super) struct Done {
    pub(super) created: u64,
    pub(super) replaced: u64,
    pub(super) deleted: u64,
    /// Pairs that were to be deleted and weren't there.
    pub(super) missing: u64,
}

impl Done {
    /// Does what a pair says, without conditions.
    pub(super) fn apply(&mut self, zone: &NamedZone, pair: &Pair<'_>, now: Millis) -> Result<(), Error> {
        match &pair.change {
            Change::Set { value, life } => {
                match write::put(&zone.zone, &pair.key, value, *life, &Precondition::None, now)? {
                    Put::Created(_) => self.created += 1,
                    Put::Replaced(_) => self.replaced += 1,
                }
            }
            Change::Count { by, init, life } => {
                let missing = Missing::Begin(init.unwrap_or(0), *life);
                match zone.zone.count(&pair.key, *by, missing, now)? {
                    Counted::Done { created: true, .. } => self.created += 1,
                    _ => self.replaced += 1,
                }
            }
            Change::Touch(_) | Change::Delete => match zone.zone.delete(&pair.key, now) {
                Ok(Written::Done(_)) => self.deleted += 1,
                Ok(Written::Unmet) | Err(StoreError::BadKey) => self.missing += 1,
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// For an answer.
    pub(super) fn list(&self) -> [(&'static str, u64); 4] {
        let Done { created, replaced, deleted, missing } = *self;
        [("created", created), ("replaced", replaced), ("deleted", deleted), ("missing", missing)]
    }

    fn sum(&self) -> u64 {
        self.created + self.replaced + self.deleted + self.missing
    }
}

/// Pairs in one step.
const A_STEP: usize = 64;

/// Writes many pairs, one after the other.
struct Many {
    zone: NamedZone,
    pairs: Packed,
    place: Place,
    done: Done,
    /// All is done, and the pairs are let go.
    result: Option<Result<(), Error>>,
    version: Option<u8>,
    request_id: String,
}

impl Many {
    fn new(zone: NamedZone, pairs: Packed, version: Option<u8>, request_id: String) -> Many {
        Many { zone, pairs, place: Place::default(), done: Done::default(), result: None, version, request_id }
    }

    /// The next one; its failure is the end, and so is that there is none.
    fn write(&mut self, now: Millis) -> Option<Result<(), Error>> {
        let Some(pair) = self.pairs.next(&mut self.place) else { return Some(Ok(())) };
        let why = self.done.apply(&self.zone, &pair, now).err()?;
        Some(Err(Error::Stopped { why: Box::new(why), done: self.done.sum(), all: self.pairs.len() }))
    }
}

impl Job for Many {
    fn step(&mut self, now: Millis) -> Step {
        for _ in 0..A_STEP {
            if self.result.is_some() {
                break;
            }
            self.result = self.write(now);
        }
        self.pairs.drop_passed(&mut self.place);
        match &self.result {
            None => Step::More,
            Some(_) if self.pairs.drop_some() => Step::More,
            Some(Ok(())) => Step::Done(Response::ok(counts(&self.done.list()))),
            Some(Err(error)) => Step::Done(error.response(self.version, &self.request_id)),
        }
    }

    fn wakes(&self) -> bool {
        self.zone.zone.announces()
    }
}
