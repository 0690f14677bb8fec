//! What goes over the wire: messages and their bytes, by kind and by who sent them.

use std::ops::Sub;

/// Kinds of messages, as the tables have them.
pub const KINDS: [&str; 7] =
    ["records", "positions", "acknowledgements", "signs of life", "have", "comparing", "others"];

/// Messages and bytes, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed([(u64, u64); KINDS.len()]);

impl Passed {
    pub fn of(&self, kind: &str) -> (u64, u64) {
        KINDS.iter().position(|name| *name == kind).map_or((0, 0), |at| self.0[at])
    }

    fn add(&mut self, kind: usize, length: usize) {
        let (messages, bytes) = &mut self.0[kind];
        *messages += 1;
        *bytes += 4 + length as u64;
    }

    pub fn all(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |sum, (messages, bytes)| (sum.0 + messages, sum.1 + bytes))
    }
}

impl Sub for Passed {
    type Output = Passed;

    fn sub(self, before: Passed) -> Passed {
        let mut since = self;
        for (now, then) in since.0.iter_mut().zip(before.0) {
            *now = (now.0 - then.0, now.1 - then.1);
        }
        since
    }
}

/// What was sent: by everybody, and on the connections of one node, either way.
#[derive(Default)]
pub struct Counts {
    pub all: Passed,
    pub with_one: Passed,
    pub one: usize,
}

impl Counts {
    /// One node has sent these whole frames to another.
    pub fn add(&mut self, from: usize, to: usize, mut frames: &[u8]) {
        let is_of_one = from == self.one || to == self.one;
        while let Some((prefix, body)) = frames.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*prefix) as usize;
            self.all.add(kind_of(body[0]), length);
            if is_of_one {
                self.with_one.add(kind_of(body[0]), length);
            }
            frames = &body[length..];
        }
    }
}

/// docs/protocol.md has the numbers.
fn kind_of(message: u8) -> usize {
    match message {
        9 | 10 => 0,
        12 => 1,
        13 => 2,
        3 | 4 => 3,
        14 => 4,
        0x81..=0x87 => 5,
        _ => 6,
    }
}
