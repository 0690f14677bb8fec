//! What two nodes compare: sums over the records of each part of the key space, and then the versions in those that differ.
//!
//! Keys are put into parts by a hash whose seed is drawn anew for each comparison, so nobody can choose keys that meet, and
//! two keys that do meet once don't meet again.

use super::message::{BY_COUNTER, MAX_RANGE_BITS};
use crate::record::{Millis, Role, Stamp, Version};
use crate::store::{Hasher, Matching, ScanPlace, StoreError, Surveyed, Zone};

/// The bits of a hash that tell a part.
const PART: u64 = !0 << (64 - MAX_RANGE_BITS);

/// What is compared, and how.
#[derive(Clone, Copy)]
pub struct Terms {
    hasher: Hasher,
    bits: u8,
    /// All records of a counter are in one part.
    pub by_counter: bool,
    /// Later writes may be on their way.
    pub until: Stamp,
    /// What ends until then is about to go.
    pub ends: Millis,
    /// One of the two may have evicted what was written until then.
    pub floor: Stamp,
}

impl Terms {
    /// `bits`: of the number of a part, at most [`MAX_RANGE_BITS`].
    pub fn new(seed: &[u8; 16], bits: u8, until: Stamp, ends: Millis, floor: Stamp) -> Terms {
        Terms { hasher: Hasher::new(seed), bits: bits.min(MAX_RANGE_BITS), by_counter: false, until, ends, floor }
    }

    /// The same of counters, if the session's version of the protocol is the second or a later one.
    #[must_use]
    pub fn by_counter(self, by_counter: bool) -> Terms {
        Terms { by_counter, ..self }
    }

    /// Bits of the number of a part.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// How many parts the key space has.
    pub const fn ranges(&self) -> usize {
        1 << self.bits
    }

    /// A key's hash.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let hash = self.hasher.hash(key);
        match Role::split(key).filter(|_| self.by_counter) {
            Some((counter, _)) => (self.hasher.hash(counter) & PART) | (hash & !PART),
            None => hash,
        }
    }

    /// The part that a key of this hash is in.
    pub const fn range(&self, hash: u64) -> usize {
        (hash >> 1 >> (63 - self.bits)) as usize
    }

    /// Whether both nodes should have this record, if they are well.
    pub fn settled(&self, record: &Surveyed<'_>) -> bool {
        let stamp = record.version.stamp;
        let is_young = stamp > self.until || record.expires.is_some_and(|end| end <= self.ends);
        !record.tombstone && stamp > self.floor && !is_young
    }

    fn sum(&self, hash: u64, version: Version) -> u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
        bytes[8..16].copy_from_slice(&version.stamp.0.to_le_bytes());
        bytes[16..].copy_from_slice(&version.origin.0);
        self.hasher.hash(&bytes)
    }
}

/// Whether what is compared of this zone is told by counter, in a session of this version.
pub fn by_counter(zone: &Zone, version: u16) -> bool {
    version >= BY_COUNTER && zone.params().matching == Matching::Counter
}

/// The records of one part: how many, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many.
    pub count: u32,
    /// Of hashes over key and version.
    pub sum: u64,
}

/// Digests of all parts, while they are made.
pub struct Digests {
    /// What is compared.
    pub terms: Terms,
    /// By part.
    pub all: Vec<Digest>,
    pass: Pass,
}

impl Digests {
    /// Nothing is walked yet.
    pub fn new(terms: Terms) -> Digests {
        Digests { terms, all: Vec::new(), pass: Pass::default() }
    }

    /// Walks on; `true`: they are complete.
    pub fn walk(&mut self, zone: &Zone, holds: usize) -> Result<bool, StoreError> {
        let (terms, all) = (&self.terms, &mut self.all);
        // Not before: a question alone costs no memory.
        all.resize(terms.ranges(), Digest::default());
        self.pass.walk(zone, holds, |record| {
            if terms.settled(record) {
                let hash = terms.hash(record.key);
                if let Some(digest) = all.get_mut(terms.range(hash)) {
                    digest.count = digest.count.saturating_add(1);
                    digest.sum = digest.sum.wrapping_add(terms.sum(hash, record.version));
                }
            }
        })
    }
}

/// A walk over all records of a zone, a bounded part at a time.
#[derive(Default)]
pub struct Pass {
    place: ScanPlace,
    is_over: bool,
}

impl Pass {
    /// Walks on, for so many holds of a lock at most; `true`: that was all.
    pub fn walk(&mut self, zone: &Zone, holds: usize, mut each: impl FnMut(&Surveyed<'_>)) -> Result<bool, StoreError> {
        for _ in 0..holds {
            if self.is_over {
                break;
            }
            match zone.survey(self.place, &mut each)? {
                Some(place) => self.place = place,
                None => self.is_over = true,
            }
        }
        Ok(self.is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Identity, PartId};
    use std::collections::BTreeSet;

    #[test]
    fn every_hash_has_a_part() {
        for bits in 0..=MAX_RANGE_BITS {
            let terms = Terms::new(&[1; 16], bits, Stamp(0), 0, Stamp(0));
            assert_eq!((terms.range(0), terms.range(u64::MAX)), (0, terms.ranges() - 1));
        }
    }

    #[test]
    fn the_records_of_a_counter_are_in_one_part() {
        let records =
            [Role::Base, Role::Part(PartId([7; 8])), Role::Part(PartId::SHARED)].map(|role| role.of(b"counter"));
        let terms = Terms::new(&[1; 16], MAX_RANGE_BITS, Stamp(0), 0, Stamp(0));
        let parts = |terms: Terms| -> BTreeSet<usize> {
            records.iter().map(|record| terms.range(terms.hash(record))).collect()
        };
        assert_eq!((parts(terms).len(), parts(terms.by_counter(true)).len()), (3, 1));
        let hashes: BTreeSet<u64> = records.iter().map(|record| terms.by_counter(true).hash(record)).collect();
        assert_eq!(hashes.len(), 3, "and are told apart");
    }

    #[test]
    fn only_what_both_should_have_is_compared() {
        let terms = Terms::new(&[1; 16], 4, Stamp(100), 50, Stamp(10));
        let version = |stamp| Version { stamp: Stamp(stamp), origin: Identity([1; 16]) };
        let record = Surveyed { key: b"k", version: version(100), expires: None, tombstone: false };
        assert!(terms.settled(&record));
        assert!(terms.settled(&Surveyed { expires: Some(51), ..record }));
        for other in [
            Surveyed { version: version(101), ..record },
            Surveyed { version: version(10), ..record },
            Surveyed { expires: Some(50), ..record },
            Surveyed { tombstone: true, ..record },
        ] {
            assert!(!terms.settled(&other), "{other:?}");
        }
        assert_ne!(terms.sum(1, version(5)), terms.sum(1, version(6)));
        assert_ne!(terms.sum(1, version(5)), terms.sum(2, version(5)));
    }
}
