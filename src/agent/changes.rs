//! Tells the sessions of changes as soon as there are any: a task of its own, so that nothing else stands between a write and
//! the bytes that leave.

use super::hub::Hub;
use super::wake::Wake;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Runs until it is dropped, or the lease is lost. With an interval, changes leave at most once in that time.
pub(super) async fn follow(hub: Rc<Hub>, wake: Wake, interval: Option<Duration>) {
    let mut quiet = None;
    while hub.holds() {
        let asleep = wake.sleeping();
        let changed = hub.distribute();
        if changed {
            quiet = interval.map(|interval| Instant::now() + interval);
        } else {
            // Who woke it for no change may be a session that has just begun. Changes needn't wait for that look.
            hub.greet();
        }
        if !changed || hub.is_outdated() {
            hub.rouse();
        }
        asleep.woken().await;
        drop(asleep);
        if let Some(quiet) = quiet {
            sleep_until(quiet).await;
        }
    }
}
