//! Counters that nginx doesn't keep: what its own stood at when the API reset them, and workers that had to be replaced.

use std::sync::atomic::{AtomicU64, Ordering};

/// Handle of the counters in the control zone; a copy is the same.
#[derive(Clone, Copy)]
pub struct Figures {
    words: *const [AtomicU64; WORDS],
}

const WORDS: usize = 16;

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
}
