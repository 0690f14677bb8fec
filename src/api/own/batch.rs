//! POST: imports pairs, one JSON object a line. Each line is done for itself, so that millions can pass; what can't be done
//! is counted, and the first of them are named.

use super::pairs;
use super::put::Done;
use crate::api::args::Fields;
use crate::api::error::{Error, FormatError};
use crate::api::json::{self, Json, Object};
use crate::api::{Job, NamedZone, Pieces, Request, Response, route};
use crate::record::Millis;

/// Lines in one step.
const A_STEP: usize = 32;
/// How often in a row the zone may be busy.
const BUSY_TRIES: u32 = 10;
/// Longest line: the largest key and value, if every byte is escaped.
const MAX_LINE: usize = 8 << 20;
/// How many failures are named.
const NAMED: usize = 10;

/// What became of a line.
enum Used {
    /// It was used, or counted among those that failed.
    Done,
    /// The zone is busy: its lock was waited for, and the line is to be tried again.
    Later,
    /// The zone was busy once too often: the import ends.
    Stuck,
}

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
    /// How often in a row the zone was busy.
    busy: u32,
    done: Done,
    failed: u64,
    full: bool,
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
            busy: 0,
            done: Done::default(),
            failed: 0,
            full: false,
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

    fn use_line(&mut self, range: std::ops::Range<usize>, now: Millis) -> Used {
        self.line += 1;
        if std::mem::take(&mut self.passing) {
            return Used::Done;
        }
        let line = self.buffer.get(range.clone()).unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Used::Done;
        }
        let result = read(line, &self.zone).and_then(|pair| self.done.apply(&self.zone, &pair, now));
        if result == Err(Error::KeyvalBusy) && self.busy < BUSY_TRIES {
            self.busy += 1;
            self.line -= 1;
            (self.start, self.searched) = (range.start, range.start);
            return Used::Later;
        }
        self.busy = 0;
        match result {
            Ok(()) => Used::Done,
            Err(error) => {
                let stuck = error == Error::KeyvalBusy;
                self.fail(error);
                if stuck { Used::Stuck } else { Used::Done }
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failed += 1;
        self.full |= error == Error::KeyvalNoMemory;
        if self.named.len() < NAMED {
            self.named.push((self.line, error.to_string()));
        }
    }

    fn read_more(&mut self) -> std::io::Result<()> {
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
        self.at_end = !self.pieces.next(&mut self.buffer)?;
        Ok(())
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
        if self.failed == 0 {
            return Response::ok(report);
        }
        Error::Incomplete { failed: self.failed, full: self.full, report }.response(self.version, &self.request_id)
    }
}

impl Job for Import {
    fn step(&mut self, now: Millis) -> Option<Response> {
        for _ in 0..A_STEP {
            match self.next_line() {
                Some(line) => match self.use_line(line, now) {
                    Used::Done => {}
                    Used::Later => return None,
                    Used::Stuck => return Some(self.response()),
                },
                None if self.at_end => return Some(self.response()),
                None => {
                    return match self.read_more() {
                        Ok(()) => None,
                        Err(_) => Some(Error::BodyRead.response(self.version, &self.request_id)),
                    };
                }
            }
        }
        None
    }

    fn wakes(&self) -> bool {
        self.zone.zone.announces()
    }
}

/// One line: an object of one pair.
fn read(line: &[u8], zone: &NamedZone) -> Result<pairs::Pair, Error> {
    let Json::Object(members) = json::parse(line)? else { return Err(FormatError::OnePair.into()) };
    let mut members = members.into_iter();
    match (members.next(), members.next()) {
        (Some((name, json)), None) => Ok(pairs::pair(name, json, zone)?),
        _ => Err(FormatError::OnePair.into()),
    }
}
