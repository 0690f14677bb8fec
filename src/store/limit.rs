//! Zones of request limits: of each key there are parts, one for each memory that admits requests, and in each a bucket.
//!
//! A request looks at its own part only, which gets a new version for each that is admitted, as a counter's does. What
//! another memory has admitted is added to the bucket of the own part when its part is merged ([`Shard::hear`]): in place,
//! with one store, and without a version, as it is nothing to tell anybody; unless the bucket then holds much that no part
//! tells of, as after a burst that came to all nodes at once. So a request costs the same however many nodes there are.
//! Who is killed between merging and that store lets a few requests too many through once. Where a bucket is taken as a whole,
//! the copies of others' parts that are here are marked first ([`Share::doubted`]): who is killed meanwhile has doubted too much.

use std::sync::atomic::Ordering::Relaxed;

use super::block::Block;
use super::evict::Wish;
use super::failpoint::{Step, done};
use super::find::{Met, Place};
use super::layout::{header, shard};
use super::shard::Shard;
use super::{MAX_PARTED, Rule, StoreError, Zone};
use crate::record::{Bucket, Kind, Millis, PartId, Record, Role, Share, Stamp, Version};

/// What a limit makes of a request, and the excess of the key's bucket with it, in thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// That is within the burst.
    Within(u64),
    /// It is more than the burst.
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
    /// What one more request of a key would leave, which isn't counted. `rate`: thousandths of a request a second.
    ///
    /// # Errors
    ///
    /// `BadKey` or `Busy`.
    pub fn look(&self, key: &[u8], rate: u64, burst: u64, now: Millis) -> Result<Limited, StoreError> {
        let record_key = self.own_key(key)?;
        let place = self.place(&record_key);
        let shard = self.shard(place.shard)?;
        let met = self.find(place, &record_key);
        let own = met.as_ref().and_then(|met| self.live_share(met, now));
        let excess = u64::from(shard.with_one(place, key, own, rate, now).0.bucket.excess);
        if excess <= burst {
            return Ok(Limited::Within(excess));
        }
        met.inspect(|met| self.mark_used(place, met));
        Ok(Limited::Beyond(excess))
    }

    /// The excess that one more request of a key would leave.
    ///
    /// # Errors
    ///
    /// As [`Zone::look`].
    pub fn limited(&self, key: &[u8], rate: u64, now: Millis) -> Result<u64, StoreError> {
        let (Limited::Within(excess) | Limited::Beyond(excess)) = self.look(key, rate, u64::MAX, now)?;
        Ok(excess)
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
        let own = met.as_ref().and_then(|met| self.live_share(met, now));
        let (share, from) = shard.with_one(place, key, own, rate, now);
        let excess = u64::from(share.bucket.excess);
        if burst.is_some_and(|burst| excess > burst) {
            // A bucket that waits for a clock to catch up would refuse all until then.
            if let (Some(met), Some(mended)) = (&met, own.and_then(|own| own.bucket.mended(now))) {
                shard.put_bucket(met, mended);
            }
            // As with nginx it is used by that: who goes on asking stays refused, however many others come.
            met.inspect(|met| self.mark_used(place, met));
            return Ok(Limited::Beyond(excess));
        }
        let wish = || Wish { place, key: &record_key, payload };
        shard.charge(payload)?;
        if let Some(from) = from.filter(|_| share.taken) {
            shard.doubt_all_but(from, place, key);
        }
        shard.with_relief(now, true, wish, || {
            // Making room may have moved the link to it.
            let met = self.find(place, &record_key);
            shard.write_share(place, &record_key, share, met.as_ref(), (rate, now))
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

    fn live_share(&self, met: &Met, now: Millis) -> Option<Share> {
        self.share_in(met).filter(|_| met.fields.is_live(now, self.cleared()))
    }

    fn rate(&self) -> u64 {
        self.region.load64(header::RATE, Relaxed)
    }
}

impl Shard<'_> {
    /// The own share as one more request leaves it. If there is none, what others have told is where it begins, and whose bucket
    /// it took comes with it.
    fn with_one(
        &self,
        place: Place,
        key: &[u8],
        own: Option<Share>,
        rate: u64,
        now: Millis,
    ) -> (Share, Option<PartId>) {
        if let Some(share) = own {
            return (share.with_one(rate, now), None);
        }
        let mut fullest: Option<(PartId, Share)> = None;
        let level = |share: &Share| share.bucket.level(rate, now);
        self.zone.parts_each(place, key, |id, met| {
            if let Some(share) = self.zone.live_share(met, now)
                && fullest.is_none_or(|(_, fullest)| level(&share) > level(&fullest))
            {
                fullest = Some((id, share));
            }
        });
        // Not before anything that was merged here, and so not before the begin of all that is in those buckets.
        let begun = Stamp(self.get(shard::LAST)).millis().max(now);
        let (from, fullest) = fullest.unzip();
        let share = Share::first(fullest.as_ref(), rate, now, begun);
        (Share { taken: share.taken && Rule::Taken.holds(), ..share }, from)
    }

    /// The own bucket becomes what is in this part's: it may hold more of each other memory's than is known of that here.
    fn doubt_all_but(&self, but: PartId, place: Place, key: &[u8]) {
        let own = self.zone.own_part();
        self.zone.parts_each(place, key, |id, met| {
            if id != own
                && id != but
                && let Some(share) = self.zone.share_in(met).filter(|share| !share.doubted)
            {
                self.put_counted(met, &Share { doubted: true, ..share });
            }
        });
        done(Step::Doubted);
    }

    /// The part of another memory was merged, of which `known` was here before: what it has admitted since then is added
    /// to the bucket of the own part.
    pub(super) fn hear(&self, place: Place, record: &Record<'_>, known: Option<Share>, now: Millis) {
        let zone = self.zone;
        let Some((key, Role::Part(id))) = Role::split(record.key) else { return };
        if id == zone.own_part() {
            return;
        }
        let Some(there) = record.value.and_then(|value| share_of(record.key.len(), value)) else { return };
        if there.doubted
            && let Some(met) = zone.find(place, record.key)
        {
            // In the memory that this came by.
            self.put_counted(&met, &Share { doubted: false, ..there });
        }
        let own_key = Role::Part(zone.own_part()).of(key);
        let Some(met) = zone.find(place, &own_key) else { return };
        let Some(own) = zone.live_share(&met, now) else { return };
        let rate = zone.rate();
        let news = there.since(known.as_ref(), &own, zone.evicted_here().millis(), now);
        let (share, took) = own.hearing(&there, news, rate, now);
        if share == own {
            return;
        }
        if took {
            self.doubt_all_but(id, place, key);
        }
        done(Step::Heard);
        let bucket = share.bucket;
        let untold = met.fields.expires.is_some_and(|told| bucket.is_untold(rate, now, told, there.bucket));
        if !(untold && self.tell_anew(place, &own_key, share, &met, (rate, now))) {
            if share.counted() != own.counted() {
                self.put_counted(&met, &share);
            }
            self.put_bucket(&met, bucket);
        }
    }

    /// Gives the own part a new version and end. `false`: there is no memory for it.
    fn tell_anew(&self, place: Place, own_key: &[u8], share: Share, met: &Met, at: (u64, Millis)) -> bool {
        self.charge(own_key.len() + value_len(own_key.len())).is_ok()
            && self.write_share(place, own_key, share, Some(met), at).is_ok()
    }

    fn write_share(
        &self,
        place: Place,
        own_key: &[u8],
        share: Share,
        met: Option<&Met>,
        (rate, now): (u64, Millis),
    ) -> Result<Version, StoreError> {
        let (mut bytes, skip) = ([0; LONGEST_PAD + Share::LEN], pad(own_key.len()));
        bytes[skip..skip + Share::LEN].copy_from_slice(&share.to_bytes());
        let ends = (Some(share.bucket.ends(rate, now)), false);
        self.write_own(place, (own_key, Kind::Limit), &bytes[..skip + Share::LEN], ends, met, now)
    }

    /// Changes the bucket of a part where it lies.
    fn put_bucket(&self, met: &Met, bucket: Bucket) {
        self.put(met, Share::BUCKET, bucket.to_word());
        done(Step::BucketFilled);
    }

    /// The same of all but the bucket.
    fn put_counted(&self, met: &Met, share: &Share) {
        self.put(met, 0, share.counted());
    }

    fn put(&self, met: &Met, field: usize, word: u64) {
        let at = met.fields.key_len + pad(met.fields.key_len) + field;
        if let Some(offset) = self.block(met.at).offset_of(&self.zone.geometry, met.fields.payload(), at) {
            self.zone.region.store64(offset, word, Relaxed);
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

pub(super) fn pad(key_len: usize) -> usize {
    key_len.next_multiple_of(8) - key_len
}

const LONGEST_PAD: usize = 7;
