//! What comparing with another node asks of a zone: its records without their values, and taking away what the other knows
//! to be deleted.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::{header, shard};
use super::own::Grave;
use super::scan::ScanPlace;
use super::{Comparisons, StoreError, Zone};
use crate::record::{Millis, Record, Stamp, Version};

/// Records and buckets in one hold of a shard's lock.
const RECORDS_A_HOLD: usize = 64;
const BUCKETS_A_HOLD: usize = 128;

/// A record without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surveyed<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Who wrote it and when.
    pub version: Version,
    /// When it ends; of a tombstone, `None`.
    pub expires: Option<Millis>,
    /// It is a tombstone.
    pub tombstone: bool,
}

impl Zone {
    /// Hands some dozens of records to `each`, tombstones and what has just ended too, and returns where to go on, `None`
    /// at the end. A key that has a record from the first call to the last is met exactly once, under whichever version it
    /// has then. `each` must not call the zone: the shard is locked.
    ///
    /// # Errors
    ///
    /// `Busy`: nothing was handed out; the same place can be tried again.
    pub fn survey(
        &self,
        place: ScanPlace,
        each: &mut dyn FnMut(&Surveyed<'_>),
    ) -> Result<Option<ScanPlace>, StoreError> {
        let Some((index, Range { start: mut bucket, end })) = self.hold_at(place, BUCKETS_A_HOLD) else {
            return Ok(None);
        };
        let shard = self.shard(index)?;
        let (mut key, mut shown) = (Vec::new(), 0);
        while shown < RECORDS_A_HOLD {
            bucket = shard.next_used(bucket, end);
            if bucket == end {
                break;
            }
            shard.bucket_each(bucket, |met| {
                let fields = &met.fields;
                key.resize(fields.key_len, 0);
                if fields.stamp <= self.cleared() || !self.read_key(met, &mut key) {
                    return;
                }
                let Some(origin) = self.origin_identity(fields.origin) else { return };
                shown += 1;
                each(&Surveyed {
                    key: &key,
                    version: Version { stamp: fields.stamp, origin },
                    expires: fields.expires.filter(|_| !fields.tombstone),
                    tombstone: fields.tombstone,
                });
            });
            bucket += 1;
        }
        Ok(self.place_of_bucket(index, bucket))
    }

    /// Hands the record of `key` to `each`, a tombstone too; nothing if there is none. `each` must not call the zone.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn show(&self, key: &[u8], each: &mut dyn FnMut(&Record<'_>)) -> Result<(), StoreError> {
        let place = self.place(key);
        let shard = self.shard(place.shard)?;
        if let Some(met) = self.find(place, key) {
            shard.show(met.at, &mut Vec::new(), &mut |record, _| {
                each(record);
                true
            });
        }
        Ok(())
    }

    /// Takes away a record of exactly this version, of which others know that it was deleted. It leaves a tombstone for a
    /// short while, as one that has ended does. `false`: there is no such record any more.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn retire(&self, key: &[u8], version: Version, now: Millis) -> Result<bool, StoreError> {
        let place = self.place(key);
        let shard = self.shard(place.shard)?;
        let Some(met) = self.find(place, key) else { return Ok(false) };
        let fields = &met.fields;
        let same = fields.stamp == version.stamp && self.origin_identity(fields.origin) == Some(version.origin);
        if !same || fields.tombstone {
            return Ok(false);
        }
        let until = now.saturating_add(self.lapsed_retention());
        shard.bury(place, key, &met, &Grave::of(fields.stamp, fields.origin, until));
        self.add(header::RETIRED, 1);
        Ok(true)
    }

    /// What ended until then may have been taken away. Later than the clock if that was set back.
    pub fn expired_to(&self) -> Millis {
        let ticks = (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::TICK));
        super::expiry::millis(ticks.max().unwrap_or(0))
    }

    /// Bytes that nobody can foretell who doesn't know the zone's secret; others for each `number`.
    pub fn nonce(&self, number: u128) -> [u8; 16] {
        let half = |n: u8| u128::from(self.hash(&[number.to_le_bytes().as_slice(), &[n]].concat()));
        (half(0) << 64 | half(1)).to_le_bytes()
    }

    /// A comparison with another node begins.
    pub fn count_comparison_begun(&self) {
        self.add(header::COMPARISONS_BEGUN, 1);
    }

    /// One came to its end; it was about so many records here.
    pub fn count_comparison_ended(&self, records: u64) {
        self.add(header::COMPARED, records);
        self.add(header::COMPARISONS_ENDED, 1);
    }

    /// A record that another node had and this one lacked was found by comparing, and is here now.
    pub fn count_mended(&self) {
        self.add(header::MENDED, 1);
    }

    /// What this zone lacks at or below this stamp it may have given up for others, and doesn't ask for again. A zone
    /// without `evict` asks for what others gave up before it was sent here.
    pub fn evicted(&self) -> Stamp {
        if self.evict { self.may_lack() } else { self.evicted_here() }
    }

    fn add(&self, counter: usize, n: u64) {
        if let Some(word) = self.region.word64(counter) {
            word.fetch_add(n, Relaxed);
        }
    }
}

/// For the figures of a zone.
impl Zone {
    pub(super) fn comparisons(&self) -> Comparisons {
        Comparisons {
            begun: self.region.load64(header::COMPARISONS_BEGUN, Relaxed),
            ended: self.region.load64(header::COMPARISONS_ENDED, Relaxed),
            records: self.region.load64(header::COMPARED, Relaxed),
        }
    }

    pub(super) fn mended(&self) -> u64 {
        self.region.load64(header::MENDED, Relaxed)
    }

    pub(super) fn retired(&self) -> u64 {
        self.region.load64(header::RETIRED, Relaxed)
    }
}
