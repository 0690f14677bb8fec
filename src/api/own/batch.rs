//! POST: imports pairs, one JSON object a line. Each line is done for itself, so that millions can pass; what can't be done
//! is counted, and the first of them are named.

use super::pairs;
use super::put::Done;
use crate::api::args::Fields;
use crate::api::body::Pair;
use crate::api::error::{Error, FormatError};
use crate::api::json::{self, Json, Object};
use crate::api::response::{BUSY_PAUSE, BUSY_TRIES};
use crate::api::{Job, NamedZone, Piece, Pieces, Request, Response, Step, job, route};
use crate::record::Millis;

/// Lines in one step.
const A_STEP: usize = 32;
/// Longest line: the largest key and value, if every byte is escaped.
const MAX_LINE: usize = 8 << 20;
/// How many failures are named.
const NAMED: usize = 10;

pub(super) struct Import {
    zone: NamedZone,
    pieces: Box<dyn Pieces>,
    /// What was read and not used yet begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    at_end: bool,
    /// The line is too long: what is left of it is passed over.
    passing: bool,
    line: u64,
    done: Done,
    failed: u64,
    full: bool,
    /// How often in a row the zone was busy.
    busy: u32,
    named: Vec<(u64, String)>,
    version: Option<u8>,
    request_id: String,
}

impl Import {
    pub(super) fn new(request: &Request<'_>, zone: &NamedZone) -> Import {
        Import {
            zone: zone.clone(),
            pieces: (request.pieces)(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            at_end: false,
            passing: false,
            line: 0,
            done: Done::default(),
            failed: 0,
            full: false,
            busy: 0,
            named: Vec::new(),
            version: route::version(request.path).0,
            request_id: request.request_id.to_owned(),
        }
    }

    /// The next line, without its end. `None`: more has to be read first.
    fn next_line(&mut self) -> Option<std::ops::Range<usize>> {
        let unseen = self.buffer.get(self.searched..).unwrap_or_default();
        if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
            let end = self.searched + length;
            let line = self.start..end;
            (self.start, self.searched) = (end + 1, end + 1);
            return Some(line);
        }
        self.searched = self.buffer.len();
        if !self.at_end || self.start == self.searched {
            return None;
        }
        let line = self.start..self.searched;
        self.start = self.searched;
        Some(line)
    }

    /// `false`: the zone is busy, and the line is still to be done.
    fn use_line(&mut self, range: &std::ops::Range<usize>, now: Millis) -> bool {
        self.line += 1;
        if std::mem::take(&mut self.passing) {
            return true;
        }
        let start = range.start;
        let line = self.buffer.get(range.clone()).unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return true;
        }
        match read(line, &self.zone).and_then(|pair| self.done.apply(&self.zone, &pair, now)) {
            Ok(()) => self.busy = 0,
            Err(Error::KeyvalBusy) => {
                self.line -= 1;
                (self.start, self.searched) = (start, start);
                self.busy += 1;
                return false;
            }
            Err(error) => self.fail(error),
        }
        true
    }

    fn fail(&mut self, error: Error) {
        self.failed += 1;
        self.full |= error == Error::KeyvalNoMemory;
        if self.named.len() < NAMED {
            self.named.push((self.line, error.to_string()));
        }
    }

    fn read_more(&mut self) -> Step {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.len() > MAX_LINE {
            if !std::mem::replace(&mut self.passing, true) {
                self.line += 1;
                self.fail(FormatError::LineTooLong.into());
                self.line -= 1;
            }
            self.buffer.clear();
            self.searched = 0;
        }
        match self.pieces.next(&mut self.buffer) {
            Ok(Piece::Some) => {}
            Ok(Piece::Wait) => return Step::Wait,
            Ok(Piece::End) => self.at_end = true,
            Err(status) => return job::unread(status, self.version, &self.request_id),
        }
        Step::More
    }

    fn response(&self) -> Response {
        let mut report = Vec::new();
        let mut object = Object::new(&mut report, &Fields::All);
        object.number("lines", self.line);
        for (name, count) in self.done.list() {
            object.number(name, count);
        }
        object.number("failed", self.failed);
        object.member(b"errors", |out| {
            out.push(b'[');
            for (n, (line, text)) in self.named.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                let mut object = Object::new(out, &Fields::All);
                object.number("line", *line).string("text", text);
                object.end();
            }
            out.push(b']');
        });
        object.end();
        let busy = self.busy >= BUSY_TRIES;
        if self.failed == 0 && !busy {
            return Response::ok(report);
        }
        Error::Incomplete { failed: self.failed, full: self.full, busy, report }
            .response(self.version, &self.request_id)
    }
}

impl Job for Import {
    fn step(&mut self, now: Millis) -> Step {
        for _ in 0..A_STEP {
            match self.next_line() {
                Some(line) if self.use_line(&line, now) => {}
                Some(_) if self.busy < BUSY_TRIES => return Step::Pause(BUSY_PAUSE),
                // The client is answered at once, though it may be sending still.
                Some(_) => return Step::Done(self.response()),
                None if self.at_end => return Step::Done(self.response()),
                None => return self.read_more(),
            }
        }
        Step::More
    }

    fn wakes(&self) -> bool {
        self.zone.zone.announces()
    }
}

/// One line: an object of one pair.
fn read(line: &[u8], zone: &NamedZone) -> Result<Pair<'static>, Error> {
    let Json::Object(members) = json::parse(line)? else { return Err(FormatError::OnePair.into()) };
    let mut members = members.into_iter();
    match (members.next(), members.next()) {
        (Some((name, json)), None) => Ok(pairs::pair(name, json, zone)?),
        _ => Err(FormatError::OnePair.into()),
    }
}
