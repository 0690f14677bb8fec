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

/// What is left to merge.
pub(super) struct Moving<'a> {
    config: &'a Config,
    log: Rc<Log>,
    merges: Vec<Merge>,
    wake: Option<EventFd>,
    watchers: Watchers,
    /// When to look again.
    next: Instant,
}

impl<'a> Moving<'a> {
    /// Begins, or goes on where another agent ended.
    pub(super) fn new(config: &'a Config, log: Rc<Log>) -> Moving<'a> {
        let merges = config.handovers.iter().map(Merge::new).collect();
        let wake = config.cluster.as_ref().and_then(|_| EventFd::duplicate(config.control.eventfd()).ok());
        Moving { config, log, merges, wake, watchers: Watchers::new(config.control), next: Instant::now() }
    }

    /// Works as long as there is something to merge, and then waits until it is dropped.
    pub(super) async fn run(&mut self) {
        while !self.merges.is_empty() {
            tokio::time::sleep_until(self.next.into()).await;
            let began = Instant::now();
            let more = self.step();
            self.next = Instant::now() + if more { began.elapsed().max(Duration::from_millis(1)) } else { PAUSE };
        }
        std::future::pending::<()>().await;
    }

    /// Merges all that was written before this was called, unless it takes longer.
    pub(super) async fn catch_up(&mut self, until: Instant) {
        // A round that was begun before may have passed by the last of it; the second round is a new one in any case.
        for _ in 0..2 {
            while self.step() && Instant::now() < until {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Goes on in all zones; `true`: there is more to do at once.
    fn step(&mut self) -> bool {
        let (began, config) = (Instant::now(), self.config);
        let mut more = false;
        self.merges.retain_mut(|merge| {
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
                self.watchers.wake();
                // Asking takes the answer from others: who asks has to signal.
                if let Some(wake) = &self.wake
                    && config.control.must_wake()
                {
                    wake.signal();
                }
            }
            if end && merge.lost > 0 {
                self.log.error(format!(
                    "{} records that workers of the last configuration wrote to a zone did not fit into it with its new size",
                    merge.lost
                ));
            }
            !end
        });
        more
    }
}
