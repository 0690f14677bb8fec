//! `status_zone`: counts requests and sessions for the API, at a few additions to a worker's own memory for each.
//!
//! Two modules of nginx's, for http and for stream, which take part only if the directive is used: their handlers note
//! in the pool of a request or connection that it is in the making, and count at its end.

pub mod http;
pub mod stream;

use super::conf::main::MainConf;
use super::ffi::guard;
use crate::store::{Ending, Tally};
use nginx_sys as sys;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// This worker's number.
static WORKER: AtomicUsize = AtomicUsize::new(0);

/// A worker begins: for `init_process`, once it is known to the control zone.
pub fn started(main: &MainConf) {
    let Some(number) = main.control().and_then(|control| control.worker_number()) else { return };
    WORKER.store(number, Ordering::Relaxed);
    main.all_status_zones().filter_map(|zone| zone.tally).for_each(|tally| tally.inherit(number));
}

fn worker() -> usize {
    WORKER.load(Ordering::Relaxed)
}

/// That something is in the making, until its pool is destroyed.
struct Presence {
    tally: Tally,
    /// It is counted already.
    counted: bool,
    /// Its end is counted, too.
    ended: bool,
}

/// Notes in the pool of a request or connection that it is in the making. Without memory for that, it isn't shown to be.
///
/// # Safety
/// `pool` is live.
unsafe fn enter(pool: *mut sys::ngx_pool_t, tally: Tally, counted: bool) {
    // SAFETY: the caller's promise; the new entry has room for the data asked for, aligned for pointers.
    unsafe {
        let Some(cleanup) = sys::ngx_pool_cleanup_add(pool, size_of::<Presence>()).as_mut() else { return };
        cleanup.data.cast::<Presence>().write(Presence { tally, counted, ended: false });
        cleanup.handler = Some(leave);
    }
    if counted {
        tally.count(worker());
    }
    tally.enter(worker());
}

/// The pool is about to be destroyed.
unsafe extern "C" fn leave(presence: *mut c_void) {
    guard("status_zone", (), || {
        // SAFETY: what `enter` put into the pool.
        let Presence { tally, counted, ended } = unsafe { &*presence.cast::<Presence>() };
        tally.leave(worker());
        if !ended {
            if !counted {
                tally.count(worker());
            }
            tally.end(worker(), Ending { code: None, received: 0, sent: 0 });
        }
    });
}

/// What `enter` noted.
///
/// # Safety
/// `pool` is live, and nothing else refers to the result.
unsafe fn presence<'a>(pool: *mut sys::ngx_pool_t) -> Option<&'a mut Presence> {
    let ours: unsafe extern "C" fn(*mut c_void) = leave;
    // SAFETY: the list of a live pool, in which entries with this handler have this data.
    unsafe {
        let mut entry = (*pool).cleanup.as_ref();
        while let Some(cleanup) = entry {
            if cleanup.handler.is_some_and(|handler| std::ptr::fn_addr_eq(handler, ours)) {
                return cleanup.data.cast::<Presence>().as_mut();
            }
            entry = cleanup.next.as_ref();
        }
    }
    None
}

/// A count of bytes, as nginx keeps it.
fn bytes(count: sys::off_t) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
