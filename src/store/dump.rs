//! All records of a zone, for who writes them somewhere slow: copied under a lock, some dozens at a time, and looked at
//! when the lock has been given back.

use super::block::Fields;
use super::find::Met;
use super::shard::Shard;
use super::{StoreError, Zone};
use crate::record::{Identity, Millis, Record, Version};

/// Copied in one hold of a lock: no further bucket after so many records, and no further record after so many more, or so
/// many bytes. A bucket that is copied in one go needs nobody to remember what of it was copied.
const RECORDS_A_HOLD: usize = 32;
const MOST_A_HOLD: usize = 64;
const BYTES_A_HOLD: usize = 256 * 1024;
/// Buckets passed in one hold.
const BUCKETS_A_HOLD: usize = 256;

/// Where a walk stands. The default is the beginning.
#[derive(Debug, Default)]
pub struct DumpPlace {
    shard: u32,
    bucket: usize,
    /// Keys of that bucket that were copied already.
    copied: Vec<Box<[u8]>>,
}

/// Copies of some records.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    heads: Vec<(Fields, Identity)>,
}

/// A record, and what a state file has to know besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped<'a> {
    /// As it travels between nodes.
    pub record: Record<'a>,
    /// When it ends; of a tombstone, when it may be forgotten.
    pub end: Option<Millis>,
}

impl Zone {
    /// Puts copies of the next records into `batch`, tombstones and what has ended too, in place of what was in it.
    /// `false`: all records were copied. What is there from the first call to the last is met exactly once; what comes,
    /// goes or changes between is met once at most.
    ///
    /// # Errors
    ///
    /// `Busy`: nothing was copied; the same place can be tried again.
    pub fn dump(&self, place: &mut DumpPlace, batch: &mut Batch) -> Result<bool, StoreError> {
        batch.clear();
        if place.shard >= self.geometry.shards {
            return Ok(false);
        }
        let shard = self.shard(place.shard)?;
        let buckets = self.geometry.buckets_per_shard;
        let end = buckets.min(place.bucket + BUCKETS_A_HOLD);
        while place.bucket < end && batch.heads.len() < RECORDS_A_HOLD && shard.copy_bucket(place, batch) {
            place.bucket += 1;
            place.copied.clear();
        }
        if place.bucket >= buckets {
            *place = DumpPlace { shard: place.shard + 1, ..DumpPlace::default() };
        }
        Ok(true)
    }
}

impl Shard<'_> {
    /// Copies the records of one bucket, but for those that were copied already. `false`: the batch is full before its end.
    fn copy_bucket(&self, place: &mut DumpPlace, batch: &mut Batch) -> bool {
        let (before, mut whole) = (batch.heads.len(), true);
        self.bucket_each(place.bucket, |met| {
            if batch.is_full() {
                whole = false;
            } else if !self.is_among(met, &place.copied) {
                self.copy(met, batch);
            }
        });
        if !whole {
            // The bucket may be another one when it is looked at again: keys tell what was there.
            place.copied.extend(batch.records().skip(before).map(|dumped| Box::from(dumped.record.key)));
        }
        whole
    }

    fn copy(&self, met: &Met, batch: &mut Batch) {
        let fields = met.fields;
        let Some(origin) = self.zone.origin_identity(fields.origin) else { return };
        let start = batch.bytes.len();
        batch.bytes.resize(start + fields.payload(), 0);
        let room = batch.bytes.get_mut(start..).unwrap_or_default();
        let is_whole = self.block(met.at).read_payload(&self.zone.geometry, fields.payload(), 0, room);
        if fields.stamp > self.zone.cleared() && is_whole {
            batch.heads.push((fields, origin));
        } else {
            batch.bytes.truncate(start);
        }
    }

    fn is_among(&self, met: &Met, keys: &[Box<[u8]>]) -> bool {
        if keys.is_empty() {
            return false;
        }
        let mut key = vec![0; met.fields.key_len];
        self.zone.read_key(met, &mut key) && keys.iter().any(|other| **other == *key)
    }
}

impl Batch {
    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Dumped<'_>> {
        let mut rest = self.bytes.as_slice();
        self.heads.iter().filter_map(move |(fields, origin)| {
            let (payload, after) = rest.split_at_checked(fields.payload())?;
            rest = after;
            let (key, value) = payload.split_at_checked(fields.key_len)?;
            let record = Record {
                kind: fields.known_kind(),
                version: Version { stamp: fields.stamp, origin: *origin },
                key,
                value: (!fields.tombstone).then_some(value),
                expires: fields.expires.filter(|_| !fields.tombstone),
                shortened: fields.shortened,
            };
            Some(Dumped { record, end: fields.expires })
        })
    }

    /// Appends a record.
    pub(super) fn push(&mut self, record: &Record<'_>, fields: &Fields) {
        let value = record.value.unwrap_or_default();
        self.bytes.extend_from_slice(record.key);
        self.bytes.extend_from_slice(value);
        // A record that was turned into a tombstone still has the length of its value.
        self.heads.push((Fields { value_len: value.len(), ..*fields }, record.version.origin));
    }

    /// Whether no further record is to be copied in this hold of a lock.
    pub(super) fn is_full(&self) -> bool {
        self.heads.len() >= MOST_A_HOLD || self.bytes.len() >= BYTES_A_HOLD
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.heads.clear();
    }
}
