//! Rousing the agent, whichever worker it lives in.
//!
//! One eventfd for each master process, made before the first worker is forked: every worker of every generation has it
//! under the same number, which stands in the control zone.

use crate::store::Control;
use std::io;

/// Tells the agent that a synchronized zone was changed. Costs a look at shared memory while it is awake.
pub fn agent(control: &Control) {
    if control.must_wake() {
        signal(control.eventfd());
    }
}

/// Makes the eventfd, unless this master has one.
pub fn prepare(control: &Control) -> io::Result<()> {
    if control.eventfd() >= 0 {
        return Ok(());
    }
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    control.set_eventfd(fd);
    Ok(())
}

/// Adds one to an eventfd. A full counter (EAGAIN) has roused its reader already.
pub fn signal(fd: i32) {
    let one = 1u64;
    // SAFETY: reads eight bytes of a live local.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}
