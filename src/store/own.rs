//! Records that this node writes itself, and the tombstones that it leaves.

use super::StoreError;
use super::arena::Need;
use super::block::Fields;
use super::failpoint::{Step, done};
use super::find::{Met, Place};
use super::layout;
use super::shard::Shard;
use crate::record::{Kind, Millis, Stamp, Version};

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
    /// It is to be kept as long as something may come again, whatever it takes the place of.
    pub unsettled: bool,
}

impl Grave {
    /// That of a delete.
    pub const fn of(stamp: Stamp, origin: u16, until: Millis) -> Grave {
        Grave { stamp, origin, until, lapsed: false, unsettled: false }
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
        self.bump(layout::shard::WRITES);
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
            unsettled: grave.unsettled || self.zone.may_come_again(&met.fields),
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
}
