//! Keys that several nodes write at the same time: such a key is several records, each with one writer and a key of its own.
//!
//! The key that users know is followed by what can be told from the end of a record's key: by a zero for the *base*, which
//! any node may replace; by eight bytes that say whose it is, and a one, for a *part*. So last-writer-wins, which is right
//! for each of them, merges them all: of a part the version with the highest stamp is the one that its only writer wrote
//! last.

/// Whose a part is: random bits of the memory that it is written in. Not the node's: what is begun anew (another file,
/// another size, a restart) must not write over what was counted before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartId(pub [u8; 8]);

impl PartId {
    /// Nobody's: a part that any node may write, which each writes whole and alike.
    pub const SHARED: PartId = PartId([0; 8]);
}

/// What a record is of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// What was set, or that it was deleted.
    Base,
    /// What one memory has added.
    Part(PartId),
}

const BASE: u8 = 0;
const PART: u8 = 1;
/// Bytes that the longest ending has.
pub const ENDING: usize = 9;

impl Role {
    /// The key of a record.
    pub fn of(self, key: &[u8]) -> Vec<u8> {
        let mut joined = Vec::with_capacity(key.len() + ENDING);
        joined.extend_from_slice(key);
        match self {
            Role::Base => joined.push(BASE),
            Role::Part(PartId(id)) => {
                joined.extend_from_slice(&id);
                joined.push(PART);
            }
        }
        joined
    }

    /// A record's key without its ending, and what that says. `None`: no record of several for a key has it.
    #[inline]
    pub fn split(record_key: &[u8]) -> Option<(&[u8], Role)> {
        let (key, role) = match record_key.split_last()? {
            (&BASE, key) => (key, Role::Base),
            (&PART, rest) => {
                let (key, id) = rest.split_last_chunk()?;
                (key, Role::Part(PartId(*id)))
            }
            _ => return None,
        };
        (!key.is_empty()).then_some((key, role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_ends_with_its_records_are_told_apart() {
        let roles = [Role::Base, Role::Part(PartId::SHARED), Role::Part(PartId([1; 8]))];
        let mut all = std::collections::HashSet::new();
        for key in
            [&b"k"[..], b"k\0", b"k\x01", b"k\0\0\0\0\0\0\0\0\x01", b"\0", b"\x01\x01\x01\x01\x01\x01\x01\x01\x01"]
        {
            for role in roles {
                let joined = role.of(key);
                assert_eq!(Role::split(&joined), Some((key, role)), "{key:?} as {role:?}");
                assert!(all.insert(joined), "{key:?} as {role:?}");
            }
        }
        for none in [&b""[..], b"\0", b"\x01", b"k\x01", b"12345678\x01", b"k\x02"] {
            assert_eq!(Role::split(none), None, "{none:?}");
        }
    }
}
