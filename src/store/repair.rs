//! Putting a shard right after its lock's owner died: the chains are the truth, the rest is made anew from them.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::block::{CHAIN_NEXT, HEAD};
use super::layout::{BUCKET_LINKS, shard};
use super::shard::Shard;
use crate::record::Stamp;

impl Shard<'_> {
    /// Rebuilds free lists, feed, expiry and counters. A link that leads nowhere sensible ends its chain.
    pub fn repair(&self) {
        // What the dead took out of a chain is free from here on, and a look-up may still be in it.
        self.move_sequence();
        let mut used = HashSet::new();
        let mut records = Vec::new();
        for link in 0..self.zone.geometry.buckets_per_shard * BUCKET_LINKS {
            let mut from = self.zone.geometry.bucket(self.index, 0) + link * 4;
            loop {
                let at = self.zone.geometry.target(self.zone.region.load32(from, Relaxed));
                if at == 0 {
                    break;
                }
                if !self.claim(at, &mut used) {
                    self.zone.region.store32(from, 0, Release);
                    break;
                }
                records.push((self.block(at).fields().stamp, at));
                from = at + CHAIN_NEXT;
            }
        }
        self.forget_blocks();
        self.sort_pages(|page, index| used.contains(&(page, index)));

        for field in [shard::RECORDS, shard::TOMBSTONES] {
            self.set(field, 0);
        }
        let tick = self.get(shard::TICK);
        self.timer_clear(0);
        self.set(shard::TICK, tick);
        self.feed_clear();
        self.clear_markers();
        self.set(shard::EPOCH, self.get(shard::EPOCH) + 1);
        records.sort_unstable();
        for (stamp, at) in records {
            let fields = self.block(at).fields();
            self.feed_append(at);
            self.timer_insert(at, &fields);
            self.count(&fields, 1);
            self.witness(stamp);
            if fields.origin == self.zone.own_origin() {
                self.set(shard::LAST_OWN, self.get(shard::LAST_OWN).max(stamp.0));
            }
        }
        self.witness(Stamp(self.get(shard::LAST_OWN)));
        self.end_change();
        self.change();
        self.mark_dirty();
    }

    /// Notes all blocks of a record as used. `false`: it isn't a whole record of this shard, or was met already.
    fn claim(&self, at: usize, used: &mut HashSet<(usize, usize)>) -> bool {
        let geometry = &self.zone.geometry;
        let Some(head) = self.block_index(at) else { return false };
        if used.contains(&head) {
            return false;
        }
        let payload = self.block(at).fields().payload();
        let (overflow, _) = super::block::overflow_blocks(geometry, payload);
        let room = self.block_size(at) - HEAD;
        if payload.min(geometry.page_size - HEAD) > room || self.block(at).is_large() != (overflow > 0) {
            return false;
        }
        let mut blocks = vec![head];
        let mut next = self.block(at).overflow();
        for _ in 0..overflow {
            let Some(block) = self.block_index(geometry.offset(next)) else { return false };
            if used.contains(&block) || blocks.contains(&block) {
                return false;
            }
            blocks.push(block);
            next = self.zone.region.load32(geometry.offset(next), Relaxed);
        }
        used.extend(blocks);
        true
    }
}
