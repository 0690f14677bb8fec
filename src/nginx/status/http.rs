//! Requests: of a server from when their header was read to their end, of a location where they end.

use super::{bytes, enter, presence, worker};
use crate::api::StatusKind;
use crate::nginx::conf::status::{HttpLocation, HttpServer, Setting, StatusZoneDirective};
use crate::nginx::conf::{self, Conf, Fault, command};
use crate::nginx::ffi::{CONF_ERROR, CONF_OK, DECLINED, ERROR, OK, guard};
use crate::nginx::modules::{Exported, HTTP_STATUS};
use crate::store::Ending;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// The module's callbacks.
pub static CONTEXT: Exported<sys::ngx_http_module_t> = Exported::new(sys::ngx_http_module_t {
    preconfiguration: None,
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(conf::create::<Setting>),
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create::<Setting>),
    merge_loc_conf: Some(merge),
});

const LOCATION: u32 = sys::NGX_HTTP_LOC_CONF | sys::NGX_HTTP_LIF_CONF;

/// Its directive, which is another one in servers and in locations.
pub static COMMANDS: Exported<[sys::ngx_command_t; 3]> = Exported::new([
    command::<StatusZoneDirective<HttpServer>>(
        c"status_zone",
        sys::NGX_HTTP_SRV_CONF | sys::NGX_CONF_TAKE1,
        sys::NGX_HTTP_SRV_CONF_OFFSET,
    ),
    command::<StatusZoneDirective<HttpLocation>>(
        c"status_zone",
        LOCATION | sys::NGX_CONF_TAKE1,
        sys::NGX_HTTP_LOC_CONF_OFFSET,
    ),
    sys::ngx_command_t::empty(),
]);

unsafe extern "C" fn merge(_cf: *mut sys::ngx_conf_t, outer: *mut c_void, inner: *mut c_void) -> *mut c_char {
    guard("the merging of locations", CONF_ERROR, || {
        // SAFETY: nginx merges this module's structures, made by `create`.
        unsafe { (*inner.cast::<Setting>()).inherit(*outer.cast::<Setting>()) };
        CONF_OK
    })
}

/// The end of `http`: the handlers, if anything is to be counted.
unsafe extern "C" fn postconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    guard("the end of http", ERROR, || {
        // SAFETY: nginx calls with a live `cf`.
        let mut conf = unsafe { Conf::new(cf) };
        let result = conf.main().and_then(|main| {
            let servers = main.status_zones(StatusKind::HttpServer).next().is_some();
            let any = servers || main.status_zones(StatusKind::HttpLocation).next().is_some();
            // SAFETY: the `cf` of the http block, at its end.
            unsafe {
                if servers {
                    push(cf, sys::ngx_http_phases_NGX_HTTP_POST_READ_PHASE, begun)?;
                }
                if any {
                    push(cf, sys::ngx_http_phases_NGX_HTTP_LOG_PHASE, ended)?;
                }
            }
            Ok(())
        });
        conf.finish(result)
    })
}

type Handler = unsafe extern "C" fn(*mut sys::ngx_http_request_t) -> sys::ngx_int_t;

/// # Safety
/// `cf` is that of the http block, at its end.
unsafe fn push(cf: *mut sys::ngx_conf_t, phase: sys::ngx_http_phases, handler: Handler) -> Result<(), Fault> {
    // SAFETY: the context has a slot for each http module, the core module's with its main structure.
    unsafe {
        let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
        let core =
            (*(*ctx).main_conf.add(sys::ngx_http_core_module.ctx_index)).cast::<sys::ngx_http_core_main_conf_t>();
        let handlers = &raw mut (*core).phases[phase as usize].handlers;
        let slot = sys::ngx_array_push(handlers).cast::<sys::ngx_http_handler_pt>();
        slot.as_mut().ok_or_else(|| Fault::new("\"status_zone\": no memory"))?.replace(handler);
    }
    Ok(())
}

/// The header of a request was read. Subrequests and internal redirects don't come here.
unsafe extern "C" fn begun(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("status_zone", DECLINED, || {
        // SAFETY: nginx calls with a live request.
        unsafe {
            if let Some(tally) = setting((*r).srv_conf).tally() {
                enter((*r).pool, tally, true);
            }
        }
        DECLINED
    })
}

/// A request is over, also one whose header was never read to its end.
unsafe extern "C" fn ended(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("status_zone", OK, || {
        // SAFETY: nginx calls with a live request, and with subrequests if they are logged.
        unsafe {
            if (*r).main != r {
                return OK;
            }
            let sent = (*(*r).connection).sent;
            let status = if (*r).err_status != 0 { (*r).err_status } else { (*r).headers_out.status };
            let ending = Ending {
                code: (sent > 0).then(|| u16::try_from(status).unwrap_or(0)),
                received: bytes((*r).request_length),
                sent: bytes(sent),
            };
            match presence((*r).pool) {
                Some(presence) => {
                    presence.ended = true;
                    presence.tally.end(worker(), ending);
                }
                None => {
                    if let Some(tally) = setting((*r).srv_conf).tally() {
                        tally.count(worker());
                        tally.end(worker(), ending);
                    }
                }
            }
            if let Some(tally) = setting((*r).loc_conf).tally() {
                tally.count(worker());
                tally.end(worker(), ending);
            }
        }
        OK
    })
}

/// What a server or a location says.
///
/// # Safety
/// `table` is that of a live request.
unsafe fn setting(table: *mut *mut c_void) -> Setting {
    // SAFETY: the table has a slot for each http module, with what its `create` callback returned.
    unsafe { *(*table.add((*HTTP_STATUS.get()).ctx_index)).cast::<Setting>() }
}
