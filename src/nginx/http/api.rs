//! The content handler of `api`: takes the request from nginx, asks [`crate::api`], sends what it says.

use super::body;
use super::host::NginxHost;
use super::request::{INTERNAL, Request};
use crate::api::{self, Response};
use crate::nginx::conf::api::ApiConf;
use crate::nginx::conf::main::MainConf;
use crate::nginx::ffi::{self, DONE, guard};
use crate::nginx::{log, modules, wake};
use nginx_sys as sys;

/// A request came to a location with `api`.
pub unsafe extern "C" fn handler(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("api", INTERNAL, || {
        // SAFETY: nginx calls with a live request in this location.
        unsafe {
            if !matches!(&*Request::new(r).method(), "POST" | "PATCH") {
                let rc = sys::ngx_http_discard_request_body(r);
                return if rc == ffi::OK { answer(r, Some(&[])) } else { rc };
            }
            let rc = sys::ngx_http_read_client_request_body(r, Some(body_read));
            if rc >= sys::NGX_HTTP_SPECIAL_RESPONSE as sys::ngx_int_t { rc } else { DONE }
        }
    })
}

/// The body is there.
unsafe extern "C" fn body_read(r: *mut sys::ngx_http_request_t) {
    let rc = guard("api", INTERNAL, || {
        // SAFETY: nginx calls with the live request whose body it has read.
        unsafe {
            match body::read(r) {
                Ok(body) => answer(r, Some(&body)),
                Err(error) => {
                    log::write(
                        (*(*r).connection).log,
                        log::ERR,
                        format_args!("can't read the request's body: {error}"),
                    );
                    answer(r, None)
                }
            }
        }
    });
    // SAFETY: this handler has the request, and gives it back with this call.
    unsafe { sys::ngx_http_finalize_request(r, rc) };
}

/// # Safety
/// `r` is live, in a location with `api`, and its header was not sent.
unsafe fn answer(r: *mut sys::ngx_http_request_t, body: Option<&[u8]>) -> sys::ngx_int_t {
    // SAFETY: the caller's promise; the configuration in force stays until the callback is over.
    unsafe {
        let request = Request::new(r);
        let location = *(*r).loc_conf.add((*modules::HTTP.get()).ctx_index);
        let location = &*location.cast::<ApiConf>();
        let Some(main) = MainConf::current() else { return INTERNAL };

        let response = ask(&request, location, main, body);
        if response.changed
            && let Some(control) = main.control()
        {
            wake::agent(control);
        }
        request.send(response)
    }
}

fn ask(request: &Request, location: &ApiConf, main: &MainConf, body: Option<&[u8]>) -> Response {
    let host = NginxHost::new(main, *request);
    let (method, path, args) = (request.method(), request.path(), request.args());
    let question = api::Request {
        method: &method,
        path: &path,
        args: &args,
        body,
        write: location.write,
        request_id: &request.variable(location.request_id),
        now: ffi::now(),
    };
    if request.is_too_large() { api::body_too_large(&question) } else { api::handle(&question, &host) }
}
