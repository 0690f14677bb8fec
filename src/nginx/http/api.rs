//! The content handler of `api` and `keyval_rest`: takes the request from nginx, asks [`crate::api`], sends what it says.

use super::body;
use super::host::NginxHost;
use super::request::{INTERNAL, Request};
use super::{location, rest, work};
use crate::api::{self, Answer};
use crate::nginx::conf::api::ApiConf;
use crate::nginx::conf::main::MainConf;
use crate::nginx::ffi::{self, DONE, guard};
use crate::nginx::wake;
use nginx_sys as sys;
use std::borrow::Cow;

/// A request came to a location with `api` or `keyval_rest`.
pub unsafe extern "C" fn handler(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("api", INTERNAL, || {
        // SAFETY: nginx calls with a live request in this location.
        unsafe {
            if !matches!(&*Request::new(r).method(), "POST" | "PATCH" | "PUT") {
                let rc = sys::ngx_http_discard_request_body(r);
                return if rc == ffi::OK { answer(r) } else { rc };
            }
            // The API takes bodies as they come; a value of one record is read as a whole.
            (*r).set_request_body_no_buffering(u32::from(location(r).is_api()));
            let rc = sys::ngx_http_read_client_request_body(r, Some(body_read));
            if rc >= sys::NGX_HTTP_SPECIAL_RESPONSE as sys::ngx_int_t { rc } else { DONE }
        }
    })
}

/// The body is there, or begins to come.
unsafe extern "C" fn body_read(r: *mut sys::ngx_http_request_t) {
    // SAFETY: nginx calls with the live request whose body it has read. This handler has the request, and gives it back
    // with the last call.
    unsafe {
        let rc = guard("api", INTERNAL, || answer(r));
        sys::ngx_http_finalize_request(r, rc);
    }
}

/// # Safety
/// `r` is live, in a location with `api` or `keyval_rest`, its header was not sent, and its body was read or discarded.
unsafe fn answer(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    // SAFETY: the caller's promise; the configuration in force stays until the callback is over.
    unsafe {
        let request = Request::new(r);
        let Some(main) = MainConf::current() else { return INTERNAL };
        let response = match ask(r, &request, location(r), main) {
            Some(Answer::Now(response)) if (*r).reading_body() != 0 => {
                return work::begin(r, api::after_body(Box::new(body::Rest::new(r)), response));
            }
            Some(Answer::Now(response)) => response,
            Some(Answer::Later(job)) => return work::begin(r, job),
            None => return INTERNAL,
        };
        if response.changed
            && let Some(control) = main.control()
        {
            wake::everybody(control);
        }
        request.send(response)
    }
}

/// `None`: the configuration isn't complete.
unsafe fn ask(
    r: *mut sys::ngx_http_request_t,
    request: &Request,
    location: &ApiConf,
    main: &MainConf,
) -> Option<Answer> {
    let (method, path, args) = (request.method(), request.path(), request.args());
    // SAFETY: as in `answer`; the buffers of the body stay as long as the request.
    let body = unsafe { if location.is_api() { Ok(Cow::Borrowed(&[][..])) } else { body::read(r) } };
    if let Err(error) = &body {
        // SAFETY: as above.
        unsafe { body::log_failure(r, error) };
    }
    let question = api::Request {
        method: &method,
        path: &path,
        args: &args,
        body: body.as_deref().ok(),
        write: location.write,
        request_id: &request.variable(location.request_id),
        now: ffi::now(),
        header: &|name| request.header(name),
        // SAFETY: what reads them is dropped with the request's pool, before the buffers.
        pieces: &|| Box::new(unsafe { body::Rest::new(r) }),
    };
    match location.zone() {
        Some(zone) => rest::answer(request, &question, zone).map(Answer::Now),
        None if location.is_api() => Some(api::handle(&question, &NginxHost::new(main, *request))),
        None => None,
    }
}
