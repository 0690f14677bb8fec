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
//! 3. The records of the future get their new stamps, a few in one hold of a lock.
//!
//! Whoever dies in between leaves records of the future, which the next one finds. Nothing is sent before all is done.

use std::sync::atomic::Ordering::SeqCst;

use super::block::Fields;
use super::find::Met;
use super::layout::{header, shard};
use super::origins::ANEW;
use super::scan::ScanPlace;
use super::shard::Shard;
use super::{Rule, StoreError, Zone};
use crate::record::{Identity, Millis, Role, Stamp};

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

    /// Whether records that are here may be stamped anew. Not where keys have parts: another node may have an older copy of
    /// a part than the node whose part it is. Stamped anew there, the copy could win, and what was added since would be gone.
    pub fn can_renew(&self) -> bool {
        !self.matching.has_parts()
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
                let own = zone.own_origin();
                let mut renewed = 0;
                let next = zone.each_stamp(*place, |shard, fields, at| {
                    let unsettled = fields.unsettled || *unsettled;
                    if fields.stamp > latest && Rule::Renewed.holds() {
                        // What was added to what was set: it has to come after that.
                        let later = if zone.is_part(at, fields) { 2 } else { 1 };
                        let stamp = Stamp(latest.0.saturating_add(later));
                        shard.restamp(at, fields, &Fields { stamp, origin: own, unsettled, ..*fields });
                        renewed += 1;
                    } else if unsettled != fields.unsettled {
                        shard.block(at).set_meta(&Fields { unsettled, ..*fields });
                    }
                })?;
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

    /// Whether a record is one of several that a key has. All of them lie in one bucket.
    fn is_part(&self, at: usize, fields: &Fields) -> bool {
        if !self.matching.has_parts() {
            return false;
        }
        let mut key = vec![0; fields.key_len];
        self.read_key(&Met { at, from: 0, fields: *fields }, &mut key)
            && matches!(Role::split(&key), Some((_, Role::Part(_))))
    }

    /// Shows the records of some buckets: the shard, the record, where it is; and returns where to go on. `each` may change
    /// the record's stamp and origin.
    fn each_stamp(
        &self,
        place: ScanPlace,
        mut each: impl FnMut(&Shard<'_>, &Fields, usize),
    ) -> Result<Option<ScanPlace>, StoreError> {
        let Some((index, buckets)) = self.hold_at(place, BUCKETS_A_HOLD) else { return Ok(None) };
        let (locked, end) = (self.shard(index)?, buckets.end);
        for bucket in buckets {
            locked.bucket_each(bucket, |met| each(&locked, &met.fields, met.at));
        }
        Ok(self.place_of_bucket(index, end))
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
    /// Gives a record another version, where it lies: nothing else of it changes, and it needs no room.
    fn restamp(&self, at: usize, fields: &Fields, renewed: &Fields) {
        self.zone.count_merged();
        // Who adds up the records of a key without the lock looks again.
        self.move_sequence();
        // Only who goes on where another died finds lower ones.
        self.witness(renewed.stamp);
        self.set(shard::LAST_OWN, self.get(shard::LAST_OWN).max(renewed.stamp.0));
        self.block(at).turn(fields, renewed);
        self.move_sequence();
        self.feed_unlink(at);
        self.feed_append(at);
        self.mark_dirty();
    }
}
