//! Bodies of pairs, read in steps: some dozens of kilobytes or of pairs in each. Nothing is done before all was read and
//! checked.

mod members;
mod packed;

pub(super) use packed::{Change, Packed, Pair, Place};

use super::error::{Error, FormatError};
use super::json::{Json, NotJson};
use super::{Answer, Job, Piece, Pieces, Request, Step, job, route};
use crate::record::Millis;
use members::{Found, Members, Wrong};
use std::borrow::Cow;

/// Pairs in one step.
const A_STEP: usize = 64;

/// What a member of the body means for the zone.
pub(super) type Understand = Box<dyn for<'a> Fn(Cow<'a, str>, Json<'a>) -> Result<Pair<'a>, FormatError>>;
/// What is to be done with the pairs.
pub(super) type Then = Box<dyn FnOnce(Packed, Millis) -> Result<Answer, Error>>;

/// A body that is an object of pairs. `announces`: that of the zone.
pub(super) fn pairs(request: &Request<'_>, announces: bool, understand: Understand, then: Then) -> Answer {
    read(request, Members::default(), announces, understand, then)
}

/// A body that is the value of a pair: `understand` gets no name.
pub(super) fn value(request: &Request<'_>, announces: bool, understand: Understand, then: Then) -> Answer {
    let members = Members::whole_text();
    read(request, members, announces, understand, then)
}

fn read(request: &Request<'_>, members: Members, announces: bool, understand: Understand, then: Then) -> Answer {
    Answer::Later(Box::new(Reading {
        pieces: (request.pieces)(),
        is_object: !members.is_whole(),
        members,
        at_end: false,
        wrong: None,
        is_lost: false,
        packed: Packed::default(),
        understand,
        then: Some(then),
        next: None,
        announces,
        changed: false,
        version: route::version(request.path).0,
        request_id: request.request_id.to_owned(),
    }))
}

struct Reading {
    pieces: Box<dyn Pieces>,
    members: Members,
    /// Anything but an object is refused.
    is_object: bool,
    /// All of the body was read.
    at_end: bool,
    /// The first thing that is wrong with it. A body that isn't JSON is refused for that, whatever else is wrong with it.
    wrong: Option<Error>,
    /// The rest is read and not looked at, so that the client has sent it when it is answered.
    is_lost: bool,
    packed: Packed,
    understand: Understand,
    then: Option<Then>,
    /// The work that came of it.
    next: Option<Box<dyn Job>>,
    announces: bool,
    changed: bool,
    version: Option<u8>,
    request_id: String,
}

impl Job for Reading {
    fn step(&mut self, now: Millis) -> Step {
        match &mut self.next {
            Some(job) => job.step(now),
            None if self.is_lost => self.pass(),
            None => self.read(now),
        }
    }

    fn wakes(&self) -> bool {
        self.next.as_ref().map_or(self.changed && self.announces, |job| job.wakes())
    }
}

impl Reading {
    /// Reads some pairs.
    fn read(&mut self, now: Millis) -> Step {
        for _ in 0..A_STEP {
            match self.members.next(self.at_end) {
                Ok(Found::Member) => {
                    if let Err(error) = self.take_member() {
                        return self.lose(error.into());
                    }
                }
                Ok(Found::Nothing) => return self.more(),
                Ok(Found::End) => return self.finish(now),
                Ok(Found::Whole) if self.packed.len() > 0 => return self.finish(now),
                Ok(Found::Whole) => match self.take_whole() {
                    Ok(()) => return self.finish(now),
                    Err(error) => return self.lose(error.into()),
                },
                Err(Wrong::Json(error)) => return self.lose(error.into()),
                Err(Wrong::TooLong) if self.is_object => return self.lose(FormatError::PairTooLong.into()),
                Err(Wrong::TooLong) => return self.lose(FormatError::ValueTooLong.into()),
            }
        }
        Step::More
    }

    fn take_member(&mut self) -> Result<(), NotJson> {
        let (name, json) = self.members.member()?;
        if self.wrong.is_none() {
            let pair = (self.understand)(name, json).map_err(Error::from);
            self.wrong = pair.and_then(|pair| self.packed.add(&pair)).err();
        }
        Ok(())
    }

    /// A text that is taken as a whole.
    fn take_whole(&mut self) -> Result<(), NotJson> {
        let json = self.members.whole()?;
        let pair = match self.is_object {
            true => Err(FormatError::NotObject),
            false => (self.understand)(Cow::Borrowed(""), json),
        };
        self.wrong = pair.map_err(Error::from).and_then(|pair| self.packed.add(&pair)).err();
        Ok(())
    }

    fn more(&mut self) -> Step {
        match self.pieces.next(self.members.room()) {
            Ok(Piece::Some) => Step::More,
            Ok(Piece::Wait) => Step::Wait,
            Ok(Piece::End) => {
                self.at_end = true;
                Step::More
            }
            Err(status) => job::unread(status, self.version, &self.request_id),
        }
    }

    /// The body can't be understood any further.
    fn lose(&mut self, error: Error) -> Step {
        self.wrong = Some(error);
        self.is_lost = true;
        Step::More
    }

    /// Reads a piece of what isn't looked at, or lets go of some of what was.
    fn pass(&mut self) -> Step {
        if self.packed.drop_some() {
            return Step::More;
        }
        if !self.at_end {
            self.members = Members::default();
            return self.more();
        }
        self.refuse()
    }

    /// All was read.
    fn finish(&mut self, now: Millis) -> Step {
        if self.wrong.is_some() {
            self.is_lost = true;
            return Step::More;
        }
        if self.packed.forget_keys() {
            return Step::More;
        }
        let Some(then) = self.then.take() else { return self.refuse() };
        match then(std::mem::take(&mut self.packed), now) {
            Ok(Answer::Now(response)) => {
                self.changed = true;
                Step::Done(response)
            }
            Ok(Answer::Later(job)) => {
                self.next = Some(job);
                Step::More
            }
            Err(error) => Step::Done(error.response(self.version, &self.request_id)),
        }
    }

    fn refuse(&mut self) -> Step {
        let error = self.wrong.take().unwrap_or(Error::BodyRead);
        Step::Done(error.response(self.version, &self.request_id))
    }
}
