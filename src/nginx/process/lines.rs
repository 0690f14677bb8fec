//! The way back from the helper thread, and from other workers: an eventfd that is a connection of the worker's own event
//! loop.

use crate::nginx::ffi::{OK, guard};
use nginx_sys as sys;
use std::ffi::{CStr, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

/// What an event loop is to call.
pub struct Calls {
    /// Somebody has written to the eventfd.
    pub written: fn(),
    /// The worker has been told to end once its requests are done.
    pub ending: fn(),
}

/// Calls a function when the helper thread has written to the eventfd.
pub struct LinesReady {
    fd: RawFd,
    /// Null if the worker had none left: then its timer has to do.
    connection: *mut sys::ngx_connection_t,
}

impl LinesReady {
    /// Makes the eventfd.
    ///
    /// # Safety
    /// In the thread of the event loop, after nginx has made it, and dropped there.
    pub unsafe fn new(calls: &'static Calls) -> io::Result<LinesReady> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        // SAFETY: the caller's promise.
        let made = unsafe { LinesReady::over(fd, readable, calls) }?;
        // SAFETY: the connection is ours and open, if there is one. nginx calls the handlers of idle ones when the worker is
        // to end, and leaves it to them to close it.
        if let Some(connection) = unsafe { made.connection.as_mut() } {
            connection.set_idle(1);
        }
        Ok(made)
    }

    /// Over an eventfd that other workers wait for as well: it is never read, as that would take the event from them. Each
    /// write to it is an event of its own, if nginx's way of waiting tells them apart; `None`: it doesn't.
    ///
    /// # Safety
    /// As [`LinesReady::new`]; `shared` is an open eventfd.
    pub unsafe fn shared(shared: RawFd, calls: &'static Calls) -> io::Result<Option<LinesReady>> {
        // SAFETY: a number that nginx sets when it makes the event loop; duplicating touches no memory.
        unsafe {
            if sys::ngx_event_flags & sys::NGX_USE_CLEAR_EVENT as sys::ngx_uint_t == 0 {
                return Ok(None);
            }
            LinesReady::over(libc::fcntl(shared, libc::F_DUPFD_CLOEXEC, 3), written, calls).map(Some)
        }
    }

    unsafe fn over(
        fd: RawFd,
        event: unsafe extern "C" fn(*mut sys::ngx_event_t),
        calls: &'static Calls,
    ) -> io::Result<LinesReady> {
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `ngx_cycle` is live and its log outlives this. A connection from nginx has both its events, zeroed,
        // and is ours until it is closed. It has no timer, so that nobody waits for it.
        let connection = unsafe {
            let log = (*sys::ngx_cycle).log;
            let connection = sys::ngx_get_connection(fd, log);
            if !connection.is_null() {
                (*connection).data = ptr::from_ref(calls).cast_mut().cast();
                (*connection).log = log;
                let read = (*connection).read;
                (*read).handler = Some(event);
                (*read).log = log;
                (*(*connection).write).log = log;
                if sys::ngx_handle_read_event(read, 0) != OK {
                    sys::ngx_close_connection(connection);
                    return Err(io::Error::other("the event loop doesn't take an eventfd"));
                }
            }
            connection
        };
        Ok(LinesReady { fd, connection })
    }

    /// To be written to.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for LinesReady {
    fn drop(&mut self) {
        // SAFETY: the connection is one that we got and haven't closed, and nginx closes its descriptor; without one,
        // the descriptor is ours alone.
        unsafe {
            if self.connection.is_null() {
                libc::close(self.fd);
            } else {
                // nginx takes it that closing a descriptor ends its events, which isn't so of one that has copies.
                if let Some(take_out) = sys::ngx_event_actions.del_conn {
                    take_out(self.connection, 0);
                }
                sys::ngx_close_connection(self.connection);
            }
        }
    }
}

unsafe extern "C" fn readable(event: *mut sys::ngx_event_t) {
    // SAFETY: nginx calls with the read event of our connection, whose `data` is what `new` put there.
    let handler = unsafe {
        let connection = (*event).data.cast::<sys::ngx_connection_t>();
        let calls = &*(*connection).data.cast::<Calls>();
        if (*connection).close() != 0 {
            // It stays until the worker has said its last.
            (*connection).set_close(0);
            return guard("the end of a worker", (), calls.ending);
        }
        let mut count = 0u64;
        libc::read((*connection).fd, (&raw mut count).cast(), size_of::<u64>());
        // Failing means that nginx's table of events is full; then the timer has to do.
        let _ = sys::ngx_handle_read_event(event, 0);
        calls.written
    };
    guard("the helper thread's lines", (), handler);
}

unsafe extern "C" fn written(event: *mut sys::ngx_event_t) {
    // SAFETY: as in `readable`.
    let handler = unsafe {
        let connection = (*event).data.cast::<sys::ngx_connection_t>();
        (*(*connection).data.cast::<Calls>()).written
    };
    guard("watchers", (), handler);
}

/// Keeps this shared object in memory until the process ends: nginx unloads it together with the cycle, and a thread
/// that takes its time then would run into nothing. `false`: it can't be found.
pub fn stay_loaded() -> bool {
    // SAFETY: `dladdr` is given the address of a function of this object and a structure to fill; the name that it
    // gives is a string that lives as long as the object. `dlopen` of what is loaded already only counts it.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(stay_loaded as *const c_void, &raw mut info) == 0 || info.dli_fname.is_null() {
            return false;
        }
        let name = CStr::from_ptr(info.dli_fname);
        !ptr::eq(libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE), ptr::null())
    }
}
