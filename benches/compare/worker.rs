//! A process that runs loops when it is told to. Orders and results go through a page of shared memory, so that two of
//! them start together and nothing but the loop is timed.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

use zonemesh::store::{Condition, Life, Region, Sink, Zone};

use crate::tables::{Bare, Bytes, OneShot, Private};

/// What a loop does, once a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Job {
    /// Ends the process.
    Exit,
    /// Nothing but choosing a key: the part of the others that isn't theirs.
    Keys,
    ZoneHit,
    ZoneMiss,
    ZoneSet,
    PrivateHit,
    PrivateMiss,
    PrivateSet,
    BareHit,
    BareSet,
}

const JOBS: [Job; 10] = [
    Job::Exit,
    Job::Keys,
    Job::ZoneHit,
    Job::ZoneMiss,
    Job::ZoneSet,
    Job::PrivateHit,
    Job::PrivateMiss,
    Job::PrivateSet,
    Job::BareHit,
    Job::BareSet,
];

/// What a process works on. A copy is the same memory.
#[derive(Clone, Copy)]
pub struct Tables {
    pub keys: u64,
    pub zone: Zone,
    pub zone_memory: Region,
    pub bare: Bare,
    pub bare_memory: Region,
}

/// Turns and the time they took, of one process in one measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    pub count: u64,
    pub wall_ns: u64,
    /// The time that the processor gave: what others on the machine took is not in it.
    pub cpu_ns: u64,
}

/// The time of day, from the caller: this is a step of a clock that stands still between the turns of an event loop.
pub const START: u64 = 1_800_000_000_000;
const TURNS_A_MILLISECOND: u64 = 4096;
const TURNS_A_LOOK: u64 = 64;

/// Offsets in the page of orders: one line for each worker, after one line for both.
const GO: usize = 0;
const STOP: usize = 8;
const LINE: usize = 64;
const ORDER: usize = 0;
const READY: usize = 8;
const DONE: usize = 16;
const COUNT: usize = 24;
const WALL: usize = 32;
const CPU: usize = 40;

/// The page of orders, as both sides use it.
#[derive(Clone, Copy)]
pub struct Orders(pub Region);

impl Orders {
    fn get(&self, at: usize) -> u64 {
        self.0.load64(at, Acquire)
    }

    fn set(&self, at: usize, value: u64) {
        self.0.store64(at, value, Release);
    }

    /// Has worker n do `jobs[n]`, all together, for `time`.
    pub fn measure(&self, jobs: &[Job], time: Duration) -> Vec<Turns> {
        let lines = || (1..=jobs.len()).map(|n| n * LINE);
        self.set(GO, 0);
        self.set(STOP, 0);
        for (line, job) in lines().zip(jobs) {
            self.set(line + DONE, 0);
            self.set(line + READY, 0);
            self.set(line + ORDER, *job as u64 + 1);
        }
        lines().for_each(|line| wait(|| self.get(line + READY) != 0));
        self.set(GO, 1);
        thread::sleep(time);
        self.set(STOP, 1);
        lines().for_each(|line| wait(|| self.get(line + DONE) != 0));
        lines()
            .map(|line| Turns {
                count: self.get(line + COUNT),
                wall_ns: self.get(line + WALL),
                cpu_ns: self.get(line + CPU),
            })
            .collect()
    }

    /// Lets the workers end.
    pub fn dismiss(&self, workers: usize) {
        for n in 1..=workers {
            self.set(n * LINE + ORDER, Job::Exit as u64 + 1);
        }
    }

    /// The life of worker `n`; the parent's death ends it too.
    pub fn serve(&self, n: usize, tables: &Tables) {
        let line = (n + 1) * LINE;
        let parent = std::os::unix::process::parent_id();
        let mut private = Private::with_hasher(OneShot::new());
        if n == 0 {
            private.reserve(tables.keys as usize);
            private.extend((0..tables.keys).map(|i| (key(i, true), value(i))));
        }
        // The first touch of a page is the system's work, and not to be timed.
        for memory in [tables.zone_memory, tables.bare_memory] {
            black_box((0..memory.len()).step_by(4096).map(|at| memory.load64(at, Relaxed)).fold(0, u64::wrapping_add));
        }
        let mut worker = Worker { tables: *tables, private, random: 0x9e37_79b9 + n as u64, turns: 0 };
        loop {
            wait(|| self.get(line + ORDER) != 0 || std::os::unix::process::parent_id() != parent);
            let order = self.get(line + ORDER);
            self.set(line + ORDER, 0);
            let job = JOBS.get(order.wrapping_sub(1) as usize).copied().unwrap_or(Job::Exit);
            if job == Job::Exit {
                return;
            }
            self.set(line + READY, 1);
            while self.get(GO) == 0 {
                spin_loop();
            }
            let (start, cpu, mut count) = (Instant::now(), cpu_ns(), 0);
            while self.get(STOP) == 0 {
                worker.run(job);
                count += TURNS_A_LOOK;
            }
            self.set(line + CPU, cpu_ns() - cpu);
            self.set(line + WALL, start.elapsed().as_nanos() as u64);
            self.set(line + COUNT, count);
            self.set(line + DONE, 1);
        }
    }
}

/// One process's side of the loops.
pub struct Worker {
    pub tables: Tables,
    pub private: Private,
    pub random: u64,
    pub turns: u64,
}

impl Worker {
    /// Some dozens of turns.
    pub fn run(&mut self, job: Job) {
        let now = START + self.turns / TURNS_A_MILLISECOND;
        self.turns += TURNS_A_LOOK;
        match job {
            Job::Exit => {}
            Job::Keys => self.each(true, |_, key, _| {
                black_box(key);
            }),
            Job::ZoneHit | Job::ZoneMiss => self.each(job == Job::ZoneHit, |worker, key, _| {
                let mut out = Out::default();
                let found = worker.tables.zone.get(key, now, &mut out);
                assert_eq!(matches!(found, Ok(Some(_))), job == Job::ZoneHit, "{found:?}");
                black_box(&out);
            }),
            Job::ZoneSet => self.each(true, |worker, key, value| {
                // Busy is what a stopped owner gives after 100 ms: on a loaded machine it may come, and took its time.
                let _ = black_box(worker.tables.zone.set(key, value, Life::Default, Condition::Always, now));
            }),
            Job::PrivateHit | Job::PrivateMiss => self.each(job == Job::PrivateHit, |worker, key, _| {
                let found = worker.private.get(key).copied();
                assert_eq!(found.is_some(), job == Job::PrivateHit);
                black_box(&found);
            }),
            Job::PrivateSet => self.each(true, |worker, key, value| {
                black_box(worker.private.insert(*key, *value));
            }),
            Job::BareHit => self.each(true, |worker, key, _| {
                let mut out = [0; 16];
                assert!(worker.tables.bare.get(key, &mut out));
                black_box(&out);
            }),
            Job::BareSet => self.each(true, |worker, key, value| worker.tables.bare.set(key, value)),
        }
    }

    #[inline]
    fn each(&mut self, known: bool, mut turn: impl FnMut(&mut Worker, &Bytes, &Bytes)) {
        for _ in 0..TURNS_A_LOOK {
            // Marsaglia's xorshift64; the high half of a product is uniform below the number of keys.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let i = ((u128::from(self.random) * u128::from(self.tables.keys)) >> 64) as u64;
            let (key, value) = (key(i, known), value(self.random));
            turn(self, black_box(&key), black_box(&value));
        }
    }
}

/// The key of a number; those that aren't `known` are in no table.
#[inline]
pub fn key(i: u64, known: bool) -> Bytes {
    bytes(i + 1, i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, known)
}

/// Some value.
#[inline]
pub fn value(i: u64) -> Bytes {
    bytes(i, !i, true)
}

#[inline]
fn bytes(first: u64, second: u64, known: bool) -> Bytes {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&(second ^ u64::from(!known)).to_le_bytes());
    bytes
}

/// Where a look-up puts a value: as little as possible.
#[derive(Default)]
pub struct Out {
    bytes: [u8; 32],
}

impl Sink for Out {
    #[inline]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(..len)
    }
}

/// Waits for another process, without taking its processor from it for long.
fn wait(until: impl Fn() -> bool) {
    while !until() {
        thread::sleep(Duration::from_micros(50));
    }
}

/// Processor time of this thread.
pub fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the structure that it is given, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
