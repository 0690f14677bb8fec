//! Who is the node's agent: one process at a time.

use super::Zone;
use super::control::{ACTING, BEAT, Control, FINISHED, FINISHED_CHANGES, LEASE_GENERATION, LEASE_NUMBER, LEASE_OWNER};
use super::lock::{is_dead, this_thread};
use crate::record::Millis;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The right to be the node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Counts up with each holder; whatever acts for the node checks that it is still in force.
    pub number: u64,
    /// Process of the holder.
    pub pid: u32,
    /// The generation of the configuration that it serves.
    pub generation: u64,
}

impl Control {
    /// Takes the lease for this process, if it is free or its holder is dead. `None`: somebody has it (this process, maybe),
    /// or a newer configuration is in force. Call it from the process's main thread, whose life stands for the holder's.
    pub fn try_lease(&self, generation: u64, now: Millis) -> Option<Lease> {
        let owner = self.get(LEASE_OWNER);
        if generation < self.generation() || (owner != 0 && !is_dead(owner)) {
            return None;
        }
        self.locked(|| {
            let owner = self.get(LEASE_OWNER);
            if owner != 0 && !is_dead(owner) {
                return None;
            }
            let lease = Lease { number: self.get(LEASE_NUMBER) + 1, pid: std::process::id(), generation };
            self.put(BEAT, now);
            self.put(LEASE_GENERATION, generation);
            self.put(LEASE_NUMBER, lease.number);
            self.put(LEASE_OWNER, this_thread());
            Some(lease)
        })?
    }

    /// Whether `lease` is the one in force.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.get(LEASE_NUMBER) == lease.number && self.get(LEASE_OWNER) != 0
    }

    /// The lease in force, if somebody living has it.
    pub fn lease(&self) -> Option<Lease> {
        let owner = self.get(LEASE_OWNER);
        (owner != 0 && !is_dead(owner)).then(|| Lease {
            number: self.get(LEASE_NUMBER),
            pid: (owner >> 32) as u32,
            generation: self.get(LEASE_GENERATION),
        })
    }

    /// The generation of the configuration for which somebody has the lease, be it alive or not.
    pub fn lease_generation(&self) -> Option<u64> {
        (self.get(LEASE_OWNER) != 0).then(|| self.get(LEASE_GENERATION))
    }

    /// Gives it back.
    pub fn release(&self, lease: &Lease) {
        self.locked(|| {
            if self.holds(lease) {
                self.put(LEASE_OWNER, 0);
            }
        });
    }

    /// The holder's thread lives.
    pub fn beat(&self, lease: &Lease, now: Millis) {
        if self.holds(lease) {
            self.put(BEAT, now);
        }
    }

    /// When a holder last said so.
    pub fn last_beat(&self) -> Millis {
        self.get(BEAT)
    }

    /// The agent has seen to all changes up to what [`Control::changes`] said: nginx ends. What it couldn't send or write, it
    /// has told.
    pub fn set_finished(&self, lease: &Lease, changes: u64) {
        if self.holds(lease) {
            self.put(FINISHED, 0);
            self.put(FINISHED_CHANGES, changes);
            self.put(FINISHED, lease.generation);
        }
    }

    /// Whether an agent of this generation has done that, and no zone has changed since.
    pub fn is_finished<'a>(&self, generation: u64, zones: impl Iterator<Item = &'a Zone>) -> bool {
        self.has_finished(generation) && self.get(FINISHED_CHANGES) == Control::changes(zones)
    }

    /// Whether it has done so, whatever came afterwards.
    pub fn has_finished(&self, generation: u64) -> bool {
        self.get(FINISHED) == generation
    }

    /// A number that moves with every change that other nodes or a state file are to have.
    pub fn changes<'a>(zones: impl Iterator<Item = &'a Zone>) -> u64 {
        zones.filter(|zone| zone.is_kept()).map(Zone::changes).fold(0, u64::wrapping_add)
    }
}

/// That an agent acts for the node, told apart from the right to: so that it shows if two ever should.
pub struct Acting {
    control: Control,
    /// As in the lease.
    owner: u64,
}

impl Control {
    /// For an agent of this process. Call it from the process's main thread.
    pub fn acting(&self) -> Acting {
        Acting { control: *self, owner: this_thread() }
    }
}

impl Acting {
    /// It begins; `false`: that of another process that lives hasn't ended. It ends when this is dropped.
    pub fn begin(&self) -> bool {
        let before = self.control.word(ACTING).map_or(0, |word| word.swap(self.owner, SeqCst));
        before == 0 || before == self.owner || is_dead(before)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Some(word) = self.control.word(ACTING) {
            let _ = word.compare_exchange(self.owner, 0, SeqCst, Relaxed);
        }
    }
}
