//! Where everything is in a zone's region.
//!
//! ```text
//! header | shards | buckets | marks of use | markers of feed walkers | origins | page descriptors | pages ...
//! ```
//!
//! Links between blocks are 32-bit numbers of units from the start of the region; 0 is "none". So a region can be mapped
//! anywhere. A unit has 8 bytes, in zones above 1 GiB 16, so that links reach 64 GiB. The upper bits, which a zone of less
//! doesn't need for that, hold bits of the key's hash in links to records of a bucket: a look-up reads the bucket's line,
//! and then hardly ever a record but its own.

pub mod header;
pub mod shard;

use std::sync::atomic::Ordering::Relaxed;

use super::hash::Hasher;
use super::region::Region;
use super::{AttachError, MIN_ZONE_SIZE};

/// "ZMSHZONE", so that memory of something else is told apart.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ZMSHZONE");
/// Counts up with every change of this file's meaning.
pub const VERSION: u32 = 28;
/// Bytes in a unit of a link, as shifts: in zones up to this size, and in larger ones.
const FINE_UNIT: u32 = 3;
const FINE_UP_TO: usize = 1 << 30;
const COARSE_UNIT: u32 = 4;
/// Links in a bucket, which is one cache line. All but the last lead to one record each; the last leads to a chain of
/// those for which the others had no room.
pub const BUCKET_LINKS: usize = 16;
/// Bytes of a bucket.
const BUCKET_LEN: usize = BUCKET_LINKS * 4;
/// Bytes of a zone for each bucket: filled with records of 72 bytes, a bucket has some 13 of them.
const BYTES_A_BUCKET: usize = 1024;
/// With fewer bits of a link to spare, a key may be in some slots of its bucket only.
const FEW_MARK_BITS: u32 = 4;
/// Largest zone, bytes: what links can reach.
pub const MAX_ZONE_SIZE: usize = 64 << 30;

/// Block sizes in bytes. Up to 256 each fine unit, but for those of which a page of 4096 holds no more than of the next;
/// above, what divides it with little left over. All coarse units up to 256 are among them, and above there is nothing else.
pub const CLASS_SIZES: [usize; 36] = [
    48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 224, 240, 256,
    288, 336, 400, 448, 512, 576, 672, 816, 1024, 1360, 2048, 4096,
];

/// The first class that holds so many fine units.
const CLASS_OF: [u8; (CLASS_SIZES[CLASS_SIZES.len() - 1] >> FINE_UNIT) + 1] = {
    let mut classes = [0; _];
    let (mut class, mut units) = (0, 0);
    while units < classes.len() {
        if units << FINE_UNIT > CLASS_SIZES[class] {
            class += 1;
        }
        classes[units] = class as u8;
        units += 1;
    }
    classes
};

/// Bytes of a page descriptor: owner and class, use and first free block, next and previous page of the class.
pub const DESCRIPTOR_LEN: usize = 16;
/// Bytes of a walker: its owner, 0 if it is free; a bit for each shard in which it missed something.
pub const WALKER_LEN: usize = 16;
pub const WALKER_MISSED: usize = 8;
/// Markers of a shard that no walker has: where the hand stands, and where it stood when its lap began.
#[derive(Clone, Copy, Debug)]
pub enum Hand {
    Now,
    Before,
}
const HANDS: usize = 2;
/// Bytes of an origin: identity, position, state, flags, greatest stamp met, position when the zone was emptied last.
pub const ORIGIN_LEN: usize = 48;
/// Entries that the table of a small zone begins with.
const FEWEST_ORIGINS: usize = 26;
/// More origins than this no zone knows.
pub const MAX_ORIGINS: usize = 1024;

/// Sizes and places, worked out from the region's size alone and kept in the handle: damage can't move them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub size: usize,
    pub shards: u32,
    pub buckets_per_shard: usize,
    /// The bits of a link that hold its mark; the others say where it leads.
    pub mark_mask: u32,
    all_slots: bool,
    unit_shift: u32,
    pub walkers: usize,
    pub origins: usize,
    pub page_size: usize,
    pub pages: usize,
    pub classes: usize,
    /// More records than this can't be in one chain.
    pub longest_chain: usize,
    shards_at: usize,
    buckets_at: usize,
    marks_at: usize,
    walkers_at: usize,
    markers_at: usize,
    origins_at: usize,
    descriptors_at: usize,
    pages_at: usize,
}

impl Geometry {
    /// # Errors
    ///
    /// Too small or too large for a zone.
    pub fn new(size: usize) -> Result<Geometry, AttachError> {
        // nginx takes some of a zone for itself, a little less than the first page.
        if size < MIN_ZONE_SIZE - 8192 {
            return Err(AttachError::TooSmall(size));
        }
        if size > MAX_ZONE_SIZE {
            return Err(AttachError::TooLarge(size));
        }
        const KIB: usize = 1024;
        // Few shards in a small zone, as each keeps pages of its own for each size of block.
        let shards: u32 = match size / KIB {
            0..512 => 1,
            512..2048 => 4,
            2048..8192 => 16,
            _ => 64,
        };
        let page_size = if size < KIB * KIB { 1024 } else { 4096 };
        let classes = CLASS_SIZES.iter().filter(|class| **class <= page_size).count();
        let buckets = (size / BYTES_A_BUCKET / shards as usize).max(1) * shards as usize;
        let unit_shift = if size <= FINE_UP_TO { FINE_UNIT } else { COARSE_UNIT };
        let link_bits = usize::BITS - ((size - 1) >> unit_shift).leading_zeros();
        let walkers = if size < 128 * KIB { 64 } else { 256 };
        // So many that the smallest zone has room for what users count on; the table goes on in pages where that is too few.
        let origins = match (size / (4 * KIB)).next_power_of_two() {
            0..=32 => FEWEST_ORIGINS,
            many => many.min(MAX_ORIGINS),
        };

        let shards_at = header::LEN;
        let buckets_at = (shards_at + shards as usize * shard::LEN).next_multiple_of(BUCKET_LEN);
        let marks_at = buckets_at + buckets * BUCKET_LEN;
        let walkers_at = marks_at + (buckets * BUCKET_LINKS).div_ceil(64) * 8;
        let walkers_at = walkers_at.next_multiple_of(1 << unit_shift);
        let markers_at = walkers_at + walkers * WALKER_LEN;
        let origins_at = markers_at + (walkers + HANDS) * (shards as usize * (1 << unit_shift));
        let descriptors_at = origins_at + origins * ORIGIN_LEN;
        let left = size.saturating_sub(descriptors_at);
        let pages = (left.saturating_sub(page_size)) / (page_size + DESCRIPTOR_LEN);
        let pages_at = (descriptors_at + pages * DESCRIPTOR_LEN).next_multiple_of(BUCKET_LEN);
        if pages < 8 {
            return Err(AttachError::TooSmall(size));
        }
        Ok(Geometry {
            size,
            shards,
            buckets_per_shard: buckets / shards as usize,
            all_slots: u32::BITS.saturating_sub(link_bits) >= FEW_MARK_BITS,
            mark_mask: u32::MAX.checked_shl(link_bits).unwrap_or(0),
            unit_shift,
            walkers,
            origins,
            page_size,
            pages,
            classes,
            longest_chain: size / CLASS_SIZES[0],
            shards_at,
            buckets_at,
            marks_at,
            walkers_at,
            markers_at,
            origins_at,
            descriptors_at,
            pages_at,
        })
    }

    /// Offset of a shard.
    #[inline]
    pub fn shard(&self, shard: u32) -> usize {
        self.shards_at + shard as usize * shard::LEN
    }

    /// Offset of a bucket: of the first of its links.
    #[inline]
    pub fn bucket(&self, shard: u32, bucket: usize) -> usize {
        self.buckets_at + (shard as usize * self.buckets_per_shard + bucket) * BUCKET_LEN
    }

    /// The bucket in which a key of this hash belongs.
    #[inline]
    pub fn bucket_of(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets_per_shard as u64) >> 32) as usize
    }

    /// What links to a record whose key has this hash bear, in the bits above those that say where it is.
    #[inline]
    pub fn mark_of(&self, hash: u64) -> u32 {
        (hash >> 26) as u32 & self.mark_mask
    }

    /// The slots of its bucket in which a key of this hash may be, a bit for each. A zone so large that links have hardly a
    /// bit to spare makes up for it by looking at fewer of them.
    #[inline]
    pub fn window_of(&self, hash: u64) -> u32 {
        const ALL: u32 = (1 << (BUCKET_LINKS - 1)) - 1;
        if self.all_slots { ALL } else { 0xf << (hash >> 48 & 12) & ALL }
    }

    /// As in a zone so large that links have only so many bits to spare.
    #[cfg(test)]
    pub fn with_mark_bits(self, bits: u32) -> Geometry {
        let mark_mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
        Geometry { mark_mask: mark_mask & self.mark_mask, all_slots: bits >= FEW_MARK_BITS, ..self }
    }

    /// The block that a link with a mark leads to.
    #[inline]
    pub fn target(&self, word: u32) -> usize {
        self.offset(word & !self.mark_mask)
    }

    /// The link to a block: its number of units.
    #[inline]
    pub fn link(&self, offset: usize) -> u32 {
        (offset >> self.unit_shift) as u32
    }

    /// The block that a link without a mark leads to.
    #[inline]
    pub fn offset(&self, link: u32) -> usize {
        (link as usize) << self.unit_shift
    }

    /// Where the mark of use of the records behind a link is: offset of the word, and the bit. `link` counts from the
    /// shard's first bucket.
    #[inline]
    pub fn use_mark(&self, shard: u32, link: usize) -> (usize, u64) {
        let number = shard as usize * self.buckets_per_shard * BUCKET_LINKS + link;
        (self.marks_at + number / 64 * 8, 1 << (number % 64))
    }

    /// Offset of the owner of a walker.
    pub fn walker(&self, slot: usize) -> usize {
        self.walkers_at + slot * WALKER_LEN
    }

    /// Offset of a walker's marker in one shard.
    pub fn marker(&self, shard: u32, slot: usize) -> usize {
        self.markers_at + (shard as usize * (self.walkers + HANDS) + slot) * self.marker_len()
    }

    /// Offsets of the markers that no walker has.
    pub fn hands(&self, shard: u32) -> [usize; HANDS] {
        [Hand::Now, Hand::Before].map(|hand| self.hand(shard, hand))
    }

    /// Offset of one of them: see `hand`.
    pub fn hand(&self, shard: u32, hand: Hand) -> usize {
        self.marker(shard, self.walkers + hand as usize)
    }

    /// Bytes of a marker, a block of which only the feed's links are used: a unit.
    pub fn marker_len(&self) -> usize {
        1 << self.unit_shift
    }

    /// The walker whose marker in this shard is at an offset.
    pub fn walker_of(&self, shard: u32, offset: usize) -> Option<usize> {
        let slot = offset.checked_sub(self.marker(shard, 0))? / self.marker_len();
        (slot < self.walkers).then_some(slot)
    }

    /// Whether a block is a marker.
    pub fn is_marker(&self, offset: usize) -> bool {
        (self.markers_at..self.origins_at).contains(&offset)
    }

    /// Offset of an origin.
    pub fn origin(&self, index: usize) -> usize {
        self.origins_at + index * ORIGIN_LEN
    }

    /// Offset of a page's descriptor.
    pub fn descriptor(&self, page: usize) -> usize {
        self.descriptors_at + page * DESCRIPTOR_LEN
    }

    /// Offset of a page.
    pub fn page(&self, page: usize) -> usize {
        self.pages_at + page * self.page_size
    }

    /// The page that an offset falls in.
    pub fn page_of(&self, offset: usize) -> Option<usize> {
        let page = offset.checked_sub(self.pages_at)? >> self.page_size.trailing_zeros();
        (page < self.pages).then_some(page)
    }

    /// The first class that holds `len` bytes.
    #[inline]
    pub fn class_for(&self, len: usize) -> Option<usize> {
        let units = len.div_ceil(1 << self.unit_shift) << (self.unit_shift - FINE_UNIT);
        let class = usize::from(*CLASS_OF.get(units)?);
        (class < self.classes).then_some(class)
    }

    /// Whether a block of `len` bytes is a page.
    pub fn is_whole_page(&self, len: usize) -> bool {
        self.class_for(len).is_none_or(|class| self.page_size / CLASS_SIZES[class] == 1)
    }

    /// Writes the header's fixed part, but for the secret, which is there already. The magic goes last, with the caller.
    pub fn describe(&self, region: &Region) {
        region.store32(header::VERSION, VERSION, Relaxed);
        region.store64(header::SIZE, self.size as u64, Relaxed);
        region.store64(header::SEAL, self.seal(region), Relaxed);
    }

    /// Checks the header's fixed part, and of the rest what a zone can't do without.
    pub fn check(&self, region: &Region) -> Result<(), AttachError> {
        if region.load64(header::MAGIC, Relaxed) != MAGIC {
            return Err(AttachError::Foreign("it doesn't begin as a zone does"));
        }
        if region.load32(header::VERSION, Relaxed) != VERSION {
            return Err(AttachError::Foreign("it was laid out by another version"));
        }
        if region.load64(header::SIZE, Relaxed) != self.size as u64 {
            return Err(AttachError::Foreign("its size is not the one that it was made with"));
        }
        let within = |field, most| region.load32(field, Relaxed) as usize <= most;
        let sound = region.load64(header::SEAL, Relaxed) == self.seal(region)
            && within(header::POOL_HEAD, self.pages)
            && within(header::POOL_FREE, self.pages)
            && within(header::SELF, MAX_ORIGINS - 1)
            && region.load64(header::LARGEST, Relaxed) <= self.pages as u64;
        if sound { Ok(()) } else { Err(AttachError::Foreign("its header is damaged")) }
    }

    /// What tells that the secret of the hash is the one that the zone was made with.
    fn seal(&self, region: &Region) -> u64 {
        let mut seed = [0; 16];
        region.read(header::SEED, &mut seed);
        Hasher::new(&seed).hash(&self.size.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_smallest_that_holds_what_is_asked_for_in_whole_units() {
        for (size, unit) in [(32 << 10, 8), (1 << 20, 8), (1 << 30, 8), (2 << 30, 16)] {
            let geometry = Geometry::new(size).expect("a size of a zone");
            for len in 1..=geometry.page_size {
                let class = geometry.class_for(len).expect("a class");
                let fits = |class: &&usize| **class >= len && class.is_multiple_of(unit);
                assert_eq!(CLASS_SIZES.iter().find(fits), Some(&CLASS_SIZES[class]), "{len} bytes in {size}");
            }
            assert_eq!(geometry.class_for(geometry.page_size + 1), None);
        }
    }
}
