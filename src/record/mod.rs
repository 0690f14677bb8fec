//! What a record is, apart from where it is kept: its version, its kind, and which of two wins.

mod counter;
mod limit;
mod part;
mod register;
mod version;

pub use counter::{Count, Sum, number};
pub use limit::{Bucket, News, Share};
pub use part::{ENDING, PartId, Role};
pub use register::beats;
pub use version::{Identity, Millis, Stamp, Version};

/// What the value of a record means. Travels and is stored as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Last writer wins, whole values.
    Register = 1,
    /// A number to which several nodes add at the same time; see [`Role`] and [`Count`].
    Counter = 2,
    /// What a node has admitted of what is limited; see [`Share`].
    Limit = 3,
}

impl Kind {
    /// The kind that a stored or received byte names, if this version knows it.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Register, Kind::Counter, Kind::Limit].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record as it travels between nodes. Borrowed: from a frame, or from a buffer that a feed walk filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the value means.
    pub kind: Kind,
    /// When and by whom it was written.
    pub version: Version,
    /// Key, any bytes.
    pub key: &'a [u8],
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// When it ends, absolute; `None`: never. On a tombstone always `None`.
    pub expires: Option<Millis>,
    /// An older record of this key would have lived longer, somewhere: its end must leave a tombstone.
    pub shortened: bool,
}
