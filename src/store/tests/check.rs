//! A checker that walks everything in a zone: no leak, no lost block, rings and counters right.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::store::Zone;
use crate::store::block::{self, CHAIN_NEXT};
use crate::store::layout::{self, header, shard};

/// Panics, naming what is wrong, if the zone isn't whole.
pub fn check(zone: &Zone) {
    let geometry = zone.geometry;
    let mut owned_blocks = 0;
    let [said, swept] = [header::NEXT_DUE, header::SWEEPER].map(|word| zone.region.load64(word, Relaxed));
    for index in 0..geometry.shards {
        let shard = zone.shard(index).expect("the lock");
        let (mut blocks, mut records, mut live, mut dead) = (HashSet::new(), HashSet::new(), 0, 0);
        for number in 0..geometry.buckets_per_shard * layout::BUCKET_LINKS {
            let bucket = number / layout::BUCKET_LINKS;
            let mut from = geometry.bucket(index, 0) + number * 4;
            loop {
                let at = geometry.target(zone.region.load32(from, Relaxed));
                if at == 0 {
                    break;
                }
                assert!(records.insert(at), "a record is in two chains, or a chain is a ring");
                assert!(blocks.insert(shard.block_index(at).expect("a record begins a block of its shard")));
                let fields = shard.block(at).fields();
                let mut payload = vec![0; fields.payload()];
                assert!(shard.block(at).read_payload(&geometry, fields.payload(), 0, &mut payload));
                let place = zone.place(&payload[..fields.key_len]);
                assert_eq!((place.shard, place.bucket), (index, bucket), "a record is where its key belongs");
                assert_eq!(zone.find(place, &payload[..fields.key_len]).expect("found").at, at, "a key is there once");
                let mut next = shard.block(at).overflow();
                let overflow = block::overflow_blocks(&geometry, fields.payload()).0;
                assert_eq!(shard.block(at).is_large(), overflow > 0, "a large record says so");
                for _ in 0..overflow {
                    let more = geometry.offset(next);
                    assert!(blocks.insert(shard.block_index(more).expect("overflow in a block of the shard")));
                    next = zone.region.load32(more, Relaxed);
                }
                let end = fields.expires.map_or(u64::MAX, |end| shard.due(end));
                assert!(said <= end || swept != 0, "what is due next is known");
                if fields.tombstone {
                    dead += 1
                } else {
                    live += 1
                }
                from = at + CHAIN_NEXT;
            }
        }
        let mut fed = HashSet::new();
        shard.feed_each(|at| fed.insert(at));
        assert_eq!(fed, records, "the feed has every record once");
        assert_eq!(shard.get(shard::RECORDS), live, "records counted");
        assert_eq!(shard.get(shard::TOMBSTONES), dead, "tombstones counted");
        let used: u64 = (0..geometry.classes).map(|class| shard.slot(class).used).sum();
        assert_eq!(used, blocks.len() as u64, "every block in use belongs to a record");
        let spare: Vec<usize> = (0..geometry.classes).filter_map(|class| shard.spare_block(class)).collect();
        for spare in &spare {
            assert!(
                blocks.insert(shard.block_index(*spare).expect("a spare block of the shard")),
                "a spare block is free"
            );
        }
        let taken: u64 = shard.own_pages().iter().map(|(used, _)| u64::from(*used)).sum();
        assert_eq!(taken, blocks.len() as u64, "pages hold nothing but records and spare blocks");
        owned_blocks += used;
    }
    let per_zone: u64 = owned_blocks;
    if per_zone == 0 {
        // A class may keep one empty page for itself.
        let kept = geometry.pages - zone.stats().pages_free as usize;
        assert!(kept <= geometry.classes * geometry.shards as usize, "pages of an empty zone are free: {kept} kept");
    }
}
