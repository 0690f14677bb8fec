//! Places of a listing that are told to somebody: as text, and stopped anywhere within a bucket.

use super::keys::{ScanEach, ScanPlace};
use super::{StoreError, Zone};
use crate::record::Millis;

/// What the zone's mark is the hash of.
const MARK: &[u8] = b"zonemesh place";

impl ScanPlace {
    /// The place as a number, for [`Zone::scan_place`].
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Zone {
    /// A number that another zone, or one made anew, has otherwise: places belong to a zone as it was made.
    pub fn scan_mark(&self) -> u64 {
        self.hash(MARK) ^ self.mark()
    }

    /// The place of this number. Any number is some place, or the end.
    pub fn scan_place(&self, number: u64) -> ScanPlace {
        ScanPlace(number)
    }

    /// The order of a key among those that [`Zone::scan_bucket`] shows at once.
    pub fn scan_order(&self, key: &[u8]) -> u64 {
        self.hash(key)
    }

    /// Like [`Zone::scan`], for one bucket that has records, or some dozens that have none. Returns where that bucket is,
    /// so that a listing can stop within it and go on there, and where the next one is.
    ///
    /// # Errors
    ///
    /// As [`Zone::scan`].
    pub fn scan_bucket(
        &self,
        place: ScanPlace,
        now: Millis,
        each: ScanEach<'_>,
    ) -> Result<(ScanPlace, Option<ScanPlace>), StoreError> {
        let next = self.scan_some(place, now, 1, each)?;
        let end = u64::from(self.geometry.shards) * self.geometry.buckets_per_shard as u64;
        // The walk ends behind the first bucket that has a record.
        let passed = next.map_or(end, |next| next.0);
        Ok((ScanPlace(passed.saturating_sub(1)), next))
    }
}
