//! An event that leads back to a request in a later turn of the event loop.

use crate::nginx::ffi::guard;
use nginx_sys as sys;
use std::time::Duration;

/// How long one request may go on in one turn of the event loop.
pub const TURN: Duration = Duration::from_millis(2);

/// A turn never takes so long.
const NEXT_TURN_MS: u64 = 10_000;

/// Belongs to one request, and is dropped with its pool at the latest. Stays where it is once it was used.
#[repr(C)]
pub struct Again {
    // The first field: a pointer to it is one to the whole.
    event: sys::ngx_event_t,
    r: *mut sys::ngx_http_request_t,
    handler: unsafe fn(*mut sys::ngx_http_request_t),
}

impl Again {
    /// Calls `handler`, which may end the request.
    ///
    /// # Safety
    /// `r` is live as long as this is.
    pub unsafe fn new(r: *mut sys::ngx_http_request_t, handler: unsafe fn(*mut sys::ngx_http_request_t)) -> Again {
        // SAFETY: all zeroes is the value that nginx itself begins an event with; the connection of a live request.
        unsafe {
            let mut event: sys::ngx_event_t = std::mem::zeroed();
            // nginx's debug log prints the descriptor of the connection that an event belongs to.
            event.data = (*r).connection.cast();
            event.log = (*(*r).connection).log;
            event.handler = Some(happened);
            Again { event, r, handler }
        }
    }

    /// In the next turn, after what else is ready.
    pub fn soon(&mut self) {
        // A worker that is to end waits for timers, and not for what is posted.
        self.later(NEXT_TURN_MS);
        // SAFETY: the event is live until `drop`, and this is the thread of the event loop.
        unsafe { sys::ngx_post_event(&mut self.event, &raw mut sys::ngx_posted_next_events) };
    }

    /// After so many milliseconds, if nothing comes before.
    pub fn later(&mut self, milliseconds: u64) {
        // SAFETY: the event is live until `drop`, and this is the thread of the event loop.
        unsafe { sys::ngx_add_timer(&mut self.event, sys::ngx_msec_t::try_from(milliseconds).unwrap_or(0)) };
    }

    fn cancel(&mut self) {
        // SAFETY: as in `later`; each is taken out of the structure that it is in.
        unsafe {
            if self.event.posted() != 0 {
                sys::ngx_delete_posted_event(&mut self.event);
            }
            if self.event.timer_set() != 0 {
                sys::ngx_del_timer(&mut self.event);
            }
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.cancel();
    }
}

unsafe extern "C" fn happened(event: *mut sys::ngx_event_t) {
    guard("a request that goes on", (), || {
        // SAFETY: nginx calls with an event that was set, the first field of an `Again` that is live, and so is its
        // request. The connection's memory outlives the request, which the handler may end; nginx asks for what it
        // posted to be run after each event.
        unsafe {
            let again = &mut *event.cast::<Again>();
            again.cancel();
            let (r, handler) = (again.r, again.handler);
            let connection = (*r).connection;
            handler(r);
            sys::ngx_http_run_posted_requests(connection);
        }
    });
}
