//! Merges what workers of the last configuration still write to the old memory of zones that have another size now.

use super::log::Log;
use super::sys::EventFd;
use super::wake::Watchers;
use super::{Config, now};
use crate::store::{Merge, Merging};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between two looks at the old memory: so much later at most new workers see what old ones wrote.
const PAUSE: Duration = Duration::from_millis(10);
/// A step ends after this time; the sessions' turn comes before the next.
const STEP: Duration = Duration::from_micros(500);

/// Works as long as there is something to merge, and then waits until it is dropped.
pub(super) async fn moving(config: &Config, log: Rc<Log>) {
    let mut merges: Vec<Merge> = config.handovers.iter().map(Merge::new).collect();
    let wake = config.cluster.as_ref().and_then(|_| EventFd::duplicate(config.control.eventfd()).ok());
    let watchers = Watchers::new(config.control);
    while !merges.is_empty() {
        let began = Instant::now();
        let mut more = false;
        merges.retain_mut(|merge| {
            let end = loop {
                match merge.step(config.lease.number, now(), |generation| config.control.older_workers(generation)) {
                    Merging::More if began.elapsed() < STEP => {}
                    Merging::More => {
                        more = true;
                        break false;
                    }
                    Merging::Waiting => break false,
                    Merging::Over => break true,
                }
            };
            if merge.take_merged() {
                watchers.wake();
                // Asking takes the answer from others: who asks has to signal.
                if let Some(wake) = &wake
                    && config.control.must_wake()
                {
                    wake.signal();
                }
            }
            if end && merge.lost > 0 {
                log.error(format!(
                    "{} records that workers of the last configuration wrote to a zone did not fit into it with its new size",
                    merge.lost
                ));
            }
            !end
        });
        tokio::time::sleep(if more { began.elapsed().max(Duration::from_millis(1)) } else { PAUSE }).await;
    }
    std::future::pending::<()>().await;
}
