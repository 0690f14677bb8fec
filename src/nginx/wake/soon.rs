//! Waking the agent for what can wait: not each time, but some milliseconds after the first that it hasn't heard of. An agent
//! that is woken by each request that a limit admits, or by each node that says hello, costs as much as they do.

use crate::nginx::conf::main::MainConf;
use crate::nginx::process::timer::Timer;
use std::cell::RefCell;

/// How long it may wait, milliseconds. `docs/limits.md` has what it does to the accuracy of limits and to the processor.
const AFTER: usize = 5;

thread_local! {
    /// That of the thread of the event loop.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// There is something for the agent.
///
/// # Safety
/// In the thread of the event loop.
pub unsafe fn soon() {
    TIMER.with_borrow_mut(|timer| {
        // SAFETY: the caller's promise.
        let timer = timer.get_or_insert_with(|| unsafe { Timer::new(rouse) });
        if !timer.is_set() {
            timer.set(AFTER);
        }
    });
}

/// The process ends, or its configuration does: what waits is said now.
pub fn ending() {
    if TIMER.with_borrow_mut(Option::take).is_some_and(|timer| timer.is_set()) {
        rouse();
    }
}

fn rouse() {
    // SAFETY: in a callback of the event loop.
    if let Some(control) = unsafe { MainConf::current() }.and_then(MainConf::control) {
        super::agent(control);
    }
}
