//! Tells the sessions of changes as soon as there are any: a task of its own, so that nothing else stands between a write and
//! the bytes that leave.

use super::hub::Hub;
use super::wake::Wake;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Runs until it is dropped, or the lease is lost. With an interval, changes leave at most once in that time.
pub(super) async fn follow(hub: Rc<Hub>, wake: Wake, interval: Option<Duration>) {
    let (mut quiet, mut woken) = (None, true);
    // At each beat it looks all the same: a writer may be killed before it says what it has changed, even when it has taken it
    // upon itself to.
    let mut beat = pin!(sleep_until(hub.rest.next_beat().into()));
    while hub.holds() {
        let asleep = wake.sleeping();
        let changed = hub.distribute();
        if changed {
            quiet = interval.map(|interval| Instant::now() + interval);
        } else if woken {
            // Who woke it for no change may be a session that has just begun. Changes needn't wait for that look.
            hub.greet();
        }
        if woken && (!changed || hub.is_outdated()) {
            hub.rouse();
        }
        woken = tokio::select! {
            () = asleep.woken() => true,
            () = &mut beat => false,
        };
        if !woken {
            beat.as_mut().reset(hub.rest.next_beat().into());
        }
        drop(asleep);
        if let Some(quiet) = quiet {
            sleep_until(quiet).await;
        }
    }
}
