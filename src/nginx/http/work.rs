//! Does work for an answer in several turns of the event loop, as its body comes, then sends it.

use super::again::Again;
use super::request::Request;
use super::slot;
use crate::api::{Job, Step};
use crate::nginx::conf::main::MainConf;
use crate::nginx::ffi::{self, DONE, ERROR, guard};
use crate::nginx::turns::SLICE;
use crate::nginx::wake;
use nginx_sys as sys;
use std::time::Instant;

/// Work under way. The request's pool owns it.
pub struct Work {
    again: Again,
    job: Box<dyn Job>,
}

/// Begins; returns what the request is to be finalized with. Small work is done at once.
///
/// # Safety
/// `r` is live, no header was sent, and nginx reads no more of the body by itself.
pub unsafe fn begin(r: *mut sys::ngx_http_request_t, job: Box<dyn Job>) -> sys::ngx_int_t {
    // SAFETY: the caller's promise. The work lives as long as the request's pool.
    unsafe {
        let slot = slot::of_mine(r);
        let work = ffi::owned_by_pool((*r).pool, Work { again: Again::new(r, go_on), job });
        if slot.is_null() || work.is_null() {
            return ERROR;
        }
        (*slot).work = work;
        if (*r).reading_body() != 0 {
            (*r).read_event_handler = Some(readable);
        }
        // Nothing is to be written before the work is done.
        (*r).write_event_handler = Some(sys::ngx_http_request_empty_handler);
        if let Some(rc) = go(r) {
            return rc;
        }
        (*(*r).main).set_count((*(*r).main).count() + 1);
        DONE
    }
}

/// More of the body has come, or won't.
unsafe extern "C" fn readable(r: *mut sys::ngx_http_request_t) {
    guard("a body that is read", (), || {
        // SAFETY: nginx calls with a live request, whose handler this is only while it has a work.
        unsafe { (*(*slot::of(r)).work).again.soon() };
    });
}

unsafe fn go_on(r: *mut sys::ngx_http_request_t) {
    // SAFETY: the caller hands over the live request of a work.
    unsafe {
        if let Some(rc) = go(r) {
            sys::ngx_http_finalize_request(r, rc);
        }
    }
}

/// Steps for a slice of time. `None`: there is more to do, later.
unsafe fn go(r: *mut sys::ngx_http_request_t) -> Option<sys::ngx_int_t> {
    let began = Instant::now();
    // SAFETY: a live request with a work in its slot, to which nothing else refers.
    unsafe {
        let work = &mut *(*slot::of(r)).work;
        let step = loop {
            match work.job.step(ffi::now()) {
                Step::More if began.elapsed() < SLICE => {}
                step => break step,
            }
        };
        if work.job.wakes()
            && let Some(control) = MainConf::current().and_then(MainConf::control)
        {
            wake::everybody(control);
        }
        match step {
            Step::Done(response) => return Some(Request::new(r).send(response)),
            Step::Refused(status) => {
                (*slot::of(r)).left_to_nginx = true;
                return Some(status as sys::ngx_int_t);
            }
            Step::More => work.again.soon(),
            Step::Pause(pause) => work.again.later(pause),
            // nginx calls `readable`.
            Step::Wait => {}
        }
        None
    }
}
