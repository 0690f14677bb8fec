//! Where a key belongs, and finding its record there.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::Zone;
use super::block::{self, Block, CHAIN_NEXT, Fields};
use super::layout::BUCKET_LINKS;

/// Where in a bucket the link to its chain is.
pub(super) const LAST_LINK: usize = (BUCKET_LINKS - 1) * 4;

/// A key's place: which shard, which bucket, and the bits that records keep of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: u32,
    pub bucket: usize,
    pub tag: u16,
    /// What the link to the record bears, and the slots of the bucket in which that may be.
    pub mark: u32,
    pub window: u32,
}

/// A record found in a chain.
#[derive(Clone, Copy)]
pub struct Met {
    /// Offset of the record.
    pub at: usize,
    /// Offset of the link that leads to it.
    pub from: usize,
    pub fields: Fields,
}

impl Zone {
    /// Where a key of this hash belongs.
    #[inline(always)]
    pub(super) fn place_of_hash(&self, hash: u64) -> Place {
        Place {
            shard: (hash >> 58) as u32 & (self.geometry.shards - 1),
            bucket: self.geometry.bucket_of(hash),
            tag: ((hash >> 32) as u32 & block::TAG_MASK) as u16,
            mark: self.geometry.mark_of(hash),
            window: self.geometry.window_of(hash),
        }
    }

    /// Finds `key` in its bucket. Without the lock it may miss or end early: the caller checks the sequence.
    #[inline(always)]
    pub(super) fn find(&self, place: Place, key: &[u8]) -> Option<Met> {
        let bucket = self.geometry.bucket(place.shard, place.bucket);
        let slots = self.bearing(bucket, place);
        if slots != 0
            && let Some(met) = self.find_in_slot(bucket, slots, place.tag, key)
        {
            return Some(met);
        }
        // Hardly ever does another key's link bear the same mark.
        if slots & slots.wrapping_sub(1) == 0 && self.region.load32(bucket + LAST_LINK, Relaxed) == 0 {
            return None;
        }
        self.find_further(bucket, slots, place.tag, place.mark, key)
    }

    /// Looks into the first of the slots.
    #[inline(always)]
    fn find_in_slot(&self, bucket: usize, slots: u32, tag: u16, key: &[u8]) -> Option<Met> {
        let from = bucket + slots.trailing_zeros() as usize * 4;
        let block = Block { region: &self.region, at: self.geometry.target(self.region.load32(from, Acquire)) };
        (block.at != 0 && block.has_key(&self.geometry, tag, key)).then(|| {
            // The length is known: whoever reads the value needn't wait for the header.
            Met { at: block.at, from, fields: Fields { key_len: key.len(), ..block.fields() } }
        })
    }

    #[cold]
    #[inline(never)]
    fn find_further(&self, bucket: usize, mut slots: u32, tag: u16, mark: u32, key: &[u8]) -> Option<Met> {
        while slots != 0 {
            slots &= slots - 1;
            if slots != 0
                && let Some(met) = self.find_in_slot(bucket, slots, tag, key)
            {
                return Some(met);
            }
        }
        self.chain(bucket + LAST_LINK, mark).find_map(|(at, from)| {
            let block = Block { region: &self.region, at };
            block.has_key(&self.geometry, tag, key).then(|| Met { at, from, fields: block.fields() })
        })
    }

    /// Hands every record that [`Zone::find`] would look at to `each`.
    pub(super) fn find_each(&self, place: Place, mut each: impl FnMut(&Met)) {
        let mut show = |at, from| {
            let fields = Block { region: &self.region, at }.fields();
            if fields.tag == place.tag {
                each(&Met { at, from, fields });
            }
        };
        let bucket = self.geometry.bucket(place.shard, place.bucket);
        let mut slots = self.bearing(bucket, place);
        while slots != 0 {
            let from = bucket + slots.trailing_zeros() as usize * 4;
            slots &= slots - 1;
            let at = self.geometry.target(self.region.load32(from, Acquire));
            if at != 0 {
                show(at, from);
            }
        }
        self.chain(bucket + LAST_LINK, place.mark).for_each(|(at, from)| show(at, from));
    }

    /// The slots of a bucket whose links bear the place's mark; some may be empty.
    #[inline]
    fn bearing(&self, bucket: usize, place: Place) -> u32 {
        self.region.matches(bucket, place.mark, self.geometry.mark_mask) & place.window
    }

    /// The records of a chain whose links bear this mark: where each is, where the link to it is.
    fn chain(&self, mut from: usize, mark: u32) -> impl Iterator<Item = (usize, usize)> {
        // A chain can't be longer than there are blocks; one that seems so is being changed under our eyes.
        let mut left = self.geometry.longest_chain;
        std::iter::from_fn(move || {
            while left > 0 {
                left -= 1;
                let (word, here) = (self.region.load32(from, Acquire), from);
                let at = self.geometry.target(word);
                if at == 0 {
                    break;
                }
                from = at + CHAIN_NEXT;
                if (word ^ mark) & self.geometry.mark_mask == 0 {
                    return Some((at, here));
                }
            }
            None
        })
    }

    /// Copies a record's key into `to`, which has its length.
    pub(super) fn read_key(&self, met: &Met, to: &mut [u8]) -> bool {
        let block = Block { region: &self.region, at: met.at };
        block.read_payload(&self.geometry, met.fields.payload(), 0, to)
    }
}
