//! Zones of request limits: of each key there are parts, one for each memory that admits requests, and in each a bucket.
//!
//! A request looks at its own part only, which gets a new version for each that is admitted, as a counter's does. What
//! another memory has admitted is added to the bucket of the own part when its part is merged ([`Shard::hear`]): in place,
//! with one store, and without a version, as it is nothing to tell anybody. So a request costs the same however many nodes
//! there are. Who is killed between merging and that store lets a few requests too many through once.

use std::sync::atomic::Ordering::Relaxed;

use super::block::Block;
use super::evict::Wish;
use super::layout::header;
use super::shard::{Met, Place, Shard};
use super::{MAX_PARTED, StoreError, Zone};
use crate::record::{Bucket, Kind, Millis, Record, Role, Share};

/// What a limit makes of a request, and the excess of the key's bucket with it, in thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// It was counted.
    Within(u64),
    /// It wasn't: that is more than the burst.
    Beyond(u64),
}

/// What became of a request, as nginx numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It went on at once.
    Passed = 1,
    /// It had to wait.
    Delayed = 2,
    /// It was refused.
    Rejected = 3,
    /// It would have had to wait.
    DelayedDryRun = 4,
    /// It would have been refused.
    RejectedDryRun = 5,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Outcome; header::OUTCOMES] =
        [Outcome::Passed, Outcome::Delayed, Outcome::Rejected, Outcome::DelayedDryRun, Outcome::RejectedDryRun];

    /// As the API names it.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Delayed => "delayed",
            Outcome::Rejected => "rejected",
            Outcome::DelayedDryRun => "delayed_dry_run",
            Outcome::RejectedDryRun => "rejected_dry_run",
        }
    }

    const fn field(self) -> usize {
        header::LIMITED + (self as usize - 1) * 8
    }
}

impl Zone {
    /// The excess that one more request of a key would leave. `rate`: thousandths of a request a second.
    ///
    /// # Errors
    ///
    /// `BadKey` or `Busy`.
    pub fn limited(&self, key: &[u8], rate: u64, now: Millis) -> Result<u64, StoreError> {
        let record_key = self.own_key(key)?;
        let place = self.place(&record_key);
        let _shard = self.shard(place.shard)?;
        let met = self.find(place, &record_key);
        Ok(u64::from(self.with_one(place, key, met.as_ref(), rate, now).bucket.excess))
    }

    /// Counts a request of a key, unless that leaves more than `burst`, if one is given.
    ///
    /// # Errors
    ///
    /// `NoMemory`, `BadKey` or `Busy`: it isn't counted.
    pub fn admit(&self, key: &[u8], rate: u64, burst: Option<u64>, now: Millis) -> Result<Limited, StoreError> {
        let record_key = self.own_key(key)?;
        let place = self.place(&record_key);
        let payload = record_key.len() + value_len(record_key.len());
        self.prepare_write(place, payload);
        let shard = self.shard(place.shard)?;
        let met = self.find(place, &record_key);
        let share = self.with_one(place, key, met.as_ref(), rate, now);
        let excess = u64::from(share.bucket.excess);
        if burst.is_some_and(|burst| excess > burst) {
            return Ok(Limited::Beyond(excess));
        }
        let (mut bytes, skip) = ([0; LONGEST_PAD + Share::LEN], pad(record_key.len()));
        bytes[skip..skip + Share::LEN].copy_from_slice(&share.to_bytes());
        let value = &bytes[..skip + Share::LEN];
        let ends = Some(share.bucket.ends(rate, now));
        let wish = || Wish { place, key: &record_key, payload };
        shard.charge(payload)?;
        shard.with_relief(now, true, wish, || {
            // Making room may have moved the link to it.
            let met = self.find(place, &record_key);
            shard.write_own(place, (&record_key, Kind::Limit), value, (ends, false), met.as_ref(), now)
        })?;
        Ok(Limited::Within(excess))
    }

    /// Counts what became of a request.
    pub fn count_limited(&self, outcome: Outcome) {
        if let Some(word) = self.region.word64(outcome.field()) {
            word.fetch_add(1, Relaxed);
        }
    }

    /// How often that was counted since the last reset.
    pub fn limited_total(&self, outcome: Outcome) -> u64 {
        self.region.load64(outcome.field(), Relaxed)
    }

    /// Lets what was counted begin at zero.
    pub fn reset_limited(&self) {
        Outcome::ALL.iter().for_each(|outcome| self.region.store64(outcome.field(), 0, Relaxed));
    }

    /// Goes on counting where another memory of the zone stands.
    pub fn inherit_limited(&self, from: &Zone) {
        let take = |outcome: &Outcome| self.region.store64(outcome.field(), from.limited_total(*outcome), Relaxed);
        Outcome::ALL.iter().for_each(take);
    }

    /// The share in a record of a zone of limits. `None`: it is a tombstone.
    pub(super) fn share_in(&self, met: &Met) -> Option<Share> {
        let mut value = [0; LONGEST_PAD + Share::LEN];
        let value = value.get_mut(..met.fields.value_len).filter(|_| !met.fields.tombstone)?;
        let block = Block { region: &self.region, at: met.at };
        block.read_value(&self.geometry, &met.fields, value).then(|| share_of(met.fields.key_len, value)).flatten()
    }

    fn own_key(&self, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        if key.is_empty() || key.len() > MAX_PARTED {
            return Err(StoreError::BadKey);
        }
        Ok(Role::Part(self.own_part()).of(key))
    }

    /// The own part as one more request leaves it. If there is none, what others have told is where it begins: in their
    /// buckets is what they knew of each other.
    fn with_one(&self, place: Place, key: &[u8], own: Option<&Met>, rate: u64, now: Millis) -> Share {
        if let Some(share) =
            own.filter(|met| met.fields.is_live(now, self.cleared())).and_then(|met| self.share_in(met))
        {
            let admitted = share.admitted.wrapping_add(1);
            return Share { admitted, bucket: share.bucket.with_one(rate, now), ..share };
        }
        let mut fullest = 0;
        self.parts_each(place, key, |_, met| {
            if met.fields.is_live(now, self.cleared())
                && let Some(share) = self.share_in(met)
            {
                fullest = fullest.max(share.bucket.level(rate, now));
            }
        });
        let bucket = Bucket::holding(fullest, now).map_or(Bucket::first(now), |bucket| bucket.with_one(rate, now));
        Share { admitted: 1, ..Share::begin(bucket, now) }
    }

    fn rate(&self) -> u64 {
        self.region.load64(header::RATE, Relaxed)
    }
}

impl Shard<'_> {
    /// The part of another memory was merged, of which `known` was here before: what it has admitted since then is added
    /// to the bucket of the own part.
    pub(super) fn hear(&self, place: Place, record: &Record<'_>, known: Option<Share>, now: Millis) {
        let zone = self.zone;
        let Some((key, Role::Part(id))) = Role::split(record.key) else { return };
        if id == zone.own_part() {
            return;
        }
        let Some(news) = record.value.and_then(|value| share_of(record.key.len(), value)) else { return };
        let own = Role::Part(zone.own_part()).of(key);
        let Some(met) = zone.find(place, &own).filter(|met| met.fields.is_live(now, zone.cleared())) else { return };
        let Some(share) = zone.share_in(&met) else { return };
        let (rate, more) = (zone.rate(), news.since(known.as_ref()));
        let bucket = share.bucket.with_others(rate, now, more, news.bucket.level(rate, now));
        let at = met.fields.key_len + pad(met.fields.key_len) + Share::BUCKET;
        if let Some(offset) = self.block(met.at).offset_of(&zone.geometry, met.fields.payload(), at) {
            zone.region.store64(offset, bucket.to_word(), Relaxed);
        }
    }
}

/// What is in a value that follows a key of so many bytes.
pub(super) fn share_of(key_len: usize, value: &[u8]) -> Option<Share> {
    Share::from_bytes(value.get(pad(key_len)..)?)
}

/// Bytes of a value: those that let its words lie as memory has words, and then the share.
fn value_len(key_len: usize) -> usize {
    pad(key_len) + Share::LEN
}

fn pad(key_len: usize) -> usize {
    key_len.next_multiple_of(8) - key_len
}

const LONGEST_PAD: usize = 7;
