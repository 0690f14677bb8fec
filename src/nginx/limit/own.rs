//! An nginx that was built without its limit_req module: what that would have done for zones with `sync`. That is three
//! directives, which stand in this module's table and are handed on where nginx has its own, and a variable.

use super::LimitConf;
use super::original::{Original, Settings};
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::ffi::{self, CONF_ERROR, ERROR, OK, guard};
use crate::nginx::modules::Exported;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};
use std::mem::offset_of;

/// What `limit_req_log_level`, `limit_req_status` and `limit_req_dry_run` say on a level, in the types of nginx's own
/// functions for such values.
pub struct Own {
    level: sys::ngx_uint_t,
    status: sys::ngx_int_t,
    dry_run: sys::ngx_flag_t,
}

const UNSET: sys::ngx_int_t = sys::NGX_CONF_UNSET as sys::ngx_int_t;

impl Default for Own {
    fn default() -> Own {
        Own { level: UNSET.cast_unsigned(), status: UNSET, dry_run: UNSET }
    }
}

impl Own {
    /// What isn't said on a level holds as on the one around it.
    pub fn inherit(&mut self, outer: &Own) {
        if self.level == UNSET.cast_unsigned() {
            self.level = outer.level;
        }
        if self.status == UNSET {
            self.status = outer.status;
        }
        if self.dry_run == UNSET {
            self.dry_run = outer.dry_run;
        }
    }

    /// What holds, with nginx's defaults.
    pub fn settings(&self) -> Settings {
        let or = |value, default| if value == UNSET { default } else { value };
        Settings {
            level: or(self.level.cast_signed(), sys::NGX_LOG_ERR as sys::ngx_int_t).cast_unsigned(),
            status: or(self.status, sys::NGX_HTTP_SERVICE_UNAVAILABLE as sys::ngx_int_t),
            dry_run: or(self.dry_run, 0) != 0,
        }
    }
}

const ANY: u32 = sys::NGX_HTTP_MAIN_CONF | sys::NGX_HTTP_SRV_CONF | sys::NGX_HTTP_LOC_CONF;

/// `limit_req_log_level`
pub const LOG_LEVEL: sys::ngx_command_t = sys::ngx_command_t {
    name: ffi::constant(c"limit_req_log_level"),
    type_: (ANY | sys::NGX_CONF_TAKE1) as sys::ngx_uint_t,
    set: Some(log_level),
    conf: sys::NGX_HTTP_LOC_CONF_OFFSET,
    offset: offset_of!(LimitConf, own) + offset_of!(Own, level),
    post: LEVELS.get().cast(),
};

/// `limit_req_status`
pub const STATUS: sys::ngx_command_t = sys::ngx_command_t {
    name: ffi::constant(c"limit_req_status"),
    set: Some(status),
    offset: offset_of!(LimitConf, own) + offset_of!(Own, status),
    post: STATUSES.get().cast(),
    ..LOG_LEVEL
};

/// `limit_req_dry_run`
pub const DRY_RUN: sys::ngx_command_t = sys::ngx_command_t {
    name: ffi::constant(c"limit_req_dry_run"),
    type_: (ANY | sys::NGX_CONF_FLAG) as sys::ngx_uint_t,
    set: Some(dry_run),
    offset: offset_of!(LimitConf, own) + offset_of!(Own, dry_run),
    post: std::ptr::null_mut(),
    ..LOG_LEVEL
};

static LEVELS: Exported<[sys::ngx_conf_enum_t; 5]> = Exported::new([
    level(ffi::constant(c"info"), sys::NGX_LOG_INFO),
    level(ffi::constant(c"notice"), sys::NGX_LOG_NOTICE),
    level(ffi::constant(c"warn"), sys::NGX_LOG_WARN),
    level(ffi::constant(c"error"), sys::NGX_LOG_ERR),
    level(sys::ngx_str_t::empty(), 0),
]);

const fn level(name: sys::ngx_str_t, value: u32) -> sys::ngx_conf_enum_t {
    sys::ngx_conf_enum_t { name, value: value as sys::ngx_uint_t }
}

static STATUSES: Exported<sys::ngx_conf_num_bounds_t> = Exported::new(sys::ngx_conf_num_bounds_t {
    post_handler: Some(sys::ngx_conf_check_num_bounds),
    low: 400,
    high: 599,
});

type Set = unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_command_t, *mut c_void) -> *mut c_char;

unsafe extern "C" fn log_level(
    cf: *mut sys::ngx_conf_t,
    cmd: *mut sys::ngx_command_t,
    own: *mut c_void,
) -> *mut c_char {
    // SAFETY: called as `setting` is to be.
    unsafe { setting(cf, cmd, own, sys::ngx_conf_set_enum_slot) }
}

unsafe extern "C" fn status(cf: *mut sys::ngx_conf_t, cmd: *mut sys::ngx_command_t, own: *mut c_void) -> *mut c_char {
    // SAFETY: called as `setting` is to be.
    unsafe { setting(cf, cmd, own, sys::ngx_conf_set_num_slot) }
}

unsafe extern "C" fn dry_run(cf: *mut sys::ngx_conf_t, cmd: *mut sys::ngx_command_t, own: *mut c_void) -> *mut c_char {
    // SAFETY: called as `setting` is to be.
    unsafe { setting(cf, cmd, own, sys::ngx_conf_set_flag_slot) }
}

/// One of the three: it is nginx's, or else goes by `set` to this module's structure of the level.
///
/// # Safety
/// nginx calls, with a live `cf`, an entry of this module's table and what the entry says is its structure.
unsafe fn setting(cf: *mut sys::ngx_conf_t, cmd: *mut sys::ngx_command_t, own: *mut c_void, set: Set) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: the caller's promise; the name is that of an entry of either table, and the offset that of a field of the
        // type that `set` writes.
        unsafe {
            let conf = Conf::new(cf);
            let name = conf.name();
            let said = match Original::find(&conf) {
                Ok(Some(original)) => original.set(cf, &name, original.conf(&conf, &name)),
                Ok(None) => Ok(set(cf, cmd, own)),
                Err(fault) => Err(fault),
            };
            said.unwrap_or_else(|fault| conf.fail(&fault))
        }
    })
}

/// Makes `$limit_req_status`, unless nginx does. Before http's directives are read.
pub fn add_variable(conf: &Conf) -> Result<(), Fault> {
    if Original::is_there(conf) {
        return Ok(());
    }
    let mut name = ffi::constant(c"limit_req_status");
    // SAFETY: a live configuration of `http`, whose variables live as long.
    let variable = unsafe {
        let flags = sys::NGX_HTTP_VAR_NOCACHEABLE as sys::ngx_uint_t;
        sys::ngx_http_add_variable(conf.as_ptr(), &mut name, flags).as_mut()
    };
    variable.ok_or_else(|| Fault::new("no memory for \"$limit_req_status\""))?.get_handler = Some(status_text);
    Ok(())
}

/// Names of nginx's numbers of what became of a request, from 1 on.
const OUTCOMES: [&[u8]; 5] = [b"PASSED", b"DELAYED", b"REJECTED", b"DELAYED_DRY_RUN", b"REJECTED_DRY_RUN"];

unsafe extern "C" fn status_text(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    _: usize,
) -> sys::ngx_int_t {
    guard("$limit_req_status", ERROR, || {
        // SAFETY: nginx calls with a live request and value.
        let (value, status) = unsafe { (&mut *value, (*(*r).main).limit_req_status()) };
        match OUTCOMES.get((status as usize).wrapping_sub(1)) {
            Some(text) => {
                value.set_valid(1);
                value.set_no_cacheable(0);
                value.set_not_found(0);
                value.set_len(text.len() as u32);
                value.data = text.as_ptr().cast_mut();
            }
            None => value.set_not_found(1),
        }
        OK
    })
}
