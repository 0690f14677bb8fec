//! The node's workers that live, and which configuration each of them serves.

use super::control::{Control, WORKER_COUNT, WORKER_LEN, WORKERS};
use super::lock::{is_dead, this_thread};

impl Control {
    /// This process is a worker of a generation. For its main thread.
    pub fn worker_enter(&self, generation: u64) {
        let me = this_thread();
        self.locked(|| {
            let free = (0..WORKER_COUNT).map(worker_at).find(|at| {
                let owner = self.get(*at);
                owner == 0 || owner == me || is_dead(owner)
            });
            if let Some(at) = free {
                self.put(at + 8, generation);
                self.put(at, me);
            }
        });
    }

    /// This process is no worker any more. Returns how many others are left that serve this configuration or a newer one: of those
    /// that leave at the same time, one is the last.
    pub fn worker_leave(&self, generation: u64) -> usize {
        let me = this_thread();
        let leave = || {
            (0..WORKER_COUNT).map(worker_at).filter(|at| self.get(*at) == me).for_each(|at| self.put(at, 0));
            self.other_workers_since(generation)
        };
        self.locked(leave).unwrap_or_else(leave)
    }

    /// This worker's number: small, and no other living worker's. `None`: this process is none.
    pub fn worker_number(&self) -> Option<usize> {
        let me = this_thread();
        (0..WORKER_COUNT).find(|number| self.get(worker_at(*number)) == me)
    }

    /// Whether the worker of this number lives.
    pub fn worker_lives(&self, number: usize) -> bool {
        let owner = if number < WORKER_COUNT { self.get(worker_at(number)) } else { 0 };
        owner != 0 && !is_dead(owner)
    }

    /// How many other workers live.
    pub fn other_workers(&self) -> usize {
        self.other_workers_since(0)
    }

    /// How many of them serve this configuration or a newer one.
    fn other_workers_since(&self, generation: u64) -> usize {
        let me = this_thread();
        let lives = |at: &usize| {
            let owner = self.get(*at);
            owner != 0 && owner != me && self.get(*at + 8) >= generation && !is_dead(owner)
        };
        (0..WORKER_COUNT).map(worker_at).filter(lives).count()
    }

    /// Whether another worker lives that serves an older configuration than `generation`.
    pub fn older_workers(&self, generation: u64) -> bool {
        (0..WORKER_COUNT).map(worker_at).any(|at| {
            let owner = self.get(at);
            owner != 0 && self.get(at + 8) < generation && !is_dead(owner)
        })
    }
}

fn worker_at(index: usize) -> usize {
    WORKERS + index * WORKER_LEN
}
