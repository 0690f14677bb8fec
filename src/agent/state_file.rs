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
//! pair without a version takes the time of the file as its stamp. The file of a zone that is a quarter full has the secret
//! seed of its hash there too, as another one might spread the records so that they don't fit.
//!
//! A file that takes long to write is followed by files of changes, with such a pair a line, each an object of its own.
//!
//! `text` writes pairs, `read` and `scan` read them, `write` makes the file, `changes` appends beside it, `keep` decides when;
//! `chain` finds which changes belong to a file, and `load` fills a new zone.

mod chain;
mod changes;
mod keep;
mod load;
mod read;
mod scan;
mod text;
mod write;

#[cfg(test)]
mod tests;

pub(super) use keep::Keeper;
pub use load::{LoadError, Loaded, load, seed};

use crate::store::Zone;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    terms: Terms,
}

impl StateFile {
    /// The state of a zone in a file.
    pub fn new(name: String, zone: Zone, path: PathBuf) -> StateFile {
        StateFile { name, zone, path, terms: Terms::ORDINARY }
    }
}

/// When changes are appended beside a file, and when it is written anew.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// A large file that takes longer to write than this has its changes appended.
    slow: Duration,
    /// And while it is written, this often.
    rounds: Duration,
    /// One that is so large, in bytes, is taken for slow before it was written once.
    slow_bytes: u64,
    /// One that is so large could be slow, and its place in the feed is kept. A smaller one is written as fast as appended to,
    /// whatever the disk.
    follow: u64,
    /// Half of the file, but at least and at most so many bytes of changes: then it is written anew.
    fewest: u64,
    most: u64,
}

impl Terms {
    /// What is loaded at the start has to remember where the last line of each key stands, which bounds `most`.
    const ORDINARY: Terms = Terms {
        slow: Duration::from_millis(200),
        rounds: Duration::from_millis(300),
        slow_bytes: 8 << 20,
        follow: 1 << 20,
        fewest: 1 << 20,
        most: 1 << 30,
    };
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A number for the path of a file, for [`Zone::keep_state`].
pub fn number(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish().max(1)
}
