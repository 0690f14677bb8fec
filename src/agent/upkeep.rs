//! Takes away what is over: expired records and old tombstones, in steps too short to delay the sessions.

use super::now;
use crate::store::Zone;
use std::time::{Duration, Instant};

/// Records taken away in one call to a zone.
const BUDGET: usize = 128;
/// A step ends after this time; the sessions' turn comes before the next.
const STEP: Duration = Duration::from_micros(500);
/// Between two rounds while there is something to take away now and then.
const BUSY: Duration = Duration::from_millis(100);
/// Between two rounds while there was nothing for long.
const IDLE: Duration = Duration::from_millis(1000);

/// Runs until it is dropped.
pub(super) async fn upkeep(zones: Vec<Zone>) {
    if zones.is_empty() {
        std::future::pending::<()>().await;
    }
    let mut place = 0;
    let mut pause = BUSY;
    loop {
        let began = Instant::now();
        pause = match step(&zones, &mut place) {
            // As long as it took, and so at most half of the thread's time.
            Step::Unfinished => began.elapsed().max(Duration::from_millis(1)),
            Step::Worked => BUSY,
            Step::Nothing => (pause * 2).clamp(BUSY, IDLE),
        };
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is more to do now.
    Unfinished,
    /// Something was done, and every zone was visited.
    Worked,
    /// There was nothing to do in any zone.
    Nothing,
}

/// Goes round the zones, from `place` on, until none has anything left or the time is over.
fn step(zones: &[Zone], place: &mut usize) -> Step {
    let began = Instant::now();
    let mut worked = false;
    let mut through = 0;
    while through < zones.len() {
        if began.elapsed() >= STEP {
            return Step::Unfinished;
        }
        *place = (*place + 1) % zones.len();
        let Some(zone) = zones.get(*place) else { break };
        let done = zone.upkeep(now(), BUDGET);
        worked |= done > 0;
        through = if done < BUDGET { through + 1 } else { 0 };
    }
    if worked { Step::Worked } else { Step::Nothing }
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
        let steps = (0..10_000).take_while(|_| step(&zones, &mut place) != Step::Nothing).count();
        assert!((1..10_000).contains(&steps), "{steps} steps");
        assert_eq!(zones.iter().map(|zone| zone.stats().records).sum::<u64>(), 0);
    }
}
