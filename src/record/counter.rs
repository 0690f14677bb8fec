//! Counters: what the records of one hold, and what they come to together.
//!
//! The base has a value that was set, or is a tombstone: either is a *cut*, behind which all begins anew. A part has what one
//! memory has added since it was begun. It counts if it was begun after the cut; so what is deleted or set takes all with it
//! that was added to what there was before, also what nobody had told it of, and nothing that is added to what there is now.

use super::{Millis, Stamp};

/// What a part holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// The stamp of its first version; [`Stamp::ZERO`]: it is this one.
    pub begun: Stamp,
    /// All that was added since.
    pub amount: i64,
}

impl Count {
    /// Bytes of a part's value: as many for its first version as for later ones, so that no addition to it needs more room.
    pub const LEN: usize = 16;

    /// The value of its record.
    pub fn encode(&self) -> [u8; Count::LEN] {
        let mut bytes = [0; Count::LEN];
        bytes[..8].copy_from_slice(&self.begun.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.amount.to_le_bytes());
        bytes
    }

    /// Reads the value of its record. `None`: it is none of a part.
    pub fn read(bytes: &[u8]) -> Option<Count> {
        let (begun, rest) = bytes.split_first_chunk()?;
        let amount = i64::from_le_bytes(rest.try_into().ok()?);
        Some(Count { begun: Stamp(u64::from_le_bytes(*begun)), amount })
    }

    /// The same of a record that was written under `stamp`, with the stamp under which it was begun.
    pub fn decode(bytes: &[u8], stamp: Stamp) -> Option<Count> {
        let Count { begun, amount } = Count::read(bytes)?;
        // Nothing is begun after it was last written.
        let begun = if begun == Stamp::ZERO { stamp } else { begun.min(stamp) };
        Some(Count { begun, amount })
    }
}

/// Reads the value of a base, and what clients set: a whole number in decimal digits. `None`: it is none, or too large.
pub fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What the records of a counter come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    // Wide enough for any number of records there can be.
    total: i128,
    /// The earliest end among what counts. `None`: it has none.
    pub end: Option<Millis>,
    /// Whether anything counts.
    pub exists: bool,
}

impl Sum {
    /// Adds what counts, and when it ends.
    pub fn add(&mut self, amount: i64, end: Option<Millis>) {
        self.total = self.total.saturating_add(i128::from(amount));
        self.end = match (self.end, end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.exists = true;
    }

    /// The sum as it is shown. Nodes that don't know of each other can add more than 64 bits hold; that shows as the
    /// largest or smallest number they do, and the sum is right again once something was taken off.
    pub fn shown(&self) -> i64 {
        self.total.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The sum with so much more. `None`: 64 bits don't hold it.
    pub fn plus(&self, more: i128) -> Option<i64> {
        i64::try_from(self.total.checked_add(more)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_was_written() {
        for count in [Count { begun: Stamp(7), amount: -3 }, Count { begun: Stamp(9), amount: i64::MAX }] {
            assert_eq!(Count::decode(&count.encode(), Stamp(9)), Some(count));
        }
        let first = Count { begun: Stamp::ZERO, amount: 1 };
        assert_eq!(Count::decode(&first.encode(), Stamp(9)), Some(Count { begun: Stamp(9), amount: 1 }));
        let later = Count { begun: Stamp(10), amount: 1 };
        assert_eq!(Count::decode(&later.encode(), Stamp(9)), Some(Count { begun: Stamp(9), amount: 1 }));
        for bytes in [&[0; 15][..], &[0; 17], &[]] {
            assert_eq!(Count::decode(bytes, Stamp(9)), None);
        }
    }

    #[test]
    fn sums_never_wrap() {
        let mut sum = Sum::default();
        sum.add(i64::MAX, None);
        assert_eq!((sum.shown(), sum.plus(1), sum.plus(-1)), (i64::MAX, None, Some(i64::MAX - 1)));
        sum.add(5, Some(10));
        assert_eq!((sum.shown(), sum.plus(-5), sum.end), (i64::MAX, Some(i64::MAX), Some(10)));
        sum.add(-6, Some(7));
        assert_eq!((sum.shown(), sum.end), (i64::MAX - 1, Some(7)));
    }

    #[test]
    fn numbers_are_whole_and_of_64_bits() {
        assert_eq!(number(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(number(b"007"), Some(7));
        for text in ["", " 1", "1.0", "1e3", "9223372036854775808", "x", "--1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
