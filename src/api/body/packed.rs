//! Pairs that wait until all of a body is checked, packed into parcels: so that millions of them are kept, and let go, in
//! small steps and little memory.
//!
//! Parcels are mapped apart from the heap. What is freed there is given back to the system when the last bit at the end of it
//! is, all at once: tens of milliseconds for what a million pairs take.

use crate::api::error::{Error, FormatError};
use crate::record::Millis;
use crate::store::Life;
use memmap2::MmapMut;
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;

/// The first parcel is on the heap, as it is nearly always the only one; it and the others have so many bytes, or what one
/// pair needs.
const FIRST: usize = 16 * 1024;
const PARCEL: usize = 256 * 1024;
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
    /// A counter gets so much more; one that isn't there begins with `init`, and lives so long.
    Count { by: i64, init: Option<i64>, life: Life },
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

struct Parcel {
    room: Room,
    used: usize,
}

enum Room {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

/// What stands before a key and its value: their lengths, and what the pair is for.
const HEAD: usize = 24;
const SET: u64 = 0;
const TOUCH: u64 = 1;
const DELETE: u64 = 2;
/// With what a counter begins, and without.
const BEGIN: u64 = 3;
const COUNT: u64 = 4;

impl Parcel {
    fn new(is_first: bool, needed: usize) -> Result<Parcel, Error> {
        let room = match is_first {
            true => Room::Heap(Vec::with_capacity(needed.min(FIRST))),
            false => Room::Mapped(MmapMut::map_anon(PARCEL.max(needed)).map_err(|_| Error::BodyRead)?),
        };
        Ok(Parcel { room, used: 0 })
    }

    /// Appends a pair; `false`: it doesn't fit.
    fn add(&mut self, head: [u64; 3], key: &[u8], value: &[u8]) -> bool {
        let end = self.used + HEAD + key.len() + value.len();
        let head = head.map(u64::to_ne_bytes);
        match &mut self.room {
            Room::Heap(bytes) => {
                if end > FIRST && self.used > 0 {
                    return false;
                }
                bytes.extend_from_slice(head.as_flattened());
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
            }
            Room::Mapped(map) => {
                let Some(mut room) = map.get_mut(self.used..end) else { return false };
                for part in [head.as_flattened(), key, value] {
                    let Some((here, rest)) = room.split_at_mut_checked(part.len()) else { return false };
                    here.copy_from_slice(part);
                    room = rest;
                }
            }
        }
        self.used = end;
        true
    }

    /// The pair that begins at this byte, and where the next one does.
    fn pair(&self, at: usize) -> Option<(Pair<'_>, usize)> {
        let bytes = match &self.room {
            Room::Heap(bytes) => bytes.as_slice(),
            Room::Mapped(map) => map,
        };
        let mut rest = bytes.get(at..self.used)?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_ne_bytes(*number))
        };
        let (lengths, kind, life) = (number()?, number()?, number()?);
        // Both lengths are far below 4 GiB.
        let (key, value) = ((lengths >> 32) as usize, (lengths & 0xffff_ffff) as usize);
        let (key, rest) = rest.split_at_checked(key)?;
        let change = match kind {
            SET => Change::Set { value: Cow::Borrowed(rest.get(..value)?), life: life_of(life) },
            TOUCH => Change::Touch(life_of(life)),
            BEGIN | COUNT => {
                let (by, init) = rest.get(..value)?.split_first_chunk()?;
                let init = i64::from_le_bytes(init.try_into().ok()?);
                let (by, init) = (i64::from_le_bytes(*by), (kind == BEGIN).then_some(init));
                Change::Count { by, init, life: life_of(life) }
            }
            _ => Change::Delete,
        };
        Some((Pair { key: Cow::Borrowed(key), change }, at + HEAD + key.len() + value))
    }
}

/// A life as a number, and back. Bodies give lives of a millisecond or more, or none.
fn number_of(life: Life) -> Millis {
    match life {
        Life::For(millis) => millis,
        Life::Default | Life::Keep => 0,
    }
}

fn life_of(number: Millis) -> Life {
    if number > 0 { Life::For(number) } else { Life::Default }
}

/// Where a walk stands. The default is the beginning.
#[derive(Clone, Copy, Default)]
pub(in crate::api) struct Place {
    parcel: usize,
    byte: usize,
}

impl Packed {
    /// Appends a pair.
    pub(super) fn add(&mut self, pair: &Pair<'_>) -> Result<(), Error> {
        if !self.keys.insert(&pair.key) {
            return Err(FormatError::KeyTwice.into());
        }
        let mut numbers = [0; 16];
        let (value, kind, life) = match &pair.change {
            Change::Set { value, life } => (&**value, SET, number_of(*life)),
            Change::Touch(life) => (&[][..], TOUCH, number_of(*life)),
            Change::Count { by, init, life } => {
                let (first, second) = numbers.split_at_mut(8);
                first.copy_from_slice(&by.to_le_bytes());
                second.copy_from_slice(&init.unwrap_or(0).to_le_bytes());
                (&numbers[..], if init.is_some() { BEGIN } else { COUNT }, number_of(*life))
            }
            Change::Delete => (&[][..], DELETE, 0),
        };
        let head = [(pair.key.len() as u64) << 32 | value.len() as u64, kind, life];
        if !self.parcels.back_mut().is_some_and(|last| last.add(head, &pair.key, value)) {
            let mut parcel = Parcel::new(self.parcels.is_empty(), HEAD + pair.key.len() + value.len())?;
            parcel.add(head, &pair.key, value);
            self.parcels.push_back(parcel);
        }
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
        if place.byte >= parcel.used {
            *place = Place { parcel: place.parcel + 1, byte: 0 };
            parcel = self.parcels.get(place.parcel)?;
        }
        let (pair, next) = parcel.pair(place.byte)?;
        place.byte = next;
        Some(pair)
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

/// Hashes of the keys that there are, under a secret of their own: of a million bodies with a million keys each, two keys
/// share one in some three of a hundred.
#[derive(Default)]
struct Keys {
    shelves: Vec<HashSet<u64>>,
    hasher: RandomState,
}

impl Keys {
    /// `false`: it is there already.
    fn insert(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
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

    fn put(&mut self, hash: u64) -> bool {
        // Of the modulus, so it fits.
        let shelf = (hash % self.shelves.len().max(1) as u64) as usize;
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
        let mut all: Vec<Pair<'_>> = (0..5000)
            .map(|n| Pair {
                key: format!("key {n}").into_bytes().into(),
                change: match n % 6 {
                    4 => Change::Count { by: n as i64 - 2500, init: None, life: Life::Default },
                    5 => Change::Count { by: i64::MIN, init: Some(-(n as i64)), life: Life::For(n) },
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
        assert!(packed.parcels.len() > 8);
        for n in [0, 1, 4999] {
            assert_eq!(packed.add(&all[n]), Err(FormatError::KeyTwice.into()));
        }
        let large = Pair {
            key: vec![b'k'; 60_000].into(),
            change: Change::Set { value: vec![b'v'; 1 << 20].into(), life: Life::Default },
        };
        packed.add(&large).unwrap();
        all.push(large);
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
