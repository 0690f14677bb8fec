//! Decoding: from the body of a frame to a message.

use super::{ENTRY, Hello, Items, List, MAGIC, MAX_TEXT, Message, Pong, flag, kind};
use crate::record::{Identity, Kind, Record, Stamp, Version};
use crate::store::{MAX_KEY, MAX_VALUE};
use crate::sync::frame::{Malformed, Reader};

/// Decodes the body of a frame of this type. What follows the known fields is of a later version, and skipped.
pub fn decode(kind: u8, body: &[u8]) -> Result<Message<'_>, Malformed> {
    let r = &mut Reader::new(body);
    Ok(match kind {
        kind::HELLO => Message::Hello(decode_hello(r)?),
        kind::BYE => Message::Bye { code: r.u8()?, text: r.prefixed()? },
        kind::PING => Message::Ping { time: r.u64()? },
        kind::PONG => {
            // The echo says nothing that the order of pings and answers doesn't say.
            r.u64()?;
            Message::Pong(Pong { clock: r.u64()?, shared: !r.is_empty() && r.u8()? & flag::SHARED != 0 })
        }
        kind::ZONE => Message::Zone {
            number: r.varint()?,
            kind: r.u8()?,
            matching: r.u8()?,
            joined: r.u8()? & flag::JOINED != 0,
            name: r.prefixed()?,
        },
        kind::REFUSE => Message::Refuse { number: r.varint()?, reason: r.prefixed()? },
        kind::SUBSCRIBE => Message::Subscribe {
            zone: r.varint()?,
            epoch: r.varint()?,
            mode: r.u8()?,
            more: r.u8()? & flag::MORE != 0,
            cleared: r.stamp()?,
            positions: decode_list(r)?,
        },
        kind::ORIGIN => Message::Origin { number: r.varint()?, identity: r.identity()? },
        kind::RECORDS => Message::Records { zone: r.varint()?, epoch: r.varint()?, records: Reader::new(r.rest()) },
        kind::CHUNK => {
            let (zone, epoch, flags, total) = (r.varint()?, r.varint()?, r.u8()?, r.varint()?);
            let (first, last) = (flags & flag::FIRST != 0, flags & flag::LAST != 0);
            Message::Chunk { zone, epoch, first, last, total, bytes: r.rest() }
        }
        kind::CLEAR => Message::Clear { zone: r.varint()?, stamp: decode_stamp(r)? },
        kind::POSITION => Message::Position {
            zone: r.varint()?,
            epoch: r.varint()?,
            complete: r.u8()? & flag::COMPLETE != 0,
            positions: decode_list(r)?,
            // Not said by the first nodes of version 1.
            evicted: if r.is_empty() { Stamp::ZERO } else { r.stamp()? },
        },
        kind::ACK => Message::Ack {
            zone: r.varint()?,
            epoch: r.varint()?,
            stamp: r.stamp()?,
            lacking: !r.is_empty() && r.u8()? & flag::LACKING != 0,
        },
        kind::HAVE => Message::Have { zone: r.varint()?, positions: decode_list(r)? },
        kind::COMPARE => Message::Compare {
            zone: r.varint()?,
            round: r.varint()?,
            seed: r.bytes(16)?.first_chunk().ok_or(Malformed::Cut)?,
            bits: r.u8()?,
            until: r.stamp()?,
            ends: r.varint()?,
            evicted: r.stamp()?,
        },
        kind::DIGESTS => Message::Digests {
            zone: r.varint()?,
            round: r.varint()?,
            first: r.varint()?,
            floor: r.stamp()?,
            digests: decode_items(r)?,
        },
        kind::LIST => Message::List {
            zone: r.varint()?,
            round: r.varint()?,
            more: r.u8()? & flag::MORE != 0,
            ranges: decode_items(r)?,
        },
        kind::VERSIONS => Message::Versions { zone: r.varint()?, round: r.varint()?, versions: decode_items(r)? },
        kind::LISTED => {
            let (zone, round, flags) = (r.varint()?, r.varint()?, r.u8()?);
            let (more, trusted) = (flags & flag::MORE != 0, flags & flag::TRUSTED != 0);
            Message::Listed { zone, round, more, trusted, evicted: r.stamp()?, positions: decode_list(r)? }
        }
        kind::WANT => Message::Want {
            zone: r.varint()?,
            round: r.varint()?,
            more: r.u8()? & flag::MORE != 0,
            hashes: decode_items(r)?,
        },
        kind::SENT => Message::Sent { zone: r.varint()?, round: r.varint()? },
        kind::TOTAL => Message::Total { zone: r.varint()?, epoch: r.varint()?, records: r.varint()? },
        optional if optional & kind::OPTIONAL != 0 => Message::Unknown,
        _ => return Err(Malformed::Value("a message of an unknown type")),
    })
}

fn decode_hello(r: &mut Reader<'_>) -> Result<Hello, Malformed> {
    if r.bytes(MAGIC.len())? != MAGIC {
        return Err(Malformed::Value("not the hello of a zonemesh node"));
    }
    Ok(Hello { lowest: r.u16()?, highest: r.u16()?, identity: r.identity()?, now: r.u64()?, bound: r.u32()? })
}

fn decode_stamp(r: &mut Reader<'_>) -> Result<Stamp, Malformed> {
    match r.stamp()? {
        Stamp::ZERO => Err(Malformed::Value("a record without a stamp")),
        stamp => Ok(stamp),
    }
}

fn decode_items<'a, const N: usize>(r: &mut Reader<'a>) -> Result<Items<'a, N>, Malformed> {
    let count = usize::try_from(r.varint()?).map_err(|_| Malformed::Cut)?;
    Ok(Items { items: r.bytes(count.checked_mul(N).ok_or(Malformed::Cut)?)? })
}

/// Checks the whole list, so that its iterator needn't.
fn decode_list<'a>(r: &mut Reader<'a>) -> Result<List<'a>, Malformed> {
    let count = usize::try_from(r.varint()?).map_err(|_| Malformed::Cut)?;
    let entries = r.bytes(count.checked_mul(ENTRY).ok_or(Malformed::Cut)?)?;
    if entries.chunks_exact(ENTRY).any(|entry| Reader::new(entry).identity().is_err()) {
        return Err(Malformed::Value("an identity of zeros"));
    }
    Ok(List { entries })
}

/// The next of the records that follow one another in RECORDS, or the one that chunks have brought.
///
/// `Ok(None)`: it is of a kind that this version doesn't know, and was skipped.
pub fn decode_record<'a>(
    r: &mut Reader<'a>,
    own: Identity,
    origin: impl FnOnce(u64) -> Option<Identity>,
) -> Result<Option<Record<'a>>, Malformed> {
    let kind = r.u8()?;
    let flags = r.u8()?;
    let stamp = decode_stamp(r)?;
    let origin = match flags & flag::OWN {
        0 => origin(r.varint()?).ok_or(Malformed::Value("a record of an origin that was not defined"))?,
        _ => own,
    };
    let expires = if flags & flag::EXPIRES != 0 { Some(r.varint()?) } else { None };
    let key = r.prefixed()?;
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Malformed::Value("a key of no or too many bytes"));
    }
    let value = if flags & flag::TOMBSTONE == 0 { Some(r.prefixed()?) } else { None };
    if value.is_some_and(|value| value.len() > MAX_VALUE) {
        return Err(Malformed::Value("a value of too many bytes"));
    }
    let shortened = flags & flag::SHORTENED != 0;
    // A tombstone has no end; whatever was sent, the store isn't given one.
    let expires = expires.filter(|_| value.is_some());
    let version = Version { stamp, origin };
    Ok(Kind::from_byte(kind).map(|kind| Record { kind, version, key, value, expires, shortened }))
}

/// The stamp of a record of which the beginning is there; zero if less is.
pub fn stamp_of(beginning: &[u8]) -> Stamp {
    let stamp = beginning.get(2..).and_then(<[u8]>::first_chunk);
    stamp.map_or(Stamp::ZERO, |stamp| Stamp(u64::from_le_bytes(*stamp)))
}

/// A text of a peer, for the log: bounded, one line, printable.
pub fn printable(text: &[u8]) -> String {
    let text = text.get(..text.len().min(MAX_TEXT)).unwrap_or_default();
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
