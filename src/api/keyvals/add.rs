//! POST of several pairs to an empty zone: all of them, or none.

use crate::api::body::{Change, Packed, Pair, Place};
use crate::api::error::{Error, FormatError};
use crate::api::response::{BUSY_PAUSE, BUSY_TRIES};
use crate::api::{Job, Response, Step};
use crate::record::{Millis, Version};
use crate::store::{Condition, ScanPlace, StoreError, Written, Zone};

/// Pairs in one step.
const A_STEP: usize = 64;

/// Adds pairs one after the other, and takes them back if one can't be added. Others may add theirs meanwhile: a pair that is
/// there then is a conflict, as it would be for a single one.
pub(super) struct Add {
    zone: Zone,
    /// All are to be set.
    pairs: Packed,
    /// The next pair to add, or to take back.
    place: Place,
    /// Where the look for a pair that is there goes on; `None`: there was none.
    look: Option<ScanPlace>,
    /// How often in a row the zone was busy.
    busy: u32,
    /// Versions of those that were added and not taken back, the last one first once they are taken back.
    added: Vec<Version>,
    failed: Option<Error>,
    /// All is done, and the pairs are let go.
    is_over: bool,
    version: Option<u8>,
    request_id: String,
}

impl Add {
    pub(super) fn new(zone: Zone, pairs: Packed, version: Option<u8>, request_id: String) -> Add {
        Add {
            zone,
            pairs,
            place: Place::default(),
            look: Some(ScanPlace::default()).filter(|_| zone.stats().records > 0),
            busy: 0,
            added: Vec::new(),
            failed: None,
            is_over: false,
            version,
            request_id,
        }
    }

    /// Looks at some dozens of records: none may be alive. Those whose end has come may be many.
    fn look(&mut self, at: ScanPlace, now: Millis) -> Step {
        let mut empty = true;
        match self.zone.scan(at, now, &mut |_, _, _| empty = false) {
            Ok(_) if !empty => self.failed = Some(FormatError::OneAdded.into()),
            Ok(next) => (self.look, self.busy) = (next, 0),
            Err(StoreError::Busy) if self.busy < BUSY_TRIES => {
                self.busy += 1;
                return Step::Pause(BUSY_PAUSE);
            }
            Err(error) => self.failed = Some(error.into()),
        }
        Step::More
    }

    /// `false`: there is no further one.
    fn add_next(&mut self, now: Millis) -> bool {
        let Some(Pair { key, change: Change::Set { value, life } }) = self.pairs.next(&mut self.place) else {
            return false;
        };
        let failed = match self.zone.set(&key, &value, life, Condition::Absent, now) {
            Ok(Written::Done(version)) => {
                self.added.push(version);
                return true;
            }
            Ok(Written::Unmet) => Error::KeyvalKeyExists,
            Err(error) => error.into(),
        };
        self.failed = Some(failed);
        // They are taken back in the order in which they came.
        self.added.reverse();
        self.busy = 0;
        self.place = Place::default();
        true
    }

    /// Takes one back; `false`: all are, or the zone stays busy. One that someone has changed since is theirs, and stays.
    fn take_back(&mut self, now: Millis) -> bool {
        if self.busy >= BUSY_TRIES {
            // It keeps the rest: the request has failed, and there is nothing better to tell.
            return false;
        }
        let Some(version) = self.added.last() else { return false };
        let mut next = self.place;
        if let Some(Pair { key, .. }) = self.pairs.next(&mut next)
            && self.zone.delete_if(&key, Condition::Version(*version), now) == Err(StoreError::Busy)
        {
            self.busy += 1;
            return true;
        }
        (self.place, self.busy) = (next, 0);
        self.added.pop();
        true
    }
}

impl Job for Add {
    fn step(&mut self, now: Millis) -> Step {
        if let (Some(at), None) = (self.look, &self.failed) {
            return self.look(at, now);
        }
        for _ in 0..A_STEP {
            let busy = self.busy;
            let more = match &self.failed {
                _ if self.is_over => break,
                None => self.add_next(now),
                Some(_) => self.take_back(now),
            };
            self.is_over = !more;
            if self.busy > busy {
                return Step::Pause(BUSY_PAUSE);
            }
        }
        if !self.is_over || self.pairs.drop_some() {
            return Step::More;
        }
        Step::Done(match &self.failed {
            None => Response::empty(201),
            Some(error) => error.response(self.version, &self.request_id),
        })
    }

    fn wakes(&self) -> bool {
        self.zone.announces()
    }
}
