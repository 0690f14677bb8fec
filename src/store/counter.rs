//! Counters: keys to which several nodes add at the same time. See [`Sum`](crate::record::Sum) for what counts.
//!
//! Adding writes this memory's own part, in one step like any other write. Setting and deleting write the base, which ends
//! all parts that were begun before: from that one store on they don't count, and are taken away after it.

mod tally;

use super::arena::Need;
use super::block::Fields;
use super::evict::Wish;
use super::find::{Met, Place};
use super::keys::{Condition, Life, Written};
use super::layout::shard;
use super::lookup::{Found, Sink};
use super::own::{Grave, Made};
use super::shard::Shard;
use super::{Matching, StoreError, Zone};
use crate::record::{Count, Kind, Millis, PartId, Role, Stamp, Version, number};
use tally::Tally;

/// A sum as text, and when it ends.
type Shown = (String, Option<Millis>);

/// What became of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Done.
    Done {
        /// What this node knows of the counter now.
        sum: i64,
        /// There was none before.
        created: bool,
        /// The version of the addition.
        version: Version,
    },
    /// Its condition didn't hold: nothing changed.
    Unmet,
}

/// A counter that isn't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is added.
    Leave,
    /// It begins with this number, and lives so long.
    Begin(i64, Life),
}

impl Zone {
    /// Adds to a counter; a negative number is taken off. A counter that is there keeps its end.
    ///
    /// # Errors
    ///
    /// `OutOfRange`, also of what this memory alone has added; `NoMemory`, `Parts`, `BadKey` (also if the zone has no
    /// counters) or `Busy`. The counter is what it was.
    pub fn count(&self, key: &[u8], by: i64, missing: Missing, now: Millis) -> Result<Counted, StoreError> {
        self.check_key(key, &[])?;
        if self.matching != Matching::Counter {
            return Err(StoreError::BadKey);
        }
        let own = Role::Part(self.own_part()).of(key);
        let (place, payload) = (self.place(&own), own.len() + Count::LEN);
        self.prepare_write(place, payload);
        let shard = self.shard(place.shard)?;
        let look = || self.tally_to_write(&shard, place, key, now);
        let mut looked = None;
        // What isn't written costs nothing.
        if self.is_bound() {
            let is_there = looked.insert(look()).sum.exists;
            match missing {
                Missing::Leave if !is_there => return Ok(Counted::Unmet),
                Missing::Begin(1.., _) | Missing::Begin(..=-1, _) if !is_there => shard.charge(payload)?,
                _ => {}
            }
        }
        shard.charge(payload)?;
        let wish = || Wish { place, key: &own, payload };
        // What was seen holds for the first try: making room changes it.
        shard.with_relief(now, true, wish, || {
            let tally = looked.take().unwrap_or_else(look);
            shard.add_to_sum(place, (key, &own), by, missing, (&tally, now))
        })
    }

    /// The sum, for [`Zone::get`].
    pub(super) fn get_sum<S: Sink + ?Sized>(
        &self,
        key: &[u8],
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        if !self.matching.accepts(key) {
            return Ok(None);
        }
        let place = self.place_of_hash(self.hash(key));
        let tally = self.tally_unlocked(place, key, now)?;
        let Some(found) = tally.found else { return Ok(None) };
        let text = tally.sum.shown().to_string();
        sink.room(text.len()).ok_or(StoreError::NoMemory)?.copy_from_slice(text.as_bytes());
        Ok(Some(found))
    }

    /// [`Zone::set`] of a counter: it begins anew with this number.
    pub(super) fn set_sum(
        &self,
        key: &[u8],
        value: &[u8],
        life: Life,
        condition: Condition,
        now: Millis,
    ) -> Result<Written, StoreError> {
        let text = number(value).ok_or(StoreError::NoNumber)?.to_string();
        let base = Role::Base.of(key);
        let (place, payload) = (self.place(&base), base.len() + text.len());
        let shard = self.shard(place.shard)?;
        let look = || self.tally_to_write(&shard, place, key, now);
        let mut looked = None;
        if self.is_bound() && !self.allows_found(condition, looked.insert(look()).found.as_ref()) {
            return Ok(Written::Unmet);
        }
        shard.charge(payload)?;
        let wish = || Wish { place, key: &base, payload };
        shard.with_relief(now, true, wish, || {
            let tally = looked.take().unwrap_or_else(look);
            if !self.allows_found(condition, tally.found.as_ref()) {
                return Ok(Written::Unmet);
            }
            let expires = match life {
                Life::Keep if tally.sum.exists => tally.sum.end,
                life => self.end_of(life, None, now),
            };
            // Parts that would have outlived it must not come back when it has ended.
            let shortened = self.is_sync() && expires.is_some_and(|end| tally.latest > end);
            let _changing = shard.changing();
            let (record, end, met) = ((&*base, Kind::Counter), (expires, shortened), tally.base.as_ref());
            let made = match (met, &tally.freed) {
                (None, Some(part)) => {
                    let need = Need::Replacement(shard.freed_by(part));
                    shard.make_own_with(need, place, record, text.as_bytes(), end, None)?
                }
                _ => shard.make_own(place, record, text.as_bytes(), end, met)?,
            };
            let version = shard.publish_own(place, &made, met, now);
            shard.cut(place, key, now);
            Ok(Written::Done(version))
        })
    }

    /// [`Zone::delete_if`] of a counter.
    pub(super) fn delete_sum(&self, key: &[u8], condition: Condition, now: Millis) -> Result<Written, StoreError> {
        let base = Role::Base.of(key);
        let place = self.place(&base);
        let shard = self.shard(place.shard)?;
        let tally = self.tally_to_write(&shard, place, key, now);
        if tally.found.is_none() || !self.allows_found(condition, tally.found.as_ref()) {
            return Ok(Written::Unmet);
        }
        if tally.base.is_none() {
            shard.charge(base.len())?;
        }
        let wish = || Wish { place, key: &base, payload: base.len() };
        let mut looked = Some(tally);
        shard.with_relief(now, true, wish, || {
            let tally = looked.take().unwrap_or_else(|| self.tally(place, key, now));
            shard.delete_sum(place, key, &base, (&tally, now))
        })
    }

    /// Hands the counters of one bucket to `each`. The shard is locked.
    pub(super) fn sums_each(
        &self,
        shard: &Shard<'_>,
        bucket: usize,
        now: Millis,
        mut each: impl FnMut(&[u8], &[u8], Found),
    ) {
        let mut keys = std::collections::BTreeSet::new();
        shard.bucket_each(bucket, |met| {
            let mut record_key = vec![0; met.fields.key_len];
            if !met.fields.tombstone
                && self.read_key(met, &mut record_key)
                && let Some((key, _)) = Role::split(&record_key)
            {
                keys.insert(key.to_vec());
            }
        });
        for key in keys {
            let tally = self.tally(self.place_of_hash(self.hash(&key)), &key, now);
            if let Some(found) = tally.found {
                each(&key, tally.sum.shown().to_string().as_bytes(), found);
            }
        }
    }

    /// What is known of the counter that a record belongs to, for those who follow changes: its key, and unless it is gone its
    /// sum and its end. The shard is locked.
    pub(super) fn sum_around(&self, record_key: &[u8], now: Millis) -> Option<(Vec<u8>, Option<Shown>)> {
        let (key, _) = Role::split(record_key)?;
        let sum = self.tally(self.place(record_key), key, now).sum;
        Some((key.to_vec(), sum.exists.then(|| (sum.shown().to_string(), sum.end))))
    }
}

impl Shard<'_> {
    fn add_to_sum(
        &self,
        place: Place,
        (key, own): (&[u8], &[u8]),
        by: i64,
        missing: Missing,
        (tally, now): (&Tally, Millis),
    ) -> Result<Counted, StoreError> {
        let (start, end) = match (tally.sum.exists, missing) {
            (true, _) => (0, tally.sum.end),
            (false, Missing::Begin(start, life)) => (start, self.zone.end_of(life, None, now)),
            (false, Missing::Leave) => return Ok(Counted::Unmet),
        };
        let sum = tally.sum.plus(i128::from(start) + i128::from(by)).ok_or(StoreError::OutOfRange)?;
        let before = tally.own.unwrap_or(Count { begun: Stamp::ZERO, amount: 0 });
        let amount = before.amount.checked_add(by).ok_or(StoreError::OutOfRange)?;
        // What others would refuse must not be taken here.
        let more = usize::from(tally.own_met.is_none()) + usize::from(start != 0 && tally.shared_met.is_none());
        if more > 0 && !tally.parts.have_room_for(more) {
            return Err(StoreError::Parts);
        }
        let (mut own_met, mut shared_met) = (tally.own_met, tally.shared_met);
        if tally.is_littered {
            self.cut(place, key, now);
            Tally { own_met, shared_met, .. } = self.zone.tally(place, key, now);
        }
        // One record more or less is one sum or the other; two are not.
        let _changing = (start != 0).then(|| self.changing());
        self.move_sequence();
        let shared = (start != 0).then(|| Role::Part(PartId::SHARED).of(key));
        let begin =
            |key| self.make_part(place, key, Count { begun: Stamp::ZERO, amount: start }, end, shared_met.as_ref());
        let first = shared.as_deref().map(begin).transpose()?;
        // With room for both, or for neither.
        let made = self
            .make_part(place, own, Count { amount, ..before }, end, own_met.as_ref())
            .inspect_err(|_| first.iter().for_each(|first| self.unmake(first)))?;
        let own_met = match first {
            // Before what is added to it: who is killed in between has begun a counter, and added nothing.
            Some(first) => {
                self.publish_own(place, &first, shared_met.as_ref(), now);
                // That may have moved the link to it.
                self.zone.find(place, own)
            }
            None => own_met,
        };
        let version = self.publish_own(place, &made, own_met.as_ref(), now);
        Ok(Counted::Done { sum, created: !tally.sum.exists, version })
    }

    fn make_part(
        &self,
        place: Place,
        record_key: &[u8],
        count: Count,
        end: Option<Millis>,
        met: Option<&Met>,
    ) -> Result<Made, StoreError> {
        let end = (end, self.is_shortened(end, met));
        self.make_own(place, (record_key, Kind::Counter), &count.encode(), end, met)
    }

    fn delete_sum(
        &self,
        place: Place,
        key: &[u8],
        base: &[u8],
        (tally, now): (&Tally, Millis),
    ) -> Result<Written, StoreError> {
        let zone = self.zone;
        let keeps = zone.leaves_tombstones();
        let retention = if zone.is_sync() { zone.retention() } else { zone.lapsed_retention() };
        let _changing = self.changing();
        let version = match &tally.base {
            Some(met) => {
                let version = Version { stamp: self.stamp(now), origin: zone.node() };
                self.bump(shard::DELETES);
                self.bury(place, base, met, &Grave::of(version.stamp, zone.own_origin(), now + retention));
                version
            }
            None => self.write_grave(place, base, tally.freed.as_ref(), now + retention, now)?,
        };
        self.cut(place, key, now);
        if !keeps {
            // It was there for who is killed in between.
            self.take_away(place, base, now);
        }
        if zone.is_sync() {
            self.mark_dirty();
        }
        Ok(Written::Done(version))
    }

    /// A tombstone where there is no base. What parts there are go right after.
    fn write_grave(
        &self,
        place: Place,
        base: &[u8],
        freed: Option<&Met>,
        until: Millis,
        now: Millis,
    ) -> Result<Version, StoreError> {
        // A full zone keeps a block of the parts' size for their next versions: of these there are none.
        let need = freed.map_or(Need::Growth, |part| Need::Replacement(self.freed_by(part)));
        let at = self.make(base, &[], need)?;
        let stamp = self.stamp(now);
        let fields = Fields {
            stamp,
            origin: self.zone.own_origin(),
            kind: Kind::Counter as u8,
            expires: Some(until),
            tombstone: true,
            shortened: false,
            lapsed: false,
            unsettled: false,
            key_len: base.len(),
            value_len: 0,
            tag: place.tag,
        };
        self.bump(shard::DELETES);
        self.publish(place, at, &fields, None);
        Ok(Version { stamp, origin: self.zone.node() })
    }
}
