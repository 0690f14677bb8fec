//! What all seeds of a run tell together. It is added up as they end, so that a million take no more memory than one.

use crate::faults::FAULT_NAMES;
use crate::link::{FRAME_NAMES, Moved};
use std::collections::BTreeMap;
use std::time::Instant;
use zonemesh::record::Millis;

/// After so many seeds a line says how far it is.
const PROGRESS: u64 = 10_000;
/// So many seeds that failed are named.
const NAMED: u64 = 20;

/// Counts of one seed, or of all.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub acknowledged: u64,
    pub faults: [u64; FAULT_NAMES.len()],
    pub sessions: u64,
    pub moved: Moved,
    /// Records that comparing brought or took away.
    pub mended: u64,
    /// How often room was made, for what had found none.
    pub recovered: u64,
    /// A copy of the data, and what a node that joined was sent; bytes.
    pub joined: (u64, u64),
    /// How often a node joined a settled cluster, and how often that was one of fifty.
    pub joins: (u64, u64),
    /// Partitions that outlasted tombstones, and in which both sides were written to.
    pub outlasted: u64,
    /// How often comparing was seen to find nothing where all is well.
    pub well: u64,
    /// How often a node stamped anew what it had written with a clock that was ahead.
    pub renewals: u64,
    /// How many of the nodes that were long gone gave way to others in tables of origins.
    pub given_up: u64,
    /// How many writes of nodes that lost their memory others had, who are bound to them since.
    pub inherited: u64,
    /// Milliseconds from the last operation or fault until all agreed.
    pub settled: Millis,
}

impl Counts {
    /// Adds those of another seed.
    pub fn add(&mut self, other: &Counts) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.faults.iter_mut().zip(other.faults).for_each(|(sum, count)| *sum += count);
        self.sessions += other.sessions;
        self.moved.add(&other.moved);
        self.mended += other.mended;
        self.recovered += other.recovered;
        self.joined = (self.joined.0 + other.joined.0, self.joined.1 + other.joined.1);
        self.joins = (self.joins.0 + other.joins.0, self.joins.1 + other.joins.1);
        self.outlasted += other.outlasted;
        self.well += other.well;
        self.renewals += other.renewals;
        self.given_up += other.given_up;
        self.inherited += other.inherited;
    }
}

pub struct Total {
    seeds: u64,
    begun: Instant,
    done: u64,
    failed: u64,
    open: u64,
    counts: Counts,
    /// In how many seeds all nodes agreed after so long, and one of them.
    settled: BTreeMap<Millis, (u64, u64)>,
}

impl Total {
    /// Of so many seeds.
    pub fn new(seeds: u64) -> Total {
        Total {
            seeds,
            begun: Instant::now(),
            done: 0,
            failed: 0,
            open: 0,
            counts: Counts::default(),
            settled: BTreeMap::new(),
        }
    }

    /// A seed has ended; `is_open`: it is known to fail.
    pub fn add(&mut self, seed: u64, result: Result<Counts, String>, is_open: bool) {
        match result {
            Ok(_) if is_open => {
                self.failed += 1;
                println!("seed {seed} ended well: take it off the list of those that are open");
            }
            Err(wrong) if is_open => {
                self.open += 1;
                println!("seed {seed}, open, failed: {wrong}");
            }
            Ok(counts) => {
                self.settled.entry(counts.settled).or_insert((0, seed)).0 += 1;
                self.counts.add(&counts);
            }
            Err(wrong) => {
                self.failed += 1;
                if self.failed <= NAMED {
                    println!("seed {seed} failed: {wrong}");
                    println!("  again: ZONEMESH_SIM_SEED={seed} cargo test --no-default-features --test sync_sim");
                }
            }
        }
        self.done += 1;
        if self.done.is_multiple_of(PROGRESS) && self.done < self.seeds {
            let seconds = self.begun.elapsed().as_secs_f64();
            println!("simulator: {} of {} seeds in {seconds:.0} s, {} failed", self.done, self.seeds, self.failed);
        }
    }

    /// Prints what happened in them; `false`: some failed.
    pub fn tell(&self) -> bool {
        let (counts, seeds) = (&self.counts, self.done);
        println!(
            "simulator: {seeds} seeds in {:.1} s, {} failed, {} are open; {} operations, {} writes acknowledged, {} sessions, \
             {} bytes in {} pieces, {} records mended, {} nodes mended their stamps",
            self.begun.elapsed().as_secs_f64(),
            self.failed,
            self.open,
            counts.operations,
            counts.acknowledged,
            counts.sessions,
            counts.moved.bytes,
            counts.moved.pieces,
            counts.mended,
            counts.renewals
        );
        println!(
            "simulator: zones that had found no room were whole again in {} seeds; where all was well comparing found nothing in {}; \
             {} nodes joined, {} of them fifty others, and were sent {} bytes of \
             records, where {} are a copy; {} nodes that were long gone gave way to others; {} writes of nodes that lost their memory were with others; {} partitions \
             outlasted tombstones while both sides were written to",
            counts.recovered,
            counts.well,
            counts.joins.0,
            counts.joins.1,
            counts.joined.1,
            counts.joined.0,
            counts.given_up,
            counts.inherited,
            counts.outlasted
        );
        let frames = FRAME_NAMES.iter().zip(counts.moved.frames);
        let frames: Vec<String> = frames.map(|(name, (n, bytes))| format!("{name} {n} ({bytes} bytes)")).collect();
        println!("simulator: frames: {}", frames.join(", "));
        println!("simulator: all that was sent, and when, gives {:016x}", counts.moved.trace);
        let faults: Vec<String> =
            FAULT_NAMES.iter().zip(counts.faults).map(|(name, n)| format!("{name} {n}")).collect();
        println!("simulator: {} faults: {}", counts.faults.iter().sum::<u64>(), faults.join(", "));
        if let (Some(half), Some((longest, (_, seed)))) = (self.half(), self.settled.last_key_value()) {
            println!(
                "simulator: all nodes agreed after {half} ms in half of the seeds, {longest} ms at most (seed {seed}; virtual time)"
            );
        }
        self.failed == 0
    }

    /// After how long all nodes agreed in half of the seeds.
    fn half(&self) -> Option<Millis> {
        let mut left = self.settled.values().map(|(seeds, _)| seeds).sum::<u64>() / 2;
        let is_it = |(seeds, _): &(u64, u64)| {
            let is_it = left < *seeds;
            left = left.saturating_sub(*seeds);
            is_it
        };
        let at = self.settled.values().position(is_it);
        self.settled.keys().nth(at?).copied()
    }
}
