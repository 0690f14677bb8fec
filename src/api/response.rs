//! What the API answers: a status, headers, and a body that is there or is made while it is sent.

use crate::record::Millis;
use std::fmt;

/// The type of nearly every body.
const JSON: &str = "application/json";
/// Of bodies with a JSON text in each line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// A body that ends within so many bytes and steps is sent with its length.
const BEGIN_BYTES: usize = 32 * 1024;
const BEGIN_STEPS: usize = 64;
/// So many bytes of records are looked at meanwhile, whatever is shown of them.
const BEGIN_SEEN: usize = 1024 * 1024;
/// Between two tries on a zone whose lock is stuck, and how many there are: some seconds. Each blocks for as long as the
/// store waits for a lock.
pub(super) const BUSY_PAUSE: Millis = 400;
pub(super) const BUSY_TRIES: u32 = 10;

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
    /// Value of `Cache-Control`.
    pub cache_control: &'static str,
    /// Other headers: name and value.
    pub headers: Vec<(&'static str, String)>,
    /// A synchronized zone was changed: the agent is to be woken.
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

    /// Bytes of records that were looked at so far, shown or not.
    fn seen(&self) -> usize {
        0
    }

    /// Whoever has something new for a body that waits calls `poke`, from outside of `produce`, until the body is dropped.
    fn poke_by(&mut self, _poke: Box<dyn Fn()>) {}
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
        Response {
            status,
            content_type: JSON,
            body: Body::Bytes(Vec::new()),
            allow: None,
            cache_control: "no-store",
            headers: Vec::new(),
            changed: false,
        }
    }
}

impl Body {
    /// Begins one; if it is small it is made whole. `None`: its zone is busy.
    pub(super) fn begin(mut rest: impl Produce + 'static, now: Millis) -> Option<Body> {
        let mut begin = Vec::new();
        for _ in 0..BEGIN_STEPS {
            match rest.produce(&mut begin, now) {
                Produced::End => return Some(Body::Bytes(begin)),
                Produced::More if begin.len() < BEGIN_BYTES && rest.seen() < BEGIN_SEEN => {}
                Produced::More => break,
                Produced::Wait(_) | Produced::Broken => return None,
            }
        }
        Some(Body::Stream(begin, Box::new(rest)))
    }
}

/// Counts how often in a row a zone was busy.
#[derive(Default)]
pub(super) struct Patience {
    times: u32,
}

impl Patience {
    /// Once more: what to do.
    pub(super) fn busy(&mut self) -> Produced {
        self.times += 1;
        if self.times < BUSY_TRIES { Produced::Wait(BUSY_PAUSE) } else { Produced::Broken }
    }

    /// It wasn't.
    pub(super) fn done(&mut self) {
        self.times = 0;
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
