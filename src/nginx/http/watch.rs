//! The watchers of this worker: their hub, and what makes it work.
//!
//! A worker with watchers sleeps until one of the writers, of whichever process, writes to the eventfd that they share; it
//! does so once for all that changed since. In case such a writer dies between the change and that, the worker also looks
//! once a second.

use crate::api::watch::{Hub, Order, Work};
use crate::api::{NamedZone, Produce};
use crate::nginx::process::lines::{Calls, LinesReady};
use crate::nginx::process::timer::Timer;
use crate::nginx::{ffi, log};
use crate::record::Millis;
use crate::store::Control;
use std::cell::RefCell;
use std::time::Duration;

/// In one turn of the event loop.
const TURN: Duration = Duration::from_millis(1);
/// Between two ticks of the hub.
const TICK: Millis = 1000;
/// Between two looks where nginx's way of waiting has no use for the eventfd.
const LOOK: Millis = 100;
/// To the next turn. Not 0: nginx would have it run off again and again in this one.
const SOON: Millis = 1;

thread_local! {
    /// Only the thread of the event loop has one, while somebody watches.
    static WATCHING: RefCell<Option<Watching>> = const { RefCell::new(None) };
}

struct Watching {
    hub: Hub,
    control: Control,
    timer: Timer,
    ready: Option<LinesReady>,
    ticked: Millis,
}

/// The body that one more client gets; `None`: the zone can have no more walkers.
pub fn join(control: &Control, zone: &NamedZone, order: Order, now: Millis) -> Option<Box<dyn Produce>> {
    let hub = WATCHING.with_borrow_mut(|slot| slot.get_or_insert_with(|| Watching::new(control)).hub.clone());
    hub.join(zone, order, now)
}

/// Ends all streams: this worker ends, or the memory of its zones goes.
pub fn end() {
    if let Some(watching) = WATCHING.with_borrow_mut(Option::take) {
        watching.hub.end();
    }
}

impl Watching {
    fn new(control: &Control) -> Watching {
        // SAFETY: a request is handled in the thread of the event loop, which drops this too.
        let (timer, ready) = unsafe {
            (Timer::new(run), LinesReady::shared(control.watch_eventfd(), &Calls { written: run, ending: run }))
        };
        let ready = ready.unwrap_or_else(|error| {
            log::cycle(log::ERR, format_args!("watchers learn of changes late: {error}"));
            None
        });
        Watching { hub: Hub::new(schedule), control: *control, timer, ready, ticked: 0 }
    }

    /// When to look again, in milliseconds; `None`: nobody watches any more.
    fn work(&mut self, now: Millis) -> Option<Millis> {
        if self.hub.is_empty() {
            return None;
        }
        if now.abs_diff(self.ticked) >= TICK {
            self.ticked = now;
            self.hub.tick(now);
        }
        let pause = match self.hub.work(now, TURN) {
            Work::More => SOON,
            Work::After(pause) => pause,
            Work::Nothing => {
                self.control.watchers_sleep();
                match (self.hub.has_news(), &self.ready) {
                    (true, _) => SOON,
                    (false, Some(_)) => TICK,
                    (false, None) => LOOK,
                }
            }
        };
        Some(pause)
    }
}

/// The event loop's turn: its timer, or the eventfd.
fn run() {
    WATCHING.with(|slot| {
        let Ok(mut slot) = slot.try_borrow_mut() else { return };
        let Some(watching) = slot.as_mut() else { return };
        match watching.work(ffi::now()) {
            Some(pause) => watching.timer.set(usize::try_from(pause).unwrap_or(usize::MAX)),
            None => *slot = None,
        }
    });
}

/// The hub wants to work.
fn schedule() {
    WATCHING.with(|slot| {
        if let Ok(slot) = slot.try_borrow()
            && let Some(watching) = slot.as_ref()
        {
            watching.timer.set(usize::try_from(SOON).unwrap_or(1));
        }
    });
}
