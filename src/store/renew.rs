//! Stamping anew what was written by a clock that was ahead and has been mended.
//!
//! Stamps never go back, so a node whose clock does would give stamps of the future until the clock has caught up, and its
//! peers would refuse them for as long. So it goes on *under another identity*, for which nobody has been promised anything,
//! from what its clock says now. Records that are further ahead than is allowed, whoever wrote them, get the latest stamp that
//! peers take, under that identity. So what this node knows to be newer stays newer: peers may have an earlier version of the
//! key, or have written with stamps that were pulled ahead, up to just there. In three steps:
//!
//! 1. What an emptying of the future left is taken away.
//! 2. With all shards locked, the node's identity in the zone changes, and with it everything that decides over its next
//!    stamps. An emptying of the future gets about the stamp that it would have had by a right clock, as what others wrote since is
//!    to stay. What was here by then is over all the same, as the positions at that time tell (see `past`). What came later
//!    and was older went unseen, so it is promised no more, and asked for again.
//! 3. The records of the future get their new stamps, a few in one hold of a lock. Of a counter that has several all get theirs
//!    at once, as they tell by their stamps which of them count.
//!
//! Of a part of a key (see `parts`) another node whose clock was ahead as well may have an older copy, and stamp that anew later
//! than the part itself. Whose part it is knows better, and says so ([`Shard::say_again`]). Only of what memory added that is gone
//! by then, the older copy may be what stays.
//!
//! Whoever dies in between leaves records of the future, which the next one finds. Nothing is sent before all is done.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use super::block::Fields;
use super::find::{Met, Place};
use super::layout::{header, shard};
use super::origins::ANEW;
use super::scan::ScanPlace;
use super::shard::Shard;
use super::{Matching, Rule, StoreError, Zone};
use crate::record::{Identity, Millis, Record, Role, Stamp};

/// A clock may be set back by less than this, milliseconds, whatever is allowed between nodes.
const LEAST_DRIFT: Millis = 1_000;
/// Buckets in one hold of a shard's lock.
const BUCKETS_A_HOLD: usize = 64;
/// Records taken away in one step.
const PURGED_A_STEP: usize = 128;

/// The work on one zone, in steps.
pub struct Renewal {
    zone: Zone,
    identity: Identity,
    /// The identity before.
    last: Identity,
    /// Later stamps are of the future.
    latest: Stamp,
    phase: Phase,
    done: Renewed,
}

/// What became of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Records and tombstones that were stamped anew.
    pub records: u64,
    /// It had been emptied in the future.
    pub cleared: bool,
}

enum Phase {
    /// Takes away what an emptying has hidden, and then changes what decides over the next stamps.
    Begin,
    /// Gives new stamps. Whether all else is marked as unsettled: what it won over may come again.
    Rewrite {
        place: ScanPlace,
        unsettled: bool,
    },
    Over,
}

impl Zone {
    /// How many milliseconds the next stamp of this node is ahead of the clock, at least, on account of those before it.
    pub fn ahead(&self, now: Millis) -> Millis {
        self.last_stamp().millis().saturating_sub(now)
    }

    /// Whether that is so much that peers refuse what is written here. A second more: a clock that is set back a little again
    /// is none of our business.
    pub fn is_ahead(&self, now: Millis, max_drift: Millis) -> bool {
        self.ahead(now) > max_drift.max(LEAST_DRIFT) + LEAST_DRIFT
    }

    /// Keeps a place for an identity that this node is about to take.
    ///
    /// # Errors
    ///
    /// `NoMemory`: the table of origins is full; `Busy`: a lock is stuck.
    pub fn expect_identity(&self, identity: Identity) -> Result<(), StoreError> {
        self.origin_for_own(identity).map(drop)
    }

    /// Whether this node's identity is this one here, too. If not, somebody died while it changed.
    pub fn is_of(&self, identity: Identity) -> bool {
        self.node() == identity
    }

    /// Whether records move between this memory and other memory of the zone. Until that is over nothing is stamped anew.
    pub fn is_moving(&self) -> bool {
        self.region.load64(header::LIMIT, SeqCst) != 0
    }
}

impl Renewal {
    /// Begins, or goes on where somebody died. `identity`: what [`super::Control::begin_renewal`] said, and `last`: the one
    /// before. `latest`: as [`Renewal::latest`] says.
    pub const fn new(zone: Zone, identity: Identity, last: Identity, latest: Stamp) -> Renewal {
        Renewal { zone, identity, last, latest, phase: Phase::Begin, done: Renewed { records: 0, cleared: false } }
    }

    /// The latest stamp that some peer may have taken, if the clock of none is ahead of `clock`.
    pub fn latest(clock: Millis, max_drift: Millis) -> Stamp {
        Stamp::at(clock.saturating_add(max_drift.max(LEAST_DRIFT)))
    }

    /// Goes on, for one hold of a lock or so; what became of the zone once all is done.
    ///
    /// # Errors
    ///
    /// `Busy`: a lock is stuck; `NoMemory`: the table of origins is full. It can be tried again.
    pub fn step(&mut self, now: Millis) -> Result<Option<Renewed>, StoreError> {
        let (zone, latest) = (self.zone, self.latest);
        match &mut self.phase {
            Phase::Begin => match zone.change_identity(self.identity, self.last, latest, now)? {
                None => _ = zone.upkeep(now, PURGED_A_STEP),
                Some(cleared) => {
                    self.done.cleared = cleared;
                    self.phase = Phase::Rewrite { place: ScanPlace::default(), unsettled: zone.is_unsettled() };
                }
            },
            Phase::Rewrite { place, unsettled } => {
                let (next, renewed) = zone.renew_some(*place, latest, *unsettled, now)?;
                self.done.records += renewed;
                match next {
                    Some(next) => *place = next,
                    None => {
                        // Files say which changes they have by stamps that are no more.
                        zone.state_lost();
                        zone.miss_all();
                        self.phase = Phase::Over;
                    }
                }
            }
            Phase::Over => {}
        }
        Ok(matches!(self.phase, Phase::Over).then_some(self.done))
    }
}

impl Zone {
    /// Whether records are there that an emptying has made invisible.
    fn is_unpurged(&self) -> bool {
        let cleared = self.cleared().0;
        (0..self.geometry.shards).any(|index| self.shard_unlocked(index).get(shard::PURGED) < cleared)
    }

    /// Renews some buckets: where to go on, and how many records were stamped anew. `unsettled`: all are marked as that.
    fn renew_some(
        &self,
        place: ScanPlace,
        latest: Stamp,
        unsettled: bool,
        now: Millis,
    ) -> Result<(Option<ScanPlace>, u64), StoreError> {
        let Some((index, buckets)) = self.hold_at(place, BUCKETS_A_HOLD) else { return Ok((None, 0)) };
        let (locked, end) = (self.shard(index)?, buckets.end);
        let renewed = buckets.map(|bucket| locked.renew_bucket(bucket, latest, unsettled, now)).sum();
        Ok((self.place_of_bucket(index, end), renewed))
    }

    /// This node goes on as `identity`, from what the clock says. Whether the zone had been emptied in the future; `None`: what an
    /// emptying has put out of sight has to be taken away first, and nothing is changed.
    fn change_identity(
        &self,
        identity: Identity,
        last: Identity,
        latest: Stamp,
        now: Millis,
    ) -> Result<Option<bool>, StoreError> {
        let new = self.origin_for_own(identity)?;
        // All of them: nobody is in the middle of a write.
        let shards = (0..self.geometry.shards).map(|index| self.shard(index)).collect::<Result<Vec<_>, _>>()?;
        if !self.hold_origin(new, identity) {
            return Err(StoreError::Busy);
        }
        let put = |field, stamp: Stamp| self.region.store64(field, stamp.0, SeqCst);
        let (old, begin) = (self.own_origin(), Stamp::at(now));
        let known_as = [Some(new), Some(old), self.origin_index(last)];
        let given = Stamp(shards.iter().map(|shard| shard.get(shard::LAST_OWN)).max().unwrap_or(0)).max(self.closed());
        // With the table's lock: no entry comes to stand for another origin meanwhile, and nobody empties the zone.
        let done = self.with_origins(|| {
            if self.is_unpurged() {
                return None;
            }
            let cleared = self.cleared();
            if old != new {
                // All that it wrote is here, if this memory always was its memory, and up to `latest` stays its own.
                let whole = self.is_whole(self.node());
                let promised = if whole { given.min(latest) } else { Stamp::ZERO };
                self.set_promise(old.into(), promised, promised);
                self.flag(old, ANEW, !whole);
            }
            for index in (0..self.origins_end()).filter(|index| !known_as.contains(&Some(*index as u16))) {
                let (promised, met) = (self.position_at(index), self.met_of(index));
                let kept = if cleared > latest { promised.min(self.position_emptied(index)) } else { promised };
                self.set_promise(index, kept.min(latest), met.max(promised).min(latest));
            }
            // The identity comes first: under the old one no lower stamps may be given.
            self.set_own_origin(new);
            if cleared > latest {
                // What it hid is gone; what has a lower stamp from now on has to be looked for anew.
                shards.iter().for_each(|shard| shard.set(shard::PURGED, 0));
                let last =
                    (0..self.origins_end()).map(|index| self.last_of(index)).fold(given.max(cleared), Stamp::max);
                put(header::CLEARED, Stamp(cleared.0.saturating_sub(last.0.saturating_sub(begin.0))));
            }
            Some(cleared > latest)
        })?;
        let Some(was_cleared) = done else { return Ok(None) };
        put(header::BORN, Stamp::ZERO);
        put(header::CLOSED, begin);
        for field in
            [header::LACKED, header::LACKED_OF_ANY, header::EVICTED_STAMP, header::DOUBTED, header::PURGE_FLOOR]
        {
            put(field, Stamp(self.region.load64(field, SeqCst)).min(latest.next()));
        }
        for shard in &shards {
            // A write gets a later stamp than whatever it replaces, also in the future that is left.
            let last = Stamp(shard.get(shard::LAST)).min(latest.next());
            shard.set(shard::LAST, last.0);
            shard.set(shard::LAST_OWN, last.0);
        }
        Ok(Some(was_cleared))
    }
}

impl Shard<'_> {
    /// Gives what is later than `latest` in a bucket the stamp that follows it: of how many records.
    fn renew_bucket(&self, bucket: usize, latest: Stamp, unsettled: bool, now: Millis) -> u64 {
        let (mut renewed, mut counters) = (0, BTreeSet::new());
        self.bucket_each(bucket, |met| {
            let fields = Fields { unsettled: met.fields.unsettled || unsettled, ..met.fields };
            if fields.unsettled != met.fields.unsettled {
                self.block(met.at).set_meta(&fields);
            }
            if fields.stamp <= latest || !Rule::Renewed.holds() {
                return;
            }
            if self.zone.matching == Matching::Counter {
                counters.extend(self.counter_of(met));
            } else {
                self.restamp(met.at, &fields, latest.next());
                renewed += 1;
            }
        });
        let place = |key: &[u8]| self.zone.place_of_hash(self.zone.hash(key));
        renewed + counters.iter().map(|key| self.renew_counter(place(key), key, latest, now)).sum::<u64>()
    }

    /// The same of the records of a counter.
    fn renew_counter(&self, place: Place, key: &[u8], latest: Stamp, now: Millis) -> u64 {
        // First what doesn't count goes: it would, once what ended it has a lower stamp.
        self.cut(place, key, now);
        let mut renewed = 0;
        let mut renew = |met: &Met, stamp| {
            if met.fields.stamp > latest {
                self.restamp(met.at, &met.fields, stamp);
                renewed += 1;
            }
        };
        // What was added has to come after what it was added to, also for who goes on if this is killed in between.
        if let Some(base) = self.zone.find(place, &Role::Base.of(key)) {
            renew(&base, latest.next());
        }
        self.zone.parts_each(place, key, |_, met| renew(met, latest.next().next()));
        renewed
    }

    /// Before a counter is written, of which these are the newest records: while stamps of the future are left in the zone, a
    /// later write has lower ones, which must not be what it comes after. Whether anything has changed.
    pub(super) fn catch_up(&self, place: Place, key: &[u8], newest: Stamp, now: Millis) -> bool {
        let last = Stamp(self.get(shard::LAST));
        newest > last && self.renew_counter(place, key, last, now) > 0
    }

    /// A version of this memory's own part came from elsewhere, and would win: it is an older copy, stamped anew by a node whose
    /// clock was ahead. What is here gets a later stamp.
    ///
    /// # Errors
    ///
    /// `NoMemory`: nothing has changed.
    pub(super) fn say_again(&self, place: Place, copy: &Record<'_>, met: &Met, now: Millis) -> Result<(), StoreError> {
        let (mut payload, fields) = (Vec::new(), &met.fields);
        self.payload(met, &mut payload);
        let mut value = payload.split_off(fields.key_len.min(payload.len()));
        if let (Matching::Counter, Some(count)) = (self.zone.matching, self.zone.count_in(met)) {
            // It isn't begun anew by that.
            value = count.encode().to_vec();
        }
        self.witness(copy.version.stamp);
        self.write_own(place, (copy.key, copy.kind), &value, (fields.expires, fields.shortened), Some(met), now)?;
        Ok(())
    }

    /// The counter that a record is one of.
    fn counter_of(&self, met: &Met) -> Option<Vec<u8>> {
        let mut record_key = vec![0; met.fields.key_len];
        let is_read = self.zone.read_key(met, &mut record_key);
        Role::split(&record_key).filter(|_| is_read).map(|(key, _)| key.to_vec())
    }

    /// Gives a record of whomever another stamp as one of this node, where it lies: it needs no room.
    fn restamp(&self, at: usize, fields: &Fields, stamp: Stamp) {
        let renewed = Fields { stamp, origin: self.zone.own_origin(), ..*fields };
        self.zone.count_merged();
        // Who adds up the records of a key without the lock looks again.
        self.move_sequence();
        // Only who goes on where another died finds lower ones.
        self.witness(stamp);
        self.set(shard::LAST_OWN, self.get(shard::LAST_OWN).max(stamp.0));
        self.block(at).turn(fields, &renewed);
        self.move_sequence();
        self.feed_unlink(at);
        self.feed_append(at);
        self.mark_dirty();
    }
}
