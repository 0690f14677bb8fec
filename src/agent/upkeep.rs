//! Takes away what is over: expired records and old tombstones, in steps too short to delay the sessions. And looks ahead of need
//! for origins of which there is nothing any more.

use super::now;
use super::rest::{BEAT, Rest};
use super::wake::Watchers;
use crate::store::Zone;
use std::time::{Duration, Instant};

/// Records taken away in one call to a zone.
const BUDGET: usize = 128;
/// A step ends after this time; the sessions' turn comes before the next.
const STEP: Duration = Duration::from_micros(500);
/// Between two rounds at least: what ends is gone within 100 ms, which are the wheel's tick of 64 ms and this.
const PAUSE: Duration = Duration::from_millis(30);
/// Runs until it is dropped.
pub(super) async fn upkeep(zones: Vec<Zone>, watchers: Watchers, rest: Rest) {
    if zones.is_empty() {
        std::future::pending::<()>().await;
    }
    let mut place = 0;
    loop {
        let began = Instant::now();
        let mut changed = false;
        let done = step(&zones, &mut place, &mut changed);
        if changed {
            watchers.wake();
        }
        let until = match done {
            // As long as it took, and so at most half of the thread's time.
            Step::Unfinished => Instant::now() + began.elapsed().max(Duration::from_millis(1)),
            Step::Done => {
                let quiet = zones.iter().map(|zone| zone.quiet_for(now())).min().unwrap_or(0);
                let quiet = Duration::from_millis(quiet).max(PAUSE);
                // What is written meanwhile with a shorter life than to the next beat goes that much later.
                if quiet < BEAT { Instant::now() + quiet } else { rest.next_beat() }
            }
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is more to do now.
    Unfinished,
    /// Nothing is left in any zone.
    Done,
}

/// Goes round the zones, from `place` on, until none has anything left or the time is over. `changed` becomes true if that
/// is of interest to watchers.
fn step(zones: &[Zone], place: &mut usize, changed: &mut bool) -> Step {
    let began = Instant::now();
    let mut through = 0;
    while through < zones.len() {
        if began.elapsed() >= STEP {
            return Step::Unfinished;
        }
        *place = (*place + 1) % zones.len();
        let Some(zone) = zones.get(*place) else { break };
        let done = zone.upkeep(now(), BUDGET);
        *changed |= done > 0 && zone.is_watched();
        let walked = zone.find_idle_origins(now(), BUDGET);
        through = if done < BUDGET && walked < BUDGET { through + 1 } else { 0 };
    }
    Step::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Identity;
    use crate::store::{Condition, Life, Params, Region};

    #[test]
    fn what_is_over_goes_from_all_zones_and_then_there_is_nothing_to_do() {
        let params = Params { timeout: Some(1), ..Params::new(Identity([1; 16])) };
        let memory: Vec<_> = (0..3).map(|_| Region::anonymous(1 << 20).unwrap()).collect();
        let zones: Vec<_> = memory.iter().map(|memory| Zone::create(memory.region(), &params).unwrap()).collect();
        for (index, zone) in zones.iter().enumerate() {
            for number in 0..1000 * (index + 1) {
                zone.set(&number.to_le_bytes(), b"v", Life::Default, Condition::Always, now() - 1000).unwrap();
            }
        }
        let mut place = 0;
        let steps = (0..10_000).take_while(|_| step(&zones, &mut place, &mut false) != Step::Done).count();
        assert!(steps < 10_000, "{steps} steps");
        assert_eq!(zones.iter().map(|zone| zone.stats().records).sum::<u64>(), 0);
    }
}
