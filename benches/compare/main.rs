//! Compares a zone with bare tables of the same records, in process: `scripts/bench store` runs it and reads its lines.
//!
//! Rounds of all variants, not one variant after another: what else happens on the machine meets all alike. Each line is
//! a JSON object: what was measured, the number of keys, one sample a round.
//!
//!     cargo bench --no-default-features --bench compare -- [--rounds N] [--millis N] [--keys N,N,...] [--only WORDS]
//!     cargo bench --no-default-features --bench compare -- count JOB KEYS TURNS     (for callgrind)

mod ip;
mod space;
mod tables;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use zonemesh::record::Identity;
use zonemesh::store::{Condition, Life, Mapping, Params, Region, Zone};

use tables::{Bare, OneShot, Private};
use worker::{Job, Orders, START, Tables, Turns, Worker, key, value};

/// An hour, as in `timeout=1h`.
pub const TIMEOUT: u64 = 3_600_000;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if given.first().is_some_and(|word| word == "count") {
        return count(&given);
    }
    let option = |name: &str| given.iter().skip_while(|word| *word != name).nth(1).cloned();
    let number = |name, usual| option(name).and_then(|word| word.parse().ok()).unwrap_or(usual);
    let (rounds, time) = (number("--rounds", 15), Duration::from_millis(number("--millis", 40)));
    let sizes = option("--keys").unwrap_or_else(|| "1000,100000,1000000".to_owned());
    let only = option("--only");
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only.split(',').any(|word| word == part));

    if wanted("table") {
        for keys in sizes.split(',').filter_map(|word| word.parse().ok()) {
            compare(keys, rounds as usize, time);
        }
    }
    if wanted("space") {
        space::fill(32 << 20);
        space::fill(32 << 10);
    }
    if wanted("ip") {
        ip::measure(number("--prefixes", 1_000_000) as usize, rounds as usize, time);
    }
}

/// What a measurement of one round gives, by the names under which it is printed.
type Samples = BTreeMap<&'static str, Vec<f64>>;

/// One number of keys: fills the tables, forks two processes, has them run all variants in rounds.
fn compare(keys: u64, rounds: usize, time: Duration) {
    let (zone_memory, bare_memory, orders) = match memories(keys) {
        Ok(memories) => memories,
        Err(error) => return eprintln!("no memory for {keys} keys: {error}"),
    };
    let Some(tables) = fill(keys, &zone_memory, &bare_memory) else { return };
    let orders = Orders(orders.region());
    for n in 0..2 {
        // SAFETY: this process has one thread, so the child may do whatever it could.
        if unsafe { libc::fork() } == 0 {
            orders.serve(n, &tables);
            std::process::exit(0);
        }
    }
    let mut samples = Samples::new();
    for round in 0..=rounds {
        let one_round = measure(&orders, if round == 0 { time / 4 } else { time });
        // The first is for the caches.
        if round > 0 {
            one_round.into_iter().for_each(|(name, sample)| samples.entry(name).or_default().push(sample));
        }
    }
    orders.dismiss(2);
    for (name, samples) in samples {
        println!("{}", json!({"part": "table", "keys": keys, "name": name, "samples": samples}));
    }
    println!("{}", json!({"part": "table", "keys": keys, "name": "zone_bytes", "samples": [zone_size(keys)]}));
}

/// All variants once: nanoseconds a turn of one process, or turns a second of two.
fn measure(orders: &Orders, time: Duration) -> Vec<(&'static str, f64)> {
    let ns = |turns: &Turns| turns.cpu_ns as f64 / turns.count.max(1) as f64;
    let rate = |turns: &Turns| turns.count as f64 * 1e9 / turns.wall_ns.max(1) as f64;
    let mut out = Vec::new();
    for (name, job) in [
        ("keys", Job::Keys),
        ("get", Job::ZoneHit),
        ("get_private", Job::PrivateHit),
        ("miss", Job::ZoneMiss),
        ("miss_private", Job::PrivateMiss),
        ("set", Job::ZoneSet),
        ("set_private", Job::PrivateSet),
        ("get_bare", Job::BareHit),
        ("set_bare", Job::BareSet),
    ] {
        out.push((name, ns(&orders.measure(&[job], time)[0])));
    }
    for ([together, beside, write_beside], job, set) in [
        (["get_two", "get_beside", "set_beside"], Job::ZoneHit, Job::ZoneSet),
        (["get_two_bare", "get_beside_bare", "set_beside_bare"], Job::BareHit, Job::BareSet),
    ] {
        let alone = rate(&orders.measure(&[job], time)[0]);
        let two = orders.measure(&[job, job], time);
        out.push((together, (rate(&two[0]) + rate(&two[1])) / alone));
        let mixed = orders.measure(&[job, set], time);
        out.push((beside, rate(&mixed[0]) / alone));
        out.push((write_beside, 1e9 / rate(&mixed[1])));
    }
    for (together, job) in [("set_two", Job::ZoneSet), ("set_two_bare", Job::BareSet)] {
        let alone = rate(&orders.measure(&[job], time)[0]);
        let two = orders.measure(&[job, job], time);
        out.push((together, (rate(&two[0]) + rate(&two[1])) / alone));
    }
    out
}

/// Bytes of a zone for so many records of 16 + 16 bytes: 104 for each, in whole MiB.
fn zone_size(keys: u64) -> usize {
    (keys as usize * 104).next_multiple_of(1 << 20)
}

fn memories(keys: u64) -> std::io::Result<(Mapping, Mapping, Mapping)> {
    Ok((Region::anonymous(zone_size(keys))?, Region::anonymous(Bare::size(keys as usize))?, Region::anonymous(4096)?))
}

/// The same records in the zone and in the bare table.
fn fill(keys: u64, zone_memory: &Mapping, bare_memory: &Mapping) -> Option<Tables> {
    let params = Params { timeout: Some(TIMEOUT), sync: true, ..Params::new(Identity([1; 16])) };
    let zone = Zone::create(zone_memory.region(), &params).inspect_err(|error| eprintln!("no zone: {error}")).ok()?;
    let bare = Bare::new(bare_memory.region());
    for i in 0..keys {
        bare.set(&key(i, true), &value(i));
        let now = START - 1000 + i * 1000 / keys;
        if let Err(error) = zone.set(&key(i, true), &value(i), Life::Default, Condition::Always, now) {
            eprintln!("{i} of {keys} keys in {} bytes: {error}", zone_size(keys));
            return None;
        }
    }
    Some(Tables { keys, zone, zone_memory: zone_memory.region(), bare, bare_memory: bare_memory.region() })
}

/// One job a given number of times in this process, for a profiler.
fn count(given: &[String]) {
    let number = |n: usize| given.get(n).and_then(|word| word.parse().ok()).unwrap_or(1000);
    let job = match given.get(1).map(String::as_str) {
        Some("get") => Job::ZoneHit,
        Some("miss") => Job::ZoneMiss,
        Some("set") => Job::ZoneSet,
        Some("get_private") => Job::PrivateHit,
        Some("get_bare") => Job::BareHit,
        Some("set_bare") => Job::BareSet,
        _ => Job::Keys,
    };
    let keys = number(2);
    let Ok((zone_memory, bare_memory, _)) = memories(keys) else { return };
    let Some(tables) = fill(keys, &zone_memory, &bare_memory) else { return };
    let mut private = Private::with_hasher(OneShot::new());
    private.extend((0..keys).map(|i| (key(i, true), value(i))));
    let mut worker = Worker { tables, private, random: 1, turns: 0 };
    let start = worker::cpu_ns();
    while worker.turns < number(3) {
        worker.run(job);
    }
    eprintln!("{} turns, {:.1} ns each", worker.turns, (worker::cpu_ns() - start) as f64 / worker.turns as f64);
}
