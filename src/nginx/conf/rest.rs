//! `keyval_rest zone=name`

use super::api::{ApiConf, Service, serve};
use super::keyval::Waiting;
use super::main::KeyvalZone;
use super::{Conf, Directive, Fault};
use crate::nginx::{ffi, http};
use nginx_sys as sys;

/// See the module's text.
pub struct RestDirective;

impl Directive for RestDirective {
    type Own = ApiConf;

    fn set(conf: &mut Conf, own: &mut ApiConf) -> Result<(), Fault> {
        let parameter = conf.text(1).into_owned();
        let zone = match parameter.strip_prefix("zone=") {
            Some("") => return Err(Fault::new("\"keyval_rest\" has an empty \"zone=\": name a keyval_zone")),
            Some(zone) => zone.to_owned(),
            None => {
                return Err(Fault::new(format!(
                    "unknown parameter \"{parameter}\" of \"keyval_rest\"; it takes \"zone=name\""
                )));
            }
        };
        // SAFETY: the directive is allowed in locations alone.
        let is_pattern = unsafe {
            let core = http::core_location((*conf.ctx().cast::<sys::ngx_http_conf_ctx_t>()).loc_conf);
            !core.regex.is_null()
        };
        if is_pattern {
            return Err(Fault::new(
                "\"keyval_rest\" in a location by regular expression: a key is what follows the location's name; use a \
                 prefix, such as \"location /kv/\"",
            ));
        }
        // SAFETY: the pool of the configuration, which outlives the requests that it serves.
        let place = unsafe { ffi::owned_by_pool::<*const KeyvalZone>(conf.pool(), std::ptr::null()) };
        if place.is_null() {
            return Err(Fault::new("\"keyval_rest\": no memory"));
        }
        serve(conf, own, Service::Rest(place))?;
        let waiting = Waiting::new(place, "\"keyval_rest\"".to_owned(), zone, conf.place());
        conf.main()?.add_waiting(waiting);
        Ok(())
    }
}
