//! Merging what old workers still write to memory that another zone has taken the place of; see `resize`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::block::Fields;
use super::inherit::Promise;
use super::layout::header;
use super::replicate::Via;
use super::resize::{ANY_DRIFT, need_of};
use super::{Applied, Cursor, FeedEnd, Handover, ShardMask, Source, StoreError, Zone};
use crate::record::{Identity, Millis, Record, Stamp};

/// Old workers are gone once they were not seen for this long: one that was just started may not be known yet.
pub(super) const GONE_FOR: Duration = Duration::from_millis(500);

/// The merging of what old workers still write, for one zone; for the agent, which alone does this.
pub struct Merge {
    new: Zone,
    places: Vec<Place>,
    round: Option<Round>,
    /// Records of this node that were merged since the last look.
    merged: bool,
    /// Records that didn't fit.
    pub lost: u64,
}

/// Where the merging from one source stands.
struct Place {
    source: Source,
    cursor: Option<Cursor>,
    /// What of other nodes is in the new zone already, as of the opening of the cursor.
    known: BTreeMap<Identity, Stamp>,
    gone_since: Option<Instant>,
    todo: ShardMask,
    /// Of the allowance, what was taken before the walk.
    taken: u64,
    /// What the walk closed here.
    until: Stamp,
    /// What [`Zone::lacks_noted`] said here when that was last told to the new zone; `None`: it wasn't.
    lacks_noted: Option<u64>,
    /// Something didn't fit: the next agent is to try it again.
    lost: bool,
    round: Promise,
}

/// What holds once all sources have been walked to their end.
struct Round {
    until: Stamp,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// There is more to do at once.
    More,
    /// All that there was is merged; look again soon.
    Waiting,
    /// Nothing will come any more.
    Over,
}

impl Merge {
    /// Begins, or goes on where another agent ended.
    pub fn new(handover: &Handover) -> Merge {
        let places = handover.sources.iter().map(|source| Place::new(*source)).collect();
        Merge { new: handover.new, places, round: None, merged: false, lost: 0 }
    }

    /// Goes on: one hold of a lock or so for each source. `owner` is the number of the lease; `writes` tells whether
    /// workers of configurations older than a generation live.
    pub fn step(&mut self, owner: u64, now: Millis, writes: impl Fn(u64) -> bool) -> Merging {
        self.places.retain(|place| place.source.old.is_source());
        if self.places.is_empty() {
            self.new.set_limit(None);
            self.new.pledge_nothing();
            return Merging::Over;
        }
        if self.round.is_none() {
            let closed = self.places.iter_mut().map(|place| place.begin(owner, now, &self.new, &writes));
            let until = closed.collect::<Vec<_>>().into_iter().min().unwrap_or_default();
            self.round = Some(Round { until });
        }
        let mut walked = true;
        for place in &mut self.places {
            let (changed, lost) = place.walk(&self.new, now);
            self.merged |= changed != 0;
            place.lost |= lost > 0;
            self.new.mark_changed(changed);
            self.lost += lost;
            walked &= place.cursor.is_some() && place.todo == 0;
        }
        if !walked {
            if self.places.iter().all(|place| place.cursor.is_some()) {
                return Merging::More;
            }
            self.round = None;
            return Merging::Waiting;
        }
        if let Some(round) = self.round.take() {
            self.complete(&round, now);
        }
        Merging::Waiting
    }

    /// Whether records of this node were merged since this was last asked.
    pub fn take_merged(&mut self) -> bool {
        std::mem::take(&mut self.merged)
    }

    fn complete(&mut self, round: &Round, now: Millis) {
        // Where another zone has taken the new one's place, its agent merges from here itself, and mustn't miss what came to the new
        // one too late to move on. Asked for after the walk: if there is none, all that was walked is there in time.
        if self.new.is_handed_over() {
            return;
        }
        for place in &mut self.places {
            let promise = std::mem::take(&mut place.round);
            let told = place.tell(&self.new, &promise);
            // Asked for after the walk: an emptying at or below the stamp that it closed held shards that were walked.
            let cleared = self.new.apply_clear(place.source.old.cleared(), now, ANY_DRIFT);
            if cleared == Ok(Applied::Newer) {
                self.new.mark_changed(self.new.all_shards());
                self.merged = true;
            }
            place.note_moved();
            if promise.last && told && cleared.is_ok() {
                // One store ends it, whoever is killed when; the memory is of no use to anybody then.
                place.source.old.region.store64(header::MAGIC, 0, SeqCst);
                place.source.old.region.discard();
            }
        }
        self.new.set_limit(Some(round.until));
        self.pledge_anew();
    }

    /// What was merged needs no pledge any more; old workers may write as much again.
    fn pledge_anew(&mut self) {
        // Whoever has taken the new zone's place has taken its pledges over, too.
        if self.new.is_handed_over() {
            return;
        }
        for place in &mut self.places {
            place.source.old.settle(std::mem::take(&mut place.taken));
        }
        let sources: Vec<Source> = self.places.iter().map(|place| place.source).filter(|s| s.old.is_source()).collect();
        if self.new.evict {
            sources.iter().for_each(|source| source.old.allow_all(&self.new));
        } else if let Ok(more) = self.new.pledge_for_round(&sources) {
            sources.iter().zip(more).for_each(|(source, more)| source.old.allow(more, &self.new));
        }
    }
}

impl Place {
    fn new(source: Source) -> Place {
        // An agent before this one may have left its walkers; there is no other now.
        source.old.feed_sweep(0);
        Place {
            source,
            cursor: None,
            known: BTreeMap::new(),
            gone_since: None,
            todo: 0,
            taken: 0,
            until: Stamp::ZERO,
            lacks_noted: None,
            lost: false,
            round: Promise::default(),
        }
    }

    /// Takes down what will hold after the walk that begins; returns the stamp that this closed.
    fn begin(&mut self, owner: u64, now: Millis, new: &Zone, writes: &impl Fn(u64) -> bool) -> Stamp {
        let old = &self.source.old;
        let since =
            if writes(self.source.generation) { None } else { self.gone_since.or_else(|| Some(Instant::now())) };
        self.gone_since = since;
        self.taken = old.taken();
        let (until, _) = old.close_all(now);
        self.until = until;
        let last = since.is_some_and(|since| since.elapsed() >= GONE_FOR);
        self.round = Promise { last, ..old.promised() };
        self.todo = old.all_shards();
        if self.cursor.is_none() {
            self.known = new.positions().into_iter().collect();
            self.cursor = old.feed_open(owner);
        }
        until
    }

    /// What is known of others here, what was left out and what is promised, holds for the new zone, too; `false`: not now.
    fn tell(&mut self, new: &Zone, promise: &Promise) -> bool {
        let old = &self.source.old;
        // Read first: what is noted later is news at the next time.
        let noted = old.lacks_noted();
        let told = new.learn_from(old, &promise.positions, self.lacks_noted != Some(noted)).is_ok();
        self.lacks_noted = told.then_some(noted);
        if told && promise.joined {
            new.set_joined();
        }
        told
    }

    /// The next agent needn't walk again what is there by now, and must not: what was deleted there since may be forgotten.
    fn note_moved(&self) {
        if !self.lost
            && let Some(word) = self.source.old.region.word64(header::MOVED)
        {
            word.fetch_max(self.until.0, SeqCst);
        }
    }

    /// Walks on in each shard that has more: the shards of the new zone that have changes for peers, and how many records
    /// didn't fit.
    fn walk(&mut self, new: &Zone, now: Millis) -> (ShardMask, u64) {
        let (mut changed, mut lost) = (0, 0);
        let Some(cursor) = &mut self.cursor else { return (0, 0) };
        let moved = Stamp(self.source.old.region.load64(header::MOVED, SeqCst));
        let (own, floor, known) = (new.node(), self.source.floor.max(moved), &self.known);
        let mut merge = |record: &Record<'_>, fields: &Fields| {
            let origin = record.version.origin;
            let had = if origin == own { floor } else { known.get(&origin).copied().unwrap_or_default() };
            if record.version.stamp <= had {
                return true;
            }
            let need = need_of(record, now).filter(|_| origin == own);
            match new.merge(record, now, ANY_DRIFT, Via::memory(need, fields)) {
                Ok(Applied::Newer) if origin == own => changed |= 1 << new.place(record.key).shard,
                Ok(Applied::Full) => lost += u64::from(need.is_some()),
                Err(StoreError::Busy) => return false,
                _ => {}
            }
            true
        };
        for index in 0..self.source.old.geometry.shards {
            if self.todo & 1 << index == 0 {
                continue;
            }
            if let Ok(FeedEnd::Drained) = self.source.old.feed_with_fields(cursor, index, &mut merge) {
                self.todo &= !(1 << index);
            }
        }
        (changed, lost)
    }
}
