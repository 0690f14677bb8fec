//! Pairs that wait until all of a body is checked, packed into parcels: so that millions of them are kept, and let go, in
//! small steps and little memory.

use crate::api::error::FormatError;
use crate::store::Life;
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;

/// A parcel takes no further pair after so many bytes.
const PARCEL: usize = 64 * 1024;
/// Above so many keys they are spread over shelves: a set grows by moving all that it has at once.
const A_SHELF: usize = 1024;
const SHELVES: usize = 1024;

/// A key, and what is to become of it.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct Pair<'a> {
    pub(in crate::api) key: Cow<'a, [u8]>,
    pub(in crate::api) change: Change<'a>,
}

#[derive(Debug, PartialEq)]
pub(in crate::api) enum Change<'a> {
    /// It gets this value. Without an `expire` its life begins anew, as long as the zone's timeout.
    Set { value: Cow<'a, [u8]>, life: Life },
    /// It keeps its value and gets another life.
    Touch(Life),
    /// It goes.
    Delete,
}

/// Pairs, no two with the same key.
#[derive(Default)]
pub(in crate::api) struct Packed {
    parcels: VecDeque<Parcel>,
    count: usize,
    keys: Keys,
}

#[derive(Default)]
struct Parcel {
    /// Keys, each followed by its value if it has one.
    bytes: Vec<u8>,
    heads: Vec<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    key: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Set { value: usize, life: Life },
    Touch(Life),
    Delete,
}

/// Where a walk stands. The default is the beginning.
#[derive(Clone, Copy, Default)]
pub(in crate::api) struct Place {
    parcel: usize,
    pair: usize,
    byte: usize,
}

impl Packed {
    /// Appends a pair.
    pub(super) fn add(&mut self, pair: &Pair<'_>) -> Result<(), FormatError> {
        if !self.keys.insert(&pair.key) {
            return Err(FormatError::KeyTwice);
        }
        if self.parcels.back().is_none_or(|last| last.bytes.len() >= PARCEL) {
            self.parcels.push_back(Parcel::default());
        }
        let Some(parcel) = self.parcels.back_mut() else { return Ok(()) };
        parcel.bytes.extend_from_slice(&pair.key);
        let what = match &pair.change {
            Change::Set { value, life } => {
                parcel.bytes.extend_from_slice(value);
                What::Set { value: value.len(), life: *life }
            }
            Change::Touch(life) => What::Touch(*life),
            Change::Delete => What::Delete,
        };
        parcel.heads.push(Head { key: pair.key.len(), what });
        self.count += 1;
        Ok(())
    }

    /// How many there are, those that were dropped included.
    pub(in crate::api) fn len(&self) -> usize {
        self.count
    }

    /// The only one; `None`: there are none, or several.
    pub(in crate::api) fn only(&self) -> Option<Pair<'_>> {
        if self.count == 1 { self.next(&mut Place::default()) } else { None }
    }

    /// The next one of a walk.
    pub(in crate::api) fn next(&self, place: &mut Place) -> Option<Pair<'_>> {
        let mut parcel = self.parcels.get(place.parcel)?;
        if place.pair >= parcel.heads.len() {
            *place = Place { parcel: place.parcel + 1, ..Place::default() };
            parcel = self.parcels.get(place.parcel)?;
        }
        let head = *parcel.heads.get(place.pair)?;
        let rest = parcel.bytes.get(place.byte..)?;
        let (key, rest) = rest.split_at_checked(head.key)?;
        place.pair += 1;
        place.byte += head.key;
        let change = match head.what {
            What::Set { value, life } => {
                place.byte += value;
                Change::Set { value: Cow::Borrowed(rest.get(..value)?), life }
            }
            What::Touch(life) => Change::Touch(life),
            What::Delete => Change::Delete,
        };
        Some(Pair { key: Cow::Borrowed(key), change })
    }

    /// Lets go of the parcels that a walk has passed.
    pub(in crate::api) fn drop_passed(&mut self, place: &mut Place) {
        while place.parcel > 0 && self.parcels.pop_front().is_some() {
            place.parcel -= 1;
        }
    }

    /// Lets go of a parcel, or of what else there is; `false`: nothing is left.
    pub(in crate::api) fn drop_some(&mut self) -> bool {
        self.parcels.pop_back().is_some() || self.keys.drop_some()
    }

    /// No further pair is added: the keys needn't be known any more. `false`: all are forgotten.
    pub(super) fn forget_keys(&mut self) -> bool {
        self.keys.drop_some()
    }
}

/// Hashes of the keys that there are: so wide that two keys share one never.
#[derive(Default)]
struct Keys {
    shelves: Vec<HashSet<u128>>,
    hashers: (RandomState, RandomState),
}

impl Keys {
    /// `false`: it is there already.
    fn insert(&mut self, key: &[u8]) -> bool {
        let (high, low) = (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key));
        let hash = u128::from(high) << 64 | u128::from(low);
        if self.shelves.is_empty() {
            self.shelves.push(HashSet::new());
        }
        if let [only] = self.shelves.as_mut_slice()
            && only.len() >= A_SHELF
        {
            let first = std::mem::take(only);
            self.shelves.resize_with(SHELVES, HashSet::new);
            for hash in first {
                self.put(hash);
            }
        }
        self.put(hash)
    }

    fn put(&mut self, hash: u128) -> bool {
        // Of the modulus, so it fits.
        let shelf = (hash % self.shelves.len().max(1) as u128) as usize;
        self.shelves.get_mut(shelf).is_some_and(|shelf| shelf.insert(hash))
    }

    fn drop_some(&mut self) -> bool {
        let rest = self.shelves.len().saturating_sub(SHELVES / 16);
        self.shelves.truncate(rest);
        rest > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_out_as_they_went_in() {
        let mut packed = Packed::default();
        let all: Vec<Pair<'_>> = (0..5000)
            .map(|n| Pair {
                key: format!("key {n}").into_bytes().into(),
                change: match n % 4 {
                    0 => Change::Delete,
                    1 => Change::Touch(Life::For(n)),
                    2 => Change::Set { value: Cow::Borrowed(b""), life: Life::Default },
                    _ => Change::Set { value: vec![b'v'; n as usize].into(), life: Life::For(n) },
                },
            })
            .collect();
        for pair in &all {
            packed.add(pair).unwrap();
        }
        assert_eq!(packed.len(), 5000);
        assert!(packed.parcels.len() > 10);
        for n in [0, 1, 4999] {
            assert_eq!(packed.add(&all[n]), Err(FormatError::KeyTwice));
        }
        let mut place = Place::default();
        for pair in &all {
            assert_eq!(packed.next(&mut place).as_ref(), Some(pair));
            packed.drop_passed(&mut place);
        }
        assert_eq!((packed.next(&mut place), packed.parcels.len()), (None, 1));
        let mut steps = 0;
        while packed.drop_some() {
            steps += 1;
        }
        assert!(steps > 10 && packed.parcels.is_empty() && packed.keys.shelves.is_empty());
    }

    #[test]
    fn the_only_one() {
        let pair = |key: &'static str| Pair { key: key.as_bytes().into(), change: Change::Delete };
        let mut packed = Packed::default();
        assert_eq!(packed.only(), None);
        packed.add(&pair("a")).unwrap();
        assert_eq!(packed.only(), Some(pair("a")));
        packed.add(&pair("b")).unwrap();
        assert_eq!(packed.only(), None);
    }
}
