//! What the API answers: a status, headers, and a body that is there or is made while it is sent.

use crate::record::Millis;
use std::fmt;

/// The type of nearly every body.
pub(super) const JSON: &str = "application/json";

/// What to send.
#[derive(Debug, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Type of the body; sent unless the status is one without a body.
    pub content_type: &'static str,
    /// Possibly none. To HEAD it is not sent, but its length is if it is known.
    pub body: Body,
    /// Value of `Allow`, if one is to be sent.
    pub allow: Option<&'static str>,
    /// Other headers: name and value.
    pub headers: Vec<(&'static str, String)>,
    /// A synchronized zone was changed: the agent is to be woken. May be true beside a failure, when a list of pairs
    /// was written half-way and taken back.
    pub changed: bool,
}

/// What follows the headers.
pub enum Body {
    /// All of it.
    Bytes(Vec<u8>),
    /// Its beginning, and what makes the rest. It is dropped when the client goes away.
    Stream(Vec<u8>, Box<dyn Produce>),
}

/// Makes a body piece by piece, so that neither memory nor a turn of the event loop grows with it.
pub trait Produce {
    /// Appends the next piece to `out`: some kilobytes, made in a small part of a millisecond. A piece may be empty.
    fn produce(&mut self, out: &mut Vec<u8>, now: Millis) -> Produced;
}

/// Where a body that is being made stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Produced {
    /// There is more, at once.
    More,
    /// There is nothing now: what was appended is to be sent, and the next call to come after so many milliseconds.
    Wait(Millis),
    /// That was all.
    End,
    /// It can't go on: the connection is to be cut, so that nobody takes what was sent for the whole.
    Broken,
}

impl Response {
    /// 200 with a JSON body.
    pub(super) fn ok(body: impl Into<Body>) -> Response {
        Response { body: body.into(), ..Response::empty(200) }
    }

    /// A status and no body.
    pub(super) fn empty(status: u16) -> Response {
        let body = Body::Bytes(Vec::new());
        Response { status, content_type: JSON, body, allow: None, headers: Vec::new(), changed: false }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Bytes(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Bytes(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Body::Stream(begin, _) => write!(f, "{}...", String::from_utf8_lossy(begin)),
        }
    }
}

/// A body that isn't made yet is like no other.
impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        matches!((self, other), (Body::Bytes(one), Body::Bytes(two)) if one == two)
    }
}
