//! The http part: variables that read and write zones, and the API.

mod again;
pub mod api;
pub mod body;
mod flow;
pub mod host;
mod increment;
pub mod path;
mod refusal;
pub mod request;
mod rest;
mod slot;
pub mod variable;
pub mod watch;
mod work;

use super::conf::Conf;
use super::conf::api::{self as api_conf, ApiConf, ApiDirective, HttpConf};
use super::conf::increment::IncrementDirective;
use super::conf::keyval::{KeyvalDirective, KeyvalZoneDirective};
use super::conf::main::MainConf;
use super::conf::rest::RestDirective;
use super::conf::{self, command};
use super::ffi::{ERROR, OK, guard};
use super::limit;
use super::modules::{self, Exported};
use super::upstream;
use nginx_sys as sys;
use std::ffi::c_void;
use variable::Http;

/// The http module's callbacks.
pub static CONTEXT: Exported<sys::ngx_http_module_t> = Exported::new(sys::ngx_http_module_t {
    preconfiguration: None,
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(conf::create::<HttpConf>),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create::<ApiConf>),
    merge_loc_conf: Some(api_conf::merge),
});

const MAIN: u32 = sys::NGX_HTTP_MAIN_CONF;
const LOCATION: u32 = sys::NGX_HTTP_LOC_CONF | sys::NGX_HTTP_LIF_CONF | sys::NGX_HTTP_LMT_CONF;

/// Its directives.
pub static COMMANDS: Exported<[sys::ngx_command_t; 6]> = Exported::new([
    command::<KeyvalZoneDirective<Http>>(c"keyval_zone", MAIN | sys::NGX_CONF_1MORE, sys::NGX_HTTP_MAIN_CONF_OFFSET),
    command::<KeyvalDirective<Http>>(c"keyval", MAIN | sys::NGX_CONF_TAKE3, sys::NGX_HTTP_MAIN_CONF_OFFSET),
    command::<ApiDirective>(
        c"api",
        LOCATION | sys::NGX_CONF_NOARGS | sys::NGX_CONF_TAKE1,
        sys::NGX_HTTP_LOC_CONF_OFFSET,
    ),
    command::<RestDirective>(c"keyval_rest", LOCATION | sys::NGX_CONF_TAKE1, sys::NGX_HTTP_LOC_CONF_OFFSET),
    command::<IncrementDirective>(
        c"keyval_incr",
        MAIN | sys::NGX_HTTP_SRV_CONF | sys::NGX_HTTP_LOC_CONF | sys::NGX_HTTP_LIF_CONF | sys::NGX_CONF_2MORE,
        sys::NGX_HTTP_LOC_CONF_OFFSET,
    ),
    sys::ngx_command_t::empty(),
]);

/// The end of `http`.
unsafe extern "C" fn postconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    guard("the end of http", ERROR, || {
        // SAFETY: nginx calls with the context of `http`, where this module's main structure is, read by one thread.
        unsafe {
            upstream::install_filter();
            let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let http = (*(*ctx).main_conf.add(ctx_index())).cast::<HttpConf>();
            // Set by `api` and `keyval_rest` alike.
            if (*http).request_id.is_some() {
                refusal::install();
            }
            if (*http).has_api && !at_the_end(ctx, count_request)
                || (*http).counts && !at_the_end(ctx, increment::ended)
            {
                return ERROR;
            }
            Conf::new(cf).finish(limit::install(cf))
        }
    })
}

/// What nginx calls for a request.
type Handler = unsafe extern "C" fn(*mut sys::ngx_http_request_t) -> sys::ngx_int_t;

/// Has nginx call this when a request ends. `false`: no memory.
unsafe fn at_the_end(ctx: *mut sys::ngx_http_conf_ctx_t, called: Handler) -> bool {
    // SAFETY: the context of `http` that is being read has the core module's main structure; nginx calls what stands in
    // its list for each request.
    unsafe {
        let core = *(*ctx).main_conf.add(sys::ngx_http_core_module.ctx_index);
        let core = core.cast::<sys::ngx_http_core_main_conf_t>();
        let phase = &raw mut (*core).phases[sys::ngx_http_phases_NGX_HTTP_LOG_PHASE as usize].handlers;
        let handler = sys::ngx_array_push(phase).cast::<sys::ngx_http_handler_pt>();
        if handler.is_null() {
            return false;
        }
        handler.write(Some(called));
        true
    }
}

/// Counts requests for the API's `/workers/`.
unsafe extern "C" fn count_request(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    // SAFETY: nginx calls with a live request, and with subrequests if they are logged; a number that nginx sets when the
    // worker begins.
    unsafe {
        if (*r).main == r
            && let Some(figures) = MainConf::current().and_then(MainConf::figures)
        {
            figures.count_request(sys::ngx_worker);
        }
    }
    OK
}

/// This module's part of the location that a request is in.
///
/// # Safety
/// `r` is live and in a location, and doesn't leave it while the result lives.
unsafe fn location<'a>(r: *mut sys::ngx_http_request_t) -> &'a ApiConf {
    // SAFETY: the table has a slot for each http module, with what `create` made for this one.
    unsafe { &*(*(*r).loc_conf.add(ctx_index())).cast() }
}

/// This module's index among those of http.
pub fn ctx_index() -> usize {
    // SAFETY: nginx sets the field when it begins to read `http`, in this same thread.
    unsafe { (*modules::HTTP.get()).ctx_index }
}

/// The http core module's part of a location.
///
/// # Safety
/// `locations` is the table of a location that is being read or in force, and nothing else refers to the structure
/// while the result lives.
pub unsafe fn core_location<'a>(locations: *mut *mut c_void) -> &'a mut sys::ngx_http_core_loc_conf_t {
    // SAFETY: the table has a slot for each http module at its `ctx_index`, the core module's among them.
    unsafe { &mut *(*locations.add(sys::ngx_http_core_module.ctx_index)).cast() }
}
