//! Records that seem to be over for the peer, by something that this node hasn't heard of. The next comparison looks again.

use std::collections::HashSet;

/// Bounds of them.
const MAX_KEYS: usize = 4_096;
const MAX_BYTES: usize = 256 * 1024;

/// Their keys.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    keys: HashSet<Vec<u8>>,
    bytes: usize,
    too_many: bool,
}

impl Suspects {
    /// Adds one, if there is room.
    pub(super) fn add(&mut self, key: &[u8]) {
        if self.keys.len() >= MAX_KEYS || self.bytes.saturating_add(key.len()) > MAX_BYTES {
            self.too_many = true;
        } else if self.keys.insert(key.to_vec()) {
            self.bytes += key.len();
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(Vec::as_slice)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether some found no room.
    pub(super) const fn are_too_many(&self) -> bool {
        self.too_many
    }
}
