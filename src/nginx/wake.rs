//! Rousing the agent, whichever worker it lives in, and workers with watchers.
//!
//! An eventfd for each of both and each master process, made before the first worker is forked: every worker of every
//! generation has it under the same number, which stands in the control zone.

mod soon;

pub use soon::{ending, everybody_soon, soon};

use crate::store::Control;
use std::io;

/// Tells the agent that a synchronized zone was changed. Costs a look at shared memory while it is awake.
pub fn agent(control: &Control) {
    if control.must_wake() {
        signal(control.eventfd());
    }
}

/// Tells workers with watchers that a watched zone was changed. Costs as little while they are awake, or there are none.
pub fn watchers(control: &Control) {
    if control.must_wake_watchers() {
        signal(control.watch_eventfd());
    }
}

/// Tells both of a change of a zone that somebody follows.
pub fn everybody(control: &Control) {
    agent(control);
    watchers(control);
}

/// Makes the eventfds, unless this master has them.
pub fn prepare(control: &Control) -> io::Result<()> {
    if control.eventfd() < 0 {
        control.set_eventfd(eventfd()?);
    }
    if control.watch_eventfd() < 0 {
        control.set_watch_eventfd(eventfd()?);
    }
    Ok(())
}

fn eventfd() -> io::Result<i32> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// Adds one to an eventfd. A full counter (EAGAIN) has roused its reader already.
pub fn signal(fd: i32) {
    let one = 1u64;
    // SAFETY: reads eight bytes of a live local.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}
