//! Lists a zone, whole or page by page, as one object or a line for each pair.
//!
//! Pages come in no order of keys, but in one that stays: a place is a bucket and a place within it. What is there from
//! the first page to the last is on exactly one of them.

use super::with_meta;
use crate::api::copied::Copied;
use crate::api::error::Error;
use crate::api::response::{Body, NDJSON, Patience, Produce, Produced};
use crate::api::shape::{self, Meta};
use crate::api::{Answer, NamedZone, Request, Response, args};
use crate::record::Millis;
use crate::store::{Found, ScanPlace, Zone};

/// GET without `key`.
pub(super) fn answer(request: &Request<'_>, zone: &NamedZone) -> Result<Answer, Error> {
    let lines = match args::first(request.args, "format").as_deref() {
        None | Some(b"json") => false,
        Some(b"ndjson") => true,
        Some(_) => return Err(Error::BadArgument("\"format\" is json or ndjson")),
    };
    let left = match args::first(request.args, "limit") {
        Some(limit) => Some(number(&limit).ok_or(Error::BadArgument("\"limit\" is a whole number, 1 or more"))?),
        None => None,
    };
    let from = match args::first(request.args, "after") {
        Some(text) => Some(Cursor::read(&text, &zone.zone)?),
        None => None,
    };
    let page = Page {
        zone: zone.zone,
        prefix: args::first(request.args, "prefix").unwrap_or_default().into_owned(),
        meta: with_meta(request)?,
        lines,
        stops: left.is_some() || from.is_some(),
        left: left.unwrap_or(u64::MAX),
        at: Some(from.as_ref().map_or(ScanPlace::default(), |cursor| cursor.bucket)),
        passed: from.and_then(|cursor| cursor.passed),
        any: false,
        state: State::Begin,
        seen: 0,
        patience: Patience::default(),
    };
    let body = Body::begin(page, request.now).ok_or(Error::KeyvalBusy)?;
    let content_type = if lines { NDJSON } else { Response::empty(200).content_type };
    Ok(Response { content_type, ..Response::ok(body) }.into())
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number > 0)
}

struct Page {
    zone: Zone,
    prefix: Vec<u8>,
    meta: bool,
    lines: bool,
    /// It may begin or end within a bucket.
    stops: bool,
    left: u64,
    at: Option<ScanPlace>,
    /// Of the bucket at `at`, what comes up to here in its order was on the page before.
    passed: Option<u64>,
    /// A pair was written.
    any: bool,
    state: State,
    seen: usize,
    patience: Patience,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Within,
    Ended,
}

impl Produce for Page {
    fn produce(&mut self, out: &mut Vec<u8>, now: Millis) -> Produced {
        match (self.state, self.at) {
            (State::Begin, _) => {
                if !self.lines {
                    out.extend_from_slice(b"{\"pairs\":{");
                }
                self.state = State::Within;
            }
            (State::Within, Some(at)) if self.left > 0 => {
                let more = if self.stops { self.bucket(at, out, now) } else { self.some(at, out, now) };
                if more.is_err() {
                    return self.patience.busy();
                }
                self.patience.done();
            }
            (State::Within, _) => {
                if !self.lines {
                    self.end(out);
                }
                self.state = State::Ended;
            }
            (State::Ended, _) => {}
        }
        if self.state == State::Ended { Produced::End } else { Produced::More }
    }

    fn seen(&self) -> usize {
        self.seen
    }
}

/// The zone is busy.
struct Busy;

impl Page {
    /// Some dozens of records.
    fn some(&mut self, at: ScanPlace, out: &mut Vec<u8>, now: Millis) -> Result<(), Busy> {
        let (zone, mut copied) = (self.zone, Copied::default());
        let next = zone.scan(at, now, &mut |key, value, found| {
            self.seen += key.len() + value.len();
            if key.starts_with(&self.prefix) {
                copied.push(key, value, found);
            }
        });
        self.at = next.map_err(|_| Busy)?;
        while let Some((key, value, found)) = copied.first() {
            self.pair(out, key, value, found, now);
            copied.pop();
        }
        Ok(())
    }

    /// The records of one bucket, in their order, as far as the page goes.
    fn bucket(&mut self, at: ScanPlace, out: &mut Vec<u8>, now: Millis) -> Result<(), Busy> {
        let zone = self.zone;
        let mut records = Vec::new();
        let scanned = zone.scan_bucket(at, now, &mut |key, value, found| {
            self.seen += key.len() + value.len();
            if key.starts_with(&self.prefix) {
                records.push((zone.scan_order(key), key.to_vec(), value.to_vec(), found));
            }
        });
        let (bucket, next) = scanned.map_err(|_| Busy)?;
        // If that bucket is empty now, another one was scanned.
        let passed = self.passed.take().filter(|_| bucket == at);
        records.retain(|(order, ..)| passed.is_none_or(|passed| *order > passed));
        records.sort_unstable_by_key(|(order, ..)| *order);
        let count = records.len() as u64;
        let kept = usize::try_from(self.left).unwrap_or(usize::MAX);
        for (order, key, value, found) in records.into_iter().take(kept) {
            self.pair(out, &key, &value, &found, now);
            self.passed = Some(order);
        }
        if count > self.left {
            (self.left, self.at) = (0, Some(bucket));
        } else {
            (self.left, self.at, self.passed) = (self.left - count, next, None);
        }
        Ok(())
    }

    fn pair(&mut self, out: &mut Vec<u8>, key: &[u8], value: &[u8], found: &Found, now: Millis) {
        let meta = self.meta.then(|| Meta {
            expire: found.expires.map(|end| end.saturating_sub(now)),
            version: self.zone.version(found),
        });
        if self.lines {
            out.push(b'{');
        } else if std::mem::replace(&mut self.any, true) {
            out.push(b',');
        }
        shape::pair(out, key, value, meta.as_ref());
        if self.lines {
            out.extend_from_slice(b"}\n");
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"},\"next\":");
        match self.at {
            Some(bucket) => {
                let cursor = Cursor { bucket, passed: self.passed };
                out.extend_from_slice(format!("\"{}\"", cursor.text(&self.zone)).as_bytes());
            }
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
}

/// Where a page ended.
struct Cursor {
    bucket: ScanPlace,
    passed: Option<u64>,
}

impl Cursor {
    fn text(&self, zone: &Zone) -> String {
        let (mark, bucket) = (zone.scan_mark(), self.bucket.number());
        match self.passed {
            Some(passed) => format!("{mark:016x}.{bucket:x}.{passed:x}"),
            None => format!("{mark:016x}.{bucket:x}"),
        }
    }

    fn read(text: &[u8], zone: &Zone) -> Result<Cursor, Error> {
        const BAD: Error = Error::BadArgument("\"after\" takes what \"next\" of the page before says");
        let text = std::str::from_utf8(text).map_err(|_| BAD)?;
        let mut parts = text.split('.').map(|part| u64::from_str_radix(part, 16).map_err(|_| BAD));
        let mark = parts.next().ok_or(BAD)??;
        let bucket = parts.next().ok_or(BAD)??;
        let passed = parts.next().transpose()?;
        match parts.next() {
            Some(_) => Err(BAD),
            None if mark != zone.scan_mark() => Err(Error::PlaceGone),
            None => Ok(Cursor { bucket: zone.scan_place(bucket), passed }),
        }
    }
}
