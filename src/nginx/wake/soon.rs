//! Waking the agent for what can wait: not each time, but some milliseconds after the first that it hasn't heard of. An agent
//! that is woken by each request that a limit admits or that is counted, or by each node that says hello, costs as much as
//! they do. So do watchers of counters.

use crate::nginx::conf::main::MainConf;
use crate::nginx::process::timer::Timer;
use std::cell::RefCell;

/// How long it may wait, milliseconds. `docs/limits.md` has what it does to the accuracy of limits and to the processor.
const AFTER: usize = 5;

thread_local! {
    /// That of the thread of the event loop.
    static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

/// What waits, while the timer is set.
struct Waiting {
    timer: Timer,
    /// Whether watchers are concerned, too.
    watched: bool,
}

/// There is something for the agent.
///
/// # Safety
/// In the thread of the event loop.
pub unsafe fn soon() {
    // SAFETY: the caller's promise.
    unsafe { wait(false) }
}

/// There is something for the agent and for watchers.
///
/// # Safety
/// In the thread of the event loop.
pub unsafe fn everybody_soon() {
    // SAFETY: the caller's promise.
    unsafe { wait(true) }
}

unsafe fn wait(watched: bool) {
    WAITING.with_borrow_mut(|waiting| {
        // SAFETY: the caller's promise.
        let waiting = waiting.get_or_insert_with(|| Waiting { timer: unsafe { Timer::new(rouse) }, watched });
        waiting.watched |= watched;
        if !waiting.timer.is_set() {
            waiting.timer.set(AFTER);
        }
    });
}

/// The process ends, or its configuration does: what waits is said now.
pub fn ending() {
    if let Some(waiting) = WAITING.take().filter(|waiting| waiting.timer.is_set()) {
        tell(waiting.watched);
    }
}

fn rouse() {
    tell(
        WAITING.with_borrow_mut(|waiting| waiting.as_mut().is_some_and(|waiting| std::mem::take(&mut waiting.watched))),
    );
}

fn tell(watched: bool) {
    // SAFETY: in a callback of the event loop.
    if let Some(control) = unsafe { MainConf::current() }.and_then(MainConf::control) {
        if watched { super::everybody(control) } else { super::agent(control) }
    }
}
