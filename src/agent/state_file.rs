//! State files: what a zone holds, in a file that outlives nginx.
//!
//! One JSON object, a pair a line, in the shape of the API, so that a file can be read and written by hand:
//!
//! ```json
//! {
//! "":{"zonemesh":1,"cleared":"019bd3c42a000000"},
//! "plain":"a value that never ends",
//! "with an end":{"value":"v","expire":1798761600000},
//! "of a shared zone":{"value":"v","version":"019bd3c42a7f0003.0c6f...32 digits of the writer's identity"},
//! "deleted":{"deleted":true,"expire":1798761600000,"version":"..."},
//! "bytes":{"base64":"/wA="},
//! "/2tleQ==":{"key":"base64","value":"v"}
//! }
//! ```
//!
//! `expire` is absolute, in milliseconds since the epoch; what has ended is not loaded. A value that isn't UTF-8 stands
//! under `base64`, and the name of a pair whose key isn't UTF-8 is its base64, which the member `key` says. The rest is
//! for zones that are shared (`sync`): versions, so that newer wins after a restart as it does between nodes; deletes
//! (until when they must be remembered); `shortened` (see [`Record`](crate::record::Record)); and first, under the empty
//! name, which no record can have, what belongs to the zone as a whole: the format, and the stamp of its last emptying. A
//! pair without a version takes the time of the file as its stamp.
//!
//! `text` writes pairs, `read` reads them, `load` fills a new zone, `write` makes the file, `keep` decides when.

mod keep;
mod load;
mod read;
mod text;
mod write;

#[cfg(test)]
mod tests;

pub(super) use keep::Keeper;
pub use load::{LoadError, Loaded, load};
pub use write::folder_of;

use crate::store::Zone;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// The format that is written. Files of a later one are refused, those without a number are of this one.
const FORMAT: u64 = 1;

/// A zone and where its state is kept.
#[derive(Clone)]
pub struct StateFile {
    /// The zone's name, for the log.
    pub name: String,
    /// The zone.
    pub zone: Zone,
    /// The file.
    pub path: PathBuf,
}

/// A number for the path of a file, for [`Zone::keep_state`].
pub fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish().max(1)
}
