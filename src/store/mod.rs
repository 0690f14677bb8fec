//! A key-value store inside one flat region of shared memory.
//!
//! It knows nothing of nginx or of sockets: it is given a region and the time. [`Zone`] is its face; below it, from the
//! ground up:
//!
//! - [`region`]: the memory, by offsets; `unsafe` is here and in `lock` alone. `layout`: what is where in it.
//! - `lock`: locks that know their owner, `patience`: how long they are waited for. `pool`, `arena` with `pages`: pages and
//!   blocks. `block`: a record in memory.
//! - `find`: where a key belongs. `shard`: chains of records under a lock (`unlocked`: looked at without), with `feed`
//!   (changes in order), `expiry` (ends in order) and `repair`.
//! - `resize`, `merge`: moving to memory of another size, with room there that `pledge` keeps; `inherit`: with what is known of
//!   other nodes. `dump`: copies of all records. `state`: what is known of the state file, `trail`: where it stands in the feed.
//!   `watch`: what those who follow changes need.
//! - `origins`: who wrote what, up to where. `matching`: which key answers. `parts`: keys that several nodes write, of which
//!   `counter` makes sums and `limit` buckets. `lookup`, `keys` with `own` and `relief`, `scan`, `replicate` with `closing` and `joining`, `upkeep`,
//!   `evict` with `hand` and `gather`, `survey`: what a zone does. `session`: which server a client stays with.
//!   `renew`: stamping anew what was written by a clock that was ahead.
//! - [`control`]: what belongs to the node and not to a zone, with `lease` (who is its agent), `sleep` (who is to be woken),
//!   `workers`, and what is known of other nodes: `links`, `heard` and `drift`. `tally`: figures that many workers count.
//! - `failpoint`, `rule`: what tests stop at, and what the simulator breaks.

mod annex;
mod arena;
mod block;
mod closing;
pub mod control;
mod counter;
mod drift;
mod dump;
mod evict;
mod expiry;
pub(crate) mod failpoint;
mod feed;
mod find;
mod gather;
mod hand;
mod hash;
mod heard;
mod idle;
mod inherit;
mod joining;
mod keys;
mod known;
mod layout;
mod lease;
mod limit;
mod links;
mod lock;
mod lookup;
mod matching;
mod merge;
mod origins;
mod own;
mod pages;
mod parts;
mod past;
mod patience;
mod pledge;
mod pool;
pub mod region;
mod relief;
mod renew;
mod repair;
mod replicate;
mod resize;
mod rule;
mod scan;
mod session;
mod shard;
mod sleep;
mod state;
mod survey;
mod tally;
mod trail;
mod unlocked;
mod upkeep;
mod watch;
mod workers;
mod zone;

#[cfg(test)]
mod tests;

pub use control::Control;
pub use counter::{Counted, Missing};
pub use drift::{Drift, Side};
pub use dump::{Batch, DumpPlace, Dumped};
pub use hash::Hasher;
pub use hash::mixed;
pub use heard::{HeardNode, Traffic};
pub use joining::Joining;
pub use keys::{Condition, Life, Written};
pub use known::{Known, KnownMark};
pub use limit::{Limited, Outcome};
pub use links::{Certificate, LINKS, LinkFigures, LinkState, Pulse};
pub use lookup::{Found, Sink};
pub use matching::{MAX_PARTED, MAX_PREFIX, MAX_SPELLINGS, Matching};
pub use merge::{Merge, Merging};
pub use past::Lacks;
pub use patience::Sparing;
pub use region::{Mapping, Region};
pub use renew::{Renewal, Renewed};
pub use replicate::{Applied, Cursor, FeedEnd, ShardMask};
pub use resize::{Copied, Handover, Source};
pub use rule::Rule;
pub use scan::{ScanEach, ScanPlace};
pub use session::{Keeping, Told, Use};
pub use state::{Followed, StateChanges, StateFigures};
pub use survey::Surveyed;
pub use tally::{Ending, Figures, TALLY_SIZE, TALLY_SLOTS, Tally};
pub use trail::Walk;
pub use watch::Change;
pub use zone::{AttachError, Comparisons, Params, Slot, Stats, StoreError, Zone};

/// Smallest zone, bytes: eight pages of 4 KiB.
pub const MIN_ZONE_SIZE: usize = 32 * 1024;
/// Largest key, bytes.
pub const MAX_KEY: usize = 64 * 1024;
/// Largest value, bytes.
pub const MAX_VALUE: usize = 1024 * 1024;
