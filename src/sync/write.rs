//! Encoding: each function appends one message, as frames.

use super::digest::Digest;
use super::frame::{frame, put_prefixed, put_varint};
use super::message::{ENTRY, Entry, Hello, Listed, MAGIC, MAX_TEXT, Mode, Pong, flag, kind};
use crate::record::{Identity, Kind, Millis, Record, Stamp};
use crate::store::Matching;

/// Appends a record as `message::decode_record` reads it. `origin`: its number, or `None` for the dialer itself.
pub fn put_record(out: &mut Vec<u8>, record: &Record<'_>, origin: Option<u64>) {
    let expires = record.expires.filter(|_| record.value.is_some());
    let flags = if record.value.is_none() { flag::TOMBSTONE } else { 0 }
        | if record.shortened { flag::SHORTENED } else { 0 }
        | if origin.is_none() { flag::OWN } else { 0 }
        | if expires.is_some() { flag::EXPIRES } else { 0 };
    out.extend_from_slice(&[record.kind as u8, flags]);
    put_stamp(out, record.version.stamp);
    if let Some(number) = origin {
        put_varint(out, number);
    }
    if let Some(expires) = expires {
        put_varint(out, expires);
    }
    put_prefixed(out, record.key);
    if let Some(value) = record.value {
        put_prefixed(out, value);
    }
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(&stamp.0.to_le_bytes());
}

/// Appends a hello.
pub fn hello(out: &mut Vec<u8>, hello: &Hello) {
    frame(out, kind::HELLO, |out| {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&hello.lowest.to_le_bytes());
        out.extend_from_slice(&hello.highest.to_le_bytes());
        out.extend_from_slice(&hello.identity.0);
        out.extend_from_slice(&hello.now.to_le_bytes());
        out.extend_from_slice(&hello.bound.to_le_bytes());
    });
}

/// Appends a goodbye.
pub fn bye(out: &mut Vec<u8>, code: u8, text: &str) {
    frame(out, kind::BYE, |out| {
        out.push(code);
        put_text(out, text);
    });
}

/// Appends a sign of life.
pub fn ping(out: &mut Vec<u8>, now: Millis) {
    frame(out, kind::PING, |out| out.extend_from_slice(&now.to_le_bytes()));
}

/// Appends the answer to one.
pub fn pong(out: &mut Vec<u8>, echo: Millis, pong: Pong) {
    frame(out, kind::PONG, |out| {
        out.extend_from_slice(&echo.to_le_bytes());
        out.extend_from_slice(&pong.clock.to_le_bytes());
        out.push(if pong.shared { flag::SHARED } else { 0 });
    });
}

/// Appends the announcement of a zone.
pub fn zone(out: &mut Vec<u8>, number: u64, matching: Matching, joined: bool, name: &str) {
    frame(out, kind::ZONE, |out| {
        put_varint(out, number);
        out.extend_from_slice(&[Kind::Register as u8, matching as u8, if joined { flag::JOINED } else { 0 }]);
        put_prefixed(out, name.as_bytes());
    });
}

/// Appends the refusal of a zone.
pub fn refuse(out: &mut Vec<u8>, number: u64, reason: &str) {
    frame(out, kind::REFUSE, |out| {
        put_varint(out, number);
        put_text(out, reason);
    });
}

/// Appends a subscription, in as many frames of at most `bound` as it takes.
pub fn subscribe(
    out: &mut Vec<u8>,
    bound: usize,
    zone: u64,
    epoch: u64,
    mode: Mode,
    cleared: Stamp,
    positions: &[Entry],
) {
    split_list(positions, bound, ENTRY, |part, last| {
        frame(out, kind::SUBSCRIBE, |out| {
            put_varint(out, zone);
            put_varint(out, epoch);
            out.extend_from_slice(&[mode as u8, if last { 0 } else { flag::MORE }]);
            put_stamp(out, cleared);
            put_list(out, part);
        });
    })
}

/// Appends the definition of an origin's number.
pub fn origin(out: &mut Vec<u8>, number: u64, identity: Identity) {
    frame(out, kind::ORIGIN, |out| {
        put_varint(out, number);
        out.extend_from_slice(&identity.0);
    });
}

/// Appends what stands before the records of a frame of them; the frame is begun and ended by the caller.
pub fn put_records_head(out: &mut Vec<u8>, zone: u64, epoch: u64) {
    put_varint(out, zone);
    put_varint(out, epoch);
}

/// Appends a part of a record that is larger than a frame.
pub fn chunk(out: &mut Vec<u8>, zone: u64, epoch: u64, first: bool, last: bool, total: usize, bytes: &[u8]) {
    frame(out, kind::CHUNK, |out| {
        put_varint(out, zone);
        put_varint(out, epoch);
        out.push(if first { flag::FIRST } else { 0 } | if last { flag::LAST } else { 0 });
        put_varint(out, total as u64);
        out.extend_from_slice(bytes);
    });
}

/// Appends the emptying of a zone.
pub fn clear(out: &mut Vec<u8>, zone: u64, stamp: Stamp) {
    frame(out, kind::CLEAR, |out| {
        put_varint(out, zone);
        put_stamp(out, stamp);
    });
}

/// Appends positions; the last frame says whether the full state is complete. `evicted`: of what they cover, something up to
/// this stamp may have been given up before it was sent.
pub fn position(
    out: &mut Vec<u8>,
    bound: usize,
    zone: u64,
    epoch: u64,
    complete: bool,
    positions: &[Entry],
    evicted: Stamp,
) {
    split_list(positions, bound, ENTRY, |part, last| {
        frame(out, kind::POSITION, |out| {
            put_varint(out, zone);
            put_varint(out, epoch);
            out.push(if complete && last { flag::COMPLETE } else { 0 });
            put_list(out, part);
            put_stamp(out, evicted);
        });
    })
}

/// Appends what the dialer has of other origins.
pub fn have(out: &mut Vec<u8>, bound: usize, zone: u64, positions: &[Entry]) {
    split_list(positions, bound, ENTRY, |part, _| {
        frame(out, kind::HAVE, |out| {
            put_varint(out, zone);
            put_list(out, part);
        });
    })
}

/// Appends how far the dialer's own writes were applied, and whether some of them found no room.
pub fn ack(out: &mut Vec<u8>, zone: u64, epoch: u64, stamp: Stamp, lacking: bool) {
    frame(out, kind::ACK, |out| {
        put_varint(out, zone);
        put_varint(out, epoch);
        put_stamp(out, stamp);
        // Otherwise there is nothing to add to what the first nodes say.
        if lacking {
            out.push(flag::LACKING);
        }
    });
}

/// What a node that compares asks first.
pub struct Question {
    /// Of the zone.
    pub zone: u64,
    /// Counts up.
    pub round: u64,
    /// Of the hash of keys.
    pub seed: [u8; 16],
    /// Of the number of a part.
    pub bits: u8,
    /// Later writes are left out.
    pub until: Stamp,
    /// What ends until then is left out.
    pub ends: Millis,
    /// The asking node may have evicted what was written until then.
    pub evicted: Stamp,
}

/// Appends a question for digests.
pub fn compare(out: &mut Vec<u8>, question: &Question) {
    frame(out, kind::COMPARE, |out| {
        put_varint(out, question.zone);
        put_varint(out, question.round);
        out.extend_from_slice(&question.seed);
        out.push(question.bits);
        put_stamp(out, question.until);
        put_varint(out, question.ends);
        put_stamp(out, question.evicted);
    });
}

/// Appends the digests of the parts from `first` on; they must fit into a frame.
pub fn digests(out: &mut Vec<u8>, zone: u64, round: u64, first: u64, floor: Stamp, digests: &[Digest]) {
    frame(out, kind::DIGESTS, |out| {
        put_varint(out, zone);
        put_varint(out, round);
        put_varint(out, first);
        put_stamp(out, floor);
        put_varint(out, digests.len() as u64);
        for digest in digests {
            out.extend_from_slice(&digest.count.to_le_bytes());
            out.extend_from_slice(&digest.sum.to_le_bytes());
        }
    });
}

/// Appends a question for the versions in these parts.
pub fn list(out: &mut Vec<u8>, bound: usize, zone: u64, round: u64, ranges: &[u16]) {
    split_list(ranges, bound, 2, |part, last| {
        frame(out, kind::LIST, |out| {
            put_varint(out, zone);
            put_varint(out, round);
            out.push(if last { 0 } else { flag::MORE });
            put_varint(out, part.len() as u64);
            part.iter().for_each(|range| out.extend_from_slice(&range.to_le_bytes()));
        });
    })
}

/// Appends versions; they must fit into a frame.
pub fn versions(out: &mut Vec<u8>, zone: u64, round: u64, versions: &[Listed]) {
    frame(out, kind::VERSIONS, |out| {
        put_varint(out, zone);
        put_varint(out, round);
        put_varint(out, versions.len() as u64);
        for listed in versions {
            out.extend_from_slice(&listed.hash.to_le_bytes());
            put_stamp(out, listed.version.stamp);
            out.extend_from_slice(&listed.version.origin.0);
            out.push(if listed.tombstone { flag::TOMBSTONE } else { 0 });
        }
    });
}

/// Appends what ends a list of versions.
pub fn listed(
    out: &mut Vec<u8>,
    bound: usize,
    zone: u64,
    round: u64,
    trusted: bool,
    evicted: Stamp,
    positions: &[Entry],
) {
    split_list(positions, bound, ENTRY, |part, last| {
        frame(out, kind::LISTED, |out| {
            put_varint(out, zone);
            put_varint(out, round);
            out.push(if last { 0 } else { flag::MORE } | if trusted { flag::TRUSTED } else { 0 });
            put_stamp(out, evicted);
            put_list(out, part);
        });
    })
}

/// Appends a question for records.
pub fn want(out: &mut Vec<u8>, bound: usize, zone: u64, round: u64, hashes: &[u64]) {
    split_list(hashes, bound, 8, |part, last| {
        frame(out, kind::WANT, |out| {
            put_varint(out, zone);
            put_varint(out, round);
            out.push(if last { 0 } else { flag::MORE });
            put_varint(out, part.len() as u64);
            part.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        });
    })
}

/// Appends that what was asked for was sent.
pub fn sent(out: &mut Vec<u8>, zone: u64, round: u64) {
    frame(out, kind::SENT, |out| {
        put_varint(out, zone);
        put_varint(out, round);
    });
}

/// Appends how many records a full state has, about.
pub fn total(out: &mut Vec<u8>, zone: u64, epoch: u64, records: u64) {
    frame(out, kind::TOTAL, |out| {
        put_varint(out, zone);
        put_varint(out, epoch);
        put_varint(out, records);
    });
}

/// Hands parts of a list of things of `size` bytes that fit into frames of `bound` to `each`, with whether it is the last; at
/// least one.
fn split_list<T>(list: &[T], bound: usize, size: usize, mut each: impl FnMut(&[T], bool)) {
    let fit = (bound.saturating_sub(64) / size).max(1);
    let mut rest = list;
    loop {
        let (part, after) = rest.split_at(fit.min(rest.len()));
        rest = after;
        each(part, rest.is_empty());
        if rest.is_empty() {
            return;
        }
    }
}

fn put_list(out: &mut Vec<u8>, positions: &[Entry]) {
    put_varint(out, positions.len() as u64);
    for entry in positions {
        out.extend_from_slice(&entry.identity.0);
        put_stamp(out, entry.stamp);
        out.push(if entry.gone { flag::GONE } else { 0 } | if entry.anew { flag::ANEW } else { 0 });
    }
}

/// Texts are cut, at the border of a character.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    put_prefixed(out, text.get(..end).unwrap_or_default().as_bytes());
}
