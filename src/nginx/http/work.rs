//! Does work for an answer in several turns of the event loop, then sends it.

use super::again::{Again, TURN};
use super::request::Request;
use super::slot;
use crate::api::Job;
use crate::nginx::conf::main::MainConf;
use crate::nginx::ffi::{self, DONE, ERROR};
use crate::nginx::wake;
use nginx_sys as sys;
use std::time::Instant;

/// Work under way. The request's pool owns it.
pub struct Work {
    again: Again,
    job: Box<dyn Job>,
}

/// Begins; returns what the request is to be finalized with.
///
/// # Safety
/// `r` is live, and no header was sent.
pub unsafe fn begin(r: *mut sys::ngx_http_request_t, job: Box<dyn Job>) -> sys::ngx_int_t {
    // SAFETY: the caller's promise. The work lives as long as the request's pool.
    unsafe {
        let slot = slot::of_mine(r);
        let work = ffi::owned_by_pool((*r).pool, Work { again: Again::new(r, go_on), job });
        if slot.is_null() || work.is_null() {
            return ERROR;
        }
        (*slot).work = work;
        if let Some(rc) = turn(r) {
            return rc;
        }
        // Nothing is to be written before the work is done.
        (*r).write_event_handler = Some(sys::ngx_http_request_empty_handler);
        (*(*r).main).set_count((*(*r).main).count() + 1);
        DONE
    }
}

unsafe fn go_on(r: *mut sys::ngx_http_request_t) {
    // SAFETY: the caller hands over the live request of a work.
    unsafe {
        if let Some(rc) = turn(r) {
            sys::ngx_http_finalize_request(r, rc);
        }
    }
}

/// A turn's worth of steps. `None`: there is more to do, in a later turn.
unsafe fn turn(r: *mut sys::ngx_http_request_t) -> Option<sys::ngx_int_t> {
    let began = Instant::now();
    // SAFETY: a live request with a work in its slot, to which nothing else refers.
    unsafe {
        let work = &mut *(*slot::of(r)).work;
        let response = loop {
            match work.job.step(ffi::now()) {
                None if began.elapsed() < TURN => {}
                done => break done,
            }
        };
        if work.job.wakes()
            && let Some(control) = MainConf::current().and_then(MainConf::control)
        {
            wake::everybody(control);
        }
        match response {
            Some(response) => Some(Request::new(r).send(response)),
            None => {
                work.again.soon();
                None
            }
        }
    }
}
