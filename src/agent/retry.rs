//! When to dial again, and how much to say about it.

use std::time::{Duration, Instant};

/// A pause of `base`, a quarter more or less, so that nodes that lost each other at once don't come back at once.
pub(super) fn jittered(base: Duration) -> Duration {
    // Without randomness the pause is merely regular.
    spread(base, getrandom::u32().unwrap_or(u32::MAX / 2))
}

fn spread(base: Duration, random: u32) -> Duration {
    let quarter = base / 4;
    base - quarter + (quarter * 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Lines about one peer that may follow each other without a pause.
const BURST: u32 = 10;
/// In this time one more line is allowed.
const REFILL: Duration = Duration::from_secs(30);

/// What was said about a peer, so that an absent one fills no log: a failure is told once, not once a retry, and a
/// peer that comes and goes all the time is told of at a bounded rate.
pub(super) struct Teller {
    failure: Option<String>,
    left: u32,
    refilled: Instant,
}

impl Teller {
    pub(super) fn new(now: Instant) -> Teller {
        Teller { failure: None, left: BURST, refilled: now }
    }

    /// The peer is connected, or was lost: what to log of it, if anything.
    pub(super) fn event(&mut self, text: String, now: Instant) -> Option<String> {
        self.failure = None;
        self.allow(text, now)
    }

    /// Dialling failed: `Some` if this reason wasn't the last one told.
    pub(super) fn failure(&mut self, text: String, now: Instant) -> Option<String> {
        if self.failure.as_ref() == Some(&text) {
            return None;
        }
        // One that wasn't told for want of allowance is told as soon as there is some: a peer that is gone stays so.
        let told = self.allow(text.clone(), now);
        self.failure = told.is_some().then_some(text);
        told
    }

    fn allow(&mut self, mut text: String, now: Instant) -> Option<String> {
        let refills = now.saturating_duration_since(self.refilled).as_secs() / REFILL.as_secs();
        if refills > 0 {
            self.left = self.left.saturating_add(u32::try_from(refills).unwrap_or(BURST)).min(BURST);
            self.refilled = now;
        }
        self.left = self.left.checked_sub(1)?;
        if self.left == 0 {
            text.push_str("; it comes and goes, so not every change of it is logged from now on");
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_within_a_quarter_of_the_interval() {
        let base = Duration::from_millis(1000);
        assert_eq!(spread(base, 0), Duration::from_millis(750));
        assert_eq!(spread(base, u32::MAX), Duration::from_millis(1250));
        let pauses: Vec<_> = (0..50).map(|_| jittered(base)).collect();
        assert!(pauses.iter().all(|p| (750..=1250).contains(&p.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]), "no jitter");
        assert_eq!(spread(Duration::ZERO, 7), Duration::ZERO);
    }

    #[test]
    fn a_failure_is_told_once_until_something_changes() {
        let now = Instant::now();
        let mut teller = Teller::new(now);
        assert!(teller.failure("refused".into(), now).is_some());
        assert!(teller.failure("refused".into(), now).is_none());
        assert!(teller.failure("timed out".into(), now).is_some());
        assert!(teller.event("connected".into(), now).is_some());
        assert!(teller.failure("timed out".into(), now).is_some());
    }

    #[test]
    fn a_flapping_peer_that_stays_away_at_last_is_told_of() {
        let start = Instant::now();
        let mut teller = Teller::new(start);
        (0..100).for_each(|_| _ = teller.event("lost".into(), start));
        assert_eq!(teller.failure("refused".into(), start), None);
        assert_eq!(teller.failure("refused".into(), start + REFILL / 2), None);
        let told: Vec<_> =
            (2..100).filter_map(|half| teller.failure("refused".into(), start + REFILL / 2 * half)).collect();
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn a_flapping_peer_is_told_of_at_a_bounded_rate() {
        let start = Instant::now();
        let mut teller = Teller::new(start);
        let told = (0..1000).filter(|_| teller.event("lost".into(), start).is_some()).count();
        assert_eq!(told, BURST as usize);
        let later = start + REFILL * 3;
        let told = (0..1000).filter(|_| teller.event("lost".into(), later).is_some()).count();
        assert_eq!(told, 3);
    }
}
