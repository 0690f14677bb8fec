//! The face of a zone: making it, taking it up again, its figures.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::hash::Hasher;
use super::layout::{Geometry, MAGIC, header, shard};
use super::matching::{MAX_SPELLINGS, Matching};
use super::parts::MAX_PARTS;
use super::upkeep::RETENTION;
use super::{Region, Rule, lock};
use crate::record::{Identity, Millis, Stamp};

/// Handle of a zone; a copy is the same zone. Used from any thread of any process that maps the region.
#[derive(Clone, Copy)]
pub struct Zone {
    pub(super) region: Region,
    pub(super) geometry: Geometry,
    hasher: Hasher,
    pub(super) matching: Matching,
    pub(super) evict: bool,
}

/// What a zone is made with, and what attaching to it again may change.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// The identity of this node.
    pub node: Identity,
    /// Life of records whose writer gave none; `None`: for ever.
    pub timeout: Option<Millis>,
    /// Deletes and ends leave tombstones, and changes are announced to the agent.
    pub sync: bool,
    /// How keys are compared; stays as it was made.
    pub matching: Matching,
    /// A full zone gives up old records for new ones.
    pub evict: bool,
    /// Of a zone of limits: thousandths of a request a second.
    pub rate: u64,
    /// How long tombstones are kept.
    pub retention: Millis,
    /// When a zone's memory is made and this node may have written to other memory of it before: a time after all of that,
    /// as [`super::Control::born`] knows it.
    pub born: Option<Millis>,
}

impl Params {
    /// Those of a plain zone of a node: no timeout, not shared, exact keys, no eviction, tombstones for an hour.
    pub const fn new(node: Identity) -> Params {
        Params {
            node,
            timeout: None,
            sync: false,
            matching: Matching::Exact,
            evict: false,
            rate: 0,
            retention: RETENTION,
            born: None,
        }
    }
}

/// Why an operation failed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The zone is full.
    #[error("the zone is full")]
    NoMemory,
    /// Empty or longer than [`super::MAX_KEY`].
    #[error("the key is empty or longer than 65536 bytes")]
    BadKey,
    /// Longer than [`super::MAX_VALUE`].
    #[error("the value is longer than 1048576 bytes")]
    BadValue,
    /// A counter takes whole numbers of 64 bits.
    #[error("a counter takes a whole number from {} to {}", i64::MIN, i64::MAX)]
    NoNumber,
    /// Neither a counter nor what a node adds to it can be more than 64 bits hold.
    #[error("the counter would be less than {} or more than {}", i64::MIN, i64::MAX)]
    OutOfRange,
    /// It has as many parts as it may have.
    #[error("a counter has {MAX_PARTS} parts, of as many restarts of nodes; set it to begin anew")]
    Parts,
    /// The key's network is there already, in as many spellings as may be.
    #[error("the zone has this network in {MAX_SPELLINGS} other spellings; delete some")]
    Spellings,
    /// The holder of a lock didn't move on in time.
    #[error("the zone is busy: the process that holds its lock does not go on")]
    Busy,
}

/// Why a region can't be made or taken as a zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Not enough memory for a zone.
    #[error("{0} bytes are too small for a zone")]
    TooSmall(usize),
    /// More than links can reach.
    #[error("{0} bytes are too large for a zone")]
    TooLarge(usize),
    /// Not a zone, of another layout, or damaged.
    #[error("the memory holds nothing that this version can use: {0}")]
    Foreign(&'static str),
    /// Its keys are compared otherwise.
    #[error("its keys are of another type")]
    OtherMatching,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandom,
}

/// Figures of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that aren't tombstones; may count some whose end has come and that upkeep hasn't met yet.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Writes refused because the zone was full.
    pub refused: u64,
    /// Remote records that did not fit, since comparing last brought all that had been left out; 0: none is missing.
    pub incomplete: u64,
    /// Remote records that did not fit, ever.
    pub left_out: u64,
    /// Nodes that are known to have written here, by their incarnations, and how many more can be noted.
    pub origins: u64,
    /// The same.
    pub origins_room: u64,
    /// Remote records refused because their stamp was too far ahead of the clock.
    pub future: u64,
    /// Records taken away because their end had come.
    pub expired: u64,
    /// Records given up for others.
    pub evicted: u64,
    /// Records written by this node.
    pub writes: u64,
    /// Records deleted by this node.
    pub deletes: u64,
    /// How often this node emptied the zone.
    pub clears: u64,
    /// Records and deletes of other nodes that were merged, what was loaded, and what was stamped anew.
    pub merged: u64,
    /// What was compared with other nodes.
    pub comparisons: Comparisons,
    /// Records that this zone lacked, and that comparing with another node brought.
    pub mended: u64,
    /// Records that comparing took away, as they were deleted elsewhere.
    pub retired: u64,
    /// Pages in use.
    pub pages_used: u64,
    /// Free pages.
    pub pages_free: u64,
    /// Bytes in a page.
    pub page_size: u64,
    /// Records not yet sent to some connected peer, as the agent last said.
    pub pending: u64,
    /// How often one of the zone's locks wasn't had in time, as its owner didn't go on.
    pub busy: u64,
}

/// Comparisons of a zone with another node's that this node asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// How many were begun.
    pub begun: u64,
    /// How many came to an end. The others are under way, or were given up: a session ended, or its peer didn't answer.
    pub ended: u64,
    /// Records here that those were about, each counted anew in each of them.
    pub records: u64,
}

/// One size of block, for `/slabs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Block size in bytes.
    pub size: u64,
    /// Blocks in use.
    pub used: u64,
    /// Free blocks within pages of this size.
    pub free: u64,
    /// Allocations asked for.
    pub reqs: u64,
    /// Allocations refused.
    pub fails: u64,
}

impl Zone {
    /// Makes an empty zone in `region`, whatever was there.
    ///
    /// # Errors
    ///
    /// The region is too small or too large.
    pub fn create(region: Region, params: &Params) -> Result<Zone, AttachError> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|_| AttachError::NoRandom)?;
        Zone::create_with(region, params, seed)
    }

    /// Makes an empty zone with the seed of another one ([`Zone::seed`]), which places keys as that does: so of the same
    /// size, it holds whatever that held.
    ///
    /// # Errors
    ///
    /// As [`Zone::create`].
    pub fn create_seeded(region: Region, params: &Params, seed: [u8; 16]) -> Result<Zone, AttachError> {
        let mut marks = [[0; 8]; 2];
        getrandom::fill(marks.as_flattened_mut()).map_err(|_| AttachError::NoRandom)?;
        let zone = Zone::create_with(region, params, seed)?;
        region.write(header::MARK, &marks[0]);
        zone.draw_part(u64::from_ne_bytes(marks[1]));
        Ok(zone)
    }

    /// Makes the zone anew, empty, where it is and with its seed. Nobody else uses it.
    ///
    /// # Errors
    ///
    /// As [`Zone::create`].
    pub fn begin_anew(&self) -> Result<(), AttachError> {
        let mut seed = [0; 16];
        self.region.read(header::SEED, &mut seed);
        let born = [header::BORN, header::CLOSED].map(|field| (field, self.region.load64(field, Relaxed)));
        Zone::create_seeded(self.region, &self.params(), seed)?;
        born.iter().for_each(|(field, stamp)| self.region.store64(*field, *stamp, Relaxed));
        Ok(())
    }

    /// The secret seed of the hash; `None`: there is so much room that it doesn't matter where keys are placed.
    pub fn seed(&self) -> Option<[u8; 16]> {
        let mut seed = [0; 16];
        self.region.read(header::SEED, &mut seed);
        let is_roomy = self.free_pages() as usize > self.geometry.pages / 4 * 3;
        (self.geometry.shards > 1 && !is_roomy).then_some(seed)
    }

    /// The same with a known seed of the hash, for simulations that repeat themselves. Whoever knows the seed can choose
    /// keys that meet in one bucket.
    ///
    /// # Errors
    ///
    /// The region is too small or too large.
    pub fn create_with(region: Region, params: &Params, seed: [u8; 16]) -> Result<Zone, AttachError> {
        let geometry = Geometry::new(region.len())?;
        let hasher = Hasher::new(&seed);
        let zone = Zone { region, geometry, hasher, matching: params.matching, evict: params.evict };
        region.zero(0, geometry.page(0));
        region.write(header::SEED, &seed);
        geometry.describe(&region);
        zone.fill_pool();
        region.store64(header::NEXT_DUE, u64::MAX, Relaxed);
        for index in 0..geometry.shards {
            if let Ok(shard) = zone.shard(index) {
                shard.feed_clear();
                shard.timer_clear(0);
            }
        }
        zone.set_params(params);
        zone.become_node(params.node).map_err(|_| AttachError::Foreign("no room to note this node"))?;
        if let Some(born) = params.born {
            // Every stamp that is given here comes after it.
            region.store64(header::CLOSED, Stamp::at(born).0, Relaxed);
            region.store64(header::BORN, Stamp::at(born).0, Relaxed);
        }
        region.store64(header::MARK, zone.hash(b"zonemesh watch"), Relaxed);
        let born = params.born.unwrap_or(0).to_le_bytes();
        zone.draw_part(zone.hash(&[&b"zonemesh part"[..], &params.node.0, &born].concat()));
        region.store64(header::MAGIC, MAGIC, Release);
        Ok(zone)
    }

    /// Takes up the zone that `region` holds. Timeout, sync and the node's identity become those of `params`, but for the
    /// identity if it is another one and the table of origins is locked by who doesn't go on for seconds, or is full
    /// ([`Zone::is_of`]): the agent mends that, as it does after one that died while it changed.
    ///
    /// # Errors
    ///
    /// There is no zone, or one of another version or size.
    pub fn attach(region: Region, params: &Params) -> Result<Zone, AttachError> {
        let geometry = Geometry::new(region.len())?;
        geometry.check(&region)?;
        let mut seed = [0; 16];
        region.read(header::SEED, &mut seed);
        if region.load32(header::MATCHING, Relaxed) != params.matching as u32 {
            return Err(AttachError::OtherMatching);
        }
        let hasher = Hasher::new(&seed);
        let zone = Zone { region, geometry, hasher, matching: params.matching, evict: params.evict };
        zone.set_params(params);
        // No error: nginx would end for it in a reload.
        let _ = lock::in_time(|| zone.become_node(params.node));
        Ok(zone)
    }

    /// The parameters in force.
    pub fn params(&self) -> Params {
        Params {
            node: self.origin_identity(self.own_origin()).unwrap_or(Identity([0; 16])),
            timeout: self.timeout(),
            sync: self.region.load32(header::SYNC, Relaxed) != 0,
            matching: self.matching,
            evict: self.region.load32(header::EVICT, Relaxed) != 0,
            rate: if self.matching == Matching::Limit { self.region.load64(header::RATE, Relaxed) } else { 0 },
            retention: self.retention(),
            born: None,
        }
    }

    /// Figures, each as of some moment.
    pub fn stats(&self) -> Stats {
        let sum = |field| (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(field)).sum();
        let free = u64::from(self.free_pages());
        let left_out = self.left_out();
        let incomplete = self.incomplete();
        let (origins, origins_room) = self.origins_known();
        Stats {
            records: sum(shard::RECORDS),
            tombstones: sum(shard::TOMBSTONES),
            refused: sum(shard::REFUSED),
            incomplete,
            left_out,
            origins,
            origins_room,
            future: sum(shard::FUTURE),
            expired: sum(shard::EXPIRED),
            evicted: sum(shard::EVICTED),
            writes: sum(shard::WRITES),
            deletes: sum(shard::DELETES),
            clears: self.region.load64(header::CLEARS, Relaxed),
            merged: self.region.load64(header::MERGED, Relaxed),
            comparisons: self.comparisons(),
            mended: self.mended(),
            retired: self.retired(),
            pages_used: (self.geometry.pages as u64).saturating_sub(free),
            pages_free: free,
            page_size: self.geometry.page_size as u64,
            pending: self.region.load64(header::PENDING, Relaxed),
            busy: self.region.load64(header::BUSY, Relaxed),
        }
    }

    /// [`Stats::records`] and [`Stats::tombstones`] alone.
    pub fn held(&self) -> (u64, u64) {
        let sum = |field| (0..self.geometry.shards).map(|index| self.shard_unlocked(index).get(field)).sum();
        (sum(shard::RECORDS), sum(shard::TOMBSTONES))
    }

    /// [`Stats::incomplete`] alone.
    pub fn incomplete(&self) -> u64 {
        let missing = self.left_out().saturating_sub(self.region.load64(header::MADE_UP, Relaxed));
        if Rule::Shown.holds() { missing.max(self.is_lacking().into()) } else { 0 }
    }

    /// Figures of each size of block.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot::default(); self.geometry.classes];
        for shard in (0..self.geometry.shards).filter_map(|index| self.shard(index).ok()) {
            for (class, sum) in slots.iter_mut().enumerate() {
                let slot = shard.slot(class);
                sum.size = slot.size;
                sum.used += slot.used;
                sum.free += slot.free;
                sum.reqs += slot.reqs;
                sum.fails += slot.fails;
            }
        }
        slots
    }

    /// Lets [`Slot::reqs`] and [`Slot::fails`] begin anew.
    pub fn reset_slots(&self) {
        for shard in (0..self.geometry.shards).filter_map(|index| self.shard(index).ok()) {
            (0..self.geometry.classes).for_each(|class| shard.reset_slot(class));
        }
    }

    /// Says how many records wait for some peer, for [`Stats::pending`].
    pub fn set_pending(&self, records: u64) {
        self.region.store64(header::PENDING, records, Relaxed);
    }

    /// The stamp at or below which everything was removed by emptying the zone.
    pub fn cleared(&self) -> Stamp {
        Stamp(self.region.load64(header::CLEARED, Acquire))
    }

    pub(super) fn timeout(&self) -> Option<Millis> {
        Some(self.region.load64(header::TIMEOUT, Relaxed)).filter(|timeout| *timeout != u64::MAX)
    }

    /// Whether deletes and ends leave tombstones. Those of a zone that isn't shared do while its records move to other
    /// memory.
    pub(super) fn is_sync(&self) -> bool {
        self.region.load32(header::SYNC, Relaxed) != 0 || self.region.load64(header::LIMIT, Relaxed) != 0
    }

    /// A keyed hash (SipHash-1-3): who doesn't know the seed can't choose keys that share a chain.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    fn set_params(&self, params: &Params) {
        self.region.store64(header::TIMEOUT, params.timeout.unwrap_or(u64::MAX), Relaxed);
        self.region.store32(header::SYNC, params.sync.into(), Relaxed);
        self.region.store32(header::EVICT, params.evict.into(), Relaxed);
        self.region.store64(header::RETENTION, params.retention, Relaxed);
        if self.matching == Matching::Limit {
            self.region.store64(header::RATE, params.rate, Relaxed);
        }
        self.region.store32(header::MATCHING, params.matching as u32, Relaxed);
    }

    /// What is written here is this node's from now on.
    fn become_node(&self, node: Identity) -> Result<(), StoreError> {
        // Nearly always it is so already. Then nobody's lock may be in the way.
        if self.hold_origin(self.own_origin(), node) {
            return Ok(());
        }
        let own = self.origin_for_own(node)?;
        // Under the table's lock: what is one's own isn't given to others.
        self.with_origins(|| self.hold_origin(own, node).then(|| self.set_own_origin(own)))?.ok_or(StoreError::Busy)
    }
}
