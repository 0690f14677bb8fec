//! A timer of nginx's that no ending worker waits for.

use crate::nginx::ffi::guard;
use nginx_sys as sys;
use std::ffi::c_void;

/// One timer; it runs off once after each [`Timer::set`].
pub struct Timer(*mut Parts);

/// The event comes first: a pointer to it is one to the whole.
#[repr(C)]
struct Parts {
    event: sys::ngx_event_t,
    /// nginx's debug log prints the descriptor of the connection that an event belongs to.
    connection: sys::ngx_connection_t,
    handler: fn(),
}

impl Timer {
    /// Calls `handler` when it runs off.
    ///
    /// # Safety
    /// In the thread of the event loop, and so is all use of the timer.
    pub unsafe fn new(handler: fn()) -> Timer {
        // SAFETY: both are structures of C for which all zeroes is the value that nginx itself begins with.
        let (event, connection) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let parts = Box::into_raw(Box::new(Parts { event, connection, handler }));
        // SAFETY: just made, and ours alone; `ngx_cycle` is live and its log outlives the timer, which ends with the
        // worker.
        unsafe {
            (*parts).connection.fd = -1;
            (*parts).event.data = (&raw mut (*parts).connection).cast::<c_void>();
            (*parts).event.handler = Some(expired);
            (*parts).event.log = (*sys::ngx_cycle).log;
            (*parts).event.set_cancelable(1);
        }
        Timer(parts)
    }

    /// Sets it anew, to run off after so many milliseconds.
    pub fn set(&self, milliseconds: usize) {
        // SAFETY: the event is live until `drop`, and this is the thread of the event loop, as `new` was promised.
        unsafe {
            // The log of a cycle that a reload without master replaced would be gone.
            (*self.0).event.log = (*sys::ngx_cycle).log;
            if (*self.0).event.timer_set() != 0 {
                // nginx would leave a timer as it is that is to run off a little later.
                sys::ngx_del_timer(&raw mut (*self.0).event);
            }
            sys::ngx_add_timer(self.0.cast::<sys::ngx_event_t>(), milliseconds as sys::ngx_msec_t);
        }
    }

    /// Whether it is to run off.
    pub fn is_set(&self) -> bool {
        // SAFETY: as in `set`.
        unsafe { (*self.0).event.timer_set() != 0 }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: came from `Box::into_raw`, and is taken out of nginx's tree before it is freed.
        unsafe {
            if (*self.0).event.timer_set() != 0 {
                sys::ngx_del_timer(&raw mut (*self.0).event);
            }
            drop(Box::from_raw(self.0));
        }
    }
}

unsafe extern "C" fn expired(event: *mut sys::ngx_event_t) {
    // SAFETY: nginx calls with the event that was set, which is the first field of a `Parts`; the pointer that nginx
    // was given was one into the whole, which is live until its event is deleted.
    let handler = unsafe { (*event.cast::<Parts>()).handler };
    guard("a timer", (), handler);
}
