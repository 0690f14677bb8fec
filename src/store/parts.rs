//! Keys that several nodes write at the same time: of each there are several records, which lie in one bucket and under one
//! lock, since their place follows from what they have in common (see [`Role`]).
//!
//! Each memory of a zone has parts of its own. What is moved to other memory, or loaded from a file, are the parts of memory
//! that was: nobody writes them any more, or old workers do for a while, and they count on.
//!
//! To feed, positions, digests, tombstones and state files these are records like any other.

use std::sync::atomic::Ordering::Relaxed;

use super::arena::Need;
use super::block::{Block, Fields};
use super::find::{Met, Place};
use super::layout::header;
use super::limit::share_of;
use super::own::Grave;
use super::shard::Shard;
use super::{Matching, Rule, StoreError, Zone};
use crate::record::{Count, Kind, Millis, PartId, Record, Role, Stamp, number};

/// Parts of one key beyond which it gets no further one, neither from elsewhere nor here: all have one place, where each look
/// at the key walks them. A mesh of the largest size reaches it when each of its nodes was restarted for the 64th time since
/// the key began.
pub(super) const MAX_PARTS: usize = 16_384;
/// The same with the tombstones that are left of others when the key begins anew.
const MAX_PART_RECORDS: usize = 2 * MAX_PARTS;

/// How many parts a key has.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    /// All records, tombstones too.
    pub records: usize,
    /// Those that aren't tombstones.
    pub held: usize,
}

impl Parts {
    pub(super) fn add(&mut self, met: &Met) {
        self.records += 1;
        self.held += usize::from(!met.fields.tombstone);
    }

    /// Whether so many more may come that have no record yet.
    pub(super) fn have_room_for(&self, more: usize) -> bool {
        self.held + more <= MAX_PARTS && self.records + more <= MAX_PART_RECORDS
    }
}

impl Zone {
    /// Whose the parts are that are written in this memory.
    #[inline]
    pub(super) fn own_part(&self) -> PartId {
        PartId(self.region.load64(header::PART, Relaxed).to_le_bytes())
    }

    /// Says so, for memory that is made.
    pub(super) fn draw_part(&self, random: u64) {
        // Zero is the part that all write.
        self.region.store64(header::PART, random.max(1), Relaxed);
    }

    /// Hands the parts of a key that are here to `each`, tombstones too. Without the lock they may be anything: the caller
    /// checks the sequence.
    pub(super) fn parts_each(&self, place: Place, key: &[u8], mut each: impl FnMut(PartId, &Met)) {
        let mut found = Vec::new();
        let len = key.len() + crate::record::ENDING;
        self.find_each(place, |met| {
            if met.fields.key_len != len {
                return;
            }
            found.resize(len, 0);
            if self.read_key(met, &mut found)
                && let Some((of, Role::Part(id))) = Role::split(&found)
                && of == key
            {
                each(id, met);
            }
        });
    }

    /// Whether a part that isn't here may come to the others of its key.
    pub(super) fn has_room_for_part(&self, place: Place, record_key: &[u8]) -> bool {
        let Some((key, Role::Part(_))) = Role::split(record_key) else { return true };
        let mut parts = Parts::default();
        self.parts_each(place, key, |_, met| parts.add(met));
        parts.have_room_for(1)
    }

    /// What a part of a counter holds; `None`: it is a tombstone, or changes under our eyes.
    pub(super) fn count_in(&self, met: &Met) -> Option<Count> {
        let mut value = [0; Count::LEN];
        let block = Block { region: &self.region, at: met.at };
        let is_one = !met.fields.tombstone && met.fields.value_len == value.len();
        (is_one && block.read_value(&self.geometry, &met.fields, &mut value))
            .then(|| Count::decode(&value, met.fields.stamp))
            .flatten()
    }

    /// The stamp at or below which a key began anew: what was added to what there was before doesn't count.
    pub(super) fn cut_of(&self, base: Option<&Met>) -> Stamp {
        base.map_or(Stamp::ZERO, |base| base.fields.stamp).max(self.cleared())
    }

    /// Whether a record that comes from elsewhere can be one of this zone.
    pub(super) fn check_record(&self, record: &Record<'_>) -> Result<(), StoreError> {
        if !self.matching.has_parts() {
            return self.check_key(record.key, record.value.unwrap_or_default());
        }
        let (key, role) = Role::split(record.key).ok_or(StoreError::BadKey)?;
        if !self.matching.accepts(key) {
            return Err(StoreError::BadKey);
        }
        let is_sound = match (self.matching, role, record.value) {
            (_, _, None) => true,
            (Matching::Counter, _, _) if record.kind != Kind::Counter => false,
            (Matching::Counter, Role::Base, Some(value)) if number(value).is_none() => {
                return Err(StoreError::NoNumber);
            }
            (Matching::Counter, Role::Base, Some(_)) => true,
            (Matching::Limit, Role::Part(_), Some(value)) => {
                record.kind == Kind::Limit && share_of(record.key.len(), value).is_some()
            }
            (Matching::Limit, Role::Base, Some(_)) => false,
            (_, _, Some(value)) => Count::decode(value, record.version.stamp).is_some(),
        };
        if is_sound { Ok(()) } else { Err(StoreError::BadValue) }
    }
}

impl Shard<'_> {
    /// Whether a part that comes from elsewhere, of this origin, was begun before the key began anew: it is over.
    pub(super) fn is_cut(&self, place: Place, record: &Record<'_>, origin: u16) -> bool {
        if self.zone.matching != Matching::Counter {
            return false;
        }
        let (Some((key, Role::Part(_))), Some(value)) = (Role::split(record.key), record.value) else { return false };
        let Some(count) = Count::decode(value, record.version.stamp) else { return false };
        let base = self.zone.find(place, &Role::Base.of(key));
        if count.begun > self.zone.cut_of(base.as_ref()) {
            return false;
        }
        // What tells that it is over must not be forgotten as long as it may come again.
        if let Some(base) = base
            && !base.fields.unsettled
            && !self.zone.is_promised(origin, record.version.stamp)
        {
            self.block(base.at).set_meta(&Fields { unsettled: true, ..base.fields });
        }
        true
    }

    /// A part that this record, if it is a base, takes away with it: its block is the base's to have in a full zone.
    pub(super) fn part_ended_by(&self, place: Place, record: &Record<'_>) -> Option<Met> {
        if self.zone.matching != Matching::Counter {
            return None;
        }
        let Some((key, Role::Base)) = Role::split(record.key) else { return None };
        let mut ended = None;
        self.zone.parts_each(place, key, |_, met| {
            if self.zone.count_in(met).is_some_and(|count| count.begun <= record.version.stamp) {
                ended = Some(*met);
            }
        });
        ended
    }

    /// A part that came is over, as its key was deleted. Others may hold it that have never heard of that, and of a part they don't
    /// know from a base's tombstone alone that it is over: so there is one of it, too, if there is room for that.
    pub(super) fn note_cut(&self, place: Place, record: &Record<'_>, origin: u16, now: Millis) {
        let base = Role::split(record.key).and_then(|(key, _)| self.zone.find(place, &Role::Base.of(key)));
        if !base.is_some_and(|base| base.fields.tombstone)
            || self.zone.find(place, record.key).is_some()
            || !self.zone.has_room_for_part(place, record.key)
        {
            return;
        }
        if let Ok(at) = self.make(record.key, &[], Need::Growth) {
            let fields = Fields {
                stamp: record.version.stamp,
                origin,
                kind: record.kind as u8,
                expires: Some(now.saturating_add(self.zone.retention())),
                tombstone: true,
                shortened: false,
                lapsed: false,
                unsettled: false,
                key_len: record.key.len(),
                value_len: 0,
                tag: place.tag,
            };
            self.publish(place, at, &fields, None);
            self.witness(record.version.stamp);
        }
    }

    /// A base with this key was put in: takes away the parts that it ends.
    pub(super) fn cut_with(&self, place: Place, base_key: &[u8], now: Millis) {
        if let Some((key, Role::Base)) = Role::split(base_key) {
            self.cut(place, key, now);
        }
    }

    /// Takes away the parts of a key that were begun before it began anew. Each leaves a tombstone for a while, of its version
    /// as what comparing takes away does: so those who follow the zone hear of it. Nothing counts them any more, so
    /// whoever is killed between two of them changes nothing.
    pub(super) fn cut(&self, place: Place, key: &[u8], now: Millis) {
        let base = self.zone.find(place, &Role::Base.of(key));
        let cut = self.zone.cut_of(base.as_ref());
        let mut doomed = Vec::new();
        self.zone.parts_each(place, key, |id, met| {
            if self.zone.count_in(met).is_some_and(|count| count.begun <= cut) {
                doomed.push((id, *met));
            }
        });
        // From the end of the chain: what leads to a record is then as it was met, and there is one walk however many they are.
        for (id, met) in doomed.iter().rev() {
            self.take_away_met(place, &Role::Part(*id).of(key), met, now);
        }
    }

    /// Takes away the parts of a bucket that were begun before the zone was emptied, and written since by who hadn't heard of
    /// that. So those who follow the zone are told that they are over.
    pub(super) fn cut_bucket(&self, bucket: usize, now: Millis) {
        let mut doomed = Vec::new();
        self.bucket_each(bucket, |met| {
            let mut record_key = vec![0; met.fields.key_len];
            if self.zone.count_in(met).is_some_and(|count| count.begun <= self.zone.cleared())
                && self.zone.read_key(met, &mut record_key)
                && matches!(Role::split(&record_key), Some((_, Role::Part(_))))
            {
                doomed.push(record_key);
            }
        });
        for record_key in doomed {
            self.take_away(self.zone.place(&record_key), &record_key, now);
        }
    }

    /// Takes a record away that nothing counts.
    pub(super) fn take_away(&self, place: Place, record_key: &[u8], now: Millis) {
        if let Some(met) = self.zone.find(place, record_key) {
            self.take_away_met(place, record_key, &met, now);
        }
    }

    fn take_away_met(&self, place: Place, record_key: &[u8], met: &Met, now: Millis) {
        if !self.zone.leaves_tombstones() {
            self.forget(now);
            return self.remove(met);
        }
        let until = now.saturating_add(self.zone.lapsed_retention());
        // A later stamp could win over what has been begun since elsewhere, by whoever has ended this one.
        let (stamp, origin) = match Rule::NotLater.holds() {
            true => (met.fields.stamp, met.fields.origin),
            false => (self.stamp(now), self.zone.own_origin()),
        };
        if origin == self.zone.own_origin() {
            self.mark_dirty();
        }
        self.bury(place, record_key, met, &Grave::of(stamp, origin, until));
    }
}
