//! Stamping anew what was written by a clock that was ahead and has been mended.
//!
//! Stamps never go back, so a node whose clock does would give stamps of the future until the clock has caught up, and its
//! peers would refuse them for as long. So it goes on *under another identity*, for which nobody has been promised anything,
//! from what its clock says now. Records that are further ahead than is allowed, whoever wrote them, are stamped anew under
//! that identity, in three steps:
//!
//! 1. What an emptying of the future left is taken away.
//! 2. With all shards locked, the node's identity in the zone changes, and with it everything that decides over its next
//!    stamps. What was promised of others is taken back up to a *floor*: what they wrote since then may have lost against a
//!    record of the future, and is asked for again.
//! 3. The records of the future get their new stamps, a few in one hold of a lock.
//!
//! What this node wrote itself gets the latest stamp that peers take: they may have taken an earlier version of the key that was
//! almost as far ahead. What it has of others gets about the stamp that it would have had by a right clock: whoever wrote it
//! stamps it anew, too, and others may have written since.
//!
//! Whoever dies in between leaves records of the future, which the next one finds. Nothing is sent before all is done.

use std::sync::atomic::Ordering::SeqCst;

use super::block::Fields;
use super::keys::ScanPlace;
use super::layout::{header, shard};
use super::shard::{Met, Shard};
use super::{StoreError, Zone};
use crate::record::{Identity, Millis, Role, Stamp};

/// A clock may be set back by less than this, milliseconds, whatever is allowed between nodes.
const LEAST_DRIFT: Millis = 1_000;
/// Buckets in one hold of a shard's lock.
const BUCKETS_A_HOLD: u64 = 64;
/// Records taken away in one step.
const PURGED_A_STEP: usize = 128;

/// The work on one zone, in steps.
pub struct Renewal {
    zone: Zone,
    identity: Identity,
    /// The identity before.
    last: Identity,
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
    /// Takes away what an emptying has hidden, and then changes what decides over the next stamps. Later stamps than this are of
    /// the future.
    Begin(Stamp),
    /// Gives new stamps.
    Rewrite {
        place: ScanPlace,
        shift: Shift,
    },
    Over,
}

/// From old stamps to new ones.
struct Shift {
    /// Later stamps are of the future.
    latest: Stamp,
    /// What this node goes and went by.
    own: [Option<u16>; 2],
    /// The last of the new ones of others.
    now: Stamp,
    /// They come after this.
    floor: Stamp,
    /// How far each origin was ahead, by its index.
    ahead: Vec<u64>,
}

impl Shift {
    fn of(&self, fields: &Fields) -> Option<Stamp> {
        if fields.stamp <= self.latest {
            return None;
        }
        if self.own.contains(&Some(fields.origin)) {
            return Some(self.latest.next());
        }
        let ahead = self.ahead.get(usize::from(fields.origin)).copied().unwrap_or(0);
        Some(Stamp(fields.stamp.0.saturating_sub(ahead)).min(self.now).max(self.floor.next()))
    }
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
        self.origin_for(identity).map(drop)
    }

    /// Whether this node's identity is this one here, too. If not, somebody died while it changed.
    pub fn is_of(&self, identity: Identity) -> bool {
        self.node() == identity
    }

    /// Whether records move between this memory and other memory of the zone. Until that is over nothing is stamped anew.
    pub fn is_moving(&self) -> bool {
        self.region.load64(header::LIMIT, SeqCst) != 0
    }

    fn last_stamp(&self) -> Stamp {
        let last = |index| {
            let shard = self.shard_unlocked(index);
            shard.get(shard::LAST).max(shard.get(shard::LAST_OWN))
        };
        let given = (0..self.geometry.shards).map(last).max().unwrap_or(0);
        Stamp(given).max(self.closed()).max(self.cleared())
    }
}

impl Renewal {
    /// Begins, or goes on where somebody died. `identity`: what [`super::Control::begin_renewal`] said, and `last`: the one
    /// before. `max_drift`: how far peers let stamps be ahead.
    pub fn new(zone: Zone, identity: Identity, last: Identity, max_drift: Millis, now: Millis) -> Renewal {
        let latest = Stamp::at(now.saturating_add(max_drift.max(LEAST_DRIFT)));
        Renewal { zone, identity, last, phase: Phase::Begin(latest), done: Renewed::default() }
    }

    /// Goes on, for one hold of a lock or so; what became of the zone once all is done.
    ///
    /// # Errors
    ///
    /// `Busy`: a lock is stuck; `NoMemory`: the table of origins is full. It can be tried again.
    pub fn step(&mut self, now: Millis) -> Result<Option<Renewed>, StoreError> {
        let zone = self.zone;
        match &mut self.phase {
            Phase::Begin(_) if zone.is_unpurged() => _ = zone.upkeep(now, PURGED_A_STEP),
            Phase::Begin(latest) => {
                let emptied = zone.cleared() > *latest;
                let shift = zone.change_identity(self.identity, self.last, *latest, now)?;
                self.done.cleared = emptied;
                self.phase = Phase::Rewrite { place: ScanPlace::default(), shift };
            }
            Phase::Rewrite { place, shift } => {
                let own = zone.own_origin();
                let mut renewed = 0;
                let next = zone.each_stamp(*place, |shard, fields, at| {
                    if let Some(stamp) = shift.of(fields) {
                        // What was added to what was set: it has to come after that.
                        let later = if zone.is_part(at, fields) { stamp.next() } else { stamp };
                        shard.restamp(at, fields, later, own);
                        renewed += 1;
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
        let per_shard = self.geometry.buckets_per_shard as u64;
        let index = place.0 / per_shard;
        if index >= u64::from(self.geometry.shards) {
            return Ok(None);
        }
        let (index, first) = (index as u32, place.0 % per_shard);
        let end = per_shard.min(first + BUCKETS_A_HOLD);
        let locked = self.shard(index)?;
        for bucket in first..end {
            locked.bucket_each(bucket as usize, |met| each(&locked, &met.fields, met.at));
        }
        Ok(Some(ScanPlace(u64::from(index) * per_shard + end)))
    }

    /// This node goes on as `identity`, from what the clock says.
    fn change_identity(
        &self,
        identity: Identity,
        last: Identity,
        latest: Stamp,
        now: Millis,
    ) -> Result<Shift, StoreError> {
        let new = self.origin_for(identity)?;
        let own = [Some(new), self.origin_index(last)];
        // All of them: nobody is in the middle of a write.
        let shards = (0..self.geometry.shards).map(|index| self.shard(index)).collect::<Result<Vec<_>, _>>()?;
        let old = self.own_origin();
        let put = |field, stamp: Stamp| self.region.store64(field, stamp.0, SeqCst);
        let given = Stamp(shards.iter().map(|shard| shard.get(shard::LAST_OWN)).max().unwrap_or(0)).max(self.closed());
        let begin = Stamp::at(now);
        // Deletes since then are still remembered by their tombstones.
        let floor = Stamp::at(now.saturating_sub(self.retention() / 4));
        let ahead = |last: Stamp| last.0.saturating_sub(begin.0);
        let mut shift = Shift { latest, own, now: begin, floor, ahead: Vec::new() };
        shift.ahead = (0..self.geometry.origins)
            .map(|index| if index == usize::from(old) { ahead(given) } else { ahead(self.last_of(index)) })
            .collect();
        let cleared = self.cleared();
        if cleared > latest {
            let most = shift.ahead.iter().copied().max().unwrap_or(0).max(ahead(cleared));
            shift.floor = Stamp(cleared.0.saturating_sub(most)).max(floor);
        }
        if old != new {
            // All that it wrote is here, if this memory always was its memory, and up to `latest` stays its own.
            let whole = self.region.load64(header::BORN, SeqCst) == 0;
            self.set_promise(old.into(), if whole { given.min(latest) } else { Stamp::ZERO }, None);
        }
        (0..self.geometry.origins).filter(|index| ![old, new].contains(&(*index as u16))).for_each(|index| {
            let (promise, met) = (self.position_at(index), self.last_of(index));
            let left = promise.min(floor);
            let settled = promise > left || met > latest;
            self.set_promise(index, left, (!settled).then_some(met));
        });
        // The identity comes first: under the old one no lower stamps may be given.
        self.set_own_origin(new);
        put(header::BORN, Stamp::ZERO);
        put(header::CLOSED, floor);
        for field in [header::LACKED, header::EVICTED_STAMP, header::DOUBTED, header::PURGE_FLOOR] {
            put(field, Stamp(self.region.load64(field, SeqCst)).min(latest));
        }
        if cleared > latest {
            // What it hid is gone; what has a lower stamp from now on has to be looked for anew.
            shards.iter().for_each(|shard| shard.set(shard::PURGED, 0));
            put(header::CLEARED, shift.floor);
        }
        for shard in &shards {
            // A write gets a later stamp than whatever it replaces, also in the future that is left.
            let last = Stamp(shard.get(shard::LAST));
            let last = last.min(latest.next());
            shard.set(shard::LAST, last.0);
            shard.set(shard::LAST_OWN, last.0);
        }
        Ok(shift)
    }
}

impl Shard<'_> {
    /// Gives a record another version, where it lies: nothing else of it changes, and it needs no room.
    fn restamp(&self, at: usize, fields: &Fields, stamp: Stamp, origin: u16) {
        self.zone.count_merged();
        // Who adds up the records of a key without the lock looks again.
        self.move_sequence();
        // Only who goes on where another died finds lower ones.
        self.witness(stamp);
        self.set(shard::LAST_OWN, self.get(shard::LAST_OWN).max(stamp.0));
        self.block(at).turn(fields, &Fields { stamp, origin, ..*fields });
        self.move_sequence();
        self.feed_unlink(at);
        self.feed_append(at);
        self.mark_dirty();
    }
}
