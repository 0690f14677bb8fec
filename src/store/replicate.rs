//! What replication asks of a zone: merging what other nodes wrote. What it promises of its own, `closing` tells; `joining`, how it
//! takes the full state of another node.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::arena::Need;
use super::block::Fields;
use super::evict::Wish;
use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::{header, shard};
use super::own::Grave;
use super::shard::Shard;
use super::{Matching, Rule, StoreError, Zone};
use crate::record::{Millis, Record, Role, Stamp, Version, beats};

/// What became of a remote record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is the zone's record now.
    Newer,
    /// The zone had it already, or something newer.
    Stale,
    /// It didn't fit; counted.
    Full,
    /// Its stamp is further ahead of the clock than allowed; counted.
    Future,
}

/// Where a record that is merged comes from.
#[derive(Clone, Copy)]
pub(super) enum Via {
    /// Another node.
    Peer,
    /// The zone's state file.
    File(Need),
    /// Other memory of this node. `need`: who may have the last pages, if that isn't to follow from what is there.
    Memory { need: Option<Need>, unsettled: bool },
}

impl Via {
    pub(super) const fn memory(need: Option<Need>, fields: &Fields) -> Via {
        Via::Memory { need, unsettled: fields.unsettled }
    }

    const fn is_peer(self) -> bool {
        matches!(self, Via::Peer | Via::File(_))
    }

    const fn is_unsettled(self) -> bool {
        matches!(self, Via::Memory { unsettled: true, .. })
    }

    const fn need(self) -> Option<Need> {
        match self {
            Via::Peer => None,
            Via::File(need) => Some(need),
            Via::Memory { need, .. } => need,
        }
    }
}

/// A walker's place in the change feed of every shard. Give it back with [`Zone::feed_close`].
#[derive(Debug)]
pub struct Cursor {
    pub(super) slot: usize,
    /// The epoch of each shard when the walker was last put to its beginning.
    pub(super) epochs: Vec<u64>,
    pub(super) scratch: Vec<u8>,
}

/// How a walk of the feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// Nothing more now.
    Drained,
    /// There is more: call again.
    More,
    /// `each` said no.
    Stopped,
    /// The feed was rebuilt after a crash, or was busy when the walker was put into it, and the walker is at its beginning.
    Reset,
}

/// A bit for each shard.
pub type ShardMask = u64;

impl Zone {
    /// Merges a record of another node. `max_drift`: how far its stamp may be ahead of `now`, in milliseconds.
    ///
    /// # Errors
    ///
    /// `BadKey`, `BadValue` or `Busy`; what doesn't fit is `Applied::Full`.
    pub fn apply(&self, record: &Record<'_>, now: Millis, max_drift: Millis) -> Result<Applied, StoreError> {
        self.merge(record, now, max_drift, Via::Peer)
    }

    /// Merges a record that a zone of this size held before this one was made in its place: what is kept for later is for it,
    /// too. `packed`: as tightly as can be, for which larger records have to come before smaller ones.
    ///
    /// # Errors
    ///
    /// As [`Zone::apply`].
    pub fn restore(&self, record: &Record<'_>, now: Millis, packed: bool) -> Result<Applied, StoreError> {
        self.merge(record, now, Millis::MAX, Via::File(if packed { Need::Packed } else { Need::Moved }))
    }

    /// The same, from wherever.
    pub(super) fn merge(
        &self,
        record: &Record<'_>,
        now: Millis,
        max_drift: Millis,
        via: Via,
    ) -> Result<Applied, StoreError> {
        self.check_record(record)?;
        let origin = match self.origin_for(record.version.origin) {
            // Not for want of room: it is to be sent again.
            Err(StoreError::Busy) => return Err(StoreError::Busy),
            origin => origin,
        };
        let place = self.place(record.key);
        let shard = self.shard(place.shard)?;
        if is_ahead(record.version.stamp, now, max_drift) {
            shard.bump(shard::FUTURE);
            return Ok(Applied::Future);
        }
        if record.version.stamp <= self.cleared() {
            return Ok(Applied::Stale);
        }
        let Ok(origin) = origin else {
            shard.leave_out(None, record.version.stamp);
            return Ok(Applied::Full);
        };
        // Between then and now the entry may have been given to another: that is to be sent again, too.
        if !self.hold_origin(origin, record.version.origin) {
            return Err(StoreError::Busy);
        }
        self.note_met(origin, record.version.stamp);
        let payload = record.key.len() + record.value.map_or(0, <[u8]>::len);
        let merged = shard.with_relief(
            now,
            false,
            || Wish { place, key: record.key, payload },
            || {
                if self.matching.has_parts() && shard.is_cut(place, record, origin) {
                    if via.is_peer() && !self.is_past(origin, record.version.stamp) {
                        shard.note_cut(place, record, origin, now);
                    }
                    return Ok(Applied::Stale);
                }
                let mut met = self.find(place, record.key);
                if let Some(own) = met.filter(|met| shard.is_own_part(record.key, met, now))
                    && shard.is_beaten(&own, record)
                    && Rule::Owner.holds()
                {
                    shard.say_again(place, record, &own, now)?;
                    met = self.find(place, record.key);
                }
                if let Some(met) = &met
                    && !shard.is_beaten(met, record)
                {
                    if shard.note_loser(met, record, origin) {
                        // The feed doesn't tell of it.
                        self.miss();
                        self.count_merged();
                    }
                    return Ok(Applied::Stale);
                }
                if self.matching.has_parts() && met.is_none() && !self.has_room_for_part(place, record.key) {
                    return Err(StoreError::Parts);
                }
                let is_past = via.is_peer()
                    && self.is_past(origin, record.version.stamp)
                    && !met.as_ref().is_some_and(|met| shard.is_of(met, record.version) || self.may_be_evicted(met))
                    && !self.ended_early(record, now);
                if is_past && met.is_none() {
                    return Ok(Applied::Stale);
                }
                let lapsed = record.expires.is_some_and(|end| end <= now);
                // What is past takes with it what it once won over.
                let value = record.value.filter(|_| !lapsed && !is_past);
                let shortened = record.shortened || shard.is_shortened(record.expires, met.as_ref());
                let expires = match value {
                    Some(_) => record.expires,
                    None if lapsed && !shortened => Some(now + self.lapsed_retention()),
                    None => Some(now + self.retention()),
                };
                let fields = Fields {
                    stamp: record.version.stamp,
                    origin,
                    kind: record.kind as u8,
                    expires,
                    tombstone: value.is_none(),
                    shortened,
                    lapsed,
                    unsettled: via.is_unsettled() || met.as_ref().is_some_and(|met| self.may_come_again(&met.fields)),
                    key_len: record.key.len(),
                    value_len: value.map_or(0, <[u8]>::len),
                    tag: place.tag,
                };
                let is_base = || matches!(Role::split(record.key), Some((_, Role::Base)));
                // It takes the parts with it.
                let _changing = (self.matching == Matching::Counter && is_base()).then(|| shard.changing());
                let known = match self.matching {
                    Matching::Limit => met.as_ref().and_then(|met| self.share_in(met)),
                    _ => None,
                };
                match (&met, value) {
                    (Some(met), None) => {
                        self.count_merged();
                        let Fields { stamp, unsettled, .. } = fields;
                        let grave = Grave { lapsed, unsettled, ..Grave::of(stamp, origin, now + self.retention()) };
                        shard.bury(place, record.key, met, &grave);
                    }
                    _ => {
                        let next = || {
                            let freed = met.or_else(|| shard.part_ended_by(place, record));
                            freed.map_or(Need::Growth, |met| Need::Replacement(shard.freed_by(&met)))
                        };
                        let need = via.need().unwrap_or_else(next);
                        let at = shard.make(record.key, value.unwrap_or_default(), need)?;
                        self.count_merged();
                        shard.publish(place, at, &fields, met.as_ref());
                    }
                }
                shard.witness(record.version.stamp);
                match self.matching {
                    Matching::Counter => shard.cut_with(place, record.key, now),
                    Matching::Limit if value.is_some() => shard.hear(place, record, known, now),
                    _ => {}
                }
                Ok(Applied::Newer)
            },
        );
        match merged {
            Err(StoreError::NoMemory) => {
                shard.leave_out(Some(origin), record.version.stamp);
                Ok(Applied::Full)
            }
            done => done,
        }
    }

    /// Empties the zone with one stamp, above every stamp in it.
    ///
    /// # Errors
    ///
    /// `Busy`; nothing was removed.
    pub fn clear(&self, now: Millis) -> Result<Stamp, StoreError> {
        let shards = (0..self.geometry.shards).map(|index| self.shard(index)).collect::<Result<Vec<_>, _>>()?;
        let stamp = shards.iter().map(|shard| shard.stamp(now)).max().unwrap_or_default();
        self.raise_cleared(stamp)?;
        for shard in &shards {
            shard.set(shard::LAST_OWN, stamp.0);
            shard.witness(stamp);
            shard.change();
            if self.is_sync() {
                shard.mark_dirty();
            }
        }
        if let Some(clears) = self.region.word64(header::CLEARS) {
            clears.fetch_add(1, Relaxed);
        }
        drop(shards);
        self.purge_some(now);
        Ok(stamp)
    }

    /// Merges an emptying of another node.
    ///
    /// # Errors
    ///
    /// `Busy`; nothing was removed.
    pub fn apply_clear(&self, stamp: Stamp, now: Millis, max_drift: Millis) -> Result<Applied, StoreError> {
        if is_ahead(stamp, now, max_drift) {
            return Ok(Applied::Future);
        }
        // What it removes is out of sight. Upkeep takes it away: that is a walk over the zone, and peers may send any number
        // of these.
        let is_news = stamp > self.cleared() && self.raise_cleared(stamp)?;
        if is_news {
            // Sessions look at zones that have changed: others hear of it at once.
            self.mark_changed(1);
        }
        Ok(if is_news { Applied::Newer } else { Applied::Stale })
    }

    /// Everything up to a stamp is out of sight from now on, and noted to be over. `false`: it was so up to this or a later one.
    fn raise_cleared(&self, stamp: Stamp) -> Result<bool, StoreError> {
        // One at a time: what comes in between, and is older, goes unseen, and isn't covered by what was noted.
        self.with_origins(|| {
            let is_news = stamp > self.cleared();
            if is_news {
                self.note_emptied();
                self.region.store64(header::CLEARED, stamp.0, SeqCst);
                done(Step::Cleared);
            }
            is_news
        })
    }
}

/// Whether a stamp is too far ahead of this node's clock to be taken.
fn is_ahead(stamp: Stamp, now: Millis, max_drift: Millis) -> bool {
    stamp.millis() > now.saturating_add(max_drift) && Rule::Ahead.holds()
}

impl Shard<'_> {
    /// Whether what was met has this version.
    fn is_of(&self, met: &Met, version: Version) -> bool {
        met.fields.stamp == version.stamp && self.zone.origin_identity(met.fields.origin) == Some(version.origin)
    }

    /// Whether what was met is this memory's own part of a key, which nobody else writes.
    fn is_own_part(&self, record_key: &[u8], met: &Met, now: Millis) -> bool {
        self.zone.matching.has_parts()
            && met.fields.is_live(now, self.zone.cleared())
            && matches!(Role::split(record_key), Some((_, Role::Part(id))) if id == self.zone.own_part())
    }

    /// Whether `record` takes the place of what was met.
    fn is_beaten(&self, met: &Met, record: &Record<'_>) -> bool {
        let fields = &met.fields;
        let Some(origin) = self.zone.origin_identity(fields.origin) else { return true };
        let version = Version { stamp: fields.stamp, origin };
        if version != record.version {
            return record.version > version || !Rule::Later.holds();
        }
        if self.zone.matching == Matching::Limit {
            // Its writer changes it in place, and tells that with the next version.
            return false;
        }
        let mut payload = Vec::new();
        self.payload(met, &mut payload);
        let old = Record {
            kind: fields.known_kind(),
            version,
            key: record.key,
            value: payload.get(fields.key_len..).filter(|_| !fields.tombstone),
            expires: fields.expires.filter(|_| !fields.tombstone),
            shortened: fields.shortened,
        };
        beats(record, &old)
    }

    /// `record`, of this origin, lost against what was met, and must not come back when that is over: neither where it would
    /// have outlived it and is still held, nor if it is sent again. Returns whether there is something new to tell others.
    fn note_loser(&self, met: &Met, record: &Record<'_>, origin: u16) -> bool {
        let fields = &met.fields;
        let end = fields.expires.filter(|_| !fields.tombstone && !fields.shortened);
        let is_older = record.version.stamp < fields.stamp;
        let survives =
            is_older && record.value.is_some() && end.is_some_and(|end| record.expires.is_none_or(|old| old > end));
        let again = !fields.unsettled
            && !self.is_of(met, record.version)
            && !self.zone.is_promised(origin, record.version.stamp);
        if survives || again {
            let (shortened, unsettled) = (fields.shortened || survives, fields.unsettled || again);
            self.block(met.at).set_meta(&Fields { shortened, unsettled, ..*fields });
        }
        survives
    }
}
