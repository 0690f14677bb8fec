//! `api [write=on|off]`

use super::{Conf, Directive, Fault, Place, parse};
use crate::nginx::ffi::{CONF_ERROR, CONF_OK, OK, guard};
use crate::nginx::http::{self, api};
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// What the http module keeps of its main level.
#[derive(Default)]
pub struct HttpConf {
    /// Index of `$request_id`, once a location has `api`.
    pub request_id: Option<usize>,
}

/// What a location has.
#[derive(Default)]
pub struct ApiConf {
    /// `api` is here, or in the location that this nameless one is part of.
    pub on: bool,
    /// Where, if it is here itself.
    place: Option<Place>,
    /// `write=on`
    pub write: bool,
    /// Index of `$request_id`.
    pub request_id: usize,
}

/// See the module's text.
pub struct ApiDirective;

impl Directive for ApiDirective {
    type Own = ApiConf;

    fn set(conf: &mut Conf, own: &mut ApiConf) -> Result<(), Fault> {
        if own.place.is_some() {
            return Err(Fault::new("\"api\" is duplicate: a location has one; remove the other"));
        }
        for parameter in conf.parameters() {
            own.write = match parameter.strip_prefix("write=") {
                Some(value) => parse::flag(value)
                    .ok_or_else(|| Fault::new(format!("bad \"write={value}\" of \"api\"; it is \"on\" or \"off\"")))?,
                None => {
                    return Err(Fault::new(format!(
                        "unknown parameter \"{parameter}\" of \"api\"; it takes \"write=on\""
                    )));
                }
            };
        }
        // SAFETY: `api` is allowed in locations alone, whose context has the http core module's structures; the main
        // structure is this module's own.
        let (core, http) = unsafe {
            let ctx = conf.ctx().cast::<sys::ngx_http_conf_ctx_t>();
            let main = *(*ctx).main_conf.add(http::ctx_index());
            (http::core_location((*ctx).loc_conf), &mut *main.cast::<HttpConf>())
        };
        own.request_id = request_id(conf, http)?;
        own.place = Some(conf.place());
        own.on = true;
        if is_others(core) {
            return Err(not_alone(conf.place()));
        }
        core.handler = Some(HANDLER);
        Ok(())
    }
}

const HANDLER: unsafe extern "C" fn(*mut sys::ngx_http_request_t) -> sys::ngx_int_t = api::handler;

/// Whether a location has a handler, and not this module's.
fn is_others(core: &sys::ngx_http_core_loc_conf_t) -> bool {
    core.handler.is_some_and(|other| !std::ptr::fn_addr_eq(other, HANDLER))
}

fn not_alone(place: Place) -> Fault {
    let why = "\"api\" stands beside another directive that answers requests; give it a location of its own";
    Fault::at(&place, why)
}

/// `$request_id` is another one at each look unless it is indexed; answers must have the one that the log has.
fn request_id(conf: &Conf, http: &mut HttpConf) -> Result<usize, Fault> {
    if let Some(index) = http.request_id {
        return Ok(index);
    }
    let mut name = crate::nginx::ffi::constant(c"request_id");
    // SAFETY: a live configuration of `http`; nginx keeps the name's pointer, which is to a constant.
    let index = unsafe { sys::ngx_http_get_variable_index(conf.as_ptr(), &mut name) };
    let index = usize::try_from(index).map_err(|_| Fault::new("\"api\": no memory"))?;
    http.request_id = Some(index);
    Ok(index)
}

/// Locations without a name of their own are part of the one around them. nginx goes over to the one that
/// `limit_except` makes for all its methods, and has no handler for it but the one that is set here.
pub unsafe extern "C" fn merge(cf: *mut sys::ngx_conf_t, outer: *mut c_void, inner: *mut c_void) -> *mut c_char {
    guard("the merging of locations", CONF_ERROR, || {
        // SAFETY: nginx merges this module's structures, made by `create`, with the context of the inner location.
        unsafe {
            let (outer, inner) = (&*outer.cast::<ApiConf>(), &mut *inner.cast::<ApiConf>());
            let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let core = http::core_location((*ctx).loc_conf);
            if let Some(place) = inner.place.clone().filter(|_| is_others(core)) {
                return Conf::new(cf).fail(&not_alone(place));
            }
            if core.noname() != 0 && !inner.on && outer.on {
                (inner.on, inner.write, inner.request_id) = (true, outer.write, outer.request_id);
            }
            if core.lmt_excpt() != 0 && core.handler.is_none() && inner.on {
                core.handler = Some(HANDLER);
            }
            if inner.on && !answer_too_large(cf, core) {
                return Conf::new(cf).fail(&Fault::new("\"api\": no memory"));
            }
        }
        CONF_OK
    })
}

const TOO_LARGE: sys::ngx_int_t = sys::NGX_HTTP_REQUEST_ENTITY_TOO_LARGE as sys::ngx_int_t;

/// nginx refuses a body above `client_max_body_size` before any handler sees the request. An error page that leads back
/// to the same location lets the API say so in JSON, as its clients expect. One of the user's own stays.
///
/// # Safety
/// `cf` is live, and `core` belongs to the configuration that it reads.
unsafe fn answer_too_large(cf: *mut sys::ngx_conf_t, core: &mut sys::ngx_http_core_loc_conf_t) -> bool {
    // SAFETY: null or the pages of this location and those around it; the array may be theirs too, so it is copied to be
    // added to. Zero is the empty state of a compiled value, whose parts nginx puts into the cycle's pool.
    unsafe {
        let pages: &[sys::ngx_http_err_page_t] = core.error_pages.as_ref().map_or(&[], |pages| pages.as_slice());
        if pages.iter().any(|page| page.status == TOO_LARGE) {
            return true;
        }
        let size = size_of::<sys::ngx_http_err_page_t>();
        let all = sys::ngx_array_create((*cf).pool, pages.len() + 1, size);
        if all.is_null() {
            return false;
        }
        let copy = sys::ngx_array_push_n(all, pages.len() + 1).cast::<sys::ngx_http_err_page_t>();
        if copy.is_null() {
            return false;
        }
        copy.copy_from_nonoverlapping(pages.as_ptr(), pages.len());

        let mut page: sys::ngx_http_err_page_t = std::mem::zeroed();
        page.status = TOO_LARGE;
        page.overwrite = -1;
        let mut text = crate::nginx::ffi::constant(c"$uri");
        let mut order: sys::ngx_http_compile_complex_value_t = std::mem::zeroed();
        order.cf = cf;
        order.value = &mut text;
        order.complex_value = &mut page.value;
        if sys::ngx_http_compile_complex_value(&mut order) != OK {
            return false;
        }
        copy.add(pages.len()).write(page);
        core.error_pages = all;
    }
    true
}
