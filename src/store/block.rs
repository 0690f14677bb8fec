//! A record as it lies in memory: a header, then key and value as one run of bytes. What doesn't fit into a page is
//! *large*: it fills its first page, and goes on in further blocks.
//!
//! ```text
//! record:          feed prev, next | chain next | timer next, prev | lengths | stamp | meta | bytes ...
//! large record:    the same, lengths empty ...                                             | long lengths | overflow | bytes ...
//! overflow block:  next | unused | bytes ...
//! ```
//!
//! How many bytes each block holds follows from the lengths and the page size, so reading needs nothing else.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::failpoint::{Step, done};
use super::layout::Geometry;
use super::region::Region;
use super::{MAX_KEY, MAX_VALUE};
use crate::record::{Kind, Millis, Stamp};

/// Offsets of the header's fields.
pub const FEED_PREV: usize = 0;
pub const FEED_NEXT: usize = 4;
pub const CHAIN_NEXT: usize = 8;
pub const TIMER_NEXT: usize = 12;
pub const TIMER_PREV: usize = 16;
const LENGTHS: usize = 20;
const STAMP: usize = 24;
const META: usize = 32;
/// Bytes of the header.
pub const HEAD: usize = 40;
/// What a large record has before its bytes.
const LONG_LENGTHS: usize = 40;
const OVERFLOW: usize = 48;
const LARGE_HEAD: usize = 56;
/// Bytes before the data of an overflow block.
const OVERFLOW_HEAD: usize = 8;

// Lengths: 12 bits of the key's, 12 of the value's, 7 of the key's hash, and whether the record is large.
const LENGTH_BITS: u32 = 12;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const TAG_SHIFT: u32 = 24;
/// The bits of a hash that a record keeps.
pub const TAG_MASK: u32 = 0x7f;
const LARGE: u32 = 1 << 31;
/// Those bits that a look-up compares.
const KEY_MASK: u32 = LARGE | TAG_MASK << TAG_SHIFT | LENGTH_MASK;
// Long lengths: 17 bits of the key's, 21 of the value's.
const LONG_KEY_BITS: u32 = 17;
const LONG_KEY_MASK: u64 = (1 << LONG_KEY_BITS) - 1;
const LONG_VALUE_MASK: u64 = (1 << 21) - 1;
// Meta: 47 bits of the end, a flag, 10 bits of the origin, 4 of the kind, and two flags.
const MILLIS_MASK: u64 = (1 << 47) - 1;
const UNSETTLED: u64 = 1 << 47;
const ORIGIN_SHIFT: u32 = 48;
const ORIGIN_MASK: u16 = 0x3ff;
const KIND_SHIFT: u32 = 58;
const KIND_MASK: u8 = 0xf;
const TOMBSTONE: u64 = 1 << 62;
/// On a record: shortened. On a tombstone: lapsed.
const SHORTENED: u64 = 1 << 63;

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
    /// It won over a version that its origin hadn't promised yet: that one may come again.
    pub unsettled: bool,
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
        let lengths = self.region.load32(self.at + LENGTHS, Relaxed);
        // A key longer than the field has bits outside of the mask, and equals none.
        if lengths & KEY_MASK == key.len() as u32 | u32::from(tag) << TAG_SHIFT {
            return self.region.equals(self.at + HEAD, key);
        }
        lengths & LARGE != 0 && self.large_has_key(geometry, tag, key)
    }

    #[cold]
    #[inline(never)]
    fn large_has_key(&self, geometry: &Geometry, tag: u16, key: &[u8]) -> bool {
        let fields = self.fields();
        fields.tag == tag && fields.key_len == key.len() && self.key_equals(geometry, fields.payload(), key)
    }

    /// Copies the value out, of a record with these fields. `false`: the block isn't what it seemed.
    #[inline(always)]
    pub fn read_value(&self, geometry: &Geometry, fields: &Fields, to: &mut [u8]) -> bool {
        if !is_large(geometry, fields.payload()) {
            return self.region.read(self.at + HEAD + fields.key_len, to);
        }
        self.read_payload(geometry, fields.payload(), fields.key_len, to)
    }

    /// Decodes the header. Read without the lock, it may be anything: lengths are clamped to what records can have.
    #[inline(always)]
    pub fn fields(&self) -> Fields {
        let meta = self.region.load64(self.at + META, Relaxed);
        let lengths = self.region.load32(self.at + LENGTHS, Relaxed);
        let end = meta & MILLIS_MASK;
        let (key_len, value_len) = if lengths & LARGE == 0 {
            ((lengths & LENGTH_MASK) as usize, (lengths >> LENGTH_BITS & LENGTH_MASK) as usize)
        } else {
            self.long_lengths()
        };
        Fields {
            stamp: Stamp(self.region.load64(self.at + STAMP, Relaxed)),
            origin: (meta >> ORIGIN_SHIFT) as u16 & ORIGIN_MASK,
            kind: (meta >> KIND_SHIFT) as u8 & KIND_MASK,
            expires: (end != 0).then_some(end),
            tombstone: meta & TOMBSTONE != 0,
            shortened: meta & (TOMBSTONE | SHORTENED) == SHORTENED,
            lapsed: meta & (TOMBSTONE | SHORTENED) == TOMBSTONE | SHORTENED,
            unsettled: meta & UNSETTLED != 0,
            key_len,
            value_len,
            tag: (lengths >> TAG_SHIFT & TAG_MASK) as u16,
        }
    }

    #[cold]
    fn long_lengths(&self) -> (usize, usize) {
        let lengths = self.region.load64(self.at + LONG_LENGTHS, Relaxed);
        let (key, value) = (lengths & LONG_KEY_MASK, lengths >> LONG_KEY_BITS & LONG_VALUE_MASK);
        ((key as usize).min(MAX_KEY), (value as usize).min(MAX_VALUE))
    }

    /// Writes the header's fixed fields.
    pub fn set_fields(&self, geometry: &Geometry, fields: &Fields) {
        let lengths = if is_large(geometry, fields.payload()) {
            let long = fields.key_len as u64 | (fields.value_len as u64) << LONG_KEY_BITS;
            self.region.store64(self.at + LONG_LENGTHS, long, Relaxed);
            LARGE
        } else {
            fields.key_len as u32 | (fields.value_len as u32) << LENGTH_BITS
        };
        self.region.store32(self.at + LENGTHS, lengths | u32::from(fields.tag) << TAG_SHIFT, Relaxed);
        self.region.store64(self.at + STAMP, fields.stamp.0, Relaxed);
        self.set_meta(fields);
    }

    /// Turns a record into another one of the same lengths, where it lies: until the last of three stores it is what it was,
    /// under another version.
    pub fn turn(&self, from: &Fields, to: &Fields) {
        self.set_meta(&Fields { origin: to.origin, ..*from });
        self.region.store64(self.at + STAMP, to.stamp.0, Relaxed);
        done(Step::BuriedStamp);
        self.set_meta(to);
    }

    /// Writes the one word that says what the record is, of whom, and until when.
    pub fn set_meta(&self, fields: &Fields) {
        let marked = if fields.tombstone { fields.lapsed } else { fields.shortened };
        let meta = fields.expires.map_or(0, |end| end.clamp(1, MILLIS_MASK))
            | u64::from(fields.origin & ORIGIN_MASK) << ORIGIN_SHIFT
            | u64::from(fields.kind & KIND_MASK) << KIND_SHIFT
            | if fields.tombstone { TOMBSTONE } else { 0 }
            | if marked { SHORTENED } else { 0 }
            | if fields.unsettled { UNSETTLED } else { 0 };
        self.region.store64(self.at + META, meta, Release);
    }

    /// Whether the record says that it goes on in further blocks.
    pub fn is_large(&self) -> bool {
        self.region.load32(self.at + LENGTHS, Relaxed) & LARGE != 0
    }

    /// The first overflow block, 0 if the record isn't large.
    pub fn overflow(&self) -> u32 {
        if self.is_large() { self.region.load32(self.at + OVERFLOW, Relaxed) } else { 0 }
    }

    /// Sets it; of a record that will be large.
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

    /// Where byte `at` of key and value, which are `total` bytes, is in the region.
    pub fn offset_of(&self, geometry: &Geometry, total: usize, mut at: usize) -> Option<usize> {
        for (from, len) in self.pieces(geometry, total) {
            if at < len {
                return Some(from + at);
            }
            at -= len;
        }
        None
    }

    /// The runs of memory that hold `total` bytes: offset and length of each.
    fn pieces<'g>(&self, geometry: &'g Geometry, total: usize) -> Pieces<'a, 'g> {
        let head = if is_large(geometry, total) { LARGE_HEAD } else { HEAD };
        Pieces {
            region: self.region,
            geometry,
            at: Some((self.at + head, geometry.page_size - head)),
            next: self.at + OVERFLOW,
            left: total,
        }
    }
}

/// Whether a record of `payload` bytes is large.
#[inline]
fn is_large(geometry: &Geometry, payload: usize) -> bool {
    payload > geometry.page_size - HEAD
}

/// How many overflow blocks a record of `payload` bytes has, and the bytes of the last.
pub fn overflow_blocks(geometry: &Geometry, payload: usize) -> (usize, usize) {
    if !is_large(geometry, payload) {
        return (0, 0);
    }
    let rest = payload - (geometry.page_size - LARGE_HEAD);
    let each = geometry.page_size - OVERFLOW_HEAD;
    let blocks = rest.div_ceil(each);
    (blocks, rest - (blocks - 1) * each + OVERFLOW_HEAD)
}

struct Pieces<'a, 'g> {
    region: &'a Region,
    geometry: &'g Geometry,
    at: Option<(usize, usize)>,
    /// Offset of the link to the next block.
    next: usize,
    left: usize,
}

impl Iterator for Pieces<'_, '_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        let (at, room) = match self.at.take() {
            Some(head) => head,
            None => {
                let block = self.geometry.offset(self.region.load32(self.next, Relaxed));
                if block == 0 {
                    return None;
                }
                self.next = block;
                (block + OVERFLOW_HEAD, self.geometry.page_size - OVERFLOW_HEAD)
            }
        };
        let len = room.min(self.left);
        self.left -= len;
        Some((at, len))
    }
}
