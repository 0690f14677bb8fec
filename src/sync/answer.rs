//! A peer compares what it has with this node: its questions are answered here, by the node that dialled.
//!
//! Each answer takes one walk over the zone, in steps with pauses, and only while no changes wait to be sent.

use std::collections::{HashSet, VecDeque};

use super::digest::{Digest, Digests, Pass, Terms};
use super::frame::{PREFIX, begin};
use super::message::{DIGEST, Entry, LISTED, Listed, MAX_WANTED, kind};
use super::outgoing::{Context, Step};
use super::records::{Frame, Stop};
use super::write;
use crate::record::Stamp;
use crate::store::{StoreError, Zone};

/// Holds of a lock in one step, and the pause after it in milliseconds.
const HOLDS: usize = 64;
const PAUSE: u64 = 10;
/// An answer that changes have kept for so many milliseconds leaves its turn to others.
const LATE: u64 = 50;
/// Versions told in one step.
const LISTED_A_STEP: usize = 512;

/// The answers to one peer's questions about one zone.
#[derive(Default)]
pub struct Answer {
    round: u64,
    terms: Option<Terms>,
    /// Of questions of which more is to come.
    ranges: Vec<u16>,
    wanted: HashSet<u64>,
    job: Option<Job>,
    /// The job is under way, and may take memory.
    begun: bool,
    /// A shard's lock didn't come free in the last step.
    busy: bool,
    rest_until: u64,
    /// When the last step was done.
    stepped: u64,
}

/// What is being answered.
enum Job {
    /// Digests are made.
    Digest(Digests),
    /// Digests are sent, from this part on.
    Tell { digests: Vec<Digest>, next: usize },
    /// The versions in these parts are to be sent. Positions are read before the first.
    Asked { ranges: Vec<u16>, positions: Vec<Entry> },
    /// They are being sent.
    List { ranges: Vec<bool>, pass: Pass, positions: Vec<Entry> },
    /// The records with these hashes are sent.
    Fetch { wanted: HashSet<u64>, pass: Option<Pass>, keys: VecDeque<Vec<u8>> },
}

impl Answer {
    /// A question for digests; those before it needn't be answered any more.
    pub fn compare(&mut self, zone: &Zone, round: u64, mut terms: Terms) {
        terms.floor = terms.floor.max(zone.evicted());
        self.round = round;
        self.terms = Some(terms);
        self.ranges = Vec::new();
        self.wanted = HashSet::new();
        self.begin(Job::Digest(Digests::new(terms)));
    }

    /// A question for versions. `None`: of a part that there isn't.
    pub fn list(&mut self, zone: &Zone, round: u64, more: bool, parts: impl Iterator<Item = u16>) -> Option<()> {
        let Some(terms) = self.terms.filter(|_| round == self.round) else { return Some(()) };
        for part in parts {
            // Nobody asks for one twice.
            if usize::from(part) >= terms.ranges() || self.ranges.len() >= terms.ranges() {
                return None;
            }
            self.ranges.push(part);
        }
        if !more {
            // Read before the walk: what a position covers was here then, or something newer of its key. Not so of an origin of
            // which something found no room.
            let lacks = zone.lacks();
            let told = |(origin, stamp): &(_, Stamp)| *stamp > Stamp::ZERO && lacks.of(*origin) == Stamp::ZERO;
            let claims = zone.claims().into_iter().filter(told);
            let positions =
                claims.map(|(identity, stamp)| Entry { identity, stamp, gone: false, anew: false }).collect();
            let ranges = std::mem::take(&mut self.ranges);
            self.begin(Job::Asked { ranges, positions });
        }
        Some(())
    }

    /// A question for records. `None`: for too many.
    pub fn want(&mut self, round: u64, more: bool, hashes: impl Iterator<Item = u64>) -> Option<()> {
        if round != self.round || self.terms.is_none() {
            return Some(());
        }
        self.wanted.extend(hashes.take(MAX_WANTED + 1));
        if self.wanted.len() > MAX_WANTED {
            return None;
        }
        if !more {
            let wanted = std::mem::take(&mut self.wanted);
            self.begin(Job::Fetch { wanted, pass: Some(Pass::default()), keys: VecDeque::new() });
        }
        Some(())
    }

    fn begin(&mut self, job: Job) {
        self.job = Some(job);
        self.begun = false;
    }

    /// When it wants to be stepped again, if there is something to answer.
    pub const fn wakes(&self) -> Option<u64> {
        if self.job.is_some() { Some(self.rest_until) } else { None }
    }

    /// An answer is under way: a session makes one at a time, so that many questions take no more memory than one. Those that wait
    /// for a lock, or for changes of a zone that changes all the time, leave their turn to others: they are of no more zones than
    /// questions are held of.
    pub const fn under_way(&self, t: u64) -> bool {
        let is_late = t >= self.stepped.saturating_add(LATE);
        self.begun && self.job.is_some() && !self.busy && !is_late
    }

    /// Entries about records and parts that it holds.
    pub fn held(&self) -> usize {
        let job = self.job.as_ref().map_or(0, |job| match job {
            Job::Digest(digests) => digests.all.len(),
            Job::Tell { digests, .. } => digests.len(),
            Job::Asked { ranges, .. } => ranges.len(),
            Job::List { ranges, .. } => ranges.len(),
            Job::Fetch { wanted, keys, .. } => wanted.len() + keys.len(),
        });
        self.ranges.len() + self.wanted.len() + job
    }

    /// Goes on with the answer, at most a frame or so.
    pub fn step(&mut self, cx: &mut Context<'_>, epoch: u64, out: &mut Vec<u8>) -> Step {
        if cx.t < self.rest_until {
            return Step::Idle;
        }
        let (Some(mut job), Some(terms)) = (self.job.take(), self.terms) else { return Step::Idle };
        (self.begun, self.stepped) = (true, cx.t);
        let before = out.len();
        let result = self.advance(cx, &terms, &mut job, epoch, out);
        self.busy = result.is_err();
        match result {
            Ok(Next::Go(next)) => self.job = Some(next),
            Ok(Next::Over) => {}
            Ok(Next::Same) => self.job = Some(job),
            Ok(Next::Rest) | Err(_) => {
                self.job = Some(job);
                self.rest_until = cx.t + PAUSE;
            }
        }
        match out.len() > before {
            true => Step::Sent,
            false if self.job.is_some() && cx.t >= self.rest_until => Step::Working,
            false => Step::Idle,
        }
    }

    fn advance(
        &self,
        cx: &mut Context<'_>,
        terms: &Terms,
        job: &mut Job,
        epoch: u64,
        out: &mut Vec<u8>,
    ) -> Result<Next, StoreError> {
        let (number, round) = (cx.number, self.round);
        match job {
            Job::Digest(digests) => Ok(match digests.walk(cx.zone, HOLDS)? {
                true => Next::Go(Job::Tell { digests: std::mem::take(&mut digests.all), next: 0 }),
                false => Next::Rest,
            }),
            Job::Tell { digests, next } => {
                let fit = (cx.bound.saturating_sub(64) / DIGEST).max(1);
                let rest = digests.get(*next..).unwrap_or_default();
                let part = rest.get(..fit.min(rest.len())).unwrap_or_default();
                write::digests(out, number, round, *next as u64, terms.floor, part);
                *next += part.len();
                Ok(if *next >= digests.len() { Next::Over } else { Next::Same })
            }
            Job::Asked { ranges, positions } => {
                let mut asked = vec![false; terms.ranges()];
                for range in ranges {
                    if let Some(place) = asked.get_mut(usize::from(*range)) {
                        *place = true;
                    }
                }
                let positions = std::mem::take(positions);
                Ok(Next::Go(Job::List { ranges: asked, pass: Pass::default(), positions }))
            }
            Job::List { ranges, pass, positions } => {
                let mut listed = Vec::new();
                let complete = walk_until(|| {
                    let complete = pass.walk(cx.zone, 1, |record| {
                        let hash = terms.hash(record.key);
                        if ranges.get(terms.range(hash)).is_some_and(|asked| *asked) {
                            listed.push(Listed { hash, version: record.version, tombstone: record.tombstone });
                        }
                    })?;
                    Ok((complete, listed.len() >= LISTED_A_STEP))
                });
                for part in listed.chunks((cx.bound.saturating_sub(64) / LISTED).max(1)) {
                    write::versions(out, number, round, part);
                }
                if !complete? {
                    return Ok(Next::Rest);
                }
                // What has ended here, by a clock that is or was ahead, isn't deleted.
                let expired_to = cx.zone.expired_to().max(cx.now);
                let trusted = cx.zone.joined() && expired_to <= terms.ends;
                let silent = cx.zone.may_lack().max(cx.zone.lacks().any);
                write::listed(out, cx.bound, number, round, trusted, silent, positions);
                Ok(Next::Over)
            }
            Job::Fetch { wanted, pass, keys } => {
                if keys.is_empty()
                    && let Some(walk) = pass
                {
                    let complete = walk_until(|| {
                        let complete = walk.walk(cx.zone, 1, |record| {
                            if wanted.contains(&terms.hash(record.key)) {
                                keys.push_back(record.key.to_vec());
                            }
                        })?;
                        Ok((complete, !keys.is_empty()))
                    })?;
                    if complete {
                        *pass = None;
                    } else if keys.is_empty() {
                        return Ok(Next::Rest);
                    }
                }
                if send(cx, keys, epoch, out)? == Stop::Behind {
                    return Ok(Next::Rest);
                }
                if !keys.is_empty() || pass.is_some() {
                    return Ok(Next::Same);
                }
                // A record that travels in parts is sent before any other step of its zone.
                if cx.large.as_ref().is_some_and(|large| large.zone == number) {
                    return Ok(Next::Same);
                }
                write::sent(out, number, round);
                Ok(Next::Over)
            }
        }
    }
}

/// Walks for some holds of a lock, or until there is enough, as `hold` says; `true`: that was all.
fn walk_until(mut hold: impl FnMut() -> Result<(bool, bool), StoreError>) -> Result<bool, StoreError> {
    for _ in 0..HOLDS {
        match hold()? {
            (true, _) => return Ok(true),
            (_, true) => break,
            _ => {}
        }
    }
    Ok(false)
}

/// What becomes of a job.
enum Next {
    Same,
    Rest,
    Go(Job),
    Over,
}

/// Appends a frame of the records of these keys, and takes the keys of those that are in it away.
fn send(cx: &mut Context<'_>, keys: &mut VecDeque<Vec<u8>>, epoch: u64, out: &mut Vec<u8>) -> Result<Stop, StoreError> {
    if keys.is_empty() {
        return Ok(Stop::No);
    }
    let start = begin(out, kind::RECORDS);
    write::put_records_head(out, cx.number, epoch);
    let mut frame = Frame { limit: start + PREFIX + cx.bound, body: out.len(), stop: Stop::No };
    let mut result = Ok(());
    while let Some(key) = keys.front().filter(|_| result.is_ok() && frame.stop == Stop::No) {
        let mut done = true;
        result = cx.zone.show(key, &mut |record| {
            done = frame.put(record, cx.own, cx.number, cx.numbers, cx.large, out);
        });
        if done && result.is_ok() {
            keys.pop_front();
        }
    }
    frame.close(start, epoch, cx.bound, cx.numbers, cx.large, out);
    result.map(|()| frame.stop)
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("round", &self.round).finish_non_exhaustive()
    }
}
