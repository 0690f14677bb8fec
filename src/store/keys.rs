//! Keys and values: looking up, writing, deleting, listing.

use super::arena::Need;
use super::block::Fields;
use super::evict::Wish;
use super::failpoint::{Step, done};
use super::layout::BUCKET_LINKS;
use super::matching::{Matching, Wanted};
use super::shard::{Met, Place, Shard};
use super::{MAX_KEY, MAX_VALUE, StoreError, Zone};
use crate::record::{Identity, Kind, Millis, Stamp, Version};

/// The life that a write gives its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The zone's timeout, from now.
    Default,
    /// What the record has now; a new record gets the zone's timeout.
    Keep,
    /// This many milliseconds from now.
    For(Millis),
}

/// When a write is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if there is no such record.
    Absent,
    /// Only if there is such a record.
    Present,
    /// Only if there is such a record, and it has this version.
    Version(Version),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Done, under this version.
    Done(Version),
    /// Its condition didn't hold: nothing changed.
    Unmet,
}

/// What a look-up tells besides the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was written; [`Zone::version`] tells by whom.
    pub stamp: Stamp,
    /// When it ends; `None`: never.
    pub expires: Option<Millis>,
    origin: u16,
    /// Of what is several records: a number that changes with every one of them but the newest.
    others: u64,
}

impl Found {
    /// What several records are together.
    pub(super) const fn of_several(newest: &Fields, expires: Option<Millis>, others: u64) -> Found {
        Found { stamp: newest.stamp, expires, origin: newest.origin, others }
    }
}

/// Where a look-up puts the value.
pub trait Sink {
    /// Room for exactly `len` bytes, in place of what an earlier call gave; `None`: no memory, and the look-up fails.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;
}

impl Sink for Vec<u8> {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.clear();
        self.resize(len, 0);
        Some(self)
    }
}

/// Where a listing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPlace(pub(super) u64);

/// What a listing calls for each record: key, value, what is found.
pub type ScanEach<'a> = &'a mut dyn FnMut(&[u8], &[u8], Found);

/// How often a look-up without the lock is tried before it takes the lock.
pub(super) const UNLOCKED_TRIES: usize = 16;
/// Records shown, their bytes, and buckets passed, in one hold of the lock.
const RECORDS_A_HOLD: usize = 32;
const BYTES_A_HOLD: usize = 64 * 1024;
const BUCKETS_A_HOLD: usize = 256;
/// How often room is made for one write before it is refused.
const RELIEF_ROUNDS: usize = 128;
/// And how often of what has ended or was deleted, before a zone with `evict` gives up what lives.
const ROUNDS_BEFORE_EVICTION: usize = 64;

impl Zone {
    /// Looks `key` up and puts its value into `sink`. Takes no lock, unless the shard keeps changing under its eyes.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the sink has none; `Busy` if the lock was needed and stuck.
    pub fn get<S: Sink + ?Sized>(&self, key: &[u8], now: Millis, sink: &mut S) -> Result<Option<Found>, StoreError> {
        if self.matching.has_parts() { self.get_sum(key, now, sink) } else { self.get_record(key, now, sink) }
    }

    /// The same for what is one record.
    #[inline]
    fn get_record<S: Sink + ?Sized>(&self, key: &[u8], now: Millis, sink: &mut S) -> Result<Option<Found>, StoreError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(None);
        }
        self.probe(self.hash_of(key), Wanted::Key(key), now, sink)
    }

    /// Whether there is a record with exactly this key.
    pub fn has_record(&self, record_key: &[u8], now: Millis) -> bool {
        matches!(self.get_record(record_key, now, &mut Vec::new()), Ok(Some(_)))
    }

    /// Looks up what answers for `key`: in a zone of networks or prefixes, the longest that contains it.
    ///
    /// # Errors
    ///
    /// As [`Zone::get`].
    pub fn look_up<S: Sink + ?Sized>(
        &self,
        key: &[u8],
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        if self.matching == Matching::Exact {
            return self.get_record(key, now, sink);
        }
        if self.matching.has_parts() || key.is_empty() {
            return self.get(key, now, sink);
        }
        self.candidates(key, |hash, wanted| self.probe(hash, wanted, now, sink).transpose()).transpose()
    }

    /// The version of what was found.
    pub fn version(&self, found: &Found) -> Version {
        let mut origin = self.origin_identity(found.origin).unwrap_or(Identity([0; 16]));
        for (byte, other) in origin.0.iter_mut().zip(found.others.to_le_bytes()) {
            *byte ^= other;
        }
        Version { stamp: found.stamp, origin }
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// `NoMemory`, `BadKey`, `BadValue`, `Spellings` or `Busy`; the zone has what it had.
    pub fn set(
        &self,
        key: &[u8],
        value: &[u8],
        life: Life,
        condition: Condition,
        now: Millis,
    ) -> Result<Written, StoreError> {
        self.check_key(key, value)?;
        if self.matching.has_parts() {
            return self.set_sum(key, value, life, condition, now);
        }
        let place = self.place(key);
        self.prepare_write(place, key.len() + value.len());
        let shard = self.shard(place.shard)?;
        let payload = key.len() + value.len();
        // What isn't written costs nothing.
        if self.is_bound() && !self.allows(condition, self.find_live(place, key, now).as_ref()) {
            return Ok(Written::Unmet);
        }
        shard.charge(payload)?;
        let (kept, given) = (life == Life::Keep, self.end_of(life, None, now));
        shard.with_relief(
            now,
            true,
            || Wish { place, key, payload },
            || {
                let met = self.find(place, key);
                let live = met.as_ref().filter(|met| met.fields.is_live(now, self.cleared()));
                if !self.allows(condition, live) {
                    return Ok(Written::Unmet);
                }
                if met.is_none() && !self.has_place(place, key) {
                    return Err(StoreError::Spellings);
                }
                let expires = live.filter(|_| kept).map_or(given, |met| met.fields.expires);
                let end = (expires, shard.is_shortened(expires, met.as_ref()));
                shard.write_own(place, (key, Kind::Register), value, end, met.as_ref(), now).map(Written::Done)
            },
        )
    }

    /// Gives a record another life and keeps its value. A missing key is `Unmet`. The end of a counter can't be changed so:
    /// its parts are others' to write.
    ///
    /// # Errors
    ///
    /// As [`Zone::set`]; `BadKey` for a counter.
    pub fn touch(&self, key: &[u8], life: Life, now: Millis) -> Result<Written, StoreError> {
        self.check_key(key, &[])?;
        if self.matching.has_parts() {
            return Err(StoreError::BadKey);
        }
        let place = self.place(key);
        let shard = self.shard(place.shard)?;
        let Some(met) = self.find_live(place, key, now) else { return Ok(Written::Unmet) };
        let room = met.fields.payload();
        shard.charge(room)?;
        let mut payload = Vec::new();
        shard.with_relief(
            now,
            true,
            || Wish { place, key, payload: room },
            || {
                let Some(met) = self.find_live(place, key, now) else { return Ok(Written::Unmet) };
                shard.payload(&met, &mut payload);
                let expires = self.end_of(life, Some(&met), now);
                let value = payload.get(key.len()..).unwrap_or_default();
                let end = (expires, shard.is_shortened(expires, Some(&met)));
                shard.write_own(place, (key, Kind::Register), value, end, Some(&met), now).map(Written::Done)
            },
        )
    }

    /// Removes a record. A missing key is `Unmet`.
    ///
    /// # Errors
    ///
    /// `BadKey` or `Busy`: a full zone deletes as well as any.
    pub fn delete(&self, key: &[u8], now: Millis) -> Result<Written, StoreError> {
        self.delete_if(key, Condition::Present, now)
    }

    /// Removes a record if it is as the condition says. A missing key is `Unmet`, whatever the condition.
    ///
    /// # Errors
    ///
    /// As [`Zone::delete`].
    pub fn delete_if(&self, key: &[u8], condition: Condition, now: Millis) -> Result<Written, StoreError> {
        self.check_key(key, &[])?;
        if self.matching.has_parts() {
            return self.delete_sum(key, condition, now);
        }
        let place = self.place(key);
        let shard = self.shard(place.shard)?;
        let Some(met) = self.find_live(place, key, now) else { return Ok(Written::Unmet) };
        if !self.allows(condition, Some(&met)) {
            return Ok(Written::Unmet);
        }
        let version = Version { stamp: shard.stamp(now), origin: self.node() };
        shard.bump(super::layout::shard::DELETES);
        let sync = self.is_sync();
        if self.leaves_tombstones() {
            let retention = if sync { self.retention() } else { self.lapsed_retention() };
            let grave = Grave::of(version.stamp, self.own_origin(), now + retention);
            shard.bury(place, key, &met, &grave);
        } else {
            shard.forget(now);
            shard.remove(&met);
        }
        if sync {
            shard.mark_dirty();
        }
        Ok(Written::Done(version))
    }

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
        let per_shard = self.geometry.buckets_per_shard as u64;
        let index = place.0 / per_shard;
        if index >= u64::from(self.geometry.shards) {
            return Ok(None);
        }
        let shard = self.shard(index as u32)?;
        let (mut payload, mut shown, mut bytes) = (Vec::new(), 0, 0);
        let mut bucket = (place.0 % per_shard) as usize;
        let end = self.geometry.buckets_per_shard.min(bucket + BUCKETS_A_HOLD);
        while bucket < end && shown < records && bytes < BYTES_A_HOLD {
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
        let next = index * per_shard + bucket as u64;
        Ok((next < u64::from(self.geometry.shards) * per_shard).then_some(ScanPlace(next)))
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

    /// Whether a record may have this key and value.
    pub(super) fn check_key(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match () {
            () if key.is_empty() || key.len() > MAX_KEY || !self.matching.accepts(key) => Err(StoreError::BadKey),
            () if value.len() > MAX_VALUE => Err(StoreError::BadValue),
            () => Ok(()),
        }
    }

    pub(super) fn node(&self) -> Identity {
        self.origin_identity(self.own_origin()).unwrap_or(Identity([0; 16]))
    }

    #[inline]
    fn find_live(&self, place: Place, key: &[u8], now: Millis) -> Option<Met> {
        self.find(place, key).filter(|met| met.fields.is_live(now, self.cleared()))
    }

    /// Reads one candidate. Takes no lock, unless the shard keeps changing under its eyes.
    #[inline(always)]
    fn probe<S: Sink + ?Sized>(
        &self,
        hash: u64,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let shard = self.shard_unlocked(self.place_of_hash(hash).shard);
        let sequence = shard.sequence();
        let found = self.read(self.place_of_hash(hash), wanted, now, sink);
        if shard.is_unmoved(sequence) {
            return found;
        }
        self.probe_again(hash, wanted, now, sink)
    }

    #[cold]
    #[inline(never)]
    fn probe_again<S: Sink + ?Sized>(
        &self,
        hash: u64,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let shard = self.shard_unlocked(self.place_of_hash(hash).shard);
        for _ in 1..UNLOCKED_TRIES {
            let sequence = shard.sequence();
            let found = self.read(self.place_of_hash(hash), wanted, now, sink);
            if shard.is_unmoved(sequence) {
                return found;
            }
        }
        let _locked = self.shard(self.place_of_hash(hash).shard)?;
        self.read(self.place_of_hash(hash), wanted, now, sink)
    }

    #[inline(always)]
    fn read<S: Sink + ?Sized>(
        &self,
        place: Place,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let cleared = self.cleared();
        let Some(met) = self.find_wanted(place, wanted, |met| met.fields.is_live(now, cleared)) else {
            return Ok(None);
        };
        if self.evict {
            self.mark_used(place, &met);
        }
        let room = sink.room(met.fields.value_len).ok_or(StoreError::NoMemory)?;
        let block = super::block::Block { region: &self.region, at: met.at };
        // A failed copy means that the record was reused meanwhile, which the sequence tells the caller.
        block.read_value(&self.geometry, &met.fields, room);
        Ok(Some(self.found(&met.fields)))
    }

    #[inline]
    fn found(&self, fields: &Fields) -> Found {
        Found::of_several(fields, fields.expires, 0)
    }

    fn allows(&self, condition: Condition, live: Option<&Met>) -> bool {
        self.allows_found(condition, live.map(|met| self.found(&met.fields)).as_ref())
    }

    #[inline]
    pub(super) fn allows_found(&self, condition: Condition, found: Option<&Found>) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Absent => found.is_none(),
            Condition::Present => found.is_some(),
            Condition::Version(version) => found.is_some_and(|found| self.version(found) == version),
        }
    }

    pub(super) fn end_of(&self, life: Life, live: Option<&Met>, now: Millis) -> Option<Millis> {
        match (life, live) {
            (Life::For(millis), _) => Some(now.saturating_add(millis)),
            (Life::Keep, Some(met)) => met.fields.expires,
            _ => self.timeout().map(|timeout| now.saturating_add(timeout)),
        }
    }
}

/// A record of this node that is made, and that nothing leads to yet.
pub(super) struct Made {
    at: usize,
    fields: Fields,
}

/// What a tombstone says.
pub struct Grave {
    /// Version of the delete, or of the record that ended.
    pub stamp: Stamp,
    pub origin: u16,
    /// How long it is kept.
    pub until: Millis,
    /// The record's end had come.
    pub lapsed: bool,
}

impl Grave {
    /// That of a delete.
    pub const fn of(stamp: Stamp, origin: u16, until: Millis) -> Grave {
        Grave { stamp, origin, until, lapsed: false }
    }
}

impl Shard<'_> {
    /// Writes a record of this node, of this key and kind, in the place of what was met. `end`: when it ends, and whether
    /// that is before something older of its key does.
    pub(super) fn write_own(
        &self,
        place: Place,
        (key, kind): (&[u8], Kind),
        value: &[u8],
        (expires, shortened): (Option<Millis>, bool),
        met: Option<&Met>,
        now: Millis,
    ) -> Result<Version, StoreError> {
        let made = self.make_own(place, (key, kind), value, (expires, shortened), met)?;
        Ok(self.publish_own(place, &made, met, now))
    }

    /// The first half of [`Shard::write_own`], which can fail: nothing leads to the record yet.
    #[inline]
    pub(super) fn make_own(
        &self,
        place: Place,
        (key, kind): (&[u8], Kind),
        value: &[u8],
        end: (Option<Millis>, bool),
        met: Option<&Met>,
    ) -> Result<Made, StoreError> {
        met.inspect(|met| self.prepare(met));
        let need = met.map_or(Need::Growth, |met| Need::Replacement(self.freed_by(met)));
        self.make_own_with(need, place, (key, kind), value, end, met)
    }

    /// The same for who knows which blocks it may have.
    #[inline]
    pub(super) fn make_own_with(
        &self,
        need: Need,
        place: Place,
        (key, kind): (&[u8], Kind),
        value: &[u8],
        (expires, shortened): (Option<Millis>, bool),
        met: Option<&Met>,
    ) -> Result<Made, StoreError> {
        let at = self.make(key, value, need)?;
        let fields = Fields {
            stamp: Stamp::ZERO,
            origin: self.zone.own_origin(),
            kind: kind as u8,
            expires,
            tombstone: false,
            shortened,
            lapsed: false,
            unsettled: met.is_some_and(|met| self.zone.may_come_again(&met.fields)),
            key_len: key.len(),
            value_len: value.len(),
            tag: place.tag,
        };
        Ok(Made { at, fields })
    }

    /// The second half of it.
    #[inline]
    pub(super) fn publish_own(&self, place: Place, made: &Made, met: Option<&Met>, now: Millis) -> Version {
        let stamp = self.stamp(now);
        // Before it: who is killed in between has counted one too many, not one too few.
        self.bump(super::layout::shard::WRITES);
        self.publish(place, made.at, &Fields { stamp, ..made.fields }, met);
        if self.zone.is_sync() {
            self.mark_dirty();
        }
        Version { stamp, origin: self.zone.node() }
    }

    /// Frees what was made, instead of publishing it.
    pub(super) fn unmake(&self, made: &Made) {
        // They tell how far it reaches.
        self.block(made.at).set_fields(&self.zone.geometry, &made.fields);
        self.discard(made.at);
    }

    /// Whether a record that ends at `expires` and replaces what was met ends before something older of its key, here or
    /// on a node that hasn't heard of it: its end must then leave a tombstone that stays.
    pub fn is_shortened(&self, expires: Option<Millis>, met: Option<&Met>) -> bool {
        let (Some(end), Some(met)) = (expires, met) else { return false };
        let old = &met.fields;
        self.zone.is_sync() && (old.tombstone || old.shortened || old.expires.is_none_or(|old| old > end))
    }

    /// Puts a tombstone in the place of a record. In a zone so full that none fits beside it, the
    /// record itself is turned into one: until the last word is written it is still the record, under a newer stamp.
    pub fn bury(&self, place: Place, key: &[u8], met: &Met, grave: &Grave) {
        let fields = Fields {
            stamp: grave.stamp,
            origin: grave.origin,
            expires: Some(grave.until),
            tombstone: true,
            shortened: false,
            lapsed: grave.lapsed,
            unsettled: self.zone.may_come_again(&met.fields),
            value_len: 0,
            tag: place.tag,
            ..met.fields
        };
        if let Ok(at) = self.make(key, &[], Need::Burial(self.freed_by(met))) {
            self.publish(place, at, &fields, Some(met));
            return;
        }
        self.timer_remove(met.at, &met.fields);
        self.count(&met.fields, -1);
        let fields = Fields { value_len: met.fields.value_len, ..fields };
        self.block(met.at).turn(&met.fields, &fields);
        done(Step::Buried);
        self.feed_unlink(met.at);
        self.feed_append(met.at);
        self.timer_insert(met.at, &fields);
        self.count(&fields, 1);
    }

    /// Does `write`, and if the zone is full makes room and does it again, as long as there is room to be made.
    #[inline]
    pub fn with_relief<'w, T>(
        &self,
        now: Millis,
        count_refusal: bool,
        wish: impl FnOnce() -> Wish<'w>,
        mut write: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match write() {
            Err(StoreError::NoMemory) => self.make_room(now, count_refusal, &wish(), &mut write),
            done => done,
        }
    }

    #[cold]
    fn make_room<T>(
        &self,
        now: Millis,
        count_refusal: bool,
        wish: &Wish<'_>,
        write: &mut dyn FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // What sizes keep for themselves comes first; once, as the write that fails leaves such pages behind itself.
        if self.give_empty_pages() {
            match write() {
                Err(StoreError::NoMemory) => {}
                done => return done,
            }
        }
        let mut evictions = 0;
        for round in 0..RELIEF_ROUNDS {
            let relieved = self.relieve(now);
            // Turning a wheel that stood for long takes many rounds, and may take nothing away.
            if !relieved || round >= ROUNDS_BEFORE_EVICTION {
                if self.evict(wish, evictions) {
                    evictions += 1;
                } else if !relieved {
                    break;
                }
            }
            match write() {
                Err(StoreError::NoMemory) => {}
                done => return done,
            }
        }
        if count_refusal {
            self.bump(super::layout::shard::REFUSED);
        }
        Err(StoreError::NoMemory)
    }

    /// The records of one bucket.
    pub fn bucket_each(&self, bucket: usize, mut each: impl FnMut(&Met)) {
        // One look at its line: most buckets of a zone with few records have none.
        let line = self.zone.geometry.bucket(self.index, bucket);
        let mut used = !self.zone.region.matches(line, 0, u32::MAX) & ((1 << BUCKET_LINKS) - 1);
        while used != 0 {
            self.link_each(bucket * BUCKET_LINKS + used.trailing_zeros() as usize, &mut each);
            used &= used - 1;
        }
    }
}
