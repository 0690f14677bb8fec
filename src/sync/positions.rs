//! What is known of origins: positions by identity, and the short numbers that stand for identities in a session.

use super::message::MAX_ORIGINS;
use crate::record::{Identity, Stamp};
use std::collections::HashMap;

/// How many positions of a peer are kept for a zone. Those beyond are forgotten, which costs sending more than needed.
const MAX_POSITIONS: usize = 4096;

/// Positions, to be looked up by identity: once for each record of a walk, so the last answer is kept.
#[derive(Debug, Default)]
pub struct Positions {
    sorted: Vec<(Identity, Stamp)>,
    last: Option<(Identity, Stamp)>,
}

impl Positions {
    /// From a list in any order; of two for one identity the lower counts, which is the safe one.
    pub fn new(list: impl Iterator<Item = (Identity, Stamp)>) -> Positions {
        let mut sorted: Vec<_> = list.take(MAX_POSITIONS).collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(identity, _)| *identity);
        Positions { sorted, last: None }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Identity, Stamp)> {
        self.sorted.iter().copied()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The position of an origin; zero if there is none.
    pub fn get(&mut self, identity: Identity) -> Stamp {
        if let Some((last, stamp)) = self.last
            && last == identity
        {
            return stamp;
        }
        let stamp = match self.sorted.binary_search_by_key(&identity, |(identity, _)| *identity) {
            Ok(at) => self.sorted.get(at).map_or(Stamp::ZERO, |(_, stamp)| *stamp),
            Err(_) => Stamp::ZERO,
        };
        self.last = Some((identity, stamp));
        stamp
    }
}

/// The numbers that the dialer gives to origins. When all are in use the oldest is given anew.
#[derive(Debug, Default)]
pub struct Numbers {
    numbers: HashMap<Identity, u64>,
    order: Vec<Identity>,
    next: u64,
    last: Option<(Identity, u64)>,
}

impl Numbers {
    /// The number of an origin, if it has one.
    pub fn get(&mut self, identity: Identity) -> Option<u64> {
        if let Some((last, number)) = self.last
            && last == identity
        {
            return Some(number);
        }
        let number = *self.numbers.get(&identity)?;
        self.last = Some((identity, number));
        Some(number)
    }

    /// Gives it one, which the peer has to be told before it is used.
    pub fn define(&mut self, identity: Identity) -> u64 {
        let number = self.next;
        self.next = (self.next + 1) % MAX_ORIGINS;
        match self.order.get_mut(number as usize) {
            Some(place) => {
                self.numbers.remove(place);
                *place = identity;
            }
            None => self.order.push(identity),
        }
        self.numbers.insert(identity, number);
        self.last = Some((identity, number));
        number
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the next definition takes a number from another origin.
    pub fn all_in_use(&self) -> bool {
        self.order.len() as u64 >= MAX_ORIGINS
    }
}

/// The receiver's side of it.
#[derive(Debug, Default)]
pub struct Defined {
    identities: Vec<Option<Identity>>,
}

impl Defined {
    /// Notes a definition; `false`: there is no such number.
    pub fn define(&mut self, number: u64, identity: Identity) -> bool {
        if number >= MAX_ORIGINS {
            return false;
        }
        let at = number as usize;
        if at >= self.identities.len() {
            self.identities.resize(at + 1, None);
        }
        if let Some(place) = self.identities.get_mut(at) {
            *place = Some(identity);
        }
        true
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.identities.len()
    }

    /// Who has this number.
    pub fn get(&self, number: u64) -> Option<Identity> {
        self.identities.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Identity {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Identity(bytes)
    }

    #[test]
    fn the_lower_of_two_positions_counts() {
        let list = [(id(2), Stamp(9)), (id(1), Stamp(4)), (id(2), Stamp(5))];
        let mut positions = Positions::new(list.into_iter());
        assert_eq!(positions.get(id(2)), Stamp(5));
        assert_eq!(positions.get(id(2)), Stamp(5));
        assert_eq!(positions.get(id(1)), Stamp(4));
        assert_eq!(positions.get(id(3)), Stamp::ZERO);
    }

    #[test]
    fn numbers_are_given_anew_when_all_are_in_use() {
        let mut numbers = Numbers::default();
        let mut defined = Defined::default();
        for n in 0..MAX_ORIGINS + 5 {
            assert_eq!(numbers.all_in_use(), n >= MAX_ORIGINS);
            assert_eq!(numbers.get(id(n)), None);
            let number = numbers.define(id(n));
            assert!(defined.define(number, id(n)));
            assert_eq!(numbers.get(id(n)), Some(number));
        }
        assert_eq!(numbers.get(id(0)), None, "its number has gone to another");
        for n in 5..MAX_ORIGINS + 5 {
            let number = numbers.get(id(n)).unwrap();
            assert_eq!(defined.get(number), Some(id(n)));
        }
        assert!(!defined.define(MAX_ORIGINS, id(1)));
        assert_eq!(defined.get(u64::MAX), None);
    }
}
