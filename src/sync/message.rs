//! The messages: what stands in the body of each type of frame. Decoding borrows; lists are iterators over the frame.

mod decode;

pub use decode::{decode, decode_record, printable, stamp_of};

use super::frame::Reader;
use crate::record::{Identity, Millis, Stamp, Version};
use crate::store::{MAX_KEY, MAX_VALUE};

/// First bytes of a hello.
pub const MAGIC: [u8; 8] = *b"zonemesh";
/// The oldest version of the protocol that this node speaks.
pub const LOWEST: u16 = 1;
/// The newest.
pub const HIGHEST: u16 = 2;
/// From this one on, what is compared of counters is told by counter.
pub const BY_COUNTER: u16 = 2;

/// Types of frames. Those with the high bit set may be skipped by who doesn't know them.
pub mod kind {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 1;
    pub const BYE: u8 = 2;
    pub const PING: u8 = 3;
    pub const PONG: u8 = 4;
    pub const ZONE: u8 = 5;
    pub const REFUSE: u8 = 6;
    pub const SUBSCRIBE: u8 = 7;
    pub const ORIGIN: u8 = 8;
    pub const RECORDS: u8 = 9;
    pub const CHUNK: u8 = 10;
    pub const CLEAR: u8 = 11;
    pub const POSITION: u8 = 12;
    pub const ACK: u8 = 13;
    pub const HAVE: u8 = 14;
    /// Set on types that a receiver may skip.
    pub const OPTIONAL: u8 = 0x80;
    pub const COMPARE: u8 = OPTIONAL | 1;
    pub const DIGESTS: u8 = OPTIONAL | 2;
    pub const LIST: u8 = OPTIONAL | 3;
    pub const VERSIONS: u8 = OPTIONAL | 4;
    pub const LISTED: u8 = OPTIONAL | 5;
    pub const WANT: u8 = OPTIONAL | 6;
    pub const SENT: u8 = OPTIONAL | 7;
    pub const TOTAL: u8 = OPTIONAL | 8;
}

/// Highest number a dialer may give to a zone.
pub const MAX_ZONES: u64 = 4096;
/// How many numbers for origins a session has. A dialer that knows more origins defines numbers anew.
pub const MAX_ORIGINS: u64 = 1024;
/// Longest name of a zone.
pub const MAX_NAME: usize = 512;
/// Longest text of a goodbye or refusal.
pub const MAX_TEXT: usize = 400;
/// Largest record on the wire: key, value and what stands before them.
pub const MAX_RECORD: usize = MAX_KEY + MAX_VALUE + RECORD_HEAD;
/// Upper bound of the bytes of a record that aren't key or value: kind, flags, stamp, origin, end, two lengths.
pub const RECORD_HEAD: usize = 1 + 1 + 8 + 10 + 10 + 5 + 5;

/// Bytes of a CHUNK frame that aren't of the record.
pub const CHUNK_HEAD: usize = 1 + 10 + 10 + 1 + 10;

/// Bits of the number of a part of the key space, at most.
pub const MAX_RANGE_BITS: u8 = 16;
/// Records that may be asked for at once.
pub const MAX_WANTED: usize = 16_384;
/// Bytes of a digest on the wire.
pub const DIGEST: usize = 4 + 8;
/// Bytes of a version in VERSIONS.
pub const LISTED: usize = 8 + 8 + 16 + 1;

/// A goodbye's code: the session ended for a reason that its text tells.
pub const BYE_END: u8 = 0;
/// A goodbye's code: both ends are one node.
pub const BYE_ITSELF: u8 = 1;
/// A goodbye's code: no version of the protocol in common.
pub const BYE_VERSION: u8 = 2;
/// A goodbye's code: the peer broke the protocol.
pub const BYE_PROTOCOL: u8 = 3;

/// A decoded message.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "docs/protocol.md has a table of the fields")]
pub enum Message<'a> {
    Hello(Hello),
    Bye {
        code: u8,
        text: &'a [u8],
    },
    Ping {
        time: Millis,
    },
    Pong(Pong),
    Zone {
        number: u64,
        kind: u8,
        matching: u8,
        joined: bool,
        name: &'a [u8],
    },
    Refuse {
        number: u64,
        reason: &'a [u8],
    },
    Subscribe {
        zone: u64,
        epoch: u64,
        mode: u8,
        more: bool,
        cleared: Stamp,
        positions: List<'a>,
    },
    Origin {
        number: u64,
        identity: Identity,
    },
    Records {
        zone: u64,
        epoch: u64,
        records: Reader<'a>,
    },
    Chunk {
        zone: u64,
        epoch: u64,
        first: bool,
        last: bool,
        total: u64,
        bytes: &'a [u8],
    },
    Clear {
        zone: u64,
        stamp: Stamp,
    },
    Position {
        zone: u64,
        epoch: u64,
        complete: bool,
        positions: List<'a>,
        evicted: Stamp,
    },
    Ack {
        zone: u64,
        epoch: u64,
        stamp: Stamp,
        lacking: bool,
    },
    Have {
        zone: u64,
        positions: List<'a>,
    },
    Compare {
        zone: u64,
        round: u64,
        seed: &'a [u8; 16],
        bits: u8,
        until: Stamp,
        ends: Millis,
        evicted: Stamp,
    },
    Digests {
        zone: u64,
        round: u64,
        first: u64,
        floor: Stamp,
        digests: Items<'a, DIGEST>,
    },
    List {
        zone: u64,
        round: u64,
        more: bool,
        ranges: Items<'a, 2>,
    },
    Versions {
        zone: u64,
        round: u64,
        versions: Items<'a, LISTED>,
    },
    Listed {
        zone: u64,
        round: u64,
        more: bool,
        trusted: bool,
        evicted: Stamp,
        positions: List<'a>,
    },
    Want {
        zone: u64,
        round: u64,
        more: bool,
        hashes: Items<'a, 8>,
    },
    Sent {
        zone: u64,
        round: u64,
    },
    Total {
        zone: u64,
        epoch: u64,
        records: u64,
    },
    /// Of a later version, to be skipped.
    Unknown,
}

/// What each side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version it speaks.
    pub lowest: u16,
    /// Newest.
    pub highest: u16,
    /// Who it is.
    pub identity: Identity,
    /// Its clock.
    pub now: Millis,
    /// Largest frame that it accepts.
    pub bound: u32,
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The clock of who answers.
    pub clock: Millis,
    /// Another node listens on the same address, as nginx's binary is being upgraded. Not said by the first nodes of
    /// version 1.
    pub shared: bool,
}

/// What a subscription asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nothing for now.
    None = 0,
    /// Records written by the dialer itself.
    Own = 1,
    /// All that the dialer has, then its own.
    Full = 2,
}

impl Mode {
    /// Of its byte on the wire.
    pub const fn from_byte(byte: u8) -> Option<Mode> {
        match byte {
            0 => Some(Mode::None),
            1 => Some(Mode::Own),
            2 => Some(Mode::Full),
            _ => None,
        }
    }
}

/// One entry of a list of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose writes.
    pub identity: Identity,
    /// Applied up to here.
    pub stamp: Stamp,
    /// In HAVE: the sender hasn't heard of this origin for long.
    pub gone: bool,
    /// In POSITION: the origin's memory was made anew, so that it may not have what it wrote before.
    pub anew: bool,
}

/// Bytes of an entry on the wire.
pub const ENTRY: usize = 16 + 8 + 1;

/// A list of positions inside a frame.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    entries: &'a [u8],
}

impl Iterator for List<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (entry, rest) = self.entries.split_at_checked(ENTRY)?;
        self.entries = rest;
        let mut reader = Reader::new(entry);
        let (identity, stamp, flags) = (reader.identity().ok()?, reader.stamp().ok()?, reader.u8().ok()?);
        Some(Entry { identity, stamp, gone: flags & flag::GONE != 0, anew: flags & flag::ANEW != 0 })
    }
}

/// A list of things of `N` bytes inside a frame.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a, const N: usize> {
    items: &'a [u8],
}

impl<'a, const N: usize> Iterator for Items<'a, N> {
    type Item = &'a [u8; N];

    fn next(&mut self) -> Option<&'a [u8; N]> {
        let (item, rest) = self.items.split_first_chunk::<N>()?;
        self.items = rest;
        Some(item)
    }
}

/// What VERSIONS says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Of its key.
    pub hash: u64,
    /// Who wrote it and when.
    pub version: Version,
    /// It is a tombstone.
    pub tombstone: bool,
}

impl Listed {
    /// `None`: of no identity.
    pub fn decode(bytes: &[u8; LISTED]) -> Option<Listed> {
        let mut r = Reader::new(bytes);
        let hash = r.u64().ok()?;
        let version = Version { stamp: r.stamp().ok()?, origin: r.identity().ok()? };
        Some(Listed { hash, version, tombstone: r.u8().ok()? & flag::TOMBSTONE != 0 })
    }
}

/// Bits of flag fields.
pub mod flag {
    #![allow(missing_docs)]
    pub const MORE: u8 = 1;
    pub const GONE: u8 = 1;
    pub const ANEW: u8 = 2;
    pub const COMPLETE: u8 = 1;
    pub const LACKING: u8 = 1;
    pub const JOINED: u8 = 1;
    pub const TRUSTED: u8 = 2;
    pub const SHARED: u8 = 1;
    pub const FIRST: u8 = 1;
    pub const LAST: u8 = 2;
    pub const TOMBSTONE: u8 = 1;
    pub const SHORTENED: u8 = 2;
    pub const OWN: u8 = 4;
    pub const EXPIRES: u8 = 8;
}
