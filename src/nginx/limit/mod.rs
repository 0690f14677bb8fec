//! Limits of requests that hold for a cluster: `limit_req_zone ... sync`, and `limit_req` on such zones.
//!
//! A module of its own that stands before nginx's limit_req module, and so is asked first what the two directives mean:
//! what isn't for zones with `sync` is handed on ([`original`]). `limit_req_status`, `limit_req_log_level` and
//! `limit_req_dry_run` stay with nginx's module, where [`handler`] looks them up. If a zone has `sync`, the handler takes the
//! place of nginx's own in the phase, and calls that where limits of its zones hold. An nginx that was built without that
//! module has limits with `sync` only, and [`own`] has what they need of it.

mod handler;
mod lines;
mod original;
mod own;
mod zone;

use super::conf::main::{KeyvalZone, MainConf};
use super::conf::{self, Conf, Fault};
use super::ffi::{self, CONF_ERROR, CONF_OK, guard};
use super::modules::{self, Exported};
use lines::Line;
use nginx_sys as sys;
use original::{Handler, Original};
use own::Own;
use std::ffi::{c_char, c_void};

pub use original::NAME as BEFORE;
pub use zone::NAME as ZONE;

/// The module's callbacks.
pub static CONTEXT: Exported<sys::ngx_http_module_t> = Exported::new(sys::ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: None,
    create_main_conf: Some(conf::create::<LimitMain>),
    init_main_conf: Some(init_main_conf),
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create::<LimitConf>),
    merge_loc_conf: Some(merge),
});

const ANY: u32 = sys::NGX_HTTP_MAIN_CONF | sys::NGX_HTTP_SRV_CONF | sys::NGX_HTTP_LOC_CONF;

/// Its directives, with nginx's own flags; `sync` is one word more.
pub static COMMANDS: Exported<[sys::ngx_command_t; 6]> = Exported::new([
    entry(
        ffi::constant(c"limit_req_zone"),
        sys::NGX_HTTP_MAIN_CONF | sys::NGX_CONF_TAKE3 | sys::NGX_CONF_TAKE4,
        zone_line,
        sys::NGX_HTTP_MAIN_CONF_OFFSET,
    ),
    entry(ffi::constant(c"limit_req"), ANY | sys::NGX_CONF_TAKE123, limit_line, sys::NGX_HTTP_LOC_CONF_OFFSET),
    own::LOG_LEVEL,
    own::STATUS,
    own::DRY_RUN,
    sys::ngx_command_t::empty(),
]);

type Set = unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_command_t, *mut c_void) -> *mut c_char;

const fn entry(name: sys::ngx_str_t, flags: u32, set: Set, conf: usize) -> sys::ngx_command_t {
    sys::ngx_command_t {
        name,
        type_: flags as sys::ngx_uint_t,
        set: Some(set),
        conf: conf as sys::ngx_uint_t,
        offset: 0,
        post: std::ptr::null_mut(),
    }
}

/// What the module keeps of the http block.
#[derive(Default)]
pub struct LimitMain {
    lines: Vec<Line>,
    /// Limits hold somewhere.
    limits: bool,
    /// nginx's module; `None`: it has none.
    original: Option<Original>,
    /// nginx's handler, if this module's has taken its place.
    handler: Option<Handler>,
}

/// What a level has.
#[derive(Default)]
pub struct LimitConf {
    /// A `limit_req` stands here: the level inherits none.
    any: bool,
    /// Limits of nginx's own zones hold here.
    plain: bool,
    /// Those of zones with `sync`.
    limits: Vec<Limit>,
    /// What holds for them in an nginx without a module of its own for limits.
    own: Own,
}

/// One `limit_req` of a zone with `sync`.
#[derive(Clone, Copy)]
struct Limit {
    /// Part of the same configuration.
    zone: *const KeyvalZone,
    /// In thousandths of a request.
    burst: u64,
    delay: u64,
}

/// `limit_req_zone`
unsafe extern "C" fn zone_line(cf: *mut sys::ngx_conf_t, _: *mut sys::ngx_command_t, _: *mut c_void) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf`.
        let mut conf = unsafe { Conf::new(cf) };
        zone::read(&mut conf).unwrap_or_else(|fault| conf.fail(&fault))
    })
}

/// `limit_req`
unsafe extern "C" fn limit_line(cf: *mut sys::ngx_conf_t, _: *mut sys::ngx_command_t, own: *mut c_void) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` and, as the table says, the module's structure of the level; the context of
        // any level has the main structures.
        unsafe {
            let conf = Conf::new(cf);
            let main = &mut *main_of((*conf.ctx().cast::<sys::ngx_http_conf_ctx_t>()).main_conf);
            match Original::find(&conf) {
                Ok(original) => {
                    (main.original, main.limits) = (original, true);
                    main.lines.push(Line::new(&conf, original.as_ref(), own.cast()));
                    CONF_OK
                }
                Err(fault) => conf.fail(&fault),
            }
        }
    })
}

/// The http block begins.
unsafe extern "C" fn preconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    guard("the variables of limits", ffi::ERROR, || {
        // SAFETY: nginx calls with a live `cf`.
        let conf = unsafe { Conf::new(cf) };
        conf.finish(own::add_variable(&conf))
    })
}

/// The http block has been read, and no level is merged yet: every line goes to whom it belongs.
unsafe extern "C" fn init_main_conf(cf: *mut sys::ngx_conf_t, own: *mut c_void) -> *mut c_char {
    guard("the limits of http", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` and with what `create` made.
        let (mut conf, main) = unsafe { (Conf::new(cf), &mut *own.cast::<LimitMain>()) };
        for line in main.lines.drain(..) {
            // SAFETY: the configuration of the http block, at its end.
            match unsafe { line.settle(&mut conf, main.original.as_ref()) } {
                Ok(true) => {}
                Ok(false) => return CONF_ERROR,
                Err(fault) => return conf.fail(&fault),
            }
        }
        CONF_OK
    })
}

/// A level inherits the limits of the one around it if it has none of either kind.
unsafe extern "C" fn merge(_: *mut sys::ngx_conf_t, outer: *mut c_void, inner: *mut c_void) -> *mut c_char {
    guard("the merging of limits", CONF_ERROR, || {
        // SAFETY: nginx merges this module's structures, made by `create`.
        let (outer, inner) = unsafe { (&*outer.cast::<LimitConf>(), &mut *inner.cast::<LimitConf>()) };
        if !inner.any {
            inner.plain = outer.plain;
            inner.limits.clone_from(&outer.limits);
        }
        inner.own.inherit(&outer.own);
        CONF_OK
    })
}

/// The end of http, when nginx's module has put its handler into the phase: it makes place for this module's, if some zone
/// is shared. For the `postconfiguration` of a module that comes after nginx's.
///
/// # Safety
/// `cf` is that of the http block.
pub unsafe fn install(cf: *mut sys::ngx_conf_t) -> Result<(), Fault> {
    // SAFETY: the caller's promise; structures of this configuration, which one thread reads.
    unsafe {
        let any = MainConf::of((*cf).cycle).is_some_and(|main| main.limit_zones().next().is_some());
        let main = &mut *main_of((*(*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>()).main_conf);
        if !any || !main.limits {
            return Ok(());
        }
        let Some(original) = main.original else {
            return match original::append(cf, handler::handler) {
                true => Ok(()),
                false => Err(Fault::new("\"limit_req_zone ... sync\": no memory")),
            };
        };
        let theirs = original.handler(cf).filter(|theirs| original::replace(cf, *theirs, handler::handler));
        main.handler = Some(theirs.ok_or_else(|| {
            Fault::new(
                "\"limit_req_zone ... sync\": this nginx's limit_req module has no handler that zonemesh could find",
            )
        })?);
    }
    Ok(())
}

/// The module's main structure.
///
/// # Safety
/// `table` is that of the http block, and nothing else refers to the structure while the result is used.
unsafe fn main_of(table: *mut *mut c_void) -> *mut LimitMain {
    // SAFETY: the table has a slot for each http module, with what `create` made for this one.
    unsafe { (*table.add(ctx_index())).cast() }
}

/// This module's index among those of http.
fn ctx_index() -> usize {
    // SAFETY: nginx sets the field when it begins to read `http`, in this same thread.
    unsafe { (*modules::HTTP_LIMIT.get()).ctx_index }
}
