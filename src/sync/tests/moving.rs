//! A node whose reload gives a zone memory of another size, under writes of old and new workers.

use super::pair::{Pair, mark};
use super::*;
use crate::store::{Handover, Merge, Merging};
use std::iter::repeat_with;

/// Keys that are in each shard.
const KEYS: u32 = 200;

fn keys(what: &str) -> Vec<String> {
    (0..KEYS).map(|n| format!("{what} {n}")).collect()
}

#[test]
fn what_old_workers_write_is_promised_when_it_was_sent() {
    let (before, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (old, there) = (before.zones[0].zone, b.zones[0].zone);
    // So many that a round of merging takes several steps.
    (0..20).flat_map(|n| keys(&format!("other {n}"))).for_each(|key| set(&old, &key, b"v", NOW));
    keys("key").iter().for_each(|key| set(&old, key, b"first", NOW));
    there.set_joined();
    Pair::new(&before, &b, NOW).run(NOW);

    let params = Params { sync: true, ..Params::new(Identity([1; 16])) };
    let new = Zone::create(region(1024 * 1024), &params).unwrap();
    let (source, copied) = old.hand_over(&new, &mut [], 2, NOW);
    copied.unwrap();
    let zones = Arc::from([SyncZone { name: "z".into(), zone: new }]);
    let a = Node { zones, ..before };
    let mut pair = Pair::new(&a, &b, NOW + 1);
    pair.run(NOW + 1);
    set(&new, "early", b"v", NOW + 5);
    let mut merge = Merge::new(&Handover { new, sources: vec![source] });
    keys("key").iter().for_each(|key| set(&old, key, b"last", NOW + 10));
    assert_eq!(merge.step(1, NOW + 10, |_| true), Merging::More, "a round has begun, and isn't over");
    keys("new").iter().for_each(|key| set(&new, key, b"v", NOW + 20));
    assert!(repeat_with(|| merge.step(1, NOW + 20, |_| true)).take(10_000).any(|done| done == Merging::Waiting));
    mark(&mut pair.push, &a);
    pair.run(NOW + 20);
    pair.run(NOW + 30);
    let last = || contents(&there, NOW + 30).into_iter().filter(|(key, _)| key.starts_with(b"key "));
    assert_eq!(last().count(), KEYS as usize);
    assert!(last().all(|(_, value)| value == b"last"));
}

#[test]
fn what_can_not_be_promised_yet_is_sent_and_nobody_is_kept_busy() {
    let (before, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let params = Params { sync: true, ..Params::new(Identity([1; 16])) };
    let new = Zone::create(region(1024 * 1024), &params).unwrap();
    let (source, _) = before.zones[0].zone.hand_over(&new, &mut [], 2, NOW);
    let zones = Arc::from([SyncZone { name: "z".into(), zone: new }]);
    let a = Node { zones, ..before };
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    set(&new, "key", b"v", NOW + 10);
    mark(&mut pair.push, &a);
    // This ends: nothing is left to do before the next round of merging.
    pair.run(NOW + 10);
    assert_eq!(contents(&b.zones[0].zone, NOW + 10).len(), 1);
    assert!(b.zones[0].zone.position(Identity([1; 16])) < source.floor.max(crate::record::Stamp::at(NOW + 10)));
}
