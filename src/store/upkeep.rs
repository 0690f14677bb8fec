//! Upkeep: taking away what has ended, in bounded steps.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::block::Fields;
use super::expiry;
use super::failpoint::{Step, done};
use super::feed::End;
use super::find::Met;
use super::layout::{header, shard};
use super::lock;
use super::own::Grave;
use super::shard::Shard;
use super::watch::gone_since;
use super::{Rule, Zone};
use crate::record::{Millis, Stamp};

/// How long a tombstone is kept unless [`super::Params::retention`] says otherwise, in milliseconds: an hour. Nodes that were
/// apart for longer compare what they have.
pub const RETENTION: Millis = 3_600_000;
/// How long the tombstone of a record is kept that just ended, and that outlived all that is known of its key: a minute,
/// so that an older value which is still on its way isn't taken for news.
pub const LAPSED_RETENTION: Millis = 60_000;

/// Steps in one hold of a shard's lock.
const STEPS_A_HOLD: usize = 64;
/// How often so many are done to find something that has ended, before other things go.
const TURNS_FOR_ROOM: usize = 8;
/// Buckets that cost as much to pass as a record to remove.
const BUCKETS_A_STEP: usize = 16;
/// Where tombstones that may be given up are looked for: how many records that end soon, and how many places at either end of
/// the feed.
const SOONEST: usize = 256;
const PLACES: usize = 512;
/// Tombstones given up at once when a zone is full.
const TOMBSTONES_A_ROUND: usize = 64;
/// Records removed at once by whoever empties a zone; upkeep removes the rest.
const PURGED_AT_ONCE: usize = 1024;

impl Zone {
    /// Takes away expired records, old tombstones and what an emptying left, about `budget` at most; returns how many
    /// steps that took: less than `budget` means that nothing is left to do now.
    pub fn upkeep(&self, now: Millis, budget: usize) -> usize {
        self.end_watch(now);
        let cleared = self.cleared().0;
        if self.is_quiet(now) && !self.is_set_back(now) && (cleared == 0 || self.purged() >= cleared) {
            return 0;
        }
        let Some(sweeper) = self.region.word64(header::SWEEPER) else { return 0 };
        let other = sweeper.load(SeqCst);
        // One process at a time, as long as it lives.
        if (other != 0 && other != lock::this_thread() && !lock::is_dead(other))
            || sweeper.compare_exchange(other, lock::this_thread(), SeqCst, Relaxed).is_err()
        {
            return 0;
        }
        let _held = lock::Held::new(sweeper);
        // Set anew below; who writes meanwhile lowers it.
        self.region.store64(header::NEXT_DUE, expiry::NEVER, SeqCst);
        done(Step::Sweeping);
        let (mut left, mut stuck) = (budget, false);
        for index in 0..self.geometry.shards {
            while left > 0 && !stuck && self.has_work(index, now) {
                let Ok(shard) = self.shard(index) else { break };
                let mut hold = STEPS_A_HOLD.min(left);
                left -= hold;
                shard.purge(now, &mut hold);
                shard.expire(now, &mut hold);
                left += hold;
                stuck = shard.pool_stuck.get();
            }
            // One that wasn't come to has to be looked at, too.
            let is_late = self.is_shard_set_back(index, now);
            self.due_at(if is_late { expiry::tick(now) } else { self.shard_unlocked(index).get(shard::NEXT_DUE) });
        }
        budget - left
    }

    /// Removes the first of what an emptying made invisible.
    pub(super) fn purge_some(&self, now: Millis) {
        self.upkeep(now, PURGED_AT_ONCE);
    }

    /// The greatest stamp of a tombstone that was given up before its time, for want of room.
    pub fn purge_floor(&self) -> Stamp {
        Stamp(self.region.load64(header::PURGE_FLOOR, SeqCst))
    }

    /// How long tombstones are kept.
    pub(super) fn retention(&self) -> Millis {
        self.region.load64(header::RETENTION, Relaxed)
    }

    /// How long those of records are kept that just ended.
    pub(super) fn lapsed_retention(&self) -> Millis {
        self.retention().min(LAPSED_RETENTION)
    }

    /// Whether a record that ends leaves a tombstone. State files know of its end, unless they haven't got it yet.
    fn end_leaves_tombstone(&self, fields: &Fields) -> bool {
        (self.is_sync() && Rule::Ended.holds()) || self.is_watched() || self.trail_may_lack(fields)
    }

    /// How long there is nothing to take away, of what is there now, in milliseconds.
    pub fn quiet_for(&self, now: Millis) -> Millis {
        // Who was killed in the middle of a sweep may have left what is due next unsaid.
        let swept = self.region.load64(header::SWEEPER, SeqCst) == 0;
        let cleared = self.cleared().0;
        if swept && (cleared == 0 || self.purged() >= cleared) { expiry::until(self.next_due(), now) } else { 0 }
    }

    /// Whether nothing that is there now ends before `until`.
    pub fn is_quiet(&self, until: Millis) -> bool {
        // Who was killed in the middle of a sweep may have left what is due next unsaid.
        !expiry::is_due(self.next_due(), until) && self.region.load64(header::SWEEPER, SeqCst) == 0
    }

    /// Whether wheels have to be looked at as the clock was set back.
    fn is_set_back(&self, now: Millis) -> bool {
        expiry::is_set_back(u64::MAX, self.next_due(), now)
            && (0..self.geometry.shards).any(|index| self.is_shard_set_back(index, now))
    }

    fn is_shard_set_back(&self, index: u32, now: Millis) -> bool {
        let shard = self.shard_unlocked(index);
        expiry::is_set_back(shard.get(shard::TICK), shard.get(shard::NEXT_DUE), now)
    }

    /// Something ends at this tick.
    pub(super) fn due_at(&self, tick: u64) {
        if let Some(word) = self.region.word64(header::NEXT_DUE)
            && tick < word.load(SeqCst)
        {
            word.fetch_min(tick, SeqCst);
        }
    }

    fn next_due(&self) -> u64 {
        self.region.load64(header::NEXT_DUE, SeqCst)
    }

    /// Up to which emptying every shard was purged.
    fn purged(&self) -> u64 {
        let shards = (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(shard::PURGED));
        shards.min().unwrap_or(0)
    }

    fn has_work(&self, index: u32, now: Millis) -> bool {
        let shard = self.shard_unlocked(index);
        expiry::is_due(shard.get(shard::NEXT_DUE), now)
            || shard.get(shard::PURGED) < self.cleared().0
            || self.is_shard_set_back(index, now)
    }
}

impl Shard<'_> {
    /// Makes room in a full zone: what has ended goes, and if nothing has, the oldest tombstones, but for those that must
    /// win over what is still merged between this zone and another. `false`: nothing went.
    pub fn relieve(&self, now: Millis) -> bool {
        let held = || self.get(shard::RECORDS) + self.get(shard::TOMBSTONES);
        let before = held();
        // A wheel that wasn't turned for long may have much to move before anything is known to have ended.
        for _ in 0..TURNS_FOR_ROOM {
            let mut steps = STEPS_A_HOLD;
            self.purge(now, &mut steps);
            self.expire(now, &mut steps);
            if steps > 0 || held() < before {
                break;
            }
        }
        let given_up = if self.get(shard::TOMBSTONES) > 0 { self.tombstones_to_go() } else { Vec::new() };
        let floor = given_up.iter().map(|at| self.block(*at).fields().stamp).max().unwrap_or_default();
        if let Some(word) = self.zone.region.word64(header::PURGE_FLOOR) {
            word.fetch_max(floor.0, SeqCst);
        }
        self.note_missed(&given_up);
        given_up.iter().for_each(|at| {
            self.forget(gone_since(self.zone, &self.block(*at).fields(), now));
            self.remove_at(*at);
        });
        held() < before || !given_up.is_empty()
    }

    /// Some dozens of tombstones that may be given up, those first that would go soonest, as far as they are found without
    /// walking the whole shard. Those that are needed only if no others are found.
    fn tombstones_to_go(&self) -> Vec<usize> {
        let (mut found, mut needed) = (Vec::new(), Vec::new());
        let mut is_unsettled = None;
        let mut look = |at: usize| {
            let fields = self.block(at).fields();
            if fields.tombstone && self.zone.within_limit(fields.stamp) == fields.stamp {
                let is_needed = self.is_needed(&fields, &mut is_unsettled);
                let kept: &mut Vec<usize> = if is_needed { &mut needed } else { &mut found };
                if kept.len() < TOMBSTONES_A_ROUND && !kept.contains(&at) {
                    kept.push(at);
                }
            }
            found.len() < TOMBSTONES_A_ROUND
        };
        let more = self.timer_sample(SOONEST).into_iter().all(|(at, _)| look(at));
        if more && self.feed_some(End::Oldest, PLACES, &mut look) {
            self.feed_some(End::Newest, PLACES, &mut look);
        }
        if found.is_empty() { needed } else { found }
    }

    /// Whether nothing but this tombstone says that something is over which may come again. `is_unsettled`: what the zone said
    /// to that, which is asked once a walk.
    fn is_needed(&self, fields: &Fields, is_unsettled: &mut Option<bool>) -> bool {
        let may_be = fields.tombstone && fields.unsettled && fields.stamp > self.zone.cleared();
        may_be && Rule::Unsettled.holds() && *is_unsettled.get_or_insert_with(|| self.zone.is_unsettled())
    }

    /// Turns the wheel: tombstones go; records go too, or in a zone that is shared leave a tombstone of their version.
    fn expire(&self, now: Millis, budget: &mut usize) {
        let mut is_unsettled = None;
        self.turn(now, budget, |at, fields| {
            if self.is_needed(&fields, &mut is_unsettled) {
                return self.put_off(at, &fields, now + self.zone.lapsed_retention());
            }
            if fields.tombstone || !self.zone.end_leaves_tombstone(&fields) || fields.stamp <= self.zone.cleared() {
                if fields.stamp > self.zone.cleared() {
                    self.forget(gone_since(self.zone, &fields, now));
                }
                self.remove_at(at);
            } else {
                let retention = if fields.shortened { self.zone.retention() } else { self.zone.lapsed_retention() };
                self.lapse(at, &fields, now + retention);
            }
            if !fields.tombstone {
                self.bump(shard::EXPIRED);
            }
        });
    }

    /// Removes what an emptying made invisible, bucket by bucket, and goes on next time where it stopped: nothing that it
    /// made invisible comes to a bucket that was passed.
    fn purge(&self, now: Millis, budget: &mut usize) {
        let cleared = self.zone.cleared();
        if self.get(shard::PURGED) >= cleared.0 {
            return;
        }
        if self.get(shard::PURGING) != cleared.0 {
            self.set(shard::PURGE_HAND, 0);
            self.set(shard::PURGING, cleared.0);
        }
        let buckets = self.zone.geometry.buckets_per_shard;
        for bucket in self.get(shard::PURGE_HAND) as usize..buckets {
            if *budget == 0 {
                return;
            }
            let mut doomed = Vec::new();
            self.bucket_each(bucket, |met| {
                if met.fields.stamp <= cleared {
                    doomed.push(met.at);
                }
            });
            doomed.iter().for_each(|at| self.remove_at(*at));
            if self.zone.matching.has_parts() {
                self.cut_bucket(bucket, now);
            }
            self.set(shard::PURGE_HAND, bucket as u64 + 1);
            *budget = budget.saturating_sub(doomed.len() + usize::from(bucket.is_multiple_of(BUCKETS_A_STEP)));
        }
        self.set(shard::PURGED, cleared.0);
    }

    /// Keeps a tombstone for longer.
    fn put_off(&self, at: usize, fields: &Fields, until: Millis) {
        let later = Fields { expires: Some(until), ..*fields };
        self.timer_remove(at, fields);
        self.block(at).set_meta(&later);
        self.timer_insert(at, &later);
    }

    fn lapse(&self, at: usize, fields: &Fields, until: Millis) {
        let Some((met, key)) = self.met_at(at) else { return self.timer_remove(at, fields) };
        let grave = Grave { lapsed: true, ..Grave::of(fields.stamp, fields.origin, until) };
        self.bury(self.zone.place(&key), &key, &met, &grave);
    }

    pub fn remove_at(&self, at: usize) {
        match self.met_at(at) {
            Some((met, _)) => self.remove(&met),
            None => self.timer_remove(at, &self.block(at).fields()),
        }
    }

    /// Finds the link that leads to a record, by its key.
    pub(super) fn met_at(&self, at: usize) -> Option<(Met, Vec<u8>)> {
        let fields = self.block(at).fields();
        let mut payload = Vec::new();
        self.payload(&Met { at, from: 0, fields }, &mut payload);
        payload.truncate(fields.key_len);
        let met = self.zone.find(self.zone.place(&payload), &payload)?;
        (met.at == at).then_some((met, payload))
    }
}
