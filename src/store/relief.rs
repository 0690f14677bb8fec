//! Making room for a write that found none.

use super::StoreError;
use super::evict::Wish;
use super::layout;
use super::shard::Shard;
use crate::record::Millis;

/// How often room is made for one write before it is refused.
const RELIEF_ROUNDS: usize = 128;
/// And how often of what has ended or was deleted, before a zone with `evict` gives up what lives.
const ROUNDS_BEFORE_EVICTION: usize = 64;

impl Shard<'_> {
    /// Does `write`, and if the zone is full makes room and does it again, as long as there is room to be made.
    #[inline]
    pub fn with_relief<'w, T>(
        &self,
        now: Millis,
        count_refusal: bool,
        wish: impl FnOnce() -> Wish<'w>,
        mut write: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match write() {
            Err(StoreError::NoMemory) => self.make_room(now, count_refusal, &wish(), &mut write),
            done => done,
        }
    }

    #[cold]
    fn make_room<T>(
        &self,
        now: Millis,
        count_refusal: bool,
        wish: &Wish<'_>,
        write: &mut dyn FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // What sizes keep for themselves comes first; once, as the write that fails leaves such pages behind itself.
        if self.give_empty_pages() {
            match write() {
                Err(StoreError::NoMemory) => {}
                done => return done,
            }
        }
        let mut evictions = 0;
        for round in 0..RELIEF_ROUNDS {
            let relieved = self.relieve(now);
            // Turning a wheel that stood for long takes many rounds, and may take nothing away.
            if !relieved || round >= ROUNDS_BEFORE_EVICTION {
                if self.evict(wish, evictions) {
                    evictions += 1;
                } else if !relieved {
                    break;
                }
            }
            match write() {
                Err(StoreError::NoMemory) => {}
                done => return done,
            }
        }
        if count_refusal {
            self.bump(layout::shard::REFUSED);
        }
        Err(StoreError::NoMemory)
    }
}
