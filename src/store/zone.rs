//! The face of a zone.
use super::Region;
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};

/// Handle of a zone; a copy is the same zone. Safe to use from any thread and process that maps the region.
#[derive(Clone, Copy)]
pub struct Zone { region: Region }

/// Smallest zone, bytes: 8 pages of 4 KiB.
pub const MIN_ZONE_SIZE: usize = 32 * 1024;
/// Largest key, bytes.
pub const MAX_KEY: usize = 64 * 1024;
/// Largest value, bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// What a zone is made with; a later attach may change `timeout` and `sync`.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// The identity of this node.
    pub node: Identity,
    /// Life of records whose writer gave none; `None`: for ever.
    pub timeout: Option<Millis>,
    /// Deletes and ends leave tombstones, and writes are announced to the agent.
    pub sync: bool,
}

/// The life that a write gives its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life { /// The zone's timeout, from now.
 Default,
 /// What the record has now (a new record: the zone's timeout).
 Keep,
 /// For this long, in milliseconds from now.
 For(Millis) }

/// When a write is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition { /// Always.
 Always,
 /// Only if there is no such record (POST).
 Absent,
 /// Only if there is such a record (PATCH).
 Present }

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written { /// Done, under this version.
 Done(Version),
 /// The condition didn't hold: nothing changed.
 Unmet }

/// What became of a remote record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied { /// It is now the zone's record.
 Newer,
 /// The zone already has it, or something newer.
 Stale,
 /// It didn't fit; counted, and the zone is `incomplete`.
 Full,
 /// Its stamp is further ahead of the clock than allowed; counted.
 Future }

/// Why an operation failed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The zone is full.
    #[error("the zone is full")]
    NoMemory,
    /// Empty or longer than [`MAX_KEY`].
    #[error("the key is empty or longer than 65536 bytes")]
    BadKey,
    /// Longer than [`MAX_VALUE`].
    #[error("the value is longer than 1048576 bytes")]
    BadValue,
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
    /// Too much.
    #[error("{0} bytes are too large for a zone")]
    TooLarge(usize),
    /// Not a zone, of another layout, or damaged.
    #[error("the memory holds no zone of this version: {0}")]
    Foreign(&'static str),
}

/// What a look-up tells besides the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found { /// x
 pub version: Version,
 /// When it ends.
 pub expires: Option<Millis> }

/// Where a look-up puts the value it found.
pub trait Sink {
    /// Room for exactly `len` bytes, replacing what an earlier call gave; `None`: no memory, and the look-up fails.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;
}
impl Sink for Vec<u8> {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> { self.clear(); self.resize(len, 0); Some(self) }
}

/// Figures of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live records (may count expired ones that upkeep hasn't met).
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Writes refused because the zone was full.
    pub refused: u64,
    /// Remote records that did not fit.
    pub incomplete: u64,
    /// Remote records from the future.
    pub future: u64,
    /// Records removed because their time was over.
    pub expired: u64,
    /// Pages of the arena: in use and free; a page is `page_size` bytes.
    pub pages_used: u64,
    /// x
    pub pages_free: u64,
    /// x
    pub page_size: u64,
    /// Records not yet sent to some connected peer, as the agent last said.
    pub pending: u64,
}

/// One size class, for `/slabs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot { /// Block size in bytes.
 pub size: u64,
 /// Blocks in use.
 pub used: u64,
 /// Blocks free within pages of this class.
 pub free: u64,
 /// Allocations asked for.
 pub reqs: u64,
 /// Allocations refused.
 pub fails: u64 }

/// Where a listing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanPlace(pub u64);

/// A walker's place in the change feed of every shard. Give it back with [`Zone::feed_close`].
#[derive(Debug)]
pub struct Cursor { slot: u16 }

/// A bit for each shard.
pub type ShardMask = u64;

impl Zone {
    /// Makes an empty zone in `region`, whatever was there.
    pub fn create(_region: Region, _params: &Params) -> Result<Zone, AttachError> { todo!() }
    /// Takes the zone that `region` holds; timeout, sync and the node's identity become those of `params`.
    pub fn attach(_region: Region, _params: &Params) -> Result<Zone, AttachError> { todo!() }
    /// The parameters in force.
    pub fn params(&self) -> Params { todo!() }

    // ---- keys and values ----

    /// Looks `key` up; the value goes to `sink`.
    pub fn get(&self, _key: &[u8], _now: Millis, _sink: &mut dyn Sink) -> Result<Option<Found>, StoreError> { todo!() }
    /// Writes one record.
    pub fn set(&self, _key: &[u8], _value: &[u8], _life: Life, _condition: Condition, _now: Millis) -> Result<Written, StoreError> { todo!() }
    /// Gives a record another life and keeps its value. A missing key is `Unmet`.
    pub fn touch(&self, _key: &[u8], _life: Life, _now: Millis) -> Result<Written, StoreError> { todo!() }
    /// Removes a record. A missing key is `Unmet`.
    pub fn delete(&self, _key: &[u8], _now: Millis) -> Result<Written, StoreError> { todo!() }
    /// Empties the zone with one stamp.
    pub fn clear(&self, _now: Millis) -> Result<Stamp, StoreError> { todo!() }
    /// Hands some dozens of live records to `each` (key, value, found) and returns where to go on; `None` at the end.
    /// Records there from the first call to the last are met exactly once; those that come or go between may be missed.
    pub fn scan(&self, _place: ScanPlace, _now: Millis, _each: &mut dyn FnMut(&[u8], &[u8], Found)) -> Result<Option<ScanPlace>, StoreError> { todo!() }
    /// Whether no live record is there.
    pub fn is_empty(&self, _now: Millis) -> Result<bool, StoreError> { todo!() }
    /// Figures.
    pub fn stats(&self) -> Stats { todo!() }
    /// Figures of size classes.
    pub fn slots(&self) -> Vec<Slot> { todo!() }
    /// Takes away up to `budget` expired records and old tombstones; returns how many.
    pub fn upkeep(&self, _now: Millis, _budget: usize) -> usize { todo!() }

    // ---- replication ----

    /// Merges a record of another node. `max_drift`: how far its stamp may be ahead of `now`, milliseconds.
    pub fn apply(&self, _record: &Record<'_>, _now: Millis, _max_drift: Millis) -> Result<Applied, StoreError> { todo!() }
    /// The stamp at or below which everything was removed by emptying the zone.
    pub fn cleared(&self) -> Stamp { todo!() }
    /// Merges an emptying of another node.
    pub fn apply_clear(&self, _stamp: Stamp, _now: Millis, _max_drift: Millis) -> Result<Applied, StoreError> { todo!() }
    /// For each origin known, the stamp at or below which everything of it has been applied. This node's own is its
    /// last closed stamp.
    pub fn positions(&self) -> Vec<(Identity, Stamp)> { todo!() }
    /// One of them.
    pub fn position(&self, _origin: Identity) -> Stamp { todo!() }
    /// Raises the position of another origin; never lowers it. `false`: the table of origins is full.
    pub fn advance(&self, _origin: Identity, _stamp: Stamp) -> bool { todo!() }
    /// Closes a stamp: every write of this node that begins after this returns gets a greater one. Writes that began
    /// before are in the feed of a shard once [`Zone::feed`] has been called to the end for all shards of the returned
    /// mask: those with changes that `take_dirty` would tell, and those that a writer holds now.
    pub fn close(&self, _now: Millis) -> (Stamp, ShardMask) { todo!() }
    /// Takes the set of shards changed since the last call. One consumer: the agent.
    pub fn take_dirty(&self) -> ShardMask { todo!() }
    /// All shards.
    pub fn all_shards(&self) -> ShardMask { todo!() }
    /// A new walker at the beginning of every shard's feed. `None`: too many walkers. `owner`: the lease's generation.
    pub fn feed_open(&self, _owner: u64) -> Option<Cursor> { todo!() }
    /// Back to the beginning.
    pub fn feed_rewind(&self, _cursor: &mut Cursor) -> Result<(), StoreError> { todo!() }
    /// Gives a walker's place back.
    pub fn feed_close(&self, _cursor: Cursor) { todo!() }
    /// Takes away the walkers of owners other than this one (a dead agent's).
    pub fn feed_sweep(&self, _owner: u64) { todo!() }
    /// Walks on in one shard: hands at most some dozen records to `each`, oldest change first, tombstones too, and moves the walker past
    /// those for which `each` returned true; the first `false` stops the walk before that record. Steps is bounded: few dozen.
    pub fn feed(&self, _cursor: &mut Cursor, _shard: u32, _each: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<FeedEnd, StoreError> { todo!() }
    /// Says how many records wait for some peer, for `Stats::pending`.
    pub fn set_pending(&self, _records: u64) { todo!() }

    // ---- joining ----

    /// Whether a full state was taken since this zone was made.
    pub fn joined(&self) -> bool { todo!() }
    /// Says so.
    pub fn set_joined(&self) { todo!() }
    /// Tries to be the one session that takes the full state, or keeps being it: true if `token` (not 0) has the claim now.
    /// A claim not renewed for `patience` milliseconds is free.
    pub fn claim_donor(&self, _token: u64, _now: Millis, _patience: Millis) -> bool { todo!() }
    /// Gives the claim back.
    pub fn release_donor(&self, _token: u64) { todo!() }
}

/// How a walk of the feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd { /// Nothing more now.
 Drained,
 /// There is more: call again.
 More,
 /// `each` said no.
 Stopped,
 /// The feed was rebuilt after a crash and this walker is at its beginning again.
 Reset }

/// Kept for the helpers' sake.
pub fn _kind(_: Kind) {}
