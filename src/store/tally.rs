//! Figures of requests or sessions, in a region of its own for each thing that is counted.
//!
//! Each worker counts in its own slot, so that none waits for another's cache lines; who reads adds the slots up. Counts
//! only grow and belong to nobody: a worker that takes over the slot of another goes on where that one stopped, however
//! it ended. What is in the making now is the exception: it counts only while the slot's owner lives. A reset remembers
//! where counts stood instead of touching what others write to.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{AttachError, Region};

/// Slots of workers. With more workers than these, old ones of reloads included, some share: all that suffers is what
/// is shown to be in the making.
pub const TALLY_SLOTS: usize = 128;
/// Bytes that a region has at least.
pub const TALLY_SIZE: usize = (1 + TALLY_SLOTS) * SLOT;

/// A page for each slot: untouched ones take no memory.
const SLOT: usize = 4096;

/// Words of a slot. Those from `TOTAL` on are counts; they are at the same places in the first page, where it is
/// remembered how far they were at the last reset.
const PROCESSING: usize = 0;
/// A bit for each eight of the codes that have ever been counted: readers look no further.
const TOUCHED: usize = 1;
const TOTAL: usize = 2;
const DISCARDED: usize = 3;
const RECEIVED: usize = 4;
const SENT: usize = 5;
/// Ended with a code that has no place of its own.
const OTHER: usize = 6;
/// On a cache line of their own.
const CODES: usize = 8;
const FIRST_CODE: u16 = 100;
const CODE_COUNT: usize = 500;
const COUNTS: [usize; 5] = [TOTAL, DISCARDED, RECEIVED, SENT, OTHER];

/// Words of the first page only: which slots were ever used.
const USED: [usize; 2] = [CODES + CODE_COUNT, CODES + CODE_COUNT + 1];

const _: () = assert!((USED[1] + 1) * 8 <= SLOT && TALLY_SLOTS == 64 * USED.len() && CODE_COUNT.div_ceil(8) <= 64);

/// Handle of the figures of one thing; a copy is the same.
#[derive(Clone, Copy)]
pub struct Tally {
    region: Region,
}

/// What became of a request or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The code that it ended with; `None`: nothing was answered.
    pub code: Option<u16>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

/// What has been counted since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// In the making now.
    pub processing: u64,
    /// All that ever began.
    pub total: u64,
    /// How many ended with each code, those that occurred, in order.
    pub codes: Vec<(u16, u64)>,
    /// How many ended with a code below 100 or above 599.
    pub other: u64,
    /// How many ended without an answer.
    pub discarded: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
}

impl Figures {
    /// How many ended with a code from `class` hundred on.
    pub fn class(&self, class: u16) -> u64 {
        self.codes.iter().filter(|(code, _)| code / 100 == class).map(|(_, count)| count).sum()
    }

    /// How many ended with any code.
    pub fn answered(&self) -> u64 {
        self.codes.iter().map(|(_, count)| count).sum::<u64>() + self.other
    }
}

impl Tally {
    /// In memory that was zero in the beginning.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: Region) -> Result<Tally, AttachError> {
        if region.len() < TALLY_SIZE {
            return Err(AttachError::TooSmall(region.len()));
        }
        Ok(Tally { region })
    }

    /// One more, in the worker of this number.
    pub fn count(&self, worker: usize) {
        self.add(self.slot(worker), TOTAL, 1);
    }

    /// It is in the making now, until it [leaves](Tally::leave).
    pub fn enter(&self, worker: usize) {
        self.add(self.slot(worker), PROCESSING, 1);
    }

    /// It isn't in the making any more.
    pub fn leave(&self, worker: usize) {
        self.add(self.slot(worker), PROCESSING, u64::MAX);
    }

    /// How it ended.
    pub fn end(&self, worker: usize, ending: Ending) {
        let slot = self.slot(worker);
        match ending.code.map(|code| usize::from(code.wrapping_sub(FIRST_CODE))) {
            Some(code) if code < CODE_COUNT => {
                self.touch(slot + 8 * TOUCHED, 1 << (code / 8));
                self.add(slot, CODES + code, 1);
            }
            Some(_) => self.add(slot, OTHER, 1),
            None => self.add(slot, DISCARDED, 1),
        }
        self.add(slot, RECEIVED, ending.received);
        self.add(slot, SENT, ending.sent);
    }

    /// A new worker has this number: what another left in the making is no more.
    pub fn inherit(&self, worker: usize) {
        if self.is_used(worker % TALLY_SLOTS) {
            self.region.store64(at(worker) + 8 * PROCESSING, 0, Relaxed);
        }
    }

    /// The figures. `lives`: whether a worker of this number is at work.
    pub fn read(&self, mut lives: impl FnMut(usize) -> bool) -> Figures {
        let mut figures = Figures::default();
        // In the opposite order of counting, so that no more seem to have ended than began.
        for code in self.touched() {
            let count = self.since_reset(CODES + usize::from(code));
            if count > 0 {
                figures.codes.push((FIRST_CODE + code, count));
            }
        }
        figures.other = self.since_reset(OTHER);
        figures.discarded = self.since_reset(DISCARDED);
        figures.received = self.since_reset(RECEIVED);
        figures.sent = self.since_reset(SENT);
        for slot in self.used() {
            // Below zero, where workers share a slot.
            let processing = self.region.load64(at(slot) + 8 * PROCESSING, Relaxed).cast_signed();
            if processing > 0 && lives(slot) {
                figures.processing += processing.unsigned_abs();
            }
        }
        figures.total = self.since_reset(TOTAL);
        figures
    }

    /// Lets all counts begin at zero. What is in the making stays.
    pub fn reset(&self) {
        let codes: Vec<u16> = self.touched().collect();
        let codes = codes.into_iter().map(|code| CODES + usize::from(code));
        for word in COUNTS.into_iter().chain(codes) {
            self.region.store64(8 * word, self.sum(word), Relaxed);
        }
    }

    /// The offset of a slot that is to be written to.
    fn slot(&self, worker: usize) -> usize {
        let slot = worker % TALLY_SLOTS;
        self.touch(8 * USED[slot / 64], 1 << (slot % 64));
        at(worker)
    }

    /// Sets bits, without writing if they are set.
    fn touch(&self, offset: usize, bits: u64) {
        if let Some(word) = self.region.word64(offset)
            && word.load(Relaxed) & bits != bits
        {
            word.fetch_or(bits, Relaxed);
        }
    }

    fn add(&self, slot: usize, word: usize, by: u64) {
        if let Some(word) = self.word(slot + 8 * word) {
            word.fetch_add(by, Relaxed);
        }
    }

    fn since_reset(&self, word: usize) -> u64 {
        self.sum(word).wrapping_sub(self.region.load64(8 * word, Relaxed))
    }

    fn sum(&self, word: usize) -> u64 {
        self.used().map(|slot| self.region.load64(at(slot) + 8 * word, Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Codes, less the first, that may have been counted.
    fn touched(&self) -> impl Iterator<Item = u16> {
        let touched = self.used().fold(0, |all, slot| all | self.region.load64(at(slot) + 8 * TOUCHED, Relaxed));
        (0..CODE_COUNT as u16).filter(move |code| touched >> (code / 8) & 1 == 1)
    }

    fn used(&self) -> impl Iterator<Item = usize> {
        (0..TALLY_SLOTS).filter(|slot| self.is_used(*slot))
    }

    fn is_used(&self, slot: usize) -> bool {
        self.region.load64(8 * USED[slot / 64], Relaxed) >> (slot % 64) & 1 == 1
    }

    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        self.region.word64(offset)
    }
}

/// The offset of a worker's slot.
fn at(worker: usize) -> usize {
    (1 + worker % TALLY_SLOTS) * SLOT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Mapping;

    fn tally() -> (Mapping, Tally) {
        let mapping = Region::anonymous(TALLY_SIZE).expect("memory");
        let tally = Tally::new(mapping.region()).expect("room");
        (mapping, tally)
    }

    fn begin(tally: &Tally, worker: usize) {
        tally.count(worker);
        tally.enter(worker);
    }

    fn ending(code: u16) -> Ending {
        Ending { code: Some(code), received: 10, sent: 100 }
    }

    #[test]
    fn slots_add_up_and_codes_have_their_places() {
        let (_mapping, tally) = tally();
        assert_eq!(tally.read(|_| true), Figures::default());
        let codes = [100, 107, 108, 200, 200, 404, 599, 0, 99, 600, 999, u16::MAX];
        for (worker, code) in codes.into_iter().enumerate() {
            begin(&tally, worker);
            tally.end(worker, ending(code));
        }
        tally.count(TALLY_SLOTS - 1);
        tally.end(TALLY_SLOTS - 1, Ending { code: None, received: 1, sent: 0 });
        let figures = tally.read(|_| true);
        let expected = Figures {
            processing: 12,
            total: 13,
            codes: vec![(100, 1), (107, 1), (108, 1), (200, 2), (404, 1), (599, 1)],
            other: 5,
            discarded: 1,
            received: 121,
            sent: 1200,
        };
        assert_eq!(figures, expected);
        assert_eq!((figures.class(1), figures.class(2), figures.class(3), figures.class(5)), (3, 2, 0, 1));
        assert_eq!(figures.answered() + figures.discarded, figures.total);
    }

    #[test]
    fn only_what_living_workers_make_is_in_the_making() {
        let (_mapping, tally) = tally();
        for worker in [0, 1, 1, 2] {
            begin(&tally, worker);
        }
        tally.leave(2);
        assert_eq!(tally.read(|_| true).processing, 3);
        assert_eq!(tally.read(|worker| worker != 1).processing, 1);
        tally.inherit(1);
        begin(&tally, 1);
        let figures = tally.read(|_| true);
        assert_eq!((figures.processing, figures.total), (2, 5));
    }

    #[test]
    fn workers_beyond_the_slots_share_them() {
        let (_mapping, tally) = tally();
        for worker in [3, 3 + TALLY_SLOTS, 3 + 7 * TALLY_SLOTS, usize::MAX] {
            begin(&tally, worker);
            tally.end(worker, ending(200));
        }
        assert_eq!(tally.read(|_| true).class(2), 4);
        // One that shares begins anew; what the others do then is not shown as a great number.
        tally.inherit(3);
        tally.leave(3 + TALLY_SLOTS);
        assert_eq!(tally.read(|worker| worker == 3).processing, 0);
    }

    #[test]
    fn a_reset_leaves_what_is_in_the_making() {
        let (_mapping, tally) = tally();
        for _ in 0..2 {
            begin(&tally, 5);
            begin(&tally, 6);
            tally.end(6, ending(301));
            tally.leave(6);
            tally.end(6, ending(1000));
            tally.reset();
            assert_eq!(tally.read(|_| true).total, 0);
        }
        assert_eq!(tally.read(|_| true), Figures { processing: 2, ..Figures::default() });
        tally.end(5, ending(302));
        let figures = tally.read(|_| true);
        assert_eq!((figures.codes, figures.other, figures.sent), (vec![(302, 1)], 0, 100));
    }

    #[test]
    fn a_region_must_hold_all_slots() {
        let mapping = Region::anonymous(TALLY_SIZE - 8).expect("memory");
        assert!(Tally::new(mapping.region()).is_err());
    }

    #[test]
    fn threads_lose_nothing() {
        let (_mapping, tally) = tally();
        std::thread::scope(|scope| {
            for worker in [0, 1, TALLY_SLOTS, TALLY_SLOTS + 1] {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        begin(&tally, worker);
                        tally.end(worker, ending(200));
                        tally.leave(worker);
                    }
                });
            }
        });
        let figures = tally.read(|_| true);
        assert_eq!((figures.total, figures.class(2), figures.sent, figures.processing), (4000, 4000, 400_000, 0));
    }
}
