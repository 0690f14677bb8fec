//! Versions: a hybrid logical clock's stamp and the identity of the writer. Their order is total.

use std::cmp::Ordering;
use std::fmt;

/// Milliseconds since the epoch of Unix, as the caller's clock has it.
pub type Millis = u64;

/// A node and its incarnation: 128 random bits drawn when the node's memory was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// The number that its bytes are, the highest first.
    #[inline]
    pub const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl Ord for Identity {
    /// That of the bytes.
    #[inline]
    fn cmp(&self, other: &Identity) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Identity {
    #[inline]
    fn partial_cmp(&self, other: &Identity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Identity {
    /// The first eight bytes, enough to tell nodes apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// A stamp of a hybrid logical clock: 48 bits of milliseconds since the epoch, then 16 bits that count within one.
///
/// After Kulkarni and others, "Logical Physical Clocks", 2014: physical time when it moves on, a count when it doesn't.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Before every stamp that is ever given.
    pub const ZERO: Stamp = Stamp(0);

    /// The first stamp of a millisecond.
    pub const fn at(millis: Millis) -> Stamp {
        Stamp(millis << 16)
    }

    /// The millisecond that this stamp falls in.
    pub const fn millis(self) -> Millis {
        self.0 >> 16
    }

    /// The next stamp; the count runs over into the milliseconds, as the order demands.
    pub const fn next(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// When a record was written and by whom. The derived order is the one that decides conflicts: stamp, then identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// When.
    pub stamp: Stamp,
    /// By whom.
    pub origin: Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_stand_in_the_order_of_their_bytes() {
        let mut first = [0x7f; 16];
        let mut last = first;
        (first[0], last[15]) = (0x80, 0xff);
        assert_eq!(Identity(first).cmp(&Identity(last)), first.cmp(&last));
        assert_eq!(Identity(last).cmp(&Identity([0x7f; 16])), Ordering::Greater);
        assert_eq!(Identity(last).cmp(&Identity(last)), Ordering::Equal);
    }
}
