//! Listing: walking over the records of a zone, some dozens at a time, from places that can be told to somebody.

use super::find::Met;
use std::ops::Range;

use super::layout::BUCKET_LINKS;
use super::lookup::Found;
use super::shard::Shard;
use super::{StoreError, Zone};
use crate::record::Millis;

/// Where a listing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPlace(pub(super) u64);

/// What a listing calls for each record: key, value, what is found.
pub type ScanEach<'a> = &'a mut dyn FnMut(&[u8], &[u8], Found);

/// Records shown, their bytes, and buckets passed, in one hold of the lock.
const RECORDS_A_HOLD: usize = 32;
const BYTES_A_HOLD: usize = 64 * 1024;
const BUCKETS_A_HOLD: usize = 256;
/// What the zone's mark is the hash of.
const MARK: &[u8] = b"zonemesh place";

impl ScanPlace {
    /// The place as a number, for [`Zone::scan_place`].
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Zone {
    /// Hands some dozens of live records to `each` (key, value, what is found) and returns where to go on, `None` at the
    /// end. What is there from the first call to the last is met exactly once; what comes or goes between may be missed.
    /// `each` must not call the zone: the shard is locked.
    ///
    /// # Errors
    ///
    /// `Busy`: nothing was handed out; the same place can be tried again.
    pub fn scan(&self, place: ScanPlace, now: Millis, each: ScanEach<'_>) -> Result<Option<ScanPlace>, StoreError> {
        self.scan_some(place, now, RECORDS_A_HOLD, each)
    }

    /// The same for as many buckets as it takes to show so many records.
    pub(super) fn scan_some(
        &self,
        place: ScanPlace,
        now: Millis,
        records: usize,
        each: ScanEach<'_>,
    ) -> Result<Option<ScanPlace>, StoreError> {
        let Some((index, Range { start: mut bucket, end })) = self.hold_at(place, BUCKETS_A_HOLD) else {
            return Ok(None);
        };
        let shard = self.shard(index)?;
        let (mut payload, mut shown, mut bytes) = (Vec::new(), 0, 0);
        while shown < records && bytes < BYTES_A_HOLD {
            bucket = shard.next_used(bucket, end);
            if bucket == end {
                break;
            }
            if self.matching.has_parts() {
                self.sums_each(&shard, bucket, now, |key, value, found| {
                    each(key, value, found);
                    shown += 1;
                    bytes += key.len() + value.len();
                });
                bucket += 1;
                continue;
            }
            shard.bucket_each(bucket, |met| {
                if met.fields.is_live(now, self.cleared()) && shard.payload(met, &mut payload) {
                    let (key, value) = payload.split_at(met.fields.key_len);
                    each(key, value, self.found(&met.fields));
                    shown += 1;
                    bytes += payload.len();
                }
            });
            bucket += 1;
        }
        Ok(self.place_of_bucket(index, bucket))
    }

    /// The shard and the buckets of it, so many at most, with which a walk goes on from a place. `None`: that is the end.
    pub(super) fn hold_at(&self, place: ScanPlace, buckets: usize) -> Option<(u32, Range<usize>)> {
        let per_shard = self.geometry.buckets_per_shard;
        let shard = u32::try_from(place.0 / per_shard as u64).ok().filter(|shard| *shard < self.geometry.shards)?;
        let bucket = (place.0 % per_shard as u64) as usize;
        Some((shard, bucket..per_shard.min(bucket + buckets)))
    }

    /// The place of a bucket, which may be one past a shard's last. `None`: it is past all.
    pub(super) fn place_of_bucket(&self, shard: u32, bucket: usize) -> Option<ScanPlace> {
        let per_shard = self.geometry.buckets_per_shard as u64;
        let place = u64::from(shard) * per_shard + bucket as u64;
        (place < u64::from(self.geometry.shards) * per_shard).then_some(ScanPlace(place))
    }

    /// Whether there is no live record.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn is_empty(&self, now: Millis) -> Result<bool, StoreError> {
        let (mut empty, mut place) = (true, Some(ScanPlace::default()));
        if self.stats().records == 0 {
            return Ok(true);
        }
        while let Some(at) = place.filter(|_| empty) {
            place = self.scan(at, now, &mut |_, _, _| empty = false)?;
        }
        Ok(empty)
    }

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

impl Shard<'_> {
    /// The records of one bucket.
    pub fn bucket_each(&self, bucket: usize, mut each: impl FnMut(&Met)) {
        let mut used = self.links_in_use(bucket);
        while used != 0 {
            self.link_each(bucket * BUCKET_LINKS + used.trailing_zeros() as usize, &mut each);
            used &= used - 1;
        }
    }

    /// The first bucket from `bucket` on that has records, or `end`: of a zone with few records most have none.
    pub fn next_used(&self, bucket: usize, end: usize) -> usize {
        let lines = self.zone.geometry.bucket(self.index, bucket);
        bucket + self.zone.region.zero_lines(lines, end.saturating_sub(bucket))
    }

    /// A bit for each link of a bucket that leads to a record, from one look at its line.
    #[inline]
    fn links_in_use(&self, bucket: usize) -> u32 {
        let line = self.zone.geometry.bucket(self.index, bucket);
        !self.zone.region.matches(line, 0, u32::MAX) & ((1 << BUCKET_LINKS) - 1)
    }
}
