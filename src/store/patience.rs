//! How long a thread waits for locks whose owners live.
//!
//! A request waits for its lock up to [`PATIENCE`]: somebody wants an answer. Of what a thread does besides, sessions with
//! other nodes and watchers, nothing is lost if it is put off, and there may be much of it in one turn of an event loop. So
//! while a [`Sparing`] lives, all waits of its thread together take a tenth of its time: there is an allowance of one
//! [`PATIENCE`], which comes back ten times as slowly as it is used. Where it is used up a lock is only tried, for as long as
//! an owner needs that runs; and an owner for whom the thread has waited in vain isn't waited for again right away, however many
//! records want its lock.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a lock is waited for while its owner lives.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// The part of a thread's time that may go by in waiting for locks while it is sparing: one in so many.
const PART: u32 = 10;
/// For so long nobody who is sparing waits for an owner again.
const RESPITE: Duration = Duration::from_millis(5);

thread_local! {
    static IS_SPARING: Cell<bool> = const { Cell::new(false) };
    static WAITS: Cell<Waits> = const { Cell::new(Waits::NONE) };
}

#[derive(Clone, Copy)]
struct Waits {
    /// Of the allowance, as of `at`.
    used: Duration,
    at: Option<Instant>,
    /// The owner for whom this thread last waited in vain, and when.
    stuck: Option<(u64, Instant)>,
}

/// While it lives, the calling thread waits less for locks. Of several the last one to be made ends first.
#[must_use]
pub struct Sparing {
    before: bool,
    /// It is of this thread.
    _here: PhantomData<Rc<()>>,
}

impl Sparing {
    /// From now on.
    pub fn begin() -> Sparing {
        Sparing { before: IS_SPARING.replace(true), _here: PhantomData }
    }
}

impl Drop for Sparing {
    fn drop(&mut self) {
        IS_SPARING.set(self.before);
    }
}

/// Whether the thread has just waited in vain for this owner, and is not to do so again.
pub(super) fn is_hopeless(owner: u64) -> bool {
    IS_SPARING.get() && WAITS.get().stuck.is_some_and(|(stuck, at)| stuck == owner && at.elapsed() < RESPITE)
}

/// How long the thread may wait, from now on.
pub(super) fn patience(now: Instant) -> Duration {
    if IS_SPARING.get() { PATIENCE.saturating_sub(WAITS.get().used_by(now)) } else { PATIENCE }
}

/// The thread has waited since `start`; `stuck`: in vain, for this owner.
pub(super) fn waited(start: Instant, stuck: Option<u64>) {
    let (waits, now) = (WAITS.get(), Instant::now());
    let stuck = stuck.map(|owner| (owner, now)).or(waits.stuck);
    let waits = Waits { stuck, ..waits };
    WAITS.set(match IS_SPARING.get() {
        true => Waits { used: waits.used_by(start).saturating_add(now - start).min(PATIENCE), at: Some(now), ..waits },
        false => waits,
    });
}

impl Waits {
    const NONE: Waits = Waits { used: Duration::ZERO, at: None, stuck: None };

    fn used_by(&self, now: Instant) -> Duration {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.used.saturating_sub(since / PART)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoreError, lock};
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    #[test]
    fn who_is_sparing_waits_once_for_all_that_is_stuck() {
        // Who waits for itself waits in vain.
        let me = lock::this_thread();
        let words: Vec<AtomicU64> = (0..200).map(|_| AtomicU64::new(me)).collect();
        let began = Instant::now();
        let sparing = Sparing::begin();
        assert!(words.iter().all(|word| lock::lock(word) == Err(StoreError::Busy)));
        let all = began.elapsed();
        assert!(all >= PATIENCE, "somebody was waited for: {all:?}");
        assert!(all < 20 * PATIENCE, "{all:?} for 200 locks");
        // What is free is to be had as ever, and what the dead left.
        assert_eq!(lock::lock(&AtomicU64::new(0)), Ok(lock::Obtained::Clean));
        let gone = thread::spawn(lock::this_thread).join().expect("a thread");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !lock::is_dead(gone) && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(lock::lock(&AtomicU64::new(gone)), Ok(lock::Obtained::FromTheDead));
        drop(sparing);
        let began = Instant::now();
        assert_eq!(lock::lock(&words[0]), Err(StoreError::Busy));
        assert!(began.elapsed() >= PATIENCE, "requests wait as they did");
    }

    #[test]
    fn the_allowance_comes_back() {
        let now = Instant::now();
        let empty = Waits { used: PATIENCE, at: Some(now), stuck: None };
        assert_eq!(empty.used_by(now), PATIENCE);
        assert_eq!(empty.used_by(now + PATIENCE * (PART / 2)), PATIENCE / 2);
        assert_eq!(empty.used_by(now + PATIENCE * PART * 2), Duration::ZERO);
        // One inside another, and what was before is again.
        let outer = Sparing::begin();
        waited(now, None);
        drop(Sparing::begin());
        assert!(IS_SPARING.get());
        drop(outer);
        assert!(!IS_SPARING.get() && patience(now) == PATIENCE);
    }
}
