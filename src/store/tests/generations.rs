//! Several reloads in a row with workers of every configuration still writing: whatever the sizes, what any of them was told
//! is kept is in the last zone.

use super::*;
use crate::store::{Condition, Handover, Life, Merge, Merging, Source, StoreError, Written};
use std::collections::BTreeMap;

/// Zones that followed one another, of which the last is in force.
struct Generations {
    zones: Vec<Fixture>,
    sources: Vec<Source>,
    /// The agent's work, unless no agent runs.
    merging: Option<Merge>,
    /// What was acknowledged last, for each key.
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Writes that each generation refused.
    refused: Vec<u64>,
    random: u64,
    now: Millis,
    /// All values have this many bytes, if so.
    value: Option<usize>,
}

impl Generations {
    fn new(size: usize, seed: u64, value: Option<usize>) -> Generations {
        Generations {
            zones: vec![Fixture::new(size, None, seed.is_multiple_of(2))],
            sources: Vec::new(),
            merging: None,
            model: BTreeMap::new(),
            refused: vec![0],
            random: seed,
            now: START,
            value,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn len(&mut self) -> usize {
        let most = [60, 60, 300, 1500, 3000, 9000][self.below(6) as usize];
        self.value.unwrap_or(self.below(most) as usize)
    }

    fn set(&mut self, generation: usize, key: Vec<u8>) -> bool {
        self.now += 1;
        let value = vec![self.now as u8; self.len()];
        match self.zones[generation].set(&key, &value, Life::Default, Condition::Always, self.now) {
            Ok(_) => drop(self.model.insert(key, value)),
            Err(StoreError::NoMemory) => {
                self.refused[generation] += 1;
                return false;
            }
            Err(error) => panic!("{error}"),
        }
        true
    }

    /// One write or delete by a worker of any configuration. The newest ones take room with keys of their own.
    fn operate(&mut self, keys: u64) {
        let newest = self.zones.len() - 1;
        let generation = if self.below(2) == 0 { newest } else { self.below(newest as u64 + 1) as usize };
        let own = generation == newest && self.below(4) > 0;
        let key = if own { 1_000_000 + self.below(2 * keys) } else { self.below(keys + keys / 4) };
        let key = format!("key {key:08}").into_bytes();
        if self.below(5) > 0 {
            self.set(generation, key);
            return;
        }
        self.now += 1;
        if let Written::Done(_) = self.zones[generation].delete(&key, self.now).expect("a delete") {
            self.model.remove(&key);
        }
    }

    /// A piece of the agent's work.
    fn step(&mut self) {
        if let Some(merging) = &mut self.merging {
            merging.step(1, self.now, |_| true);
        }
    }

    /// A reload that gives the zone another size. `false`: what there is doesn't fit.
    fn reload(&mut self, size: usize, keys: u64) -> bool {
        let old = self.zones.len() - 1;
        let params = self.zones[old].params();
        let mut new = Fixture::with(size, params);
        let fits = [true, false].into_iter().any(|generous| {
            new.zone = Zone::create_like(&new, new.region, &params).expect("a zone");
            let from = &self.zones[old];
            from.bind(&new, &self.sources, generous).expect("bound");
            from.copy_to(&new, &self.sources, self.now).is_ok_and(|copied| copied.lost == 0)
        });
        // Until it is certain that the configuration can be used, all goes on as before.
        for _ in 0..self.below(300) {
            self.operate(keys);
            self.step();
        }
        if !fits {
            self.zones[old].release();
            return false;
        }
        new.zone = Zone::create_like(&new, new.region, &params).expect("a zone");
        let generation = self.zones.len() as u64 + 1;
        let (source, copied) = self.zones[old].hand_over(&new, &mut self.sources, generation, self.now);
        assert_eq!(copied.expect("a copy").lost, 0);
        self.sources.push(source);
        self.zones.push(new);
        self.refused.push(0);
        self.merging = None;
        true
    }

    fn start_agent(&mut self) {
        let new = **self.zones.last().expect("a zone");
        self.merging = Some(Merge::new(&Handover { new, sources: self.sources.clone() }));
    }

    /// The old workers go, and everything is compared.
    fn finish(mut self, what: &str) -> Vec<u64> {
        let mut merging = self.merging.take().expect("an agent");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while merging.step(1, self.now, |_| false) != Merging::Over {
            assert!(std::time::Instant::now() < until, "it never ends");
        }
        let new = self.zones.last().expect("a zone");
        let listed: BTreeMap<_, _> = listing(new, self.now).into_iter().map(|(key, value, _)| (key, value)).collect();
        let wrong = self.model.iter().filter(|(key, value)| listed.get(*key) != Some(value)).count();
        assert_eq!((merging.lost, wrong, listed.len()), (0, 0, self.model.len()), "{what}");
        super::check::check(new);
        self.refused
    }
}

fn storm(sizes: &[usize], keys: u64, seed: u64, value: Option<usize>) -> Option<Vec<u64>> {
    let mut all = Generations::new(sizes[0], seed, value);
    for n in 0..keys {
        all.set(0, format!("key {n:08}").into_bytes());
    }
    for &size in &sizes[1..] {
        if !all.reload(size, keys) {
            return None;
        }
        // At first the new agent isn't there yet.
        for _ in 0..all.below(400) {
            all.operate(keys);
        }
        all.start_agent();
        for _ in 0..2000 {
            for _ in 0..all.below(20) {
                all.operate(keys);
            }
            all.step();
        }
    }
    Some(all.finish(&format!("{sizes:?}, {keys} keys, seed {seed}, values of {value:?}")))
}

#[test]
fn old_writers_of_several_configurations_lose_nothing() {
    let (mut runs, mut refused) = (0, vec![0; 4]);
    for seed in 1..5 {
        for (sizes, keys, value) in [
            (&[256 << 10, 300 << 10, 280 << 10][..], 60, None),
            (&[256 << 10, 9 << 20, 300 << 10], 60, None),
            (&[900 << 10, 1100 << 10, 900 << 10], 150, None),
            (&[300 << 10, 1100 << 10, 10 << 20], 60, Some(100)),
            (&[400 << 10, 600 << 10, 3 << 20], 600, Some(1330)),
            (&[3 << 20, 2100 << 10, 600 << 10], 200, Some(1330)),
            (&[2 << 20, 9 << 20, 3 << 20, 900 << 10], 200, None),
            (&[64 << 10, 80 << 10], 200, Some(30)),
            (&[10 << 20, 9 << 20], 2000, Some(100)),
        ] {
            let Some(counts) = storm(sizes, keys, seed, value) else { continue };
            runs += 1;
            refused.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    println!("{runs} storms; refused by generation: {refused:?}");
    assert!(runs > 16 && refused[0] > 1000 && refused[1] > 1000, "zones came to their limits: {runs}, {refused:?}");
}

/// Writes keys of this name until the zone takes no more, whichever shard they would go to.
fn fill(zone: &Zone, name: &str, len: usize) -> u64 {
    let (mut written, mut refused) = (0, 0);
    for n in 0_u32.. {
        let key = format!("{name} {n:06}").into_bytes();
        match zone.set(&key, &vec![7; len], Life::Default, Condition::Always, START) {
            Ok(_) => (written, refused) = (written + 1, 0),
            Err(_) => refused += 1,
        }
        if refused == 200 {
            break;
        }
    }
    written
}

#[test]
fn what_the_oldest_wrote_fits_into_a_third_zone_that_is_cut_otherwise() {
    let [first, second, third] = [256 << 10, 256 << 10, 2100 << 10].map(|size| Fixture::new(size, None, false));
    let mut sources = Vec::new();
    let (source, _) = first.hand_over(&second, &mut sources, 2, START);
    sources.push(source);
    // Of many sizes, so that each needs a page of its own in each shard of the third; the second has one shard.
    let mut written = 0;
    for n in 0..400_usize {
        let key = format!("first {n}").into_bytes();
        let result = first.set(&key, &vec![1; n * 40 % 900], Life::Default, Condition::Always, START);
        written += u64::from(result.is_ok());
    }
    assert!(written > 100, "{written}");
    let (source, _) = second.hand_over(&third, &mut sources, 3, START);
    sources.push(source);
    let filled = fill(&third, "third", 100);
    let mut merging = Merge::new(&Handover { new: *third, sources });
    while merging.step(1, START, |_| false) != Merging::Over {}
    assert_eq!((merging.lost, third.stats().records), (0, written + filled));
    super::check::check(&third);
}

#[test]
fn new_writers_leave_old_ones_the_room_that_merging_has_begun_to_use() {
    let [old, new] = [256 << 10, 2100 << 10].map(|size| Fixture::new(size, None, false));
    let (source, _) = old.hand_over(&new, &mut [], 2, START);
    let written = fill(&old, "old", 100);
    let mut filled = fill(&new, "new", 100);
    let mut merging = Merge::new(&Handover { new: *new, sources: vec![source] });
    let mut steps = 0;
    while merging.step(1, START, |_| false) != Merging::Over {
        filled += fill(&new, &format!("step {steps}"), 100);
        steps += 1;
    }
    assert!(written > 1000 && steps > 20);
    assert_eq!((merging.lost, new.stats().records), (0, written + filled));
    super::check::check(&new);
}

#[test]
fn deletes_between_the_trial_and_the_reload_take_no_room_from_records() {
    let [old, new] = [4 << 20, 2100 << 10].map(|size| Fixture::new(size, None, true));
    let key = |n: u32| format!("{n:050}").into_bytes();
    let full = fill(&new, "x", 500) as u32;
    new.zone.clear(START).expect("emptied");
    let mut count = full;
    let copied = loop {
        for n in 0..count {
            old.set(&key(n), &[7; 458], Life::Default, Condition::Always, START + 1).expect("room");
        }
        let trial = Zone::create_like(&new, new.region, &Params { sync: true, ..Params::new(identity(1)) });
        old.bind(&new, &[], false).expect("bound");
        let copied = old.copy_to(&trial.expect("a zone"), &[], START + 1).expect("a trial");
        if copied.lost == 0 {
            break copied;
        }
        old.release();
        count -= copied.lost as u32;
        (count..full).for_each(|n| assert!(old.delete(&key(n), START + 1).is_ok()));
        while old.upkeep(START + 10_000_000, 100) == 100 {}
    };
    assert_eq!(copied.records, u64::from(count));
    (0..count / 4).for_each(|n| assert!(old.delete(&key(n * 4), START + 1).is_ok()));
    let new_zone = Zone::create_like(&new, new.region, &Params { sync: true, ..Params::new(identity(1)) });
    let (_, copied) = old.hand_over(&new_zone.expect("a zone"), &mut [], 2, START + 1);
    assert_eq!(copied.expect("a copy").lost, 0);
}
