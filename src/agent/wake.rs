//! Going to sleep without missing a change.
//!
//! Writers pay for waking the agent only while it sleeps. Who changes a zone stores first and then asks whether the
//! agent sleeps; the agent says that it sleeps and then looks for changes once more. Both orders are sequentially
//! consistent, so at least one of the two sees the other.

use super::sys::EventFd;
use crate::store::Control;
use std::io;
use tokio::io::unix::AsyncFd;

/// The eventfd that writers of all workers write to.
pub(super) struct Wake {
    control: Control,
    fd: AsyncFd<EventFd>,
}

impl Wake {
    /// Registers the node's eventfd with the current runtime.
    pub(super) fn new(control: Control) -> io::Result<Wake> {
        Ok(Wake { control, fd: EventFd::duplicate(control.eventfd())?.watched()? })
    }

    /// Says that the agent sleeps. The caller must look for changes once more before it awaits [`Asleep::woken`].
    pub(super) fn sleeping(&self) -> Asleep<'_> {
        self.control.sleeping();
        Asleep(self)
    }
}

/// The eventfd that wakes workers with watchers, for changes that the agent makes.
pub(super) struct Watchers {
    control: Control,
    fd: Option<EventFd>,
}

impl Watchers {
    /// Without a descriptor, watchers find out when they next look.
    pub(super) fn new(control: Control) -> Watchers {
        Watchers { control, fd: EventFd::duplicate(control.watch_eventfd()).ok() }
    }

    /// A watched zone was changed.
    pub(super) fn wake(&self) {
        if let Some(fd) = &self.fd
            && self.control.must_wake_watchers()
        {
            fd.signal();
        }
    }
}

/// While this lives, writers wake the agent.
pub(super) struct Asleep<'a>(&'a Wake);

impl Asleep<'_> {
    /// Ends when a writer has written to the eventfd. It is never read: each write is an event of its own.
    pub(super) async fn woken(&self) {
        // An error means that the runtime is ending, and then nobody polls this again.
        if let Ok(mut ready) = self.0.fd.readable().await {
            ready.clear_ready();
        }
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.control.awake();
    }
}
