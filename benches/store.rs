//! The inner operations of the store one by one: `cargo bench --no-default-features --bench store`.
//!
//! For work on the store itself, as criterion tells what became faster or slower since the last run. What is published
//! comes from `scripts/bench store`, which holds a zone against other tables in the same run.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use zonemesh::record::{Identity, Kind, Record, Stamp, Version};
use zonemesh::store::{Condition, Life, Mapping, Matching, Params, Region, Zone};

const NOW: u64 = 1_800_000_000_000;
const SIZES: [u64; 3] = [1000, 100_000, 1_000_000];

criterion_group!(benches, keys, networks, feed);
criterion_main!(benches);

/// Looking up, writing, adding and deleting at several sizes.
fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keys");
    for size in SIZES {
        let Some((_memory, zone)) = filled(size) else { continue };
        let (mut random, mut value) = (1, Vec::with_capacity(64));
        group.bench_function(BenchmarkId::new("look-up, hit", size), |bench| {
            bench.iter(|| black_box(zone.get(&key(below(&mut random, size)), NOW, &mut value)));
        });
        group.bench_function(BenchmarkId::new("look-up, miss", size), |bench| {
            bench.iter(|| black_box(zone.get(&key(size + below(&mut random, size)), NOW, &mut value)));
        });
        group.bench_function(BenchmarkId::new("write", size), |bench| {
            bench.iter(|| black_box(set(&zone, below(&mut random, size))));
        });
        group.bench_function(BenchmarkId::new("touch", size), |bench| {
            bench.iter(|| black_box(zone.touch(&key(below(&mut random, size)), Life::Default, NOW)));
        });
        group.bench_function(BenchmarkId::new("delete and write", size), |bench| {
            bench.iter(|| {
                let i = below(&mut random, size);
                (black_box(zone.delete(&key(i), NOW)), set(&zone, i))
            });
        });
        let mut stamp = NOW << 16;
        group.bench_function(BenchmarkId::new("apply", size), |bench| {
            bench.iter(|| {
                stamp += 1;
                let key = key(below(&mut random, size));
                let version = Version { stamp: Stamp(stamp), origin: Identity([2; 16]) };
                let (kind, value) = (Kind::Register, Some(&key[..]));
                let record = Record { kind, version, key: &key, value, expires: Some(NOW + 1000), shortened: false };
                black_box(zone.apply(&record, NOW, 60_000))
            });
        });
    }
}

/// Looking addresses up in a zone of networks of three lengths.
fn networks(criterion: &mut Criterion) {
    let Some((_memory, zone)) = zone(16 << 20, Matching::Ip) else { return };
    for i in 0..30_000_u32 {
        let (a, b, c) = (i >> 8 & 255, i & 255, i % 7);
        let network = match i % 3 {
            0 => format!("{}.{a}.{b}.0/24", 10 + c),
            1 => format!("{}.{a}.0.0/16", 10 + c),
            _ => format!("2001:db8:{a:x}:{b:x}::/64"),
        };
        let _ = zone.set(network.as_bytes(), b"1", Life::Default, Condition::Always, NOW);
    }
    let mut value = Vec::with_capacity(64);
    let mut group = criterion.benchmark_group("networks");
    for address in ["10.1.2.3", "200.1.2.3", "2001:db8:1:2::3"] {
        group.bench_function(address, |bench| {
            bench.iter(|| black_box(zone.look_up(black_box(address.as_bytes()), NOW, &mut value)));
        });
    }
}

/// Walking the change feed of a whole zone.
fn feed(criterion: &mut Criterion) {
    let Some((_memory, zone)) = filled(100_000) else { return };
    let Some(mut cursor) = zone.feed_open(1) else { return };
    criterion.bench_function("feed of 100000", |bench| {
        bench.iter(|| {
            let mut bytes = 0;
            zone.feed_rewind(&mut cursor);
            for shard in (0..64).filter(|shard| zone.all_shards() >> shard & 1 != 0) {
                while zone.feed(&mut cursor, shard, &mut |record| {
                    bytes += record.key.len();
                    true
                }) == Ok(zonemesh::store::FeedEnd::More)
                {}
            }
            black_box(bytes)
        });
    });
    zone.feed_close(cursor);
}

fn zone(size: usize, matching: Matching) -> Option<(Mapping, Zone)> {
    let memory = Region::anonymous(size).ok()?;
    let params = Params { timeout: Some(3_600_000), sync: true, matching, ..Params::new(Identity([1; 16])) };
    let zone = Zone::create(memory.region(), &params).ok()?;
    Some((memory, zone))
}

fn filled(size: u64) -> Option<(Mapping, Zone)> {
    let (memory, zone) = zone((size as usize * 112).next_multiple_of(1 << 20), Matching::Exact)?;
    (0..size).all(|i| set(&zone, i)).then_some((memory, zone))
}

fn set(zone: &Zone, i: u64) -> bool {
    zone.set(&key(i), &key(!i), Life::Default, Condition::Always, NOW).is_ok()
}

fn key(i: u64) -> [u8; 16] {
    (u128::from(i) << 64 | u128::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
}

fn below(random: &mut u64, end: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    ((u128::from(*random) * u128::from(end)) >> 64) as u64
}
