//! A record as it lies in memory: a header, then key and value as one run of bytes that may go on in further blocks.
//!
//! ```text
//! head block:      feed prev, next | chain next | timer next, prev | overflow | stamp | meta | lengths | bytes ...
//! overflow block:  next | unused | bytes ...
//! ```
//!
//! How many bytes each block holds follows from the lengths and the page size, so reading needs nothing else.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::failpoint::{Step, done};
use super::layout::{Geometry, offset};
use super::region::Region;
use super::{MAX_KEY, MAX_VALUE};
use crate::record::{Kind, Millis, Stamp};

/// Offsets of the header's fields.
pub const FEED_PREV: usize = 0;
pub const FEED_NEXT: usize = 4;
pub const CHAIN_NEXT: usize = 8;
pub const TIMER_NEXT: usize = 12;
pub const TIMER_PREV: usize = 16;
const OVERFLOW: usize = 20;
const STAMP: usize = 24;
const META: usize = 32;
const LENGTHS: usize = 40;
/// Bytes of the header.
pub const HEAD: usize = 48;
/// Bytes before the data of an overflow block.
const OVERFLOW_HEAD: usize = 8;

const TOMBSTONE: u8 = 1;
/// On a record: shortened. On a tombstone: lapsed.
const SHORTENED: u8 = 2;
const TAG_SHIFT: u32 = 54;
/// Of the lengths, those bits that a look-up compares: key length and tag.
const KEY_MASK: u64 = 0x3ff << TAG_SHIFT | 0x1_ffff;
const MILLIS_MASK: u64 = (1 << 48) - 1;

/// The header's fixed fields, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub stamp: Stamp,
    /// Index into the table of origins.
    pub origin: u16,
    pub kind: u8,
    /// On a tombstone: when it may be taken away.
    pub expires: Option<Millis>,
    pub tombstone: bool,
    /// Of a record: see [`crate::record::Record::shortened`].
    pub shortened: bool,
    /// Of a tombstone: the record's end had come, nobody deleted it.
    pub lapsed: bool,
    pub key_len: usize,
    pub value_len: usize,
    /// Some bits of the key's hash.
    pub tag: u16,
}

impl Fields {
    /// Whether a look-up at `now` sees this record.
    #[inline]
    pub fn is_live(&self, now: Millis, cleared: Stamp) -> bool {
        !self.tombstone && self.stamp > cleared && self.expires.is_none_or(|end| end > now)
    }

    /// Bytes of key and value.
    pub fn payload(&self) -> usize {
        self.key_len + self.value_len
    }

    /// The kind, of which a record written by this version has a known one.
    pub fn known_kind(&self) -> Kind {
        Kind::from_byte(self.kind).unwrap_or(Kind::Register)
    }
}

/// A record's head block.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    pub region: &'a Region,
    pub at: usize,
}

impl<'a> Block<'a> {
    /// The link field at `field`.
    #[inline]
    pub fn link(&self, field: usize) -> u32 {
        self.region.load32(self.at + field, Relaxed)
    }

    /// Sets a link field.
    #[inline]
    pub fn set_link(&self, field: usize, link: u32) {
        self.region.store32(self.at + field, link, Relaxed);
    }

    /// The next record of the bucket; pairs with the release that published it.
    #[inline]
    pub fn chain_next(&self) -> u32 {
        self.region.load32(self.at + CHAIN_NEXT, Acquire)
    }

    /// Whether the record has this key, which hashes to `tag`: most records that don't are told by one word.
    #[inline(always)]
    pub fn has_key(&self, geometry: &Geometry, tag: u16, key: &[u8]) -> bool {
        let lengths = self.region.load64(self.at + LENGTHS, Relaxed);
        if lengths & KEY_MASK != key.len() as u64 | u64::from(tag) << TAG_SHIFT {
            return false;
        }
        if key.len() <= geometry.page_size - HEAD {
            return self.region.equals(self.at + HEAD, key);
        }
        self.key_equals(geometry, self.fields().payload(), key)
    }

    /// Copies the value out, of a record with these fields. `false`: the block isn't what it seemed.
    #[inline(always)]
    pub fn read_value(&self, geometry: &Geometry, fields: &Fields, to: &mut [u8]) -> bool {
        if fields.payload() <= geometry.page_size - HEAD {
            return self.region.read(self.at + HEAD + fields.key_len, to);
        }
        self.read_payload(geometry, fields.payload(), fields.key_len, to)
    }

    /// Decodes the header. Read without the lock, it may be anything: lengths are clamped to what records can have.
    #[inline(always)]
    pub fn fields(&self) -> Fields {
        let meta = self.region.load64(self.at + META, Relaxed);
        let lengths = self.region.load64(self.at + LENGTHS, Relaxed);
        let flags = (meta >> 56) as u8;
        let end = meta & MILLIS_MASK;
        Fields {
            stamp: Stamp(self.region.load64(self.at + STAMP, Relaxed)),
            origin: (lengths >> 38) as u16,
            kind: (meta >> 48) as u8,
            expires: (end != 0).then_some(end),
            tombstone: flags & TOMBSTONE != 0,
            shortened: flags & (TOMBSTONE | SHORTENED) == SHORTENED,
            lapsed: flags & (TOMBSTONE | SHORTENED) == TOMBSTONE | SHORTENED,
            key_len: ((lengths & 0x1_ffff) as usize).min(MAX_KEY),
            value_len: ((lengths >> 17 & 0x1f_ffff) as usize).min(MAX_VALUE),
            tag: (lengths >> TAG_SHIFT) as u16,
        }
    }

    /// Writes the header's fixed fields.
    pub fn set_fields(&self, fields: &Fields) {
        let lengths = fields.key_len as u64
            | (fields.value_len as u64) << 17
            | u64::from(fields.origin) << 38
            | u64::from(fields.tag) << TAG_SHIFT;
        self.region.store64(self.at + LENGTHS, lengths, Relaxed);
        self.region.store64(self.at + STAMP, fields.stamp.0, Relaxed);
        done(Step::BuriedStamp);
        self.set_meta(fields);
    }

    /// Writes the one word that says what the record is and until when.
    pub fn set_meta(&self, fields: &Fields) {
        let marked = if fields.tombstone { fields.lapsed } else { fields.shortened };
        let flags = if fields.tombstone { TOMBSTONE } else { 0 } | if marked { SHORTENED } else { 0 };
        let meta = fields.expires.map_or(0, |end| end.clamp(1, MILLIS_MASK))
            | u64::from(fields.kind) << 48
            | u64::from(flags) << 56;
        self.region.store64(self.at + META, meta, Release);
    }

    /// The first overflow block.
    pub fn overflow(&self) -> u32 {
        self.region.load32(self.at + OVERFLOW, Relaxed)
    }

    /// Sets it.
    pub fn set_overflow(&self, link: u32) {
        self.region.store32(self.at + OVERFLOW, link, Relaxed);
    }

    /// Copies the key and then the value in, the overflow blocks being linked already.
    pub fn write_payload(&self, geometry: &Geometry, key: &[u8], value: &[u8]) -> bool {
        let mut pieces = self.pieces(geometry, key.len() + value.len());
        let mut room = pieces.next();
        for mut bytes in [key, value] {
            while !bytes.is_empty() {
                let Some((at, len)) = room else { return false };
                let (now, later) = bytes.split_at(len.min(bytes.len()));
                if !self.region.write(at, now) {
                    return false;
                }
                bytes = later;
                room = if now.len() < len { Some((at + now.len(), len - now.len())) } else { pieces.next() };
            }
        }
        true
    }

    /// Copies `to.len()` bytes of key and value out, from byte `skip` on. `false`: the block isn't what it seemed.
    pub fn read_payload(&self, geometry: &Geometry, total: usize, mut skip: usize, mut to: &mut [u8]) -> bool {
        for (at, len) in self.pieces(geometry, total) {
            if skip >= len {
                skip -= len;
                continue;
            }
            if to.is_empty() {
                break;
            }
            let (now, later) = to.split_at_mut(to.len().min(len - skip));
            if !self.region.read(at + skip, now) {
                return false;
            }
            skip = 0;
            to = later;
        }
        to.is_empty()
    }

    /// Whether the record's key is `key`, which has the record's key length.
    fn key_equals(&self, geometry: &Geometry, total: usize, mut key: &[u8]) -> bool {
        for (at, len) in self.pieces(geometry, total) {
            if key.is_empty() {
                break;
            }
            let (now, later) = key.split_at(key.len().min(len));
            if !self.region.equals(at, now) {
                return false;
            }
            key = later;
        }
        key.is_empty()
    }

    /// The runs of memory that hold `total` bytes: offset and length of each.
    fn pieces(&self, geometry: &Geometry, total: usize) -> Pieces<'a> {
        Pieces {
            region: self.region,
            page_size: geometry.page_size,
            at: Some((self.at + HEAD, geometry.page_size - HEAD)),
            next: self.at + OVERFLOW,
            left: total,
        }
    }
}

/// How many overflow blocks a record of `payload` bytes has, and the bytes of the last.
pub fn overflow_blocks(geometry: &Geometry, payload: usize) -> (usize, usize) {
    let rest = payload.saturating_sub(geometry.page_size - HEAD);
    if rest == 0 {
        return (0, 0);
    }
    let each = geometry.page_size - OVERFLOW_HEAD;
    let blocks = rest.div_ceil(each);
    (blocks, rest - (blocks - 1) * each + OVERFLOW_HEAD)
}

struct Pieces<'a> {
    region: &'a Region,
    page_size: usize,
    at: Option<(usize, usize)>,
    /// Offset of the link to the next block.
    next: usize,
    left: usize,
}

impl Iterator for Pieces<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        let (at, room) = match self.at.take() {
            Some(head) => head,
            None => {
                let block = offset(self.region.load32(self.next, Relaxed));
                if block == 0 {
                    return None;
                }
                self.next = block;
                (block + OVERFLOW_HEAD, self.page_size - OVERFLOW_HEAD)
            }
        };
        let len = room.min(self.left);
        self.left -= len;
        Some((at, len))
    }
}
