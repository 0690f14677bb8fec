//! POST of several pairs to an empty zone: all of them, or none.

use super::pairs::{Change, Pair};
use crate::api::error::{Error, FormatError};
use crate::api::{Job, NamedZone, Request, Response, route};
use crate::record::{Millis, Version};
use crate::store::{Condition, Life, ScanPlace, StoreError, Written, Zone};

/// Pairs in one step.
const A_STEP: usize = 64;
/// How often in a row the zone may be busy.
const BUSY_TRIES: u32 = 10;

/// Adds pairs one after the other, and takes them back if one can't be added. Others may add theirs meanwhile: a pair that is
/// there then is a conflict, as it would be for a single one.
pub(super) struct Add {
    zone: Zone,
    pairs: Vec<(Vec<u8>, Vec<u8>, Life)>,
    /// Where the look for a pair that is there goes on; `None`: there was none.
    look: Option<ScanPlace>,
    /// How often in a row the zone was busy.
    busy: u32,
    /// Versions of those that were added, from the first on.
    added: Vec<Version>,
    failed: Option<Error>,
    version: Option<u8>,
    request_id: String,
}

/// What became of taking a pair back.
enum Taken {
    /// It is gone, or somebody else's.
    One,
    /// The zone is busy.
    Later,
    /// There is none left, or none that can be.
    All,
}

impl Add {
    /// `pairs` are all to be set.
    pub(super) fn new(request: &Request<'_>, zone: &NamedZone, pairs: Vec<Pair<'_>>) -> Add {
        let owned = |Pair { key, change }: Pair<'_>| match change {
            Change::Set { value, life } => Some((key.into_owned().into(), value.into_owned().into(), life)),
            Change::Touch(_) | Change::Delete => None,
        };
        Add {
            zone: zone.zone,
            pairs: pairs.into_iter().filter_map(owned).collect(),
            look: Some(ScanPlace::default()).filter(|_| zone.zone.stats().records > 0),
            busy: 0,
            added: Vec::new(),
            failed: None,
            version: route::version(request.path).0,
            request_id: request.request_id.to_owned(),
        }
    }

    /// Looks at some dozens of records: none may be alive. Those whose end has come may be many.
    fn look(&mut self, at: ScanPlace, now: Millis) {
        let mut empty = true;
        match self.zone.scan(at, now, &mut |_, _, _| empty = false) {
            Ok(_) if !empty => self.failed = Some(FormatError::OneAdded.into()),
            Ok(next) => (self.look, self.busy) = (next, 0),
            Err(StoreError::Busy) if self.busy < BUSY_TRIES => self.busy += 1,
            Err(error) => self.failed = Some(error.into()),
        }
    }

    fn add_next(&mut self, now: Millis) -> bool {
        let Some((key, value, life)) = self.pairs.get(self.added.len()) else { return false };
        match self.zone.set(key, value, *life, Condition::Absent, now) {
            Ok(Written::Done(version)) => self.added.push(version),
            Ok(Written::Unmet) => self.failed = Some(Error::KeyvalKeyExists),
            Err(error) => self.failed = Some(error.into()),
        }
        true
    }

    /// Takes the last one back. One that someone has changed since is theirs, and stays.
    fn take_back(&mut self, now: Millis) -> Taken {
        let Some(version) = self.added.last() else { return Taken::All };
        let key = self.pairs.get(self.added.len() - 1).map_or(&[][..], |(key, ..)| key);
        let deleted = self.zone.delete_if(key, Condition::Version(*version), now);
        if deleted == Err(StoreError::Busy) {
            // Its lock was waited for. After some tries the zone keeps the rest: there is nothing better to tell.
            self.busy += 1;
            return if self.busy < BUSY_TRIES { Taken::Later } else { Taken::All };
        }
        (self.busy, _) = (0, self.added.pop());
        Taken::One
    }
}

impl Job for Add {
    fn step(&mut self, now: Millis) -> Option<Response> {
        if let (Some(at), None) = (self.look, &self.failed) {
            self.look(at, now);
            return None;
        }
        for _ in 0..A_STEP {
            let more = match &self.failed {
                None => self.add_next(now),
                Some(_) => match self.take_back(now) {
                    Taken::One => true,
                    Taken::Later => return None,
                    Taken::All => false,
                },
            };
            if !more {
                let response = match &self.failed {
                    None => Response::empty(201),
                    Some(error) => error.response(self.version, &self.request_id),
                };
                return Some(response);
            }
        }
        None
    }

    fn wakes(&self) -> bool {
        self.zone.announces()
    }
}
