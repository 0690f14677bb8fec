//! How many new sessions are answered, and in which order, where anybody may connect: a bucket of admissions, and turns that go
//! from address to address.
//!
//! A cluster has 255 nodes, which dial again a second after a failure at the soonest: it never needs more than a burst of them.
//! Whoever says hello faster makes nodes up. Each of those costs what a node costs, and takes a place in the table of nodes
//! that were heard of (`store/heard.rs`). So they wait, without being read; nobody is sent away who wasn't for its silence.

use crate::record::Millis;
use std::collections::BTreeMap;

/// Admitted at once: all nodes of the largest cluster, and some that come twice.
pub const BURST: u64 = 300;
/// Admitted in a second from then on. So those that one worker admits need ten seconds for as many names as the table of nodes
/// that were heard of has places, and real nodes, which give signs of life more often, keep theirs.
pub const RATE: u64 = 100;

/// Parts of an admission that come in a millisecond are whole numbers.
const PARTS: u64 = 1000;

/// Where a session comes from.
pub type Source = u64;

/// A place in the line: by turns of its source, then in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    turn: u64,
    number: u64,
}

/// Those who came while nobody was admitted, each as a `W`.
#[derive(Debug)]
pub struct Admission<W> {
    /// In [`PARTS`].
    left: u64,
    /// When that was so.
    at: Millis,
    /// Of whoever was admitted last from the line.
    turn: u64,
    number: u64,
    waiting: BTreeMap<Ticket, (Source, W)>,
    sources: BTreeMap<Source, Line>,
}

/// Those of one source.
#[derive(Debug)]
struct Line {
    waiting: usize,
    /// Of the last one.
    turn: u64,
}

impl<W> Admission<W> {
    /// A full bucket, and nobody waits. Times are those of one clock that isn't set, milliseconds.
    pub const fn new(now: Millis) -> Admission<W> {
        Admission {
            left: BURST * PARTS,
            at: now,
            turn: 0,
            number: 0,
            waiting: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// A new session wants an answer. `None`: it is admitted. Otherwise it waits; [`Admission::next`] gives it out.
    pub fn ask(&mut self, source: Source, who: W, now: Millis) -> Option<Ticket> {
        self.refill(now);
        if self.waiting.is_empty() && self.take() {
            return None;
        }
        let line = self.sources.entry(source).or_insert(Line { waiting: 0, turn: self.turn });
        line.waiting += 1;
        line.turn = line.turn.max(self.turn) + 1;
        self.number += 1;
        let ticket = Ticket { turn: line.turn, number: self.number };
        self.waiting.insert(ticket, (source, who));
        Some(ticket)
    }

    /// Who is admitted now, of those that wait; to be asked until there is none.
    pub fn next(&mut self, now: Millis) -> Option<W> {
        self.refill(now);
        let ticket = *self.waiting.first_key_value()?.0;
        if !self.take() {
            return None;
        }
        self.turn = ticket.turn;
        self.remove(ticket)
    }

    /// Somebody waits no more. Nothing, if it was admitted meanwhile.
    pub fn leave(&mut self, ticket: Ticket) {
        self.remove(ticket);
    }

    /// In how many milliseconds [`Admission::next`] is to be asked; `None`: nobody waits.
    pub fn pause(&self) -> Option<Millis> {
        (!self.waiting.is_empty()).then(|| PARTS.saturating_sub(self.left).div_ceil(RATE))
    }

    fn refill(&mut self, now: Millis) {
        let came = now.saturating_sub(self.at).saturating_mul(RATE);
        self.left = self.left.saturating_add(came).min(BURST * PARTS);
        self.at = now;
    }

    fn take(&mut self) -> bool {
        let left = self.left.checked_sub(PARTS);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    fn remove(&mut self, ticket: Ticket) -> Option<W> {
        let (source, who) = self.waiting.remove(&ticket)?;
        if let Some(line) = self.sources.get_mut(&source) {
            line.waiting -= 1;
            if line.waiting == 0 {
                self.sources.remove(&source);
            }
        }
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has admitted all that it does at once.
    fn used_up(now: Millis) -> Admission<u64> {
        let mut admission = Admission::new(now);
        (0..BURST).for_each(|n| assert_eq!(admission.ask(n % 7, n, now), None));
        admission
    }

    fn admitted(admission: &mut Admission<u64>, now: Millis) -> Vec<u64> {
        std::iter::from_fn(|| admission.next(now)).collect()
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_so_many_a_second() {
        let mut admission = used_up(1_000);
        assert_eq!(admission.pause(), None);
        (0..2 * RATE).for_each(|n| assert!(admission.ask(1, n, 1_000).is_some()));
        assert_eq!(admission.pause(), Some(1_000 / RATE));
        assert!(admitted(&mut admission, 1_000).is_empty());
        assert_eq!(admitted(&mut admission, 2_000), (0..RATE).collect::<Vec<_>>(), "in the order of arrival");
        assert_eq!(admission.waiting.len() as u64, RATE);
        // Whoever comes now comes after those who wait, even if there is room.
        assert!(admission.ask(1, 999, 2_500).is_some());
        assert_eq!(admitted(&mut admission, 10_000).last(), Some(&999));
        assert_eq!((admission.waiting.len(), admission.pause()), (0, None));
        assert_eq!(admission.ask(1, 0, 10_000), None);
    }

    #[test]
    fn what_came_up_while_nobody_came_is_bounded() {
        let mut admission = used_up(0);
        (0..BURST).for_each(|n| assert_eq!(admission.ask(1, n, 3_600_000), None));
        assert!(admission.ask(1, 0, 3_600_000).is_some());
        // A clock that goes back gives nothing, and takes nothing.
        assert!(admission.ask(1, 0, 0).is_some());
        assert_eq!(admitted(&mut admission, 20).len(), 2);
    }

    #[test]
    fn who_comes_from_elsewhere_waits_for_one_turn_of_each_address() {
        let mut admission = used_up(0);
        let flood = |n| n % 5;
        for n in 0..1_000 {
            admission.ask(flood(n), n, 0);
        }
        // Half-way through.
        admitted(&mut admission, 1_000_000 / (2 * RATE));
        assert!(!admission.waiting.is_empty());
        let now = 1_000_000 / (2 * RATE);
        admission.ask(77, 5_000, now);
        admission.ask(77, 5_001, now);
        for n in 1_000..2_000 {
            admission.ask(flood(n), n, now);
        }
        let first = admitted(&mut admission, now + 12 * 1_000 / RATE);
        assert_eq!(first.len(), 12);
        assert!(first[..6].contains(&5_000) && first.contains(&5_001), "{first:?}");
    }

    #[test]
    fn who_goes_takes_nothing_with_it_and_is_forgotten() {
        let mut admission = used_up(0);
        let tickets: Vec<_> = (0..1_000).filter_map(|n| admission.ask(n, n, 0)).collect();
        assert_eq!(tickets.len(), 1_000);
        tickets[1..].iter().for_each(|ticket| admission.leave(*ticket));
        admission.leave(tickets[5]);
        assert_eq!((admission.waiting.len(), admission.sources.len()), (1, 1));
        assert_eq!(admitted(&mut admission, 10), [0]);
        admission.leave(tickets[0]);
        assert_eq!(admission.sources.len(), 0);
    }
}
