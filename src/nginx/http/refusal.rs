//! Errors that nginx itself makes in a location with `api` or `keyval_rest`, as JSON: a body that is too large, an address that is denied,
//! a missing password. Programs decode what the API answers, whoever answers.
//!
//! A filter of headers finds such an answer and says how long another body is; a filter of bodies puts that in the place of
//! nginx's page. Pages of the user's own (`error_page`, `return` with a text) stay.

use super::request::Request;
use super::{location, slot};
use crate::api;
use crate::nginx::ffi::{self, ERROR, OK, guard};
use nginx_sys as sys;
use std::cell::UnsafeCell;

/// What is sent in the place of nginx's page.
pub struct Refusal {
    body: Vec<u8>,
    sent: bool,
}

type HeaderFilter = sys::ngx_http_output_header_filter_pt;
type BodyFilter = sys::ngx_http_output_body_filter_pt;

/// The filters that come after these.
struct Next(UnsafeCell<(HeaderFilter, BodyFilter)>);

// SAFETY: set while a configuration is read, and read in the event loop: both are the one thread of nginx.
unsafe impl Sync for Next {}

static NEXT: Next = Next(UnsafeCell::new((None, None)));

/// Puts the filters in front of all others; for the end of `http`.
///
/// # Safety
/// Called once for each configuration, by the thread that reads it.
pub unsafe fn install() {
    // SAFETY: the caller's promise; nginx makes its chain of filters anew with each configuration.
    unsafe {
        *NEXT.0.get() = (sys::ngx_http_top_header_filter, sys::ngx_http_top_body_filter);
        sys::ngx_http_top_header_filter = Some(header);
        sys::ngx_http_top_body_filter = Some(body);
    }
}

unsafe extern "C" fn header(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    // SAFETY: nginx calls with a live request; the filter after this one was there when this one was put in front.
    let (next, refused) = unsafe { ((*NEXT.0.get()).0, guard("an error's header", false, || is_refused(r))) };
    if refused
        && !guard("an error's header", false, || {
            // SAFETY: as above.
            unsafe { replace(r) }.is_some()
        })
    {
        return ERROR;
    }
    // SAFETY: as above.
    next.map_or(OK, |next| unsafe { next(r) })
}

/// Whether nginx answers by an error of its own where the API should.
unsafe fn is_refused(r: *mut sys::ngx_http_request_t) -> bool {
    // SAFETY: the caller hands over a live request, which is in some location.
    unsafe {
        (*r).err_status >= 400
            && (*r).err_status == (*r).headers_out.status
            && slot::of(r).as_ref().is_none_or(|slot| slot.left_to_nginx)
            && location(r).is_on()
    }
}

/// Gives the answer another body.
unsafe fn replace(r: *mut sys::ngx_http_request_t) -> Option<()> {
    // SAFETY: the caller hands over a live request whose header was not sent; what is put into it is in its pool, or is
    // constant.
    unsafe {
        let request = Request::new(r);
        let status = u16::try_from((*r).headers_out.status).unwrap_or(500);
        let request_id = request.variable(location(r).request_id);
        // The path of a record has no version.
        let path = if location(r).is_api() { request.path() } else { String::new() };
        let response = api::refused(status, &path, &request_id);
        let slot = slot::of_mine(r).as_mut()?;
        request.describe(&response)?;
        let api::Body::Bytes(body) = response.body else { return None };
        slot.refusal = ffi::owned_by_pool((*r).pool, Refusal { body, sent: false });
        (!slot.refusal.is_null()).then_some(())
    }
}

unsafe extern "C" fn body(r: *mut sys::ngx_http_request_t, page: *mut sys::ngx_chain_t) -> sys::ngx_int_t {
    // SAFETY: nginx calls with a live request and its chain; the refusal lives as long as the request's pool.
    unsafe {
        let Some(next) = (*NEXT.0.get()).1 else { return OK };
        let slot = slot::of(r);
        if slot.is_null() || (*slot).refusal.is_null() || page.is_null() {
            return next(r, page);
        }
        // nginx's page is passed over.
        let mut link = page;
        while let Some(chain) = link.as_mut() {
            (*chain.buf).pos = (*chain.buf).last;
            (*chain.buf).file_pos = (*chain.buf).file_last;
            link = chain.next;
        }
        let refusal = &mut *(*slot).refusal;
        if std::mem::replace(&mut refusal.sent, true) {
            return OK;
        }
        let buffer = sys::ngx_pcalloc((*r).pool, size_of::<sys::ngx_buf_t>()).cast::<sys::ngx_buf_t>();
        if buffer.is_null() {
            return ERROR;
        }
        (*buffer).pos = refusal.body.as_mut_ptr();
        (*buffer).last = (*buffer).pos.add(refusal.body.len());
        (*buffer).set_memory(1);
        (*buffer).set_last_buf(u32::from((*r).main == r));
        (*buffer).set_last_in_chain(1);
        let mut chain = sys::ngx_chain_t { buf: buffer, next: std::ptr::null_mut() };
        next(r, &mut chain)
    }
}
