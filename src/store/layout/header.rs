//! Offsets in the header. Words that are written often stand on cache lines of their own.

pub const MAGIC: usize = 0;
pub const VERSION: usize = 8;
pub const SIZE: usize = 16;
/// 16 bytes of secret for the hash.
pub const SEED: usize = 24;
/// Milliseconds; `u64::MAX`: none.
pub const TIMEOUT: usize = 40;
pub const SYNC: usize = 48;
/// Index of this node in the table of origins.
pub const SELF: usize = 52;
pub const JOINED: usize = 56;
/// The closed stamp of this node.
pub const CLOSED: usize = 64;
/// What this node wrote at or below this it may have written to other memory: later than that this one was made. Zero: it
/// never had any.
pub const BORN: usize = 72;
/// Comparisons with other nodes that were begun here and that came to an end; and records here that they were about.
pub const COMPARISONS_BEGUN: usize = 80;
pub const COMPARISONS_ENDED: usize = 88;
pub const COMPARED: usize = 96;
/// How often one of the zone's locks wasn't had in time.
pub const BUSY: usize = 104;
/// While records move from here to another zone: what this node wrote here at or below this is there, or was. See `merge`.
pub const MOVED: usize = 112;
/// How often it was noted here that something is lacking: another number after it was. See `past`.
pub const LACKS_NOTED: usize = 120;
/// Everything with a stamp at or below this was removed by emptying the zone.
pub const CLEARED: usize = 128;
/// While a full state is taken: records that came, and how many there are about (0: the donor didn't say).
pub const JOIN_TAKEN: usize = 136;
pub const JOIN_TOTAL: usize = 144;
/// When it was said that the zone has no room for what others have, milliseconds; 0: not since it was last complete.
pub const TOLD_FULL: usize = 152;
/// Until when what others have isn't asked for, milliseconds (0: it may be), as it found no room when it was asked for last; for
/// how long that was to be; and how many pages were free then, and how many records there were.
pub const VAIN_UNTIL: usize = 160;
pub const VAIN_PAUSE: usize = 168;
pub const VAIN_PAGES: usize = 176;
pub const VAIN_RECORDS: usize = 184;
/// A bit for each shard that changed since the agent last looked.
pub const DIRTY: usize = 192;
/// The lock of the page pool.
pub const POOL_LOCK: usize = 256;
/// First free page (number + 1), how many are free.
pub const POOL_HEAD: usize = 264;
pub const POOL_FREE: usize = 268;
/// The lock of the table of origins.
pub const ORIGINS_LOCK: usize = 320;
/// How many origins peers have pushed out of that table lately, and in which minute that was.
pub const ORIGINS_PUSHED: usize = 328;
/// The lock of those pages of the pool that next versions of records count on; who has it has a shard's, too.
pub const BORROW_LOCK: usize = 336;
/// Random: another zone, or one made anew, has another.
pub const MARK: usize = 344;
/// The first page (number + 1) in which the table of origins goes on, and how many there are. See `annex`.
pub const ANNEX: usize = 352;
pub const ANNEXES: usize = 356;
/// How far the walk is that looks for entries of that table without a record; when it began, milliseconds; whether one is
/// wanted. See `idle`.
pub const ORIGINS_WALK: usize = 360;
pub const ORIGINS_WALKED: usize = 368;
pub const ORIGINS_WANTED: usize = 376;
/// Walkers that the agent may have, for which watchers leave places.
pub const WALKERS_KEPT: usize = 380;
/// The session that takes the full state, and when it last said so.
pub const DONOR: usize = 384;
pub const DONOR_TIME: usize = 392;
/// As the agent last said.
pub const PENDING: usize = 400;
/// The greatest stamp of a tombstone that was taken away before its time.
pub const PURGE_FLOOR: usize = 408;
/// The greatest stamp of a record that was evicted.
pub const EVICTED_STAMP: usize = 416;
/// How keys are compared, and whether a full zone evicts.
pub const MATCHING: usize = 60;
pub const EVICT: usize = 424;
/// No entry of the table of origins was ever used from this one on.
pub const ORIGINS_END: usize = 428;
/// Nothing ends before this tick: upkeep passes a quiet zone by with one look.
pub const NEXT_DUE: usize = 432;
/// Blocks that the largest record ever made has beyond its first.
pub const LARGEST: usize = 440;
/// While records move to or from another zone: the greatest stamp that may be promised; see `resize`. 0: no bound.
pub const LIMIT: usize = 448;
/// The state file: a hash of its path (0: there is none), what [`Zone::changes`](super::super::Zone::changes) said of
/// what it holds, when it was written, its bytes; writes and failures so far.
pub const STATE_FILE: usize = 456;
pub const STATE_SAVED: usize = 464;
pub const STATE_TIME: usize = 472;
pub const STATE_BYTES: usize = 480;
pub const STATE_WRITES: usize = 488;
pub const STATE_ERRORS: usize = 496;
/// Records that were merged, of other nodes or from elsewhere.
pub const MERGED: usize = 504;
/// A bit for each length of key in use, where that matters.
pub const LENGTHS: usize = 512;
/// Until when changes are announced to watchers, milliseconds of the epoch; 0: nobody watches. See `watch`.
pub const WATCHED: usize = LENGTHS + crate::store::matching::LENGTH_WORDS * 8;
/// How often this node emptied the zone.
pub const CLEARS: usize = WATCHED + 8;
/// How long tombstones are kept, milliseconds.
pub const RETENTION: usize = CLEARS + 8;
/// Records that comparing with other nodes brought, and such that it took away.
pub const MENDED: usize = RETENTION + 8;
pub const RETIRED: usize = MENDED + 8;
/// While records move: what may still be written here, what the zone that they go to keeps for that, the size of its
/// region; and pages that this zone keeps for those that it gets records from. See `pledge`.
pub const ALLOWANCE: usize = RETIRED + 8;
pub const PLEDGED: usize = ALLOWANCE + 8;
pub const HEIR_SIZE: usize = PLEDGED + 8;
pub const PLEDGE: usize = HEIR_SIZE + 8;
/// The round of merging, from 1; 0: nothing is merged. Counts from anew after 255.
pub const PLEDGE_ROUND: usize = PLEDGE + 8;
/// The thread that sweeps the shards for what has ended, and sets [`NEXT_DUE`] anew; 0: none does.
pub const SWEEPER: usize = PLEDGE_ROUND + 8;
/// A hash of the size under the secret.
pub const SEAL: usize = SWEEPER + 8;
/// Where the state files stand in the feed: the walker (slot + 1; 0: nowhere); what was closed when it came there; how
/// often something went unseen, and up to which number that was mended. See `trail`.
pub const TRAIL: usize = SEAL + 8;
pub const TRAIL_CLOSED: usize = TRAIL + 8;
pub const TRAIL_MISSES: usize = TRAIL_CLOSED + 8;
pub const TRAIL_MENDED: usize = TRAIL_MISSES + 8;
/// Of the files of changes beside the state file: the number of the last, how many there are, their bytes, when one was
/// last appended to and how often; the emptying that is in them; and by which the state file is known that they follow:
/// its time in nanoseconds (0: unknown), the stamp of its pairs without one, its bytes.
pub const CHANGES_LAST: usize = TRAIL_MENDED + 8;
pub const CHANGES_FILES: usize = CHANGES_LAST + 8;
pub const CHANGES_BYTES: usize = CHANGES_FILES + 8;
pub const CHANGES_TIME: usize = CHANGES_BYTES + 8;
pub const CHANGES_APPENDS: usize = CHANGES_TIME + 8;
pub const CHANGES_CLEARED: usize = CHANGES_APPENDS + 8;
pub const FOLLOWED_TIME: usize = CHANGES_CLEARED + 8;
pub const FOLLOWED_STAMP: usize = FOLLOWED_TIME + 8;
pub const FOLLOWED_BYTES: usize = FOLLOWED_STAMP + 8;
/// The greatest stamp of a remote record that was left out, and what the shards had counted of such when comparing had brought
/// all of them; the greatest of those whose origin isn't noted.
pub const LACKED: usize = FOLLOWED_BYTES + 8;
pub const MADE_UP: usize = LACKED + 8;
pub const LACKED_OF_ANY: usize = MADE_UP + 8;
/// The greatest stamp that a position covers of a record that may have been given up before it was sent here.
pub const DOUBTED: usize = LACKED_OF_ANY + 8;
/// Random, of this memory: whose the parts of keys are that are written here. See `parts`.
pub const PART: usize = DOUBTED + 8;
/// For each size of block, how many records of it were written lately, while that matters.
pub const CHARGES: usize = PART + 8;
/// Of a zone of limits, where others have their lengths of keys, as the smallest zone has no byte to spare: thousandths of
/// a request a second, and on a line of their own how often each outcome was counted.
pub const RATE: usize = LENGTHS;
pub const LIMITED: usize = (RATE + 8).next_multiple_of(64);
pub const OUTCOMES: usize = 5;
const _: () = assert!(LIMITED + OUTCOMES * 8 <= WATCHED);
pub const LEN: usize = (CHARGES + super::CLASS_SIZES.len() * 4).next_multiple_of(64);
