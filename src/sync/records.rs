//! Records into frames: which of them a peer has to get, and what becomes of one that is larger than a frame.

use super::frame::end;
use super::message::{CHUNK_HEAD, RECORD_HEAD};
use super::positions::{Numbers, Positions};
use super::write;
use crate::record::{Identity, Record, Stamp};

/// Which records a peer has to get.
pub struct Filter<'a> {
    /// What the peer has.
    pub positions: &'a mut Positions,
    /// This node.
    pub own: Identity,
    /// Records of other origins too.
    pub others: bool,
    /// The stamp that the round closed.
    pub until: Stamp,
    /// Own writes stand in the order of their stamps in a shard. Not while records move here from other memory, behind what is
    /// written here meanwhile.
    pub ordered: bool,
}

/// What to do with a record.
pub enum Wanted {
    /// Send it.
    Yes,
    /// Pass it by.
    No,
    /// Leave it and what follows it for the next round.
    Later,
}

impl Filter<'_> {
    /// Whether the peer has to get this record.
    pub fn wants(&mut self, record: &Record<'_>) -> Wanted {
        let version = record.version;
        let own = version.origin == self.own;
        if !own && !self.others {
            return Wanted::No;
        }
        // Nothing behind this one is at or below the closed stamp. So a round ends, however fast the writers are.
        if own && !self.others && self.ordered && version.stamp > self.until {
            return Wanted::Later;
        }
        if version.stamp > self.positions.get(version.origin) { Wanted::Yes } else { Wanted::No }
    }
}

/// A frame of records that is being filled.
pub struct Frame {
    /// Where it has to end.
    pub limit: usize,
    /// Where its records begin.
    pub body: usize,
    /// Why nothing more goes into it.
    pub stop: Stop,
}

impl Frame {
    /// Appends a record; `false`: it has to be met again.
    pub fn put(
        &mut self,
        record: &Record<'_>,
        own: Identity,
        zone: u64,
        numbers: &mut Numbers,
        large: &mut Option<Large>,
        out: &mut Vec<u8>,
    ) -> bool {
        let origin = record.version.origin;
        let number = if origin == own { None } else { numbers.get(origin) };
        if number.is_none() && origin != own {
            // A number in use must not change its meaning under a record that is on its way in chunks.
            let wait = large.is_some() && numbers.all_in_use();
            self.stop = if wait { Stop::Behind } else { Stop::Origin(origin) };
            return false;
        }
        let size = RECORD_HEAD + record.key.len() + record.value.map_or(0, <[u8]>::len);
        if out.len() + size <= self.limit {
            write::put_record(out, record, number);
            return true;
        }
        if out.len() > self.body {
            self.stop = Stop::Frame;
            return false;
        }
        if large.is_some() {
            self.stop = Stop::Behind;
            return false;
        }
        let mut bytes = Vec::with_capacity(size);
        write::put_record(&mut bytes, record, number);
        *large = Some(Large { zone, bytes, sent: 0 });
        self.stop = Stop::Large;
        true
    }
}

impl Frame {
    /// Ends the frame, which began at `start`, and appends what has to stand behind it.
    pub fn close(
        &self,
        start: usize,
        epoch: u64,
        bound: usize,
        numbers: &mut Numbers,
        large: &mut Option<Large>,
        out: &mut Vec<u8>,
    ) {
        if out.len() > self.body {
            end(out, start);
        } else {
            out.truncate(start);
        }
        match self.stop {
            Stop::Origin(identity) => {
                let number = numbers.define(identity);
                write::origin(out, number, identity);
            }
            Stop::Large => *large = large.take().and_then(|large| send_chunk(large, epoch, bound, out)),
            _ => {}
        }
    }
}

/// Appends the next part of a large record; gives it back if that wasn't the last.
pub fn send_chunk(mut large: Large, epoch: u64, bound: usize, out: &mut Vec<u8>) -> Option<Large> {
    let rest = large.bytes.get(large.sent..).unwrap_or_default();
    let part = rest.get(..rest.len().min(bound.saturating_sub(CHUNK_HEAD))).unwrap_or_default();
    let last = part.len() == rest.len();
    write::chunk(out, large.zone, epoch, large.sent == 0, last, large.bytes.len(), part);
    large.sent += part.len();
    (!last).then_some(large)
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It didn't.
    No,
    /// The frame is full.
    Frame,
    /// An origin has to be defined first.
    Origin(Identity),
    /// A record is larger than a frame, and was copied.
    Large,
    /// The same, but another large one is under way.
    Behind,
    /// What follows in this shard was written after the round began.
    Later,
}

/// A record that is larger than a frame: a copy, as it is on its way for longer than the feed lends it. One a session.
#[derive(Debug)]
pub struct Large {
    /// Its zone's number.
    pub zone: u64,
    bytes: Vec<u8>,
    sent: usize,
}

impl Large {
    /// Bytes that it takes.
    pub const fn held(&self) -> usize {
        self.bytes.len()
    }
}
