//! What belongs to the node, in a small region of its own: identity, generation, counters. The rest of it is in `lease`,
//! `sleep` and `workers`, and what is known of other nodes in `heard`, `drift` and `links`.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use super::drift::{DRIFT_LEN, DRIFTS};
use super::heard::{HEARD, HEARD_LEN};
pub use super::lease::Lease;
use super::links::{LINK_LEN, LINKS};
use super::lock::{lock, unlock};
use super::{AttachError, Region};
use crate::record::{Identity, Millis, Stamp};

/// Bytes that a control region has at least.
pub const CONTROL_SIZE: usize = 320 * 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"ZMSHNODE");
const LAYOUT: u64 = 11;

const MAGIC_AT: usize = 0;
const LAYOUT_AT: usize = 8;
/// Two places for the identity, which take turns when the node takes another one; `INCARNATION` says which is in force.
const IDENTITIES: [usize; 2] = [16, 160];
const INCARNATION: usize = 152;
const GENERATION: usize = 32;
/// The descriptor + 1.
pub(super) const EVENTFD: usize = 40;
/// The same of the one that wakes watchers.
pub(super) const WATCH_EVENTFD: usize = 48;
/// The greatest stamp in zones of earlier configurations.
const LEFT_BEHIND: usize = 56;
/// Guards the lease and the tables of workers and of other nodes.
const LOCK: usize = 64;
pub(super) const LEASE_NUMBER: usize = 72;
/// The word of the holder's main thread, 0 if nobody holds the lease.
pub(super) const LEASE_OWNER: usize = 80;
pub(super) const LEASE_GENERATION: usize = 88;
pub(super) const BEAT: usize = 96;
/// The generation whose agent has finished, and what all changes added up to that it has seen to.
pub(super) const FINISHED: usize = 104;
pub(super) const FINISHED_CHANGES: usize = 112;
/// The word of the main thread of the process whose agent acts.
pub(super) const ACTING: usize = 120;
pub(super) const SLEEPING: usize = 128;
/// Some worker with watchers sleeps.
pub(super) const WATCHERS_SLEEP: usize = 136;
/// An old and a new nginx listen on the same addresses.
const UPGRADING: usize = 144;
/// A number for what the agent of the configuration in force has to see to.
const DUTIES: usize = 176;
const COUNTERS: usize = 192;
const NODES_ONLINE: usize = 320;
const BASES: usize = 384;
const BASE_COUNT: usize = 64;
pub(super) const WORKERS: usize = 1024;
pub(super) const WORKER_COUNT: usize = 1024;
pub(super) const WORKER_LEN: usize = 16;
/// How far workers that are ending may get beyond the stamps that were noted, milliseconds.
const ENDING: Millis = 1_000;
const HEARD_AT: usize = WORKERS + WORKER_COUNT * WORKER_LEN;
const DRIFTS_AT: usize = (HEARD_AT + HEARD * HEARD_LEN).next_multiple_of(64);
const LINKS_AT: usize = DRIFTS_AT + DRIFTS * DRIFT_LEN;
const _: () = assert!(LINKS_AT + LINKS * LINK_LEN <= CONTROL_SIZE);

/// Handle of the control region; a copy is the same.
#[derive(Clone, Copy)]
pub struct Control {
    region: Region,
}

/// Running totals of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Bytes received from peers.
    BytesIn,
    /// Bytes sent to peers.
    BytesOut,
    /// Messages received.
    MsgsIn,
    /// Messages sent.
    MsgsOut,
    /// New sessions of other nodes that had to wait for their turn.
    SessionsWaited,
}

impl Control {
    /// Makes it, with a new random identity.
    ///
    /// # Errors
    ///
    /// The region is too small, or the system gives no random bytes.
    pub fn create(region: Region) -> Result<Control, AttachError> {
        Control::create_with(region, Control::random_identity()?)
    }

    /// An identity unlike that of every other node that ever was.
    ///
    /// # Errors
    ///
    /// The system gives no random bytes.
    pub fn random_identity() -> Result<Identity, AttachError> {
        let mut identity = [0; 16];
        getrandom::fill(&mut identity).map_err(|_| AttachError::NoRandom)?;
        Ok(Identity(identity))
    }

    /// Makes it for a given identity, which must be unlike that of every other node that ever was.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn create_with(region: Region, identity: Identity) -> Result<Control, AttachError> {
        if region.len() < CONTROL_SIZE {
            return Err(AttachError::TooSmall(region.len()));
        }
        region.zero(0, CONTROL_SIZE);
        region.write(IDENTITIES[0], &identity.0);
        region.store64(LAYOUT_AT, LAYOUT, Relaxed);
        region.store64(MAGIC_AT, MAGIC, Release);
        Ok(Control { region })
    }

    /// Takes up what is there.
    ///
    /// # Errors
    ///
    /// There is nothing, or something of another version.
    pub fn attach(region: Region) -> Result<Control, AttachError> {
        if region.len() < CONTROL_SIZE {
            return Err(AttachError::TooSmall(region.len()));
        }
        if region.load64(MAGIC_AT, SeqCst) != MAGIC {
            return Err(AttachError::Foreign("it doesn't begin as the control zone does"));
        }
        if region.load64(LAYOUT_AT, SeqCst) != LAYOUT {
            return Err(AttachError::Foreign("it was laid out by another version"));
        }
        Ok(Control { region })
    }

    /// This node, and this life of it.
    pub fn identity(&self) -> Identity {
        loop {
            let incarnation = self.incarnation();
            let identity = self.identity_at(IDENTITIES[incarnation.div_ceil(2) as usize % 2]);
            if self.incarnation() == incarnation {
                return identity;
            }
        }
    }

    /// Counts how often the node has taken another identity, twice each time: while it is odd the zones' records are stamped
    /// anew (see [`super::Renewal`]), and there are no sessions.
    pub fn incarnation(&self) -> u64 {
        self.get(INCARNATION)
    }

    /// Whether records are stamped anew, or somebody died while doing that.
    pub fn is_renewing(&self) -> bool {
        self.incarnation() % 2 == 1
    }

    /// The one before, if there was one.
    pub fn last_identity(&self) -> Identity {
        match self.incarnation().div_ceil(2) {
            0 => self.identity(),
            count => self.identity_at(IDENTITIES[(count - 1) as usize % 2]),
        }
    }

    /// The node takes another identity, unless it has just begun to; returns the one that is in force now. For the agent.
    pub fn begin_renewal(&self, identity: Identity) -> Identity {
        let incarnation = self.incarnation();
        if incarnation.is_multiple_of(2) {
            self.write(IDENTITIES[(incarnation / 2 + 1) as usize % 2], &identity.0);
            // As this one it has given none.
            self.put(LEFT_BEHIND, 0);
            self.put(INCARNATION, incarnation + 1);
        }
        self.identity()
    }

    /// All records have their new stamps.
    pub fn end_renewal(&self) {
        let incarnation = self.incarnation();
        self.put(INCARNATION, incarnation.next_multiple_of(2));
    }

    /// The configuration's generation: how many came into force.
    pub fn generation(&self) -> u64 {
        self.get(GENERATION)
    }

    /// A new configuration comes into force; returns its generation. For the master.
    pub fn next_generation(&self) -> u64 {
        self.word(GENERATION).map_or(0, |word| word.fetch_add(1, SeqCst) + 1)
    }

    /// What agents of the configuration that comes into force have to see to, as a number: zones, their state files, peers.
    pub fn set_duties(&self, duties: u64) {
        self.put(DUTIES, duties);
    }

    /// That of the configuration in force.
    pub fn duties(&self) -> u64 {
        self.get(DUTIES)
    }

    /// A zone's memory, with stamps up to this, may be gone with the next configuration. For the master.
    pub fn leave_behind(&self, stamp: Stamp) {
        if let Some(word) = self.word(LEFT_BEHIND) {
            word.fetch_max(stamp.0, SeqCst);
        }
    }

    /// When a zone begins whose memory is made now: after every stamp that this node may have given in other memory of it, of
    /// which some may be ahead of the clock. `None`: it has given none.
    pub fn born(&self, now: Millis) -> Option<Millis> {
        let left = Stamp(self.get(LEFT_BEHIND)).millis();
        (self.generation() > 0).then(|| if left > 0 { now.max(left.saturating_add(ENDING)) } else { now })
    }
}

/// Counters.
impl Control {
    /// Adds to a counter.
    pub fn count(&self, counter: Counter, by: u64) {
        self.add(counter_at(counter), by);
    }

    /// Reads it.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.get(counter_at(counter))
    }

    /// How many peers this node is connected to, as the agent last said.
    pub fn nodes_online(&self) -> u64 {
        self.get(NODES_ONLINE)
    }

    /// Sets it.
    pub fn set_nodes_online(&self, nodes: u64) {
        self.put(NODES_ONLINE, nodes);
    }

    /// Whether an old and a new nginx run side by side, as the agent last said.
    pub fn upgrading(&self) -> bool {
        self.get(UPGRADING) != 0
    }

    /// Sets it.
    pub fn set_upgrading(&self, upgrading: bool) {
        self.put(UPGRADING, u64::from(upgrading));
    }

    /// A number kept for the glue: what a counter of nginx stood at when it was last reset. `which` below 64.
    pub fn base(&self, which: usize) -> u64 {
        if which < BASE_COUNT { self.get(BASES + which * 8) } else { 0 }
    }

    /// Sets it.
    pub fn set_base(&self, which: usize, value: u64) {
        if which < BASE_COUNT {
            self.put(BASES + which * 8, value);
        }
    }
}

impl Control {
    /// `None`: the lock is stuck. What it guards is never half done: each table's last store makes an entry valid.
    pub(super) fn locked<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let word = self.word(LOCK)?;
        lock(word).ok()?;
        let result = work();
        unlock(word);
        Some(result)
    }

    /// Where the entry of a connection is; see `links`.
    pub(super) fn link_entry(&self, slot: usize) -> (&Region, usize) {
        (&self.region, LINKS_AT + slot * LINK_LEN)
    }

    /// Where an entry of the nodes that were heard of is; see `heard`.
    pub(super) fn heard_place(index: usize) -> usize {
        HEARD_AT + index * HEARD_LEN
    }

    /// Where an entry of what configurations differ in is; see `drift`.
    pub(super) fn drift_place(index: usize) -> usize {
        DRIFTS_AT + index * DRIFT_LEN
    }

    pub(super) fn identity_at(&self, at: usize) -> Identity {
        let mut bytes = [0; 16];
        self.read(at, &mut bytes);
        Identity(bytes)
    }

    pub(super) fn read(&self, at: usize, bytes: &mut [u8]) {
        self.region.read(at, bytes);
    }

    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        self.region.write(at, bytes);
    }

    pub(super) fn add(&self, at: usize, by: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_add(by, Relaxed);
        }
    }

    pub(super) fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.region.word64(at)
    }

    pub(super) fn get(&self, at: usize) -> u64 {
        self.region.load64(at, SeqCst)
    }

    pub(super) fn put(&self, at: usize, value: u64) {
        self.region.store64(at, value, SeqCst);
    }
}

fn counter_at(counter: Counter) -> usize {
    COUNTERS + 8 * counter as usize
}
