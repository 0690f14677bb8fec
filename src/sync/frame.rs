//! The wire, lowest layer: frames of bounded length, and the fields inside them. Nothing here panics on any input.

use crate::record::{Identity, Stamp};

/// Bytes before a frame's type: its length, u32 little-endian, of the type and the body.
pub const PREFIX: usize = 4;
/// No node announces a smaller bound for frames than this, so that every message but records fits.
pub const SMALLEST_BOUND: usize = 1024;
/// No node announces a larger one.
pub const LARGEST_BOUND: usize = 16 * 1024 * 1024;
/// The bound before hellos are exchanged: a hello, with room for the fields of later versions.
pub const HELLO_BOUND: usize = 1024;

/// What is wrong with received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length of a frame is zero.
    #[error("a frame of no length")]
    Empty,
    /// The length of a frame is above the bound that was announced.
    #[error("a frame of {0} bytes where {1} are allowed")]
    TooLong(usize, usize),
    /// A field reaches over the end of its frame.
    #[error("a message is cut short")]
    Cut,
    /// A varint has more than 64 bits.
    #[error("a number has more than 64 bits")]
    Number,
    /// A field holds what it must not hold.
    #[error("{0}")]
    Value(&'static str),
}

/// Takes frames out of a stream of bytes that arrives in pieces.
///
/// A length is checked before anything of its frame is kept, and no more than one frame that isn't whole is kept:
/// memory stays below the bound, whatever arrives.
#[derive(Debug)]
pub struct Input {
    /// The beginning of a frame that isn't whole, or a whole one that `next` has just lent.
    partial: Vec<u8>,
    lent: bool,
    bound: usize,
}

impl Input {
    /// `bound`: the largest length that is accepted.
    pub const fn new(bound: usize) -> Input {
        Input { partial: Vec::new(), lent: false, bound }
    }

    /// Sets another bound.
    pub const fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Bytes that are kept.
    pub const fn held(&self) -> usize {
        self.partial.len()
    }

    /// The next whole frame, as type and body; `bytes` moves on past what was taken. `None`: all was taken.
    pub fn next<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8]) -> Result<Option<(u8, &'s [u8])>, Malformed> {
        if self.lent {
            self.partial.clear();
            self.lent = false;
        }
        if self.partial.is_empty()
            && let Some(length) = announced(bytes, self.bound)?
            && let Some((frame, rest)) = bytes.split_at_checked(PREFIX + length)
        {
            *bytes = rest;
            return Ok(split(frame));
        }
        self.keep(bytes, PREFIX);
        let Some(length) = announced(&self.partial, self.bound)? else { return Ok(None) };
        self.keep(bytes, PREFIX + length);
        if self.partial.len() < PREFIX + length {
            return Ok(None);
        }
        self.lent = true;
        Ok(split(&self.partial))
    }

    /// Moves bytes over until `want` are kept or there are no more.
    fn keep(&mut self, bytes: &mut &[u8], want: usize) {
        let missing = want.saturating_sub(self.partial.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.partial.extend_from_slice(taken);
        *bytes = rest;
    }
}

/// The length that the first bytes announce, if there are enough of them and it is allowed.
fn announced(bytes: &[u8], bound: usize) -> Result<Option<usize>, Malformed> {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    match u32::from_le_bytes(*prefix) as usize {
        0 => Err(Malformed::Empty),
        length if length > bound => Err(Malformed::TooLong(length, bound)),
        length => Ok(Some(length)),
    }
}

/// Type and body of a whole frame.
fn split(frame: &[u8]) -> Option<(u8, &[u8])> {
    frame.get(PREFIX..).and_then(|rest| rest.split_first()).map(|(kind, body)| (*kind, body))
}

/// Appends a frame of this type, whose body `write` appends. Returns what `write` did.
pub fn frame<R>(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let at = begin(out, kind);
    let result = write(out);
    end(out, at);
    result
}

/// Begins a frame; the returned place is for [`end`].
pub fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.push(kind);
    at
}

/// Ends the frame that was begun at `at`: writes its length.
pub fn end(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len().saturating_sub(at + PREFIX)).unwrap_or(u32::MAX);
    if let Some(prefix) = out.get_mut(at..at + PREFIX) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

/// How many frames stand in bytes that were written here.
pub fn count(mut bytes: &[u8]) -> u64 {
    let mut frames = 0;
    while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() {
        bytes = rest.get(u32::from_le_bytes(*prefix) as usize..).unwrap_or_default();
        frames += 1;
    }
    frames
}

/// Reads the fields of a body, and can't read past it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Of these bytes and no more.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes behind their own length, a varint.
    pub fn prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.varint()?;
        self.bytes(usize::try_from(count).map_err(|_| Malformed::Cut)?)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A stamp, eight bytes.
    pub fn stamp(&mut self) -> Result<Stamp, Malformed> {
        self.u64().map(Stamp)
    }

    /// An identity, sixteen bytes, not all zero.
    pub fn identity(&mut self) -> Result<Identity, Malformed> {
        match self.array::<16>()? {
            bytes if bytes == [0; 16] => Err(Malformed::Value("an identity of zeros")),
            bytes => Ok(Identity(bytes)),
        }
    }

    /// A number of seven bits a byte, the lowest first; the high bit says that there is more.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (read, byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * read as u32;
            // The tenth byte has room for one bit.
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(Malformed::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(read + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed::Cut)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Appends a number as [`Reader::varint`] reads it.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes behind their length.
pub fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes frames out of `bytes`, cut into pieces of at most `piece`.
    fn all(bytes: &[u8], piece: usize, bound: usize) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
        let mut input = Input::new(bound);
        let mut frames = Vec::new();
        for mut part in bytes.chunks(piece.max(1)) {
            while let Some((kind, body)) = input.next(&mut part)? {
                frames.push((kind, body.to_vec()));
            }
            assert!(part.is_empty());
            assert!(input.partial.len() <= bound + PREFIX);
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            sent in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..12),
            piece in 1usize..80,
        ) {
            let mut bytes = Vec::new();
            for (kind, body) in &sent {
                frame(&mut bytes, *kind, |out| out.extend_from_slice(body));
            }
            prop_assert_eq!(all(&bytes, piece, 61).unwrap(), sent);
        }

        #[test]
        fn any_bytes_end_or_keep_little(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..90) {
            let _ = all(&bytes, piece, 50);
        }

        #[test]
        fn varints_round_trip(value in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_its_bytes_come() {
        assert_eq!(all(&100u32.to_le_bytes(), 4, 99), Err(Malformed::TooLong(100, 99)));
        assert_eq!(all(&[0, 0, 0, 0], 1, 99), Err(Malformed::Empty));
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(Malformed::Number));
        assert_eq!(Reader::new(&[0x80; 5]).varint(), Err(Malformed::Cut));
    }
}
