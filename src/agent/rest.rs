//! Waits of the thread that needn't be exact end together, at its beats: an idle processor that is woken once for all of them
//! rests longer, and to wake it costs more than what there is to do.

use std::time::{Duration, Instant};

/// Tokio sorts its timers by slots of 64 ms, and one that ends within a later slot wakes the thread at the slot's beginning, too.
const SLOT: Duration = Duration::from_millis(64);
/// From one beat to the next: they end with a slot.
pub(super) const BEAT: Duration = Duration::from_millis(8 * 64);

/// The thread's beats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    began: Instant,
}

impl Rest {
    /// Begins now: just before the runtime, whose time counts in whole milliseconds from its own beginning.
    pub(super) fn new() -> Rest {
        Rest { began: Instant::now() }
    }

    /// The first beat after that.
    pub(super) fn beat_after(&self, at: Instant) -> Instant {
        self.next_of(BEAT, at)
    }

    /// That, or the end of its slot if it is in a later one than now.
    pub(super) fn slot_after(&self, at: Instant) -> Instant {
        if at > self.next_of(SLOT, Instant::now()) { self.next_of(SLOT, at) } else { at }
    }

    fn next_of(&self, span: Duration, at: Instant) -> Instant {
        let spans = at.saturating_duration_since(self.began).as_millis() / span.as_millis() + 1;
        self.began + span * u32::try_from(spans).unwrap_or(u32::MAX)
    }

    /// The next one.
    pub(super) fn next_beat(&self) -> Instant {
        self.beat_after(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rest_until_the_same_beat_and_never_longer_than_to_the_next() {
        let rest = Rest::new();
        let at = |millis| rest.began + Duration::from_millis(millis);
        assert_eq!(rest.beat_after(at(0)), at(512));
        assert_eq!(rest.beat_after(at(511)), at(512));
        assert_eq!(rest.beat_after(at(512)), at(1024));
        assert_eq!(rest.beat_after(at(10 * 86_400_000)) - at(10 * 86_400_000), BEAT);
        assert!(rest.next_beat() - Instant::now() <= BEAT);
    }

    #[test]
    fn what_is_due_in_this_slot_is_not_put_off_and_what_is_due_later_ends_with_its_slot() {
        let rest = Rest::new();
        let at = |millis| rest.began + Duration::from_millis(millis);
        let soon = Instant::now();
        assert_eq!(rest.slot_after(soon), soon);
        let later = at(100 * 64 + 1);
        assert_eq!(rest.slot_after(later), at(101 * 64));
    }
}
