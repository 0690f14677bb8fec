//! What belongs to the node, in a small region of its own: identity, lease, who was heard of, counters.
use super::{AttachError, Region};
use crate::record::{Identity, Millis};

/// Bytes a control region needs.
pub const CONTROL_SIZE: usize = 64 * 1024;

/// Handle; a copy is the same.
#[derive(Clone, Copy)]
pub struct Control { region: Region }

/// Who holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease { /// Counts up with each holder; effects check it.
 pub number: u64,
 /// Process of the holder.
 pub pid: u32,
 /// The configuration generation it serves.
 pub generation: u64 }

/// Running totals for the node, each only growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter { /// x
 BytesIn,
 /// x
 BytesOut,
 /// x
 MsgsIn,
 /// x
 MsgsOut }

impl Control {
    /// Makes it, with a new random identity.
    pub fn create(_region: Region) -> Result<Control, AttachError> { todo!() }
    /// Takes what is there.
    pub fn attach(_region: Region) -> Result<Control, AttachError> { todo!() }
    /// This node.
    pub fn identity(&self) -> Identity { todo!() }
    /// The configuration's generation: how often `next_generation` was called.
    pub fn generation(&self) -> u64 { todo!() }
    /// A new configuration is in force (the master, in init_module).
    pub fn next_generation(&self) -> u64 { todo!() }
    /// The number of the eventfd that wakes the agent, -1 while there is none.
    pub fn eventfd(&self) -> i32 { todo!() }
    /// Sets it, once for each master process.
    pub fn set_eventfd(&self, _fd: i32) { todo!() }

    /// Takes the lease for this process if nobody has it, its holder is dead, or (an older generation) has released it.
    /// Held by this process already: `None`.
    pub fn try_lease(&self, _generation: u64, _now: Millis) -> Option<Lease> { todo!() }
    /// Whether `lease` is still the one in force.
    pub fn holds(&self, _lease: &Lease) -> bool { todo!() }
    /// The lease in force, if any and its holder lives.
    pub fn lease(&self) -> Option<Lease> { todo!() }
    /// Gives it back.
    pub fn release(&self, _lease: &Lease) { todo!() }
    /// The holder's thread is alive.
    pub fn beat(&self, _lease: &Lease, _now: Millis) { todo!() }
    /// When it last said so.
    pub fn last_beat(&self) -> Millis { todo!() }

    /// The agent is about to sleep; it must look for changes once more after this, then sleep.
    pub fn sleeping(&self) { todo!() }
    /// The agent is awake.
    pub fn awake(&self) { todo!() }
    /// After a change: whether the caller has to write to the eventfd (the agent sleeps, and nobody woke it yet).
    pub fn must_wake(&self) -> bool { todo!() }

    /// A message of `peer` came in on an inbound session.
    pub fn heard(&self, _peer: Identity, _now: Millis) { todo!() }
    /// When that last happened; 0: never.
    pub fn last_heard(&self, _peer: Identity) -> Millis { todo!() }

    /// Adds to a counter.
    pub fn count(&self, _counter: Counter, _by: u64) { todo!() }
    /// Reads it.
    pub fn counter(&self, _counter: Counter) -> u64 { todo!() }
    /// How many peers this node is connected to (set by the agent).
    pub fn nodes_online(&self) -> u64 { todo!() }
    /// Sets it.
    pub fn set_nodes_online(&self, _n: u64) { todo!() }
}
