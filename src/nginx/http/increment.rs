//! `keyval_incr`: counts a request when it ends.

use super::variable::Http;
use super::{ctx_index, location};
use crate::nginx::conf::increment::{By, Increment, Value};
use crate::nginx::ffi::{self, OK, guard};
use crate::nginx::variable::{Side, why};
use crate::nginx::{log, wake};
use crate::record::number;
use crate::store::{Life, Missing};
use nginx_sys as sys;
use std::fmt::Arguments;

/// In nginx's log phase.
pub unsafe extern "C" fn ended(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("keyval_incr", OK, || {
        // SAFETY: nginx calls with a live request, in the location where it ends, and with subrequests if they are logged.
        unsafe {
            // A request whose header can't be read has the server's, which always is there.
            if (*r).main == r && !(*(*r).loc_conf.add(ctx_index())).is_null() {
                location(r).increments.iter().for_each(|increment| count(r, increment));
            }
        }
        OK
    })
}

/// Counts it once.
///
/// # Safety
/// `r` is live, and served with the configuration that `increment` belongs to.
unsafe fn count(r: *mut sys::ngx_http_request_t, increment: &Increment) {
    // SAFETY: the caller's promise; the zone was found when the configuration was complete.
    unsafe {
        let Some(keyval) = increment.zone.as_ref() else { return };
        let Some(zone) = keyval.zone else { return };
        if let Some(condition) = &increment.condition
            && matches!(evaluate(r, condition), None | Some(b"" | b"0"))
        {
            return;
        }
        let Some(key) = evaluate(r, &increment.key).filter(|key| !key.is_empty()) else { return };
        let complain = |why: Arguments<'_>| {
            let (log, name) = ((*(*r).connection).log, &keyval.name);
            keyval.complaints.write(
                log,
                log::ERR,
                ffi::now(),
                format_args!("can't count in keyval zone \"{name}\": {why}"),
            );
        };
        let by = match &increment.by {
            By::Number(by) => *by,
            By::Value(value) => match evaluate(r, value) {
                None | Some(b"") => return,
                Some(text) => match number(text) {
                    Some(by) => by,
                    None => {
                        let text = String::from_utf8_lossy(text.get(..text.len().min(64)).unwrap_or_default());
                        return complain(format_args!(
                            "\"by=\" came to \"{}\", which is no whole number",
                            text.escape_debug()
                        ));
                    }
                },
            },
        };
        match zone.count(key, by, Missing::Begin(0, Life::Default), ffi::now()) {
            // Nobody waits for it: the client has its answer.
            Ok(_) if zone.announces() => wake::everybody_soon(),
            Ok(_) => {}
            Err(error) => complain(format_args!("{}", why(keyval, error))),
        }
    }
}

unsafe fn evaluate<'a>(r: *mut sys::ngx_http_request_t, value: &Value) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise; the text is in the request's pool, or in the configuration's.
    unsafe { Http.evaluate(r, value).map(|text| ffi::bytes(text)) }
}
