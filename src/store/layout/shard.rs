//! Offsets in a shard, and the sizes of its tables.

// What every write changes stands on one cache line, so that two processes that write pass each other few lines. Only
// what look-ups read as well stands on another one: they would take away the first in the middle of a write.
pub const LOCK: usize = 0;
/// Greatest stamp of any record, and greatest stamp given by this node.
pub const LAST: usize = 8;
pub const LAST_OWN: usize = 16;
/// Records written by this node; with its deletes, the difference tells a walker how much it lags.
pub const WRITES: usize = 24;
pub const RECORDS: usize = 32;
pub const TOMBSTONES: usize = 40;
/// The end of the feed, a block of which only the links are used.
pub const FEED: usize = 48;
/// Deletes of this node.
pub const DELETES: usize = 56;
/// Moves before a freed block can be used again.
pub const SEQUENCE: usize = 64;
/// Not 0 while something is done in several steps, of which who adds up several records must see all or none.
pub const CHANGING: usize = 72;

// Seldom changed, and read by every write.
/// Expiry: the tick up to which all is done, the tick of the next that is due, a list being emptied.
pub const TICK: usize = 128;
pub const NEXT_DUE: usize = 136;
pub const DRAINING: usize = 144;
/// A bit for each slot in use, a word for each level.
pub const OCCUPIED: usize = 152;

/// Counts repairs: walkers that see it move start over.
pub const EPOCH: usize = 200;
/// Everything up to this clear stamp has been removed for good.
pub const PURGED: usize = 208;
pub const REFUSED: usize = 216;
pub const INCOMPLETE: usize = 224;
pub const FUTURE: usize = 232;
pub const EXPIRED: usize = 240;
/// Records given up for others.
pub const EVICTED: usize = 248;
/// Where the clock's hand stands.
pub const HAND: usize = 256;
/// While the zone is watched: moves with every change.
pub const CHANGES: usize = 264;
/// When the last of those records went of which nothing tells any more that they are gone. 0: there is none.
pub const FORGOTTEN: usize = 272;
/// The emptying that is being done for good, and the next bucket to look at.
pub const PURGING: usize = 280;
pub const PURGE_HAND: usize = 288;
/// How many records have gone since the hand of `hand` began its lap; 1: what it comes to now was passed by in the last.
pub const GONE: usize = 296;
pub const AGAIN: usize = 304;
pub const LEVELS: usize = 6;
pub const SLOTS: usize = 64;
pub const WHEEL: usize = AGAIN + 8;
/// For each class: first page with a free block (number + 1), link to a spare block, blocks in use, requests, failures.
pub const CLASSES: usize = (WHEEL + LEVELS * SLOTS * 4).next_multiple_of(64);
pub const CLASS_LEN: usize = 32;
pub const LEN: usize = (CLASSES + CLASS_LEN * super::CLASS_SIZES.len()).next_multiple_of(64);
