//! Answers that take more work than a turn of the event loop may, and bodies that are read piece by piece.

use super::error::Error;
use super::{Response, response::Body};
use crate::record::Millis;

/// What becomes of a request.
pub enum Answer {
    /// This is sent.
    Now(Response),
    /// First there is work to do.
    Later(Box<dyn Job>),
}

/// Work on a zone, done in steps. Once its body was read it is done to its end, even if the client goes away.
pub trait Job {
    /// Some records' worth of work, a small part of a millisecond.
    fn step(&mut self, now: Millis) -> Step;

    /// Whether the steps change a synchronized zone: the agent is to be woken after each turn.
    fn wakes(&self) -> bool;
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// There is more to do.
    More,
    /// There is more to do when more of the body has come.
    Wait,
    /// There is more to do after so many milliseconds: the zone is busy.
    Pause(Millis),
    /// That was all.
    Done(Response),
    /// The body can't be read: nginx answers with this status.
    Refused(u16),
}

/// A request's body, read from its beginning, as it comes.
pub trait Pieces {
    /// Appends the next piece, of some dozens of kilobytes at most unless nginx's buffer is larger.
    ///
    /// # Errors
    ///
    /// The status for nginx to answer with.
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Piece, u16>;
}

/// What [`Pieces::next`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It appended something.
    Some,
    /// More is still to come.
    Wait,
    /// There is no more.
    End,
}

/// An answer that waits until the client has sent its body, which nobody looks at: so that the connection can go on.
pub fn after_body(pieces: Box<dyn Pieces>, response: Response) -> Box<dyn Job> {
    let changed = response.changed;
    Box::new(AfterBody { pieces, response: Some(response), changed })
}

struct AfterBody {
    pieces: Box<dyn Pieces>,
    response: Option<Response>,
    changed: bool,
}

impl Job for AfterBody {
    fn step(&mut self, _: Millis) -> Step {
        match self.pieces.next(&mut Vec::new()) {
            Ok(Piece::Some) => Step::More,
            Ok(Piece::Wait) => Step::Wait,
            Ok(Piece::End) => self.response.take().map_or(Step::Refused(500), Step::Done),
            Err(status) => Step::Refused(status),
        }
    }

    fn wakes(&self) -> bool {
        self.changed
    }
}

/// The step that ends work whose body couldn't be read, for which nginx has this status.
pub(super) fn unread(status: u16, version: Option<u8>, request_id: &str) -> Step {
    match status {
        400 => Step::Done(Error::BodyRead.response(version, request_id)),
        _ => Step::Refused(status),
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer::Now(response)
    }
}

impl Answer {
    /// 200 with a JSON body.
    pub(super) fn ok(body: impl Into<Body>) -> Answer {
        Answer::Now(Response::ok(body))
    }
}
