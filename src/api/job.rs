//! Answers that take more work than a turn of the event loop may, and bodies that are read piece by piece.

use super::{Response, response::Body};
use crate::record::Millis;
use std::io;

/// What becomes of a request.
pub enum Answer {
    /// This is sent.
    Now(Response),
    /// First there is work to do.
    Later(Box<dyn Job>),
}

/// Work on a zone, done in steps. It is done to its end, even if the client goes away.
pub trait Job {
    /// Some records' worth of work, a small part of a millisecond. The response ends it.
    fn step(&mut self, now: Millis) -> Option<Response>;

    /// Whether the steps change a synchronized zone: the agent is to be woken after each turn.
    fn wakes(&self) -> bool;
}

/// A request's body, read from its beginning.
pub trait Pieces {
    /// Appends the next piece, of some dozens of kilobytes at most. `false`: there is no more.
    ///
    /// # Errors
    ///
    /// What reading nginx's temporary file gives.
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;
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
