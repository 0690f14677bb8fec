//! Records copied under a zone's lock, to be written as text once it was given back.

use crate::store::Found;
use std::collections::VecDeque;

/// Copies of some records, first in, first out.
#[derive(Default)]
pub(super) struct Copied {
    bytes: Vec<u8>,
    heads: VecDeque<(usize, usize, Found)>,
    /// Where the first of them begins.
    start: usize,
}

impl Copied {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Appends one.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8], found: Found) {
        if self.heads.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.heads.push_back((key.len(), value.len(), found));
    }

    /// Key, value and what else is known of the first.
    pub(super) fn first(&self) -> Option<(&[u8], &[u8], &Found)> {
        let (key, value, found) = self.heads.front()?;
        let (key, rest) = self.bytes.get(self.start..)?.split_at_checked(*key)?;
        Some((key, rest.get(..*value)?, found))
    }

    /// Lets go of the first.
    pub(super) fn pop(&mut self) {
        if let Some((key, value, _)) = self.heads.pop_front() {
            self.start += key + value;
        }
        // One large value isn't remembered for the whole of a listing.
        if self.heads.is_empty() && self.bytes.capacity() > 1 << 18 {
            self.bytes = Vec::new();
        }
    }
}
