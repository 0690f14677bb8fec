//! What all records of a counter together tell.

use super::super::block::{Block, Fields};
use super::super::find::{Met, Place};
use super::super::lookup::{Found, UNLOCKED_TRIES};
use super::super::parts::Parts;
use super::super::shard::Shard;
use super::super::{Sparing, StoreError, Zone};
use crate::record::{Count, Millis, PartId, Role, Stamp, Sum, number};

/// What a look at all records of a counter tells.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sum: Sum,
    /// As the API tells it of any record: the newest version, with traces of all others.
    pub(super) found: Option<Found>,
    /// This memory's own part, if it counts.
    pub(super) own: Option<Count>,
    pub(super) base: Option<Met>,
    /// Nothing counts but what it began with.
    pub(super) is_bare: bool,
    /// Parts that don't count any more lie about.
    pub(super) is_littered: bool,
    /// The latest stamp of all records there are, tombstones too.
    pub(super) newest: Stamp,
    /// When the last of all parts ends.
    pub(super) latest: Millis,
    /// What the parts that are there would free.
    pub(super) freed: Option<Met>,
    /// The parts there are, without those that don't count any more.
    pub(super) parts: Parts,
    /// The records of this memory's part and of the one that all write, be they tombstones.
    pub(super) own_met: Option<Met>,
    pub(super) shared_met: Option<Met>,
}

impl Zone {
    /// Looks at all records of a counter, in no writer's way. Where a change stands still in the middle, as its writer is
    /// stopped, that is waited for only in so far as the thread has time for it, and then what was done by then is told: all that
    /// writers do comes to count in one step, and what is left is tidying up. But for one: a counter that has begun without
    /// what is to be added to it is no sum that ever was. It is waited for like any lock.
    pub(super) fn tally_unlocked(&self, place: Place, key: &[u8], now: Millis) -> Result<Tally, StoreError> {
        let shard = self.shard_unlocked(place.shard);
        let unmoved = |may_change: bool| {
            for _ in 0..UNLOCKED_TRIES {
                let sequence = shard.sequence();
                if !may_change && shard.is_changing() {
                    std::hint::spin_loop();
                    continue;
                }
                let tally = self.tally(place, key, now);
                if shard.is_unmoved(sequence) {
                    return Some(tally);
                }
            }
            None
        };
        if let Some(tally) = unmoved(false) {
            return Ok(tally);
        }
        if shard.is_changing() {
            let sparing = Sparing::begin();
            if let Ok(_locked) = self.shard(place.shard) {
                return Ok(self.tally(place, key, now));
            }
            drop(sparing);
            if let Some(tally) = unmoved(true).filter(|tally| !tally.is_bare) {
                return Ok(tally);
            }
        }
        let _locked = self.shard(place.shard)?;
        Ok(self.tally(place, key, now))
    }

    /// Looks at all records of a counter that is about to be written.
    pub(super) fn tally_to_write(&self, shard: &Shard<'_>, place: Place, key: &[u8], now: Millis) -> Tally {
        let tally = self.tally(place, key, now);
        if shard.catch_up(place, key, tally.newest, now) { self.tally(place, key, now) } else { tally }
    }

    /// Looks at all records of a counter. Without the lock the caller checks the sequence.
    pub(super) fn tally(&self, place: Place, key: &[u8], now: Millis) -> Tally {
        let (cleared, own) = (self.cleared(), self.own_part());
        let mut tally = Tally { base: self.find(place, &Role::Base.of(key)), ..Tally::default() };
        let cut = self.cut_of(tally.base.as_ref());
        tally.newest = tally.base.map_or(Stamp::ZERO, |base| base.fields.stamp);
        let mut traces = Traces::default();
        let (mut begun, mut added) = (false, false);
        let set = tally.base.filter(|base| base.fields.is_live(now, cleared)).and_then(|base| {
            let mut text = [0; 20];
            let text = text.get_mut(..base.fields.value_len)?;
            let block = Block { region: &self.region, at: base.at };
            let amount = block.read_value(&self.geometry, &base.fields, text).then(|| number(text)).flatten()?;
            Some((amount, base.fields))
        });
        if let Some((amount, fields)) = set {
            tally.sum.add(amount, fields.expires);
            traces.add(self, &fields);
        }
        self.parts_each(place, key, |id, met| {
            tally.parts.add(met);
            tally.newest = tally.newest.max(met.fields.stamp);
            match id {
                id if id == own => tally.own_met = Some(*met),
                PartId::SHARED => tally.shared_met = Some(*met),
                _ => {}
            }
            let Some(count) = self.count_in(met) else { return };
            tally.freed = Some(*met);
            tally.latest = tally.latest.max(met.fields.expires.unwrap_or(Millis::MAX));
            if count.begun <= cut {
                tally.is_littered = true;
                tally.parts.held -= 1;
                return;
            }
            // What a counter begins with is of no interest where somebody knew of one, and set it.
            if !met.fields.is_live(now, cleared) || (id == PartId::SHARED && set.is_some()) {
                return;
            }
            tally.sum.add(count.amount, met.fields.expires);
            traces.add(self, &met.fields);
            *(if id == PartId::SHARED { &mut begun } else { &mut added }) = true;
            if id == own {
                tally.own = Some(count);
            }
        });
        tally.is_bare = begun && !added;
        tally.found = traces.found(self, tally.sum.end);
        tally
    }
}

/// The newest of some versions, and a number that any change of the others changes.
#[derive(Default)]
struct Traces {
    newest: Option<Fields>,
    mixed: u64,
}

impl Traces {
    fn add(&mut self, zone: &Zone, fields: &Fields) {
        self.mixed ^= trace(zone, fields);
        // Of two of one stamp the same one on every node, whichever is met first.
        let order = |fields: &Fields| (fields.stamp, zone.origin_identity(fields.origin));
        if self.newest.is_none_or(|newest| order(fields) > order(&newest)) {
            self.newest = Some(*fields);
        }
    }

    fn found(&self, zone: &Zone, end: Option<Millis>) -> Option<Found> {
        let newest = self.newest?;
        Some(Found::of_several(&newest, end, self.mixed ^ trace(zone, &newest)))
    }
}

/// The same on every node.
fn trace(zone: &Zone, fields: &Fields) -> u64 {
    let origin = zone.origin_identity(fields.origin).map_or([0; 16], |identity| identity.0);
    let half = u64::from_le_bytes(*origin.first_chunk().unwrap_or(&[0; 8]));
    (fields.stamp.0 ^ half.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
}
