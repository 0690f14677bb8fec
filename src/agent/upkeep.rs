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

/// Goes round the zones, from `place` on, until all were visited or the time is over.
fn step(zones: &[Zone], place: &mut usize) -> Step {
    let began = Instant::now();
    let mut worked = false;
    let mut unfinished = false;
    for visited in 1..=zones.len() {
        *place = (*place + 1) % zones.len();
        let Some(zone) = zones.get(*place) else { break };
        let done = zone.upkeep(now(), BUDGET);
        worked |= done > 0;
        unfinished |= done >= BUDGET;
        if began.elapsed() >= STEP {
            unfinished |= visited < zones.len();
            break;
        }
    }
    match (unfinished, worked) {
        (true, _) => Step::Unfinished,
        (false, true) => Step::Worked,
        (false, false) => Step::Nothing,
    }
}
