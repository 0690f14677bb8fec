//! The bare tables that a zone is held against: the same records, and nothing of what makes them shared or safe.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use siphasher::sip::SipHasher13;
use zonemesh::store::Region;

/// A key or a value.
pub type Bytes = [u8; 16];

/// The standard library's table with the zone's own hash, SipHash-1-3 in one shot.
pub type Private = HashMap<Bytes, Bytes, OneShot>;

/// Keyed with a constant: the seed's value costs nothing, its use does.
#[derive(Clone, Copy)]
pub struct OneShot(SipHasher13);

impl OneShot {
    /// The hash of the bare tables.
    pub fn new() -> OneShot {
        OneShot(SipHasher13::new_with_keys(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210))
    }
}

impl BuildHasher for OneShot {
    type Hasher = Once;

    #[inline]
    fn build_hasher(&self) -> Once {
        Once { keyed: self.0, hash: 0 }
    }
}

/// Takes the bytes of one key; their length, which is always the same, is left out.
pub struct Once {
    keyed: SipHasher13,
    hash: u64,
}

impl Hasher for Once {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.hash = self.keyed.hash(bytes);
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

/// A table in shared memory without locks: slots of key and value, the next free one if the first is taken. Two processes
/// that write the same record at once may leave half of each: this is what memory gives, not what a user can have.
#[derive(Clone, Copy)]
pub struct Bare {
    region: Region,
    hash: OneShot,
    mask: usize,
}

const SLOT: usize = 32;

impl Bare {
    /// Bytes for `keys` records, at most half of the slots in use.
    pub fn size(keys: usize) -> usize {
        (keys * 2).next_power_of_two() * SLOT
    }

    /// A table in zeroed memory of [`Bare::size`].
    pub fn new(region: Region) -> Bare {
        Bare { region, hash: OneShot::new(), mask: region.len() / SLOT - 1 }
    }

    /// Copies a value out.
    #[inline]
    pub fn get(&self, key: &Bytes, to: &mut Bytes) -> bool {
        self.slot(key).is_some_and(|slot| {
            let (low, high) = (self.load(slot + 16), self.load(slot + 24));
            to[..8].copy_from_slice(&low.to_le_bytes());
            to[8..].copy_from_slice(&high.to_le_bytes());
            true
        })
    }

    /// Overwrites a value, or takes a free slot.
    #[inline]
    pub fn set(&self, key: &Bytes, value: &Bytes) {
        let [first, second] = words(key);
        let mut slot = self.first(key);
        while self.load(slot) != 0 && (self.load(slot), self.load(slot + 8)) != (first, second) {
            slot = (slot + SLOT) & (self.mask * SLOT);
        }
        let [low, high] = words(value);
        self.store(slot + 16, low);
        self.store(slot + 24, high);
        self.store(slot + 8, second);
        self.store(slot, first);
    }

    #[inline]
    fn slot(&self, key: &Bytes) -> Option<usize> {
        let [first, second] = words(key);
        let mut slot = self.first(key);
        loop {
            let found = self.load(slot);
            if found == first && self.load(slot + 8) == second {
                return Some(slot);
            }
            if found == 0 {
                return None;
            }
            slot = (slot + SLOT) & (self.mask * SLOT);
        }
    }

    #[inline]
    fn first(&self, key: &Bytes) -> usize {
        (self.hash.0.hash(key) as usize & self.mask) * SLOT
    }

    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.region.word64(at).map_or(0, |word: &AtomicU64| word.load(Relaxed))
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.region.word64(at) {
            word.store(value, Relaxed);
        }
    }
}

fn words(bytes: &Bytes) -> [u64; 2] {
    let (words, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}
