//! The few calls to the system that std and tokio lack; all unsafe code of the agent is here.

use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Our own descriptor of an eventfd that somebody else made; closing it leaves theirs open.
pub(super) struct EventFd(File);

impl EventFd {
    pub(super) fn duplicate(fd: RawFd) -> io::Result<EventFd> {
        // SAFETY: F_DUPFD_CLOEXEC touches no memory; a number that is no open descriptor is answered with EBADF.
        let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if own < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made for us, is open, and nothing else knows of it: we may own it.
        Ok(EventFd(unsafe { File::from_raw_fd(own) }))
    }

    /// Makes it readable. An eventfd that can't be written is full, and so readable already.
    pub(super) fn signal(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Registers it with the current runtime.
    pub(super) fn watched(self) -> io::Result<AsyncFd<EventFd>> {
        // SAFETY: the descriptor is open and ours alone; `as_raw_fd` always gives the same, and nothing closes it
        // before `self` is dropped, which is after the registration inside the `AsyncFd`.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Whether there is a process of this number, be it another user's.
pub(super) fn is_process(pid: u32) -> bool {
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0) else { return false };
    // SAFETY: takes two numbers; signal 0 is none, and only asks.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// While this lives, the calling thread receives no signals, and nor do threads that it starts.
pub(super) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(super) fn new() -> io::Result<SignalsBlocked> {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are ours and large enough; sigfillset writes `all` whole before pthread_sigmask reads it.
        let failed = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: pthread_sigmask succeeded, so it has filled `before`.
        Ok(SignalsBlocked { before: unsafe { before.assume_init() } })
    }

    /// For a thread that never wants them.
    pub(super) fn for_ever(self) {
        std::mem::forget(self);
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is a set that pthread_sigmask gave us, and the null pointer says that we want none back.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// A new one.
#[cfg(test)]
pub(super) fn test_eventfd() -> EventFd {
    // SAFETY: eventfd touches no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, open, and known to nobody else.
    EventFd(unsafe { File::from_raw_fd(fd) })
}
