//! Counters that nginx doesn't keep: what its own stood at when the API reset them, workers that had to be replaced, and what
//! each worker does.

use std::sync::atomic::{AtomicU64, Ordering};

/// Handle of the counters in the control zone; a copy is the same.
#[derive(Clone, Copy)]
pub struct Figures {
    words: *const [AtomicU64; WORDS],
}

/// The first of them are counters of the node; then each worker has a cache line of its own.
const WORDS: usize = NODE_WORDS + MAX_WORKERS * WORKER_WORDS;
const NODE_WORDS: usize = 16;
const WORKER_WORDS: usize = 8;
/// Workers that are counted one by one.
const MAX_WORKERS: usize = 256;
const PID: usize = 0;
const IDLE: usize = 1;
const REQUESTS: usize = 2;
/// What the requests stood at when they were reset.
const REQUESTS_BASE: usize = 3;

/// One of the counters of nginx that the API can reset. They only grow; what is shown is the growth since the reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Accepted connections.
    Accepted = 0,
    /// Handled ones.
    Handled = 1,
    /// Requests.
    Requests = 2,
}

/// Workers that ended before their time and were started anew.
const RESPAWNED: usize = 3;
/// Workers started for the configuration in force.
const STARTED: usize = 4;

impl Figures {
    /// Bytes they need.
    pub const SIZE: usize = size_of::<[AtomicU64; WORDS]>();

    /// # Safety
    /// `memory` is aligned for words, has `SIZE` bytes that were zero in the beginning, and is touched by nothing else
    /// as long as a copy of the handle lives.
    pub unsafe fn new(memory: *mut u8) -> Figures {
        Figures { words: memory.cast_const().cast() }
    }

    fn word(&self, n: usize) -> &AtomicU64 {
        // SAFETY: `new`'s promise; words are only touched as atomics.
        let words = unsafe { &*self.words };
        &words[n]
    }

    /// How much a counter of nginx, now at `total`, has grown since its last reset.
    pub fn since(&self, base: Base, total: u64) -> u64 {
        total.saturating_sub(self.word(base as usize).load(Ordering::Relaxed))
    }

    /// Lets a counter of nginx, now at `total`, begin anew.
    pub fn reset(&self, base: Base, total: u64) {
        self.word(base as usize).store(total, Ordering::Relaxed);
    }

    /// A new configuration is in force, for which no worker runs yet.
    pub fn new_generation(&self) {
        self.word(STARTED).store(0, Ordering::Relaxed);
    }

    /// One more worker runs, of `expected`. One too many must be the replacement of another.
    pub fn worker_started(&self, expected: u64) {
        if self.word(STARTED).fetch_add(1, Ordering::Relaxed) >= expected {
            self.word(RESPAWNED).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many replacements there were.
    pub fn respawned(&self) -> u64 {
        self.word(RESPAWNED).load(Ordering::Relaxed)
    }

    /// Counts replacements anew.
    pub fn reset_respawned(&self) {
        self.word(RESPAWNED).store(0, Ordering::Relaxed);
    }

    /// This process is worker number `id` from now on; its counters begin anew.
    pub fn worker_begins(&self, id: usize) {
        for field in [IDLE, REQUESTS, REQUESTS_BASE] {
            self.put(id, field, 0);
        }
        self.put(id, PID, u64::from(std::process::id()));
    }

    /// One more request of worker `id` is done. That of an older configuration, whose place another process has, isn't
    /// told apart: it would cost every request a look.
    pub fn count_request(&self, id: usize) {
        if id < MAX_WORKERS {
            self.word(NODE_WORDS + id * WORKER_WORDS + REQUESTS).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many connections of worker `id` wait for a request. For that worker.
    pub fn set_idle(&self, id: usize, connections: u64) {
        if self.of_worker(id, PID) == u64::from(std::process::id()) {
            self.put(id, IDLE, connections);
        }
    }

    /// Workers below `count`: number, process, idle connections, requests since the start or the last reset.
    pub fn workers(&self, count: usize) -> impl Iterator<Item = (usize, u32, u64, u64)> {
        (0..count.min(MAX_WORKERS)).filter_map(|id| {
            let pid = u32::try_from(self.of_worker(id, PID)).ok().filter(|pid| *pid != 0)?;
            let requests = self.of_worker(id, REQUESTS).saturating_sub(self.of_worker(id, REQUESTS_BASE));
            Some((id, pid, self.of_worker(id, IDLE), requests))
        })
    }

    /// Counts the requests of worker `id` anew.
    pub fn reset_worker(&self, id: usize) {
        self.put(id, REQUESTS_BASE, self.of_worker(id, REQUESTS));
    }

    fn of_worker(&self, id: usize, field: usize) -> u64 {
        if id < MAX_WORKERS { self.word(NODE_WORDS + id * WORKER_WORDS + field).load(Ordering::Relaxed) } else { 0 }
    }

    fn put(&self, id: usize, field: usize, value: u64) {
        if id < MAX_WORKERS {
            self.word(NODE_WORDS + id * WORKER_WORDS + field).store(value, Ordering::Relaxed);
        }
    }
}
