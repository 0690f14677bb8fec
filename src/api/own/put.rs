//! PUT: one pair, or many. A body is checked as a whole before anything is done with it.

use super::counts;
use super::pairs::{self, Change, Pair};
use crate::api::condition::{self, Precondition};
use crate::api::error::{Error, FormatError};
use crate::api::json::{self, Json};
use crate::api::write::{self, Put};
use crate::api::{Answer, Job, NamedZone, Request, Response};
use crate::record::Millis;
use crate::store::{StoreError, Written};
use std::collections::HashSet;

/// `key`: the body is the value of this one.
pub(super) fn answer(
    request: &Request<'_>,
    zone: &NamedZone,
    key: Option<&[u8]>,
    changed: &mut bool,
) -> Result<Answer, Error> {
    let body = json::parse(request.body.ok_or(Error::BodyRead)?)?;
    let precondition = Precondition::of(request);
    let mut list = match key {
        Some(key) => {
            let Pair { key: other, change } = pairs::pair(String::from_utf8_lossy(key), body, zone)?;
            // The name that isn't text is in the arguments, byte for byte.
            drop(other);
            crate::api::keyvals::check_key(key, zone.zone.params().matching)?;
            vec![Pair { key: key.to_vec(), change }]
        }
        None => read(body, zone)?,
    };
    match (list.pop(), list.is_empty()) {
        (Some(pair), true) => one(request, zone, &pair, &precondition, changed),
        (Some(last), false) if precondition == Precondition::None => {
            list.push(last);
            Ok(Answer::Later(Box::new(Many::new(request, zone, list))))
        }
        (Some(_), false) => Err(Error::BadArgument("If-Match and If-None-Match go with one pair")),
        (None, _) => Err(FormatError::KeyRequired.into()),
    }
}

fn read(body: Json<'_>, zone: &NamedZone) -> Result<Vec<Pair>, Error> {
    let Json::Object(members) = body else { return Err(FormatError::NotObject.into()) };
    let list: Result<Vec<Pair>, FormatError> =
        members.into_iter().map(|(name, json)| pairs::pair(name, json, zone)).collect();
    let list = list?;
    let mut keys = HashSet::with_capacity(list.len());
    if !list.iter().all(|pair| keys.insert(pair.key.as_slice())) {
        return Err(FormatError::KeyTwice.into());
    }
    drop(keys);
    Ok(list)
}

fn one(
    request: &Request<'_>,
    zone: &NamedZone,
    pair: &Pair,
    precondition: &Precondition,
    changed: &mut bool,
) -> Result<Answer, Error> {
    let response = match &pair.change {
        Change::Set { value, life } => {
            let put = write::put(&zone.zone, &pair.key, value, *life, precondition, request.now)?;
            let (status, version) = match put {
                Put::Created(version) => (201, version),
                Put::Replaced(version) => (204, version),
            };
            Response { headers: vec![("ETag", condition::tag(version))], ..Response::empty(status) }
        }
        Change::Delete => {
            write::delete(&zone.zone, &pair.key, precondition, request.now)?;
            Response::empty(204)
        }
    };
    *changed |= zone.zone.announces();
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
    pub(super) fn apply(&mut self, zone: &NamedZone, pair: &Pair, now: Millis) -> Result<(), Error> {
        match &pair.change {
            Change::Set { value, life } => {
                match write::put(&zone.zone, &pair.key, value, *life, &Precondition::None, now)? {
                    Put::Created(_) => self.created += 1,
                    Put::Replaced(_) => self.replaced += 1,
                }
            }
            Change::Delete => match zone.zone.delete(&pair.key, now) {
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
    list: std::vec::IntoIter<Pair>,
    all: usize,
    done: Done,
    version: Option<u8>,
    request_id: String,
}

impl Many {
    fn new(request: &Request<'_>, zone: &NamedZone, list: Vec<Pair>) -> Many {
        Many {
            zone: zone.clone(),
            all: list.len(),
            list: list.into_iter(),
            done: Done::default(),
            version: crate::api::route::version(request.path).0,
            request_id: request.request_id.to_owned(),
        }
    }
}

impl Job for Many {
    fn step(&mut self, now: Millis) -> Option<Response> {
        for _ in 0..A_STEP {
            let Some(pair) = self.list.next() else { return Some(Response::ok(counts(&self.done.list()))) };
            if let Err(why) = self.done.apply(&self.zone, &pair, now) {
                let error = Error::Stopped { why: Box::new(why), done: self.done.sum(), all: self.all };
                return Some(error.response(self.version, &self.request_id));
            }
        }
        None
    }

    fn wakes(&self) -> bool {
        self.zone.zone.announces()
    }
}
