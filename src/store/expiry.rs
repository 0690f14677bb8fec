//! Expiry in time order: a hierarchical timing wheel in each shard, through the records themselves.
//!
//! After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987: six levels of 64 slots, the lowest of 64 ms.
//! A record's slot follows from its end and from the tick up to which the wheel has been turned, so it isn't stored.
//! Records with an end are in the wheel, live ones and tombstones alike.

use std::sync::atomic::Ordering::Relaxed;

use super::block::{Fields, TIMER_NEXT, TIMER_PREV};
use super::failpoint::{Step, done};
use super::find::Met;
use super::layout::shard;
use super::shard::Shard;
use crate::record::Millis;

/// Milliseconds in a tick, as a shift: 64.
const TICK_SHIFT: u32 = 6;
/// Bits of a tick that choose a slot in one level.
const LEVEL_BITS: u32 = 6;
/// The last tick that the wheel can tell from later ones: 139 years from its beginning.
const MAX_AHEAD: u64 = (1 << (LEVEL_BITS * shard::LEVELS as u32)) - 1;
/// A wheel that was turned further ahead than so many ticks has the clock behind it: half a minute, that was set back. So often
/// it is looked through for what ends before the time at which it stands.
const SET_BACK: u64 = 512;
/// `NEXT_DUE` of a wheel with nothing in it.
pub const NEVER: u64 = u64::MAX;

/// The time at which a tick ends.
pub const fn millis(tick: u64) -> Millis {
    (tick + 1) << TICK_SHIFT
}

/// The time at which a tick begins.
pub const fn begins(tick: u64) -> Millis {
    tick << TICK_SHIFT
}

/// The tick of a time.
pub const fn tick(now: Millis) -> u64 {
    now >> TICK_SHIFT
}

/// Whether a wheel whose `NEXT_DUE` is `next_due` has something to do at `now`.
pub fn is_due(next_due: u64, now: Millis) -> bool {
    next_due <= now >> TICK_SHIFT
}

/// Whether a wheel that was turned to `tick` still has to be looked at, as the clock was set back. `next_due`: its `NEXT_DUE`.
pub fn is_set_back(tick: u64, next_due: u64, now: Millis) -> bool {
    tick.min(next_due) > (now >> TICK_SHIFT) + SET_BACK
}

/// For how many milliseconds a wheel whose `NEXT_DUE` is `next_due` has nothing to do.
pub fn until(next_due: u64, now: Millis) -> Millis {
    next_due.saturating_mul(1 << TICK_SHIFT).saturating_sub(now)
}

impl Shard<'_> {
    /// An empty wheel, turned to `now`.
    pub fn timer_clear(&self, now: Millis) {
        self.set(shard::TICK, now >> TICK_SHIFT);
        self.set(shard::NEXT_DUE, NEVER);
        self.zone.region.store32(self.field(shard::DRAINING), 0, Relaxed);
        self.zone.region.zero(self.field(shard::OCCUPIED), shard::LEVELS * 8);
        self.zone.region.zero(self.field(shard::WHEEL), shard::LEVELS * shard::SLOTS * 4);
    }

    /// Puts a record in, if it has an end.
    pub fn timer_insert(&self, at: usize, fields: &Fields) {
        let Some(end) = fields.expires else { return };
        let due = self.due(end);
        let (level, slot) = self.slot_for(due);
        self.push(self.head(level, slot), at);
        let occupied = shard::OCCUPIED + level * 8;
        done(Step::TimerIn);
        let slots = self.get(occupied);
        if slots & 1 << slot == 0 {
            self.set(occupied, slots | 1 << slot);
        }
        self.note_due(due);
    }

    /// Puts a record in and takes its last version out. If both belong in one slot, the one takes the other's place: so what
    /// is written again and again doesn't touch the slot, which others in the shard touch as well.
    pub fn timer_replace(&self, at: usize, fields: &Fields, old: &Met) {
        let slot = |end| self.slot_for(self.due(end));
        let (end, old_end) = match (fields.expires, old.fields.expires) {
            (Some(end), Some(old_end)) if end == old_end || slot(end) == slot(old_end) => (end, old_end),
            _ => {
                self.timer_insert(at, fields);
                return self.timer_remove(old.at, &old.fields);
            }
        };
        let (block, links) = (self.block(at), self.block(old.at));
        let (next, prev) = (links.link(TIMER_NEXT), links.link(TIMER_PREV));
        block.set_link(TIMER_NEXT, next);
        block.set_link(TIMER_PREV, prev);
        if next != 0 {
            self.block(self.zone.geometry.offset(next)).set_link(TIMER_PREV, self.zone.geometry.link(at));
            done(Step::TimerHalfReplaced);
        }
        self.lead_to(self.zone.geometry.link(at), old.at, old_end, prev);
        self.note_due(self.due(end));
    }

    fn note_due(&self, due: u64) {
        if due < self.get(shard::NEXT_DUE) {
            self.set(shard::NEXT_DUE, due);
        }
        self.zone.due_at(due);
    }

    /// Takes a record out.
    pub fn timer_remove(&self, at: usize, fields: &Fields) {
        let Some(end) = fields.expires else { return };
        let block = self.block(at);
        let (next, prev) = (block.link(TIMER_NEXT), block.link(TIMER_PREV));
        if next != 0 {
            self.block(self.zone.geometry.offset(next)).set_link(TIMER_PREV, prev);
            done(Step::TimerHalfOut);
        }
        self.lead_to(next, at, end, prev);
    }

    /// Has what leads to a record in its list, the one before or the list's head, lead to another.
    fn lead_to(&self, other: u32, at: usize, end: Millis, prev: u32) {
        if prev != 0 {
            self.block(self.zone.geometry.offset(prev)).set_link(TIMER_NEXT, other);
            return;
        }
        let draining = self.field(shard::DRAINING);
        let head =
            if self.load(draining) == self.zone.geometry.link(at) { draining } else { self.head_for(self.due(end)) };
        self.store(head, other);
    }

    /// Turns the wheel up to `now` and hands what is due to `expire`, which must take it out of the wheel; at most
    /// `budget` steps. Returns whether all is done.
    pub fn turn(&self, now: Millis, budget: &mut usize, mut expire: impl FnMut(usize, Fields)) -> bool {
        let now_tick = now >> TICK_SHIFT;
        // What ends before the time at which it stands is all in one slot. That is gone through once, if the last time is over.
        let next_due = self.get(shard::NEXT_DUE);
        let is_time = next_due <= now_tick || is_set_back(self.get(shard::TICK), next_due, now);
        let mut through = self.load(self.field(shard::DRAINING)) != 0 || !is_time;
        loop {
            if !self.drain(now, budget, &mut expire) {
                return false;
            }
            let Some((level, slot, starts)) = self.next_slot() else {
                self.rest_until(NEVER, now_tick);
                return true;
            };
            let tick = self.get(shard::TICK);
            let early = starts == tick && tick > now_tick + SET_BACK && !std::mem::replace(&mut through, true);
            if starts > now_tick && !early {
                self.rest_until(starts, now_tick);
                return true;
            }
            // The slot's list becomes the one that is drained; then the wheel stands at the slot's beginning.
            self.set(shard::TICK, starts.max(self.get(shard::TICK)));
            let head = self.head(level, slot);
            self.store(self.field(shard::DRAINING), self.load(head));
            done(Step::SlotTaken);
            self.store(head, 0);
            let occupied = shard::OCCUPIED + level * 8;
            self.set(occupied, self.get(occupied) & !(1 << slot));
        }
    }

    /// Nothing is to be done before this tick.
    fn rest_until(&self, starts: u64, now_tick: u64) {
        let tick = self.get(shard::TICK).max(now_tick);
        self.set(shard::TICK, tick);
        self.set(shard::NEXT_DUE, if tick > now_tick + SET_BACK { now_tick + SET_BACK } else { starts });
    }

    /// Up to `count` of the records that will end soonest, as far as the wheel tells without being turned.
    pub fn timer_sample(&self, count: usize) -> Vec<(usize, Fields)> {
        let draining = self.load(self.field(shard::DRAINING));
        let first = match self.next_slot() {
            _ if draining != 0 => draining,
            Some((level, slot, _)) => self.load(self.head(level, slot)),
            None => 0,
        };
        let mut sample = Vec::new();
        let mut at = self.zone.geometry.offset(first);
        while at != 0 && sample.len() < count {
            sample.push((at, self.block(at).fields()));
            at = self.zone.geometry.offset(self.block(at).link(TIMER_NEXT));
        }
        sample
    }

    /// Empties the list taken from a slot: what is due expires, the rest goes down to a lower level.
    fn drain(&self, now: Millis, budget: &mut usize, expire: &mut impl FnMut(usize, Fields)) -> bool {
        let draining = self.field(shard::DRAINING);
        loop {
            let at = self.zone.geometry.offset(self.load(draining));
            if at == 0 {
                return true;
            }
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let fields = self.block(at).fields();
            match fields.expires {
                Some(end) if end <= now => expire(at, fields),
                _ => {
                    self.timer_remove(at, &fields);
                    self.timer_insert(at, &fields);
                }
            }
            if self.zone.geometry.offset(self.load(draining)) == at {
                // Something that `expire` left there would be met for ever.
                self.store(draining, self.block(at).link(TIMER_NEXT));
            }
        }
    }

    /// The first slot in time that has records: level, slot, the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let tick = self.get(shard::TICK);
        (0..shard::LEVELS).find_map(|level| {
            let shift = LEVEL_BITS * level as u32;
            let here = (tick >> shift) as u32 & 63;
            let occupied = self.get(shard::OCCUPIED + level * 8) >> here << here;
            (occupied != 0).then(|| {
                let slot = occupied.trailing_zeros() as usize;
                let above = tick >> shift >> LEVEL_BITS << LEVEL_BITS << shift;
                (level, slot, above + ((slot as u64) << shift))
            })
        })
    }

    /// The tick at which a record that ends at `end` is looked at: not before the end, and never in the past.
    pub fn due(&self, end: Millis) -> u64 {
        let tick = self.get(shard::TICK);
        let due = end.div_ceil(1 << TICK_SHIFT);
        // Beyond what the wheel can tell, it waits in the last slot and is put in again from there.
        due.clamp(tick, tick | MAX_AHEAD)
    }

    /// The level is that of the highest digit in which the due tick differs from the wheel's.
    pub fn slot_for(&self, due: u64) -> (usize, usize) {
        let differs = (due ^ self.get(shard::TICK)) | 1;
        let level = ((63 - differs.leading_zeros()) / LEVEL_BITS).min(shard::LEVELS as u32 - 1);
        (level as usize, (due >> (LEVEL_BITS * level)) as usize & 63)
    }

    fn head_for(&self, due: u64) -> usize {
        let (level, slot) = self.slot_for(due);
        self.head(level, slot)
    }

    /// Where the link to the first record of a slot is.
    pub fn head(&self, level: usize, slot: usize) -> usize {
        self.field(shard::WHEEL + (level * shard::SLOTS + slot) * 4)
    }

    fn push(&self, head: usize, at: usize) {
        let first = self.load(head);
        let block = self.block(at);
        block.set_link(TIMER_NEXT, first);
        block.set_link(TIMER_PREV, 0);
        if first != 0 {
            self.block(self.zone.geometry.offset(first)).set_link(TIMER_PREV, self.zone.geometry.link(at));
        }
        done(Step::TimerHalfIn);
        self.store(head, self.zone.geometry.link(at));
    }

    fn load(&self, at: usize) -> u32 {
        self.zone.region.load32(at, Relaxed)
    }

    fn store(&self, at: usize, value: u32) {
        self.zone.region.store32(at, value, Relaxed);
    }
}
