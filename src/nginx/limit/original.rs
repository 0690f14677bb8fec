//! nginx's own limit_req module, before which ours stands: how its directives are handed on to it, where it keeps what
//! it read, and which handler it has.

use crate::nginx::conf::{Conf, Fault};
use crate::nginx::ffi::{self, OK};
use nginx_sys as sys;
use std::ffi::{CStr, c_char, c_void};

/// The handler of a phase.
pub type Handler = unsafe extern "C" fn(*mut sys::ngx_http_request_t) -> sys::ngx_int_t;

/// Its name among nginx's modules.
pub const NAME: &CStr = c"ngx_http_limit_req_module";

/// The module, and where in its part of a location it has what three of its directives say.
#[derive(Clone, Copy)]
pub struct Original {
    module: *const sys::ngx_module_t,
    log_level: usize,
    status: usize,
    dry_run: usize,
}

/// What holds in a location, whoever counts.
#[derive(Clone, Copy)]
pub struct Settings {
    /// `limit_req_log_level`
    pub level: sys::ngx_uint_t,
    /// `limit_req_status`
    pub status: sys::ngx_int_t,
    /// `limit_req_dry_run`
    pub dry_run: bool,
}

impl Settings {
    /// Delays are told one level lower.
    pub fn delay_level(&self) -> sys::ngx_uint_t {
        if self.level == sys::NGX_LOG_INFO as sys::ngx_uint_t { self.level } else { self.level + 1 }
    }
}

impl Original {
    /// That of the nginx which reads this configuration; `None`: it was built without.
    pub fn find(conf: &Conf) -> Result<Option<Original>, Fault> {
        let Some(module) = module(conf) else { return Ok(None) };
        let place = |name: &str, set: Set| {
            let unknown = || Fault::new(format!("\"{name}\" of this nginx isn't one that zonemesh knows how to read"));
            let command = command(module, name).ok_or_else(unknown)?;
            // SAFETY: an entry of the module's table.
            let command = unsafe { &*command };
            let is_known = command.conf == sys::NGX_HTTP_LOC_CONF_OFFSET
                && command.set.is_some_and(|own| std::ptr::fn_addr_eq(own, set));
            if is_known { Ok(command.offset) } else { Err(unknown()) }
        };
        Ok(Some(Original {
            module,
            log_level: place("limit_req_log_level", sys::ngx_conf_set_enum_slot)?,
            status: place("limit_req_status", sys::ngx_conf_set_num_slot)?,
            dry_run: place("limit_req_dry_run", sys::ngx_conf_set_flag_slot)?,
        }))
    }

    /// Whether this nginx has it.
    pub fn is_there(conf: &Conf) -> bool {
        module(conf).is_some()
    }

    /// Hands a directive on; returns what its own function for it does. `conf`: the module's structure that it is for.
    ///
    /// # Safety
    /// `cf` is live, with the directive's words, and `conf` came from [`Original::conf`] with the same name.
    pub unsafe fn set(&self, cf: *mut sys::ngx_conf_t, name: &str, conf: *mut c_void) -> Result<*mut c_char, Fault> {
        let command = command(self.module, name).filter(|command| {
            // SAFETY: an entry of the module's table.
            unsafe { (**command).set.is_some() }
        });
        let command = command.ok_or_else(|| Fault::new(format!("this nginx has no \"{name}\" of its own")))?;
        // SAFETY: the caller's promise; what nginx itself would call, in the way that it would.
        Ok(unsafe { (*command).set.map_or(ffi::CONF_ERROR, |set| set(cf, command, conf)) })
    }

    /// The module's structure that a directive which is being read is for, as nginx finds it.
    pub fn conf(&self, conf: &Conf, name: &str) -> *mut c_void {
        let Some(command) = command(self.module, name) else { return std::ptr::null_mut() };
        // SAFETY: the context of a block of http has tables at the offsets that commands name, with a slot for each of
        // http's modules.
        unsafe {
            let table = *conf.ctx().byte_add((*command).conf).cast::<*mut *mut c_void>();
            if table.is_null() { std::ptr::null_mut() } else { *table.add((*self.module).ctx_index) }
        }
    }

    /// The handler that it puts into the phase of limits. It doesn't say otherwise: so it is had to do so, and what it did
    /// is undone.
    ///
    /// # Safety
    /// `cf` is that of the http block, at its end.
    pub unsafe fn handler(&self, cf: *mut sys::ngx_conf_t) -> Option<Handler> {
        // SAFETY: the caller's promise. The context of an http module has this type; what it pushes is one more handler,
        // and the array is as before once its length is.
        unsafe {
            let context = (*self.module).ctx.cast::<sys::ngx_http_module_t>();
            let handlers = handlers(cf);
            let before = (*handlers).nelts;
            if (*context).postconfiguration?(cf) != OK || (*handlers).nelts != before + 1 {
                return None;
            }
            (*handlers).nelts = before;
            *(*handlers).elts.cast::<sys::ngx_http_handler_pt>().add(before)
        }
    }

    /// What holds for a request.
    ///
    /// # Safety
    /// `r` is live and in a location of the configuration in force.
    pub unsafe fn settings(&self, r: *mut sys::ngx_http_request_t) -> Settings {
        // SAFETY: the table has a slot for each http module; the structure has fields of these types at the offsets that
        // its own commands name: `find` has seen that they are read by nginx's own functions for those types.
        unsafe {
            let own = *(*r).loc_conf.add((*self.module).ctx_index);
            Settings {
                level: own.byte_add(self.log_level).cast::<sys::ngx_uint_t>().read(),
                status: own.byte_add(self.status).cast::<sys::ngx_int_t>().read(),
                dry_run: own.byte_add(self.dry_run).cast::<sys::ngx_flag_t>().read() != 0,
            }
        }
    }
}

type Set = unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_command_t, *mut c_void) -> *mut c_char;

/// Puts `ours` behind the handlers of the phase. `false`: there is no memory.
///
/// # Safety
/// `cf` is that of the http block, at its end.
pub unsafe fn append(cf: *mut sys::ngx_conf_t, ours: Handler) -> bool {
    // SAFETY: the caller's promise; null or room for one more handler.
    unsafe {
        let handler = sys::ngx_array_push(handlers(cf)).cast::<sys::ngx_http_handler_pt>();
        if !handler.is_null() {
            handler.write(Some(ours));
        }
        !handler.is_null()
    }
}

/// Puts `ours` where `theirs` stands among the handlers of the phase. `false`: it isn't there.
///
/// # Safety
/// `cf` is that of the http block, at its end.
pub unsafe fn replace(cf: *mut sys::ngx_conf_t, theirs: Handler, ours: Handler) -> bool {
    // SAFETY: the caller's promise; an array of handlers.
    unsafe {
        let handlers = handlers(cf);
        let elements = (*handlers).elts.cast::<sys::ngx_http_handler_pt>();
        for n in 0..(*handlers).nelts {
            let handler = elements.add(n);
            if (*handler).is_some_and(|handler| std::ptr::fn_addr_eq(handler, theirs)) {
                handler.write(Some(ours));
                return true;
            }
        }
    }
    false
}

/// The handlers of the phase in which nginx limits requests.
unsafe fn handlers(cf: *mut sys::ngx_conf_t) -> *mut sys::ngx_array_t {
    // SAFETY: the context of the http block has a slot for each http module, the core module's with its main structure.
    unsafe {
        let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
        let core =
            (*(*ctx).main_conf.add(sys::ngx_http_core_module.ctx_index)).cast::<sys::ngx_http_core_main_conf_t>();
        &raw mut (*core).phases[sys::ngx_http_phases_NGX_HTTP_PREACCESS_PHASE as usize].handlers
    }
}

/// The module of the nginx that reads this configuration.
fn module(conf: &Conf) -> Option<*const sys::ngx_module_t> {
    // SAFETY: a cycle's list of modules ends with null, and each has a name.
    unsafe {
        let mut entry = (*conf.cycle()).modules;
        while !(*entry).is_null() {
            if CStr::from_ptr((**entry).name) == NAME {
                return Some((*entry).cast_const());
            }
            entry = entry.add(1);
        }
    }
    None
}

/// The entry of a directive in the module's table.
fn command(module: *const sys::ngx_module_t, name: &str) -> Option<*mut sys::ngx_command_t> {
    // SAFETY: a module's table ends with an entry without a name.
    unsafe {
        let mut command = (*module).commands;
        while !command.is_null() && (*command).name.len > 0 {
            if ffi::bytes((*command).name) == name.as_bytes() {
                return Some(command);
            }
            command = command.add(1);
        }
    }
    None
}
