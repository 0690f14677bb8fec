//! What leads back to a request in a later turn of the event loop: a place in the queue of [`crate::nginx::turns`], and a timer.

use crate::nginx::ffi::guard;
use crate::nginx::turns::{Place, Work};
use nginx_sys as sys;
use std::ffi::c_void;

/// Nobody waits in the queue for so long.
const NEXT_TURN_MS: u64 = 10_000;

/// Belongs to one request, and is dropped with its pool at the latest. Stays where it is once it was used.
#[repr(C)]
pub struct Again {
    // The first field: a pointer to it is one to the whole.
    event: sys::ngx_event_t,
    place: Place,
    r: *mut sys::ngx_http_request_t,
    handler: unsafe fn(*mut sys::ngx_http_request_t),
}

impl Again {
    /// Calls `handler`, which may go on for a [`SLICE`](crate::nginx::turns::SLICE), and may end the request.
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
            event.handler = Some(ran_off);
            Again { event, place: Place::new(), r, handler }
        }
    }

    /// When it is its turn.
    pub fn soon(&mut self) {
        // A worker that is to end waits for timers, and not for those in the queue.
        self.later(NEXT_TURN_MS);
        let own = (&raw mut *self).cast::<c_void>();
        // SAFETY: this is the thread of the event loop, and the place is left when `self` is dropped.
        unsafe { self.place.take(Work::Long, run, own) };
    }

    /// After so many milliseconds, if nothing comes before.
    pub fn later(&mut self, milliseconds: u64) {
        // SAFETY: the event is live until `drop`, and this is the thread of the event loop.
        unsafe { sys::ngx_add_timer(&mut self.event, sys::ngx_msec_t::try_from(milliseconds).unwrap_or(0)) };
    }

    fn cancel(&mut self) {
        self.place.leave();
        if self.event.timer_set() != 0 {
            // SAFETY: as in `later`; it is in nginx's tree.
            unsafe { sys::ngx_del_timer(&mut self.event) };
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The timer: the work queues up.
unsafe extern "C" fn ran_off(event: *mut sys::ngx_event_t) {
    guard("a request that goes on", (), || {
        // SAFETY: nginx calls with an event that was set, the first field of an `Again` that is live.
        unsafe { (*event.cast::<Again>()).soon() };
    });
}

/// It is its turn.
unsafe fn run(own: *mut c_void) {
    // SAFETY: what `soon` gave, which is live, and so is its request. The connection's memory outlives the request, which
    // the handler may end; nginx asks for what it posted to be run after each event.
    unsafe {
        let again = &mut *own.cast::<Again>();
        again.cancel();
        let (r, handler) = (again.r, again.handler);
        let connection = (*r).connection;
        handler(r);
        sys::ngx_http_run_posted_requests(connection);
    }
}
