//! `api [write=on|off]`

use super::increment::Increments;
use super::main::KeyvalZone;
use super::{Conf, Directive, Fault, Place, parse};
use crate::nginx::ffi::{CONF_ERROR, CONF_OK, guard};
use crate::nginx::http::{self, api};
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// What the http module keeps of its main level.
#[derive(Default)]
pub struct HttpConf {
    /// Index of `$request_id`, once a location has `api`.
    pub request_id: Option<usize>,
    /// Some location has `api`.
    pub has_api: bool,
    /// Some level has `keyval_incr`.
    pub counts: bool,
}

/// What a location has.
#[derive(Default)]
pub struct ApiConf {
    /// `api` or `keyval_rest` is here, or in the location that this nameless one is part of.
    service: Service,
    /// Where, if it is here itself.
    place: Option<Place>,
    /// `write=on`
    pub write: bool,
    /// Index of `$request_id`.
    pub request_id: usize,
    /// What is counted when a request ends here.
    pub increments: Increments,
}

/// Who answers.
#[derive(Clone, Copy, Default)]
pub enum Service {
    /// Others.
    #[default]
    None,
    /// `api`
    Api,
    /// `keyval_rest`; the zone is found when the configuration is complete.
    Rest(*const *const KeyvalZone),
}

impl ApiConf {
    /// Whether the API answers.
    pub fn is_api(&self) -> bool {
        matches!(self.service, Service::Api)
    }

    /// The zone of `keyval_rest`.
    pub fn zone(&self) -> Option<&KeyvalZone> {
        match self.service {
            // SAFETY: the place is in the pool of this configuration, and so is the zone that it leads to.
            Service::Rest(zone) => unsafe { (*zone).as_ref() },
            _ => None,
        }
    }

    /// Whether one of both answers.
    pub fn is_on(&self) -> bool {
        !matches!(self.service, Service::None)
    }
}

/// See the module's text.
pub struct ApiDirective;

impl Directive for ApiDirective {
    type Own = ApiConf;

    fn set(conf: &mut Conf, own: &mut ApiConf) -> Result<(), Fault> {
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
        serve(conf, own, Service::Api)?;
        // SAFETY: as in `serve`.
        unsafe { (*http_conf(conf)).has_api = true };
        Ok(())
    }
}

/// Lets this module answer in the location that is being read.
pub fn serve(conf: &Conf, own: &mut ApiConf, service: Service) -> Result<(), Fault> {
    let name = conf.name();
    if own.place.is_some() {
        return Err(match (own.is_api(), matches!(service, Service::Api)) {
            (true, true) | (false, false) => {
                Fault::new(format!("\"{name}\" is duplicate: a location has one; remove the other"))
            }
            _ => not_alone(conf.place()),
        });
    }
    // SAFETY: the directives are allowed in locations alone, whose context has the http core module's structures and this
    // module's own; they are read by one thread.
    let core = unsafe {
        own.request_id = request_id(conf, &mut *http_conf(conf))?;
        http::core_location((*conf.ctx().cast::<sys::ngx_http_conf_ctx_t>()).loc_conf)
    };
    own.place = Some(conf.place());
    own.service = service;
    if is_others(core) {
        return Err(not_alone(conf.place()));
    }
    core.handler = Some(HANDLER);
    Ok(())
}

/// The main level's structure, from any level of `http`.
pub fn http_conf(conf: &Conf) -> *mut HttpConf {
    // SAFETY: the context of every level has the main level's structures.
    unsafe { (*(*conf.ctx().cast::<sys::ngx_http_conf_ctx_t>()).main_conf.add(http::ctx_index())).cast() }
}

const HANDLER: unsafe extern "C" fn(*mut sys::ngx_http_request_t) -> sys::ngx_int_t = api::handler;

/// Whether a location has a handler, and not this module's.
fn is_others(core: &sys::ngx_http_core_loc_conf_t) -> bool {
    core.handler.is_some_and(|other| !std::ptr::fn_addr_eq(other, HANDLER))
}

fn not_alone(place: Place) -> Fault {
    let why = "\"api\" or \"keyval_rest\" stands beside another directive that answers requests; give it a location of its own";
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
    let index = usize::try_from(index).map_err(|_| Fault::new(format!("\"{}\": no memory", conf.name())))?;
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
            inner.increments.inherit(&outer.increments);
            let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let core = http::core_location((*ctx).loc_conf);
            if let Some(place) = inner.place.clone().filter(|_| is_others(core)) {
                return Conf::new(cf).fail(&not_alone(place));
            }
            if core.noname() != 0 && !inner.is_on() && outer.is_on() {
                (inner.service, inner.write, inner.request_id) = (outer.service, outer.write, outer.request_id);
            }
            if core.lmt_excpt() != 0 && core.handler.is_none() && inner.is_on() {
                core.handler = Some(HANDLER);
            }
        }
        CONF_OK
    })
}
