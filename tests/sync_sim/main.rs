//! The simulator: clusters of 2 to 50 nodes with the real store and the real protocol, in virtual time, with
//! everything that goes wrong between real ones. A seed tells all of it, so what fails once fails again:
//!
//!     ZONEMESH_SIM_SEED=17 cargo test --no-default-features --test sync_sim
//!
//! `ZONEMESH_SIM_SEEDS=20000` runs more than the usual two thousand.

#![allow(clippy::expect_used, reason = "what a simulation can't go on without ends it")]

mod check;
mod faults;
mod lies;
mod link;
mod node;
mod rng;
mod world;

use faults::FAULT_NAMES;
use lies::Lie;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Counts, World};

const SEEDS: u64 = 2_000;
/// Seeds in which a deleted or ended record is there again after a partition that outlasted its tombstone, or after a file
/// was restored: what comparing doesn't mend yet. They are run and told of, and another one fails the run; so does one of these
/// that ends well, so that the list stays true.
const OPEN: &[u64] = &[1180, 1427, 2510, 5939, 5956, 7182];
/// A broken rule has to be noticed in one of so many seeds.
const SEEDS_A_LIE: u64 = 100;

fn main() -> ExitCode {
    // Asked for a list of tests by a tool: there is one.
    if std::env::args().any(|arg| arg == "--list") {
        println!("sync_sim: test");
        return ExitCode::SUCCESS;
    }
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("ZONEMESH_SIM_SEED") {
        return match World::run(seed, None, true) {
            Ok(counts) => {
                println!("seed {seed} ended well: {counts:?}");
                ExitCode::SUCCESS
            }
            Err(wrong) => {
                println!("seed {seed} failed: {wrong}");
                ExitCode::FAILURE
            }
        };
    }
    let ended_well = simulate(number("ZONEMESH_SIM_SEEDS").unwrap_or(SEEDS));
    if ended_well && notice_lies() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs that many seeds on all cores and prints what happened in them.
fn simulate(seeds: u64) -> bool {
    let begun = Instant::now();
    let results = on_all_cores(seeds, |seed| World::run(seed, None, false));
    let mut total = Counts::default();
    let mut settled = Vec::new();
    let (mut failed, mut open, mut mended) = (0, 0, Vec::new());
    for (seed, result) in results.iter().enumerate() {
        match result {
            Ok(counts) => {
                mended.extend(OPEN.contains(&(seed as u64)).then_some(seed));
                total.operations += counts.operations;
                total.acknowledged += counts.acknowledged;
                total.sessions += counts.sessions;
                total.bytes += counts.bytes;
                total.pieces += counts.pieces;
                total.mended += counts.mended;
                total.faults.iter_mut().zip(counts.faults).for_each(|(sum, count)| *sum += count);
                settled.push(counts.settled);
            }
            Err(wrong) if OPEN.contains(&(seed as u64)) => {
                open += 1;
                println!("seed {seed} fails as is known: {wrong}");
            }
            Err(wrong) => {
                failed += 1;
                if failed <= 20 {
                    println!("seed {seed} failed: {wrong}");
                    println!("  again: ZONEMESH_SIM_SEED={seed} cargo test --no-default-features --test sync_sim");
                }
            }
        }
    }
    settled.sort_unstable();
    println!(
        "simulator: {seeds} seeds in {:.1} s, {failed} failed, {open} as is known; {} operations, {} writes acknowledged, {} sessions, \
         {} bytes in {} pieces, {} records mended",
        begun.elapsed().as_secs_f64(),
        total.operations,
        total.acknowledged,
        total.sessions,
        total.bytes,
        total.pieces,
        total.mended
    );
    let faults: Vec<String> = FAULT_NAMES.iter().zip(total.faults).map(|(name, n)| format!("{name} {n}")).collect();
    println!("simulator: {} faults: {}", total.faults.iter().sum::<u64>(), faults.join(", "));
    if let (Some(half), Some(longest)) = (settled.get(settled.len() / 2), settled.last()) {
        println!(
            "simulator: all nodes agreed after {half} ms in half of the seeds, {longest} ms at most (virtual time)"
        );
    }
    for seed in &mended {
        println!("seed {seed} ended well, and is listed as open: take it off the list");
    }
    failed == 0 && mended.is_empty()
}

/// Breaks one rule after the other and looks how soon the simulator notices.
fn notice_lies() -> bool {
    let mut all = true;
    for lie in Lie::ALL {
        match (0..SEEDS_A_LIE).find(|seed| World::run(*seed, Some(lie), false).is_err()) {
            Some(seed) => println!("simulator: broken rule {lie:?} was noticed in seed {seed}"),
            None => {
                println!("simulator: broken rule {lie:?} was not noticed in {SEEDS_A_LIE} seeds");
                all = false;
            }
        }
    }
    all
}

/// The results of seeds from 0, in their order.
fn on_all_cores<R: Send>(seeds: u64, run: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let result = run(seed);
                    results.lock().expect("no thread panics while it holds this").push((seed, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("all threads have ended well");
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}
