//! The layout of zones of every size, and zones so large that their links have hardly a bit to spare for the hash.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::check::check;
use super::*;
use crate::store::layout::{BUCKET_LINKS, DESCRIPTOR_LEN, Geometry, MAX_ZONE_SIZE, ORIGIN_LEN, header, shard};
use crate::store::{AttachError, Condition, Life, MIN_ZONE_SIZE, StoreError, Written};

/// The parts of a region, each from where to where.
fn parts(geometry: &Geometry) -> Vec<(&'static str, usize, usize)> {
    let (last_shard, buckets) = (geometry.shards - 1, geometry.buckets_per_shard);
    let (last_walker, last_page) = (geometry.walkers - 1, geometry.pages - 1);
    vec![
        ("header", 0, header::LEN),
        ("shards", geometry.shard(0), geometry.shard(last_shard) + shard::LEN),
        ("buckets", geometry.bucket(0, 0), geometry.bucket(last_shard, buckets - 1) + BUCKET_LINKS * 4),
        ("marks", geometry.use_mark(0, 0).0, geometry.use_mark(last_shard, buckets * BUCKET_LINKS - 1).0 + 8),
        ("walkers", geometry.walker(0), geometry.walker(last_walker) + 8),
        ("markers", geometry.marker(0, 0), geometry.marker(last_shard, last_walker) + 8),
        ("origins", geometry.origin(0), geometry.origin(geometry.origins - 1) + ORIGIN_LEN),
        ("descriptors", geometry.descriptor(0), geometry.descriptor(last_page) + DESCRIPTOR_LEN),
        ("pages", geometry.page(0), geometry.page(last_page) + geometry.page_size),
        ("end", geometry.size, geometry.size),
    ]
}

#[test]
fn at_every_size_all_parts_are_apart_aligned_and_within_bounds() {
    let fixed = (15..=36).flat_map(|bits| [0, 1, 16, 4096].map(|less| (1_usize << bits) - less));
    let close = (MIN_ZONE_SIZE - 8192..MIN_ZONE_SIZE + 8192).step_by(97);
    let spread = (0..20_000_u64).map(|n| {
        let bits = 15 + n % 21;
        (1 << bits) + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
    });
    let mut seen = 0;
    for size in fixed.chain(close).chain(spread) {
        let geometry = match Geometry::new(size) {
            Ok(geometry) => geometry,
            Err(AttachError::TooSmall(_)) if size < MIN_ZONE_SIZE => continue,
            Err(error) => panic!("{size}: {error}"),
        };
        let parts = parts(&geometry);
        for pair in parts.windows(2) {
            assert!(pair[0].1 < pair[0].2 && pair[0].2 <= pair[1].1, "{size}: {:?} before {:?}", pair[0], pair[1]);
        }
        assert!(parts.iter().all(|part| part.0 == "end" || part.1.is_multiple_of(8)), "{size}: {parts:?}");
        // A bucket is read as a line, and a link's mark and what it leads to share a word.
        assert!(geometry.bucket(0, 0).is_multiple_of(64));
        let last = geometry.page(geometry.pages - 1) + geometry.page_size - 48;
        assert_eq!(geometry.link(last) & geometry.mark_mask, 0, "{size}");
        assert_eq!(geometry.target(geometry.link(last) | geometry.mark_mask), last, "{size}");
        assert!(geometry.pages * geometry.page_size > size / 4, "{size}: most of a zone is for records");
        for hash in [0, u64::MAX, 0x9e37_79b9_7f4a_7c15, 0xffff_ffff, 1 << 32] {
            assert!(geometry.bucket_of(hash) < geometry.buckets_per_shard, "{size}");
            assert_eq!(geometry.mark_of(hash) & !geometry.mark_mask, 0, "{size}");
            let window = geometry.window_of(hash);
            assert!(window != 0 && window < 1 << (BUCKET_LINKS - 1), "{size}: the last link leads to the chain");
        }
        seen += 1;
    }
    assert!(seen > 20_000);
    assert!(matches!(Geometry::new(MAX_ZONE_SIZE + 1), Err(AttachError::TooLarge(_))));
}

/// Fields of the header: name, offset and bytes.
macro_rules! fields {
    ($($bytes:expr => $($name:ident)*;)*) => { vec![$($((stringify!($name), header::$name, $bytes),)*)*] };
}

#[test]
fn fields_of_the_header_are_apart() {
    let mut fields = fields! {
        4 => VERSION SYNC SELF JOINED MATCHING POOL_HEAD POOL_FREE ANNEX ANNEXES ORIGINS_WANTED WALKERS_KEPT EVICT ORIGINS_END
            PLEDGE_ROUND;
        8 => MAGIC SIZE TIMEOUT CLOSED BORN COMPARISONS_BEGUN COMPARISONS_ENDED COMPARED BUSY MOVED LACKS_NOTED CLEARED JOIN_TAKEN JOIN_TOTAL
            TOLD_FULL VAIN_UNTIL VAIN_PAUSE VAIN_PAGES VAIN_RECORDS DIRTY POOL_LOCK ORIGINS_LOCK ORIGINS_PUSHED
            BORROW_LOCK MARK ORIGINS_WALK ORIGINS_WALKED DONOR DONOR_TIME PENDING PURGE_FLOOR EVICTED_STAMP NEXT_DUE
            LARGEST LIMIT STATE_FILE STATE_SAVED STATE_TIME STATE_BYTES STATE_WRITES STATE_ERRORS MERGED WATCHED
            CLEARS RETENTION MENDED RETIRED ALLOWANCE PLEDGED HEIR_SIZE PLEDGE SWEEPER SEAL TRAIL TRAIL_CLOSED
            TRAIL_MISSES TRAIL_MENDED CHANGES_LAST CHANGES_FILES CHANGES_BYTES CHANGES_TIME CHANGES_APPENDS
            CHANGES_CLEARED FOLLOWED_TIME FOLLOWED_STAMP FOLLOWED_BYTES LACKED MADE_UP LACKED_OF_ANY DOUBTED PART;
        16 => SEED;
        crate::store::matching::LENGTH_WORDS * 8 => LENGTHS;
        crate::store::layout::CLASS_SIZES.len() * 4 => CHARGES;
        0 => LEN;
    };
    // None is forgotten here; but for what zones of limits have in the place of lengths, and how many words that is.
    let source = include_str!("../layout/header.rs");
    let names = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let elsewhere = ["RATE", "LIMITED", "OUTCOMES"];
    for name in names.filter(|name| !elsewhere.contains(name)) {
        assert!(fields.iter().any(|(field, ..)| *field == name), "{name} isn't looked at");
    }
    const { assert!(header::RATE >= header::LENGTHS && header::RATE + 8 <= header::LIMITED) };
    const { assert!(header::LIMITED + header::OUTCOMES * 8 <= header::LENGTHS + crate::store::matching::LENGTH_WORDS * 8) };
    fields.sort_unstable_by_key(|(_, at, bytes)| (*at, *bytes));
    for pair in fields.windows(2) {
        assert!(pair[0].1 + pair[0].2 <= pair[1].1, "{} and {}", pair[0].0, pair[1].0);
    }
}

/// Does the same to a zone and to a plain map.
fn compare(zone: &Zone, keys: u64, steps: u64) {
    let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut random = keys;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut refused = 0;
    for step in 0..steps {
        let key = format!("key {:08}", below(keys)).into_bytes();
        match below(10) {
            0 => {
                let gone = zone.delete(&key, START).expect("a delete");
                assert_eq!(matches!(gone, Written::Done(_)), model.remove(&key).is_some());
            }
            1..5 => assert_eq!(value(zone, &key, START).as_deref(), model.get(&key).map(Vec::as_slice)),
            _ => {
                let value = step.to_le_bytes().repeat(1 + below(3) as usize);
                match zone.set(&key, &value, Life::Default, Condition::Always, START) {
                    Ok(_) => drop(model.insert(key, value)),
                    Err(StoreError::NoMemory) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(refused < steps / 2);
    let listed: HashMap<_, _> = listing(zone, START).into_iter().map(|(key, value, _)| (key, value)).collect();
    assert!(listed == model, "{} records, not {}", listed.len(), model.len());
    check(zone);
    let shards = 0..zone.geometry.shards;
    shards.for_each(|index| zone.shard(index).expect("the lock").repair());
    model.iter().for_each(|(key, wanted)| assert_eq!(value(zone, key, START).as_ref(), Some(wanted)));
    check(zone);
}

#[test]
fn links_with_few_bits_to_spare_find_all_the_same() {
    for bits in 0..=6 {
        for evict in [false, true] {
            let mut zone = Fixture::with(1 << 20, Params { evict, ..Params::new(identity(1)) });
            zone.zone.geometry = zone.zone.geometry.with_mark_bits(bits);
            // More than fit in the slots of their buckets, so that there are chains, and windows that are full.
            compare(&zone, 13_000, 60_000);
            assert_eq!(zone.stats().evicted, 0);
            let chained = (0..zone.geometry.shards)
                .flat_map(|shard| (0..zone.geometry.buckets_per_shard).map(move |bucket| (shard, bucket)))
                .filter(|at| {
                    zone.region.load32(zone.geometry.bucket(at.0, at.1) + (BUCKET_LINKS - 1) * 4, Relaxed) != 0
                });
            assert!(chained.count() > 20, "{bits} bits: chains matter");
        }
    }
}

#[test]
fn a_zone_of_5_gib_uses_all_of_it() {
    let zone = Fixture::new(5 << 30, None, false);
    assert_eq!(zone.geometry.mark_mask.count_ones(), 3);
    // Its last pages first: links that need all of their bits.
    let last = 30_000;
    zone.region.store32(header::POOL_HEAD, (zone.geometry.pages - last) as u32 + 1, Relaxed);
    zone.region.store32(header::POOL_FREE, last as u32, Relaxed);
    compare_high(&zone);
}

fn compare_high(zone: &Zone) {
    let key = |n: u32| format!("key {n}").into_bytes();
    // As many buckets as records: so keys are looked for that meet in one.
    let crowd = zone.geometry.buckets_per_shard as u64 * u64::from(zone.geometry.shards);
    assert!(crowd > 1_000_000);
    for n in 0..20_000 {
        zone.set(&key(n), &[n as u8; 20], Life::Default, Condition::Always, START).expect("room");
    }
    zone.set(b"large", &[7; 1 << 20], Life::Default, Condition::Always, START).expect("room");
    for n in (0..20_000).step_by(3) {
        zone.delete(&key(n), START).expect("a delete");
    }
    let met = zone.find(zone.place(&key(1)), &key(1)).expect("found");
    assert!(met.at > 4 << 30, "records are above 4 GiB");
    for n in 0..20_000 {
        let wanted = (n % 3 != 0).then_some([n as u8; 20]);
        assert_eq!(value(zone, &key(n), START).as_deref(), wanted.as_ref().map(<[u8; 20]>::as_slice));
    }
    assert_eq!(value(zone, b"large", START).map(|value| value.len()), Some(1 << 20));
}

#[test]
fn any_damaged_byte_of_the_header_is_refused_or_harmless() {
    let params = Params { sync: true, timeout: Some(60_000), ..Params::new(identity(1)) };
    let mut refused = 0;
    for at in 0..header::LEN {
        for flip in [0x01_u8, 0xff] {
            let mapping = Region::anonymous(64 << 10).expect("memory");
            let zone = Zone::create(mapping.region(), &params).expect("a zone");
            for n in 0..30_u8 {
                zone.set(&[n + 1], &[n; 50], Life::Default, Condition::Always, START).expect("room");
            }
            let mut byte = [0];
            assert!(zone.region.read(at, &mut byte));
            zone.region.write(at, &[byte[0] ^ flip]);
            let Ok(zone) = Zone::attach(mapping.region(), &params) else {
                refused += 1;
                continue;
            };
            // What says what this version lays out is checked, and what a zone can't do without.
            assert!(
                at >= header::SEED + 16 || (header::VERSION + 4..header::SIZE).contains(&at),
                "byte {at} was accepted"
            );
            for n in 0..20_u8 {
                let before = value(&zone, &[n + 1], START);
                assert!(before.is_none_or(|value| value == [n; 50]), "byte {at}: nothing that nobody wrote");
                if let Ok(Written::Done(_)) = zone.set(&[n, 1], &[n; 70], Life::Default, Condition::Always, START + 1) {
                    // Unless an emptying or an end that the damage made up hides it.
                    let written = value(&zone, &[n, 1], START + 1);
                    assert!(written.is_none_or(|value| value == [n; 70]), "byte {at}");
                }
                let _ = zone.delete(&[n / 2], START + 2);
            }
            zone.upkeep(START + 100_000, 100);
            let _ = zone.close(START);
            if let Some(mut cursor) = zone.feed_open(1) {
                let _ = zone.feed(&mut cursor, 0, &mut |_| true);
                zone.feed_close(cursor);
            }
            let _ = zone.clear(START + 3);
            let _ = (zone.stats(), zone.slots(), zone.positions());
        }
    }
    assert!(refused >= 2 * (8 + 4 + 8 + 16 + 4 + 8), "magic, version, size, secret, type of keys, seal: {refused}");
}
