//! A checker that walks everything in a zone: no leak, no lost block, rings and counters right.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::store::Zone;
use crate::store::annex::ANNEX;
use crate::store::block::{self, CHAIN_NEXT, TIMER_NEXT, TIMER_PREV};
use crate::store::idle::UNMET;
use crate::store::layout::{self, CLASS_SIZES, header, shard};
use crate::store::origins::USED;
use crate::store::pages::{CLASS_SHIFT, NEXT, OWNER, PARTIAL, PREV, USE};
use crate::store::shard::Shard;

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
                let walked =
                    zone.walked().unwrap_or(0) > index as u64 * geometry.buckets_per_shard as u64 + bucket as u64;
                let origin = zone.state(fields.origin.into());
                let is_held = origin == USED || (origin == UNMET && !walked);
                assert!(
                    is_held || fields.origin == zone.own_origin(),
                    "the entry of an origin with records is used: {origin}"
                );
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
        check_feed(&shard, &records);
        check_wheel(&shard, &records);
        let last = shard.get(shard::LAST);
        assert!(records.iter().all(|at| shard.block(*at).fields().stamp.0 <= last), "no stamp is above the last");
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
        check_pages(&shard, &blocks, &spare);
        let taken: u64 = shard.own_pages().iter().map(|(used, _)| u64::from(*used)).sum();
        assert_eq!(taken, blocks.len() as u64, "pages hold nothing but records and spare blocks");
        owned_blocks += used;
    }
    check_pool(zone);
    let per_zone: u64 = owned_blocks;
    if per_zone == 0 {
        // A class may keep one empty page for itself.
        let kept = geometry.pages - zone.stats().pages_free as usize - check_annexes(zone);
        assert!(kept <= geometry.classes * geometry.shards as usize, "pages of an empty zone are free: {kept} kept");
    }
}

/// The feed has every record once, in both directions.
fn check_feed(shard: &Shard<'_>, records: &HashSet<usize>) {
    let end = shard.field(shard::FEED);
    let (mut fed, mut at) = (HashSet::new(), shard.next(end));
    while at != end {
        assert_eq!(shard.next(shard.prev(at)), at, "links of the feed go both ways");
        let marker = shard.zone.geometry.is_marker(at);
        assert!(marker || fed.insert(at), "the feed has a record twice");
        at = shard.next(at);
    }
    assert_eq!(shard.next(shard.prev(end)), end);
    assert_eq!(&fed, records, "the feed has every record");
}

/// Each record with an end is in the slot of the wheel that follows from it, and nothing else is.
fn check_wheel(shard: &Shard<'_>, records: &HashSet<usize>) {
    let (geometry, region) = (&shard.zone.geometry, &shard.zone.region);
    let list = |from: usize| {
        let (mut list, mut prev, mut link) = (Vec::new(), 0, region.load32(from, Relaxed));
        while link != 0 {
            let at = geometry.offset(link);
            assert_eq!(shard.block(at).link(TIMER_PREV), prev, "links of a slot go both ways");
            list.push(at);
            (prev, link) = (link, shard.block(at).link(TIMER_NEXT));
        }
        list
    };
    let draining = list(shard.field(shard::DRAINING));
    let mut met: HashSet<usize> = draining.iter().copied().collect();
    assert_eq!(met.len(), draining.len());
    for (level, slot) in (0..shard::LEVELS).flat_map(|level| (0..shard::SLOTS).map(move |slot| (level, slot))) {
        let records = list(shard.head(level, slot));
        let occupied = shard.get(shard::OCCUPIED + level * 8) >> slot & 1 == 1;
        assert!(occupied || records.is_empty(), "an occupied slot says so");
        for at in records {
            let end = shard.block(at).fields().expires.expect("an end");
            assert_eq!(shard.slot_for(shard.due(end)), (level, slot), "a record is in its slot");
            assert!(met.insert(at), "a record is in the wheel twice");
        }
    }
    let wanted = records.iter().copied().filter(|at| shard.block(*at).fields().expires.is_some());
    assert_eq!(met, wanted.collect(), "the wheel has every record that ends");
}

/// What isn't in use is in the free list of its page, and a page with free blocks in the list of its class.
fn check_pages(shard: &Shard<'_>, used: &HashSet<(usize, usize)>, spare: &[usize]) {
    let (geometry, region) = (&shard.zone.geometry, &shard.zone.region);
    let descriptor = |page: usize, field: usize| region.load32(geometry.descriptor(page) + field, Relaxed);
    let mut listed = HashSet::new();
    for class in 0..geometry.classes {
        let (mut prev, mut next) =
            (0, region.load32(shard.field(shard::CLASSES + class * shard::CLASS_LEN + PARTIAL), Relaxed));
        while next != 0 {
            let page = next as usize - 1;
            assert_eq!(
                descriptor(page, OWNER) >> CLASS_SHIFT & 0xff,
                class as u32,
                "a page is in the list of its class"
            );
            assert_eq!(descriptor(page, PREV), prev, "links of pages go both ways");
            assert!(listed.insert(page));
            (prev, next) = (next, descriptor(page, NEXT));
        }
    }
    for page in 0..geometry.pages {
        let owner = descriptor(page, OWNER);
        if owner & 0xffff != shard.index + 1 {
            assert!(!listed.contains(&page), "a page of another is in a list");
            continue;
        }
        let size = CLASS_SIZES[(owner >> CLASS_SHIFT & 0xff) as usize];
        let blocks = geometry.page_size / size;
        let (mut free, mut next) = (HashSet::new(), descriptor(page, USE) >> 16);
        while next != 0 {
            let index = next as usize - 1;
            assert!(index < blocks && free.insert(index), "a free list leads through free blocks");
            assert!(!used.contains(&(page, index)), "a block that is in use is free");
            next = region.load32(geometry.page(page) + index * size, Relaxed) & 0xffff;
        }
        let taken = used.iter().filter(|(of, _)| *of == page).count();
        let spares = spare.iter().filter(|at| geometry.page_of(**at) == Some(page)).count();
        assert!(spares <= taken, "a spare block isn't in a list");
        assert_eq!(free.len() + taken, blocks, "every block is used or free");
        assert_eq!(listed.contains(&page), !free.is_empty(), "a page with free blocks is in a list");
    }
}

/// How many pages the table of origins has; one of them may lead nowhere, if somebody was killed.
fn check_annexes(zone: &Zone) -> usize {
    let owner = |page: usize| zone.region.load32(zone.geometry.descriptor(page) + OWNER, Relaxed);
    let owned = (0..zone.geometry.pages).filter(|page| owner(*page) == ANNEX).count();
    assert!((zone.annexes()..=zone.annexes() + 1).contains(&owned), "{owned} pages, {} in use", zone.annexes());
    let last = zone.origin_entries() - 1;
    assert!(zone.origin_at(last) < zone.geometry.size, "every entry is somewhere");
    let beyond = zone.origins_end()..=last;
    assert!(
        beyond.into_iter().all(|index| zone.origin_identity(index as u16).is_none()),
        "no entry is used beyond the end"
    );
    owned
}

/// A page that nobody has is in the pool, and counted.
fn check_pool(zone: &Zone) {
    let descriptor = |page: usize, field| zone.region.load32(zone.geometry.descriptor(page) + field, Relaxed);
    let (mut pool, mut next) = (HashSet::new(), zone.region.load32(header::POOL_HEAD, Relaxed));
    while next != 0 {
        assert!(pool.insert(next as usize - 1), "the pool is a ring");
        next = descriptor(next as usize - 1, NEXT);
    }
    let free: HashSet<usize> = (0..zone.geometry.pages).filter(|page| descriptor(*page, OWNER) == 0).collect();
    assert_eq!(pool, free, "what nobody has is in the pool");
    assert_eq!(zone.stats().pages_free, free.len() as u64, "and counted");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Fixture, START};
    use crate::store::{Condition, Life};
    use std::panic::catch_unwind;

    #[test]
    fn the_checker_sees_what_it_is_there_to_see() {
        let zone = || {
            let zone = Fixture::new(64 << 10, Some(60_000), true);
            for n in 0..50_u8 {
                zone.set(&[n + 1], &[n; 40], Life::Default, Condition::Always, START).expect("room");
            }
            zone.delete(&[7], START).expect("deleted");
            check(&zone);
            zone
        };
        let class = |zone: &Zone, field| {
            let class = zone.geometry.class_for(block::HEAD + 41).expect("a class");
            zone.geometry.shard(0) + shard::CLASSES + class * shard::CLASS_LEN + field
        };
        let page = |zone: &Zone| zone.region.load32(class(zone, PARTIAL), Relaxed) as usize - 1;
        type Damage<'a> = (&'a str, &'a dyn Fn(&Zone));
        let damage: [Damage<'_>; 8] = [
            ("free pages", &|zone| zone.region.store32(header::POOL_FREE, 1, Relaxed)),
            ("the pool's list", &|zone| zone.region.store32(header::POOL_HEAD, 0, Relaxed)),
            ("a list of pages", &|zone| zone.region.store32(class(zone, PARTIAL), 0, Relaxed)),
            ("a page's free list", &|zone| {
                let at = zone.geometry.descriptor(page(zone)) + USE;
                zone.region.store32(at, zone.region.load32(at, Relaxed) & 0xffff, Relaxed);
            }),
            ("a slot's bit", &|zone| zone.region.zero(zone.geometry.shard(0) + shard::OCCUPIED, shard::LEVELS * 8)),
            ("the wheel", &|zone| {
                zone.region.zero(zone.geometry.shard(0) + shard::WHEEL, shard::LEVELS * shard::SLOTS * 4);
            }),
            ("what is due", &|zone| zone.region.store64(header::NEXT_DUE, u64::MAX, Relaxed)),
            ("the last stamp", &|zone| zone.region.store64(zone.geometry.shard(0) + shard::LAST, 1, Relaxed)),
        ];
        for (what, damage) in damage {
            let zone = zone();
            damage(&zone);
            let zone = &zone.zone;
            assert!(catch_unwind(move || check(zone)).is_err(), "{what}");
        }
    }
}
