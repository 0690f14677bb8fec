//! Nodes that tell each other what they admit in any order, twice, through others, and lose their memory meanwhile: at every
//! moment no bucket holds a request twice, and in the end all know the same of every key.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::{PartId, Record, Role};
use crate::store::{Cursor, FeedEnd, Limited, Matching};

const NODES: usize = 4;
const KEYS: usize = 3;
/// So little that nothing runs out: one request in 16 minutes.
const RATE: u64 = 1;

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit {
        node: usize,
        key: usize,
    },
    /// What is new of all that `from` holds, or of its own only, reaches another; some of it is lost on the way.
    Tell {
        from: usize,
        to: usize,
        relays: bool,
        lost: u8,
    },
    /// The same from the beginning.
    TellAgain {
        from: usize,
        to: usize,
    },
    /// A node begins anew, with nothing.
    Restart {
        node: usize,
    },
    Pass {
        millis: Millis,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        8 => (node(), 0..KEYS).prop_map(|(node, key)| Step::Admit { node, key }),
        6 => (node(), node(), any::<bool>(), 0..4u8)
            .prop_map(|(from, to, relays, lost)| Step::Tell { from, to, relays, lost }),
        2 => (node(), node()).prop_map(|(from, to)| Step::TellAgain { from, to }),
        1 => node().prop_map(|node| Step::Restart { node }),
        2 => (1..4000u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

struct World {
    nodes: Vec<Fixture>,
    /// By who tells and who hears.
    cursors: BTreeMap<(usize, usize), Cursor>,
    /// What each memory has admitted, by key, and whether it lives.
    admitted: BTreeMap<(usize, PartId), (u32, bool)>,
    lives: u8,
    now: Millis,
}

impl World {
    fn new() -> World {
        let mut world =
            World { nodes: Vec::new(), cursors: BTreeMap::new(), admitted: BTreeMap::new(), lives: 0, now: START };
        (0..NODES).for_each(|_| {
            let node = world.node();
            world.nodes.push(node);
        });
        world
    }

    fn node(&mut self) -> Fixture {
        self.lives += 1;
        let params = Params {
            sync: true,
            evict: true,
            matching: Matching::Limit,
            rate: RATE,
            ..Params::new(Identity([self.lives; 16]))
        };
        Fixture::with(256 << 10, params)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Admit { node, key } => {
                let zone = self.nodes[node].zone;
                assert!(matches!(zone.admit(&name(key), RATE, None, self.now), Ok(Limited::Within(_))));
                self.admitted.entry((key, zone.own_part())).or_insert((0, true)).0 += 1;
            }
            Step::Tell { from, to, relays, lost } => self.tell(from, to, relays, lost),
            Step::TellAgain { from, to } => {
                self.close(from, to);
                self.tell(from, to, true, 0);
            }
            Step::Restart { node } => {
                let own = self.nodes[node].own_part();
                let dead = self.admitted.iter_mut().filter(|((_, part), _)| *part == own);
                dead.for_each(|(_, (_, lives))| *lives = false);
                (0..NODES).for_each(|other| {
                    self.close(node, other);
                    self.close(other, node);
                });
                self.nodes[node] = self.node();
            }
            Step::Pass { millis } => {
                self.now += millis;
                self.nodes.iter().for_each(|node| _ = node.upkeep(self.now, 1000));
            }
        }
    }

    fn close(&mut self, from: usize, to: usize) {
        if let Some(cursor) = self.cursors.remove(&(from, to)) {
            self.nodes[from].feed_close(cursor);
        }
    }

    /// `lost`: of so many records, the last doesn't arrive, and the connection with it.
    fn tell(&mut self, from: usize, to: usize, relays: bool, lost: u8) {
        if from == to {
            return;
        }
        let (source, target, now) = (self.nodes[from].zone, self.nodes[to].zone, self.now);
        let cursor = self.cursors.entry((from, to)).or_insert_with(|| source.feed_open(1).expect("a walker"));
        let (mut count, mut cut) = (0, false);
        let mut each = |record: &Record<'_>| {
            count += 1;
            cut |= lost > 0 && count == lost;
            if !cut && (relays || record.version.origin == source.node()) {
                target.apply(record, now, 60_000).expect("an answer");
            }
            !cut
        };
        for shard in 0..source.all_shards().count_ones() {
            while let FeedEnd::More | FeedEnd::Reset = source.feed(cursor, shard, &mut each).expect("a walk") {}
        }
        // What it says next begins anew: it doesn't know what arrived.
        if cut || !relays {
            self.close(from, to);
        }
    }

    /// How many of a key were admitted, also by memory that is gone.
    fn sum(&self, key: usize) -> u64 {
        self.admitted.iter().filter(|((of, _), _)| *of == key).map(|(_, (n, _))| u64::from(*n)).sum()
    }

    /// What a node holds of a key: what each memory has admitted, and the bucket.
    fn held(&self, node: usize, key: usize) -> (BTreeMap<PartId, u32>, u64) {
        let zone = self.nodes[node].zone;
        let mut parts = BTreeMap::new();
        zone.parts_each(zone.place(&Role::Part(zone.own_part()).of(&name(key))), &name(key), |id, met| {
            if let Some(share) = zone.share_in(met) {
                assert_eq!(parts.insert(id, share.admitted), None, "a part is there once");
            }
        });
        // With the request that asks.
        let level = zone.limited(&name(key), RATE, self.now).expect("an answer");
        (parts, level)
    }
}

fn name(key: usize) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_come_to_know_each_request_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            for (node, key) in (0..NODES).flat_map(|node| (0..KEYS).map(move |key| (node, key))) {
                let ((_, level), sum) = (world.held(node, key), world.sum(key));
                prop_assert!(level <= sum * 1000, "{step:?}: node {node}, key {key}: {level} of {sum} requests");
            }
        }
        for _ in 0..2 {
            for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
                world.take(Step::TellAgain { from, to });
            }
        }
        for key in 0..KEYS {
            let (known, _) = world.held(0, key);
            for ((_, part), (admitted, lives)) in world.admitted.iter().filter(|((of, _), _)| *of == key) {
                match known.get(part) {
                    Some(known) if *lives => prop_assert_eq!(known, admitted),
                    Some(known) => prop_assert!(known <= admitted),
                    None => prop_assert!(!lives, "what a living memory has admitted is lost"),
                }
            }
            let most = known.values().copied().max().unwrap_or(0);
            for node in 0..NODES {
                let (held, level) = world.held(node, key);
                prop_assert_eq!(&held, &known, "node {}, key {}", node, key);
                // It isn't emptier than the fullest would be alone.
                prop_assert!(level + 1000 > u64::from(most) * 1000, "node {node}, key {key}: {level}, less than {most}");
            }
        }
    }
}

/// Two that admit their last requests at once tell one too few each: when they have heard of each other they tell anew, and a third
/// one, which has no bucket of its own, learns of all.
#[test]
fn who_has_no_bucket_learns_of_what_two_admitted_at_once() {
    let mut world = World::new();
    let admit = |world: &mut World, node| world.take(Step::Admit { node, key: 0 });
    let tell = |world: &mut World, from, to| world.take(Step::Tell { from, to, relays: true, lost: 0 });
    for _ in 0..2 {
        admit(&mut world, 0);
        tell(&mut world, 0, 1);
        admit(&mut world, 1);
        tell(&mut world, 1, 0);
    }
    admit(&mut world, 0);
    admit(&mut world, 1);
    for (from, to) in [(0, 2), (1, 2), (0, 1), (1, 0), (0, 2), (1, 2)] {
        tell(&mut world, from, to);
    }
    for node in 0..3 {
        // Nothing has run out, and the last request isn't excess.
        assert_eq!(world.held(node, 0).1, 6000, "node {node}");
    }
}
