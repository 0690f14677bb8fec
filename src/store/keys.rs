//! What is done to a key: writing, giving another life, deleting.

use super::evict::Wish;
use super::find::{Met, Place};
use super::lookup::Found;
use super::own::Grave;
use super::{MAX_KEY, MAX_VALUE, StoreError, Zone};
use crate::record::{Identity, Kind, Millis, Version};

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

impl Zone {
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
