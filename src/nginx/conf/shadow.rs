//! Directives of nginx that this module takes first, since it stands before theirs, and hands on.

use super::{Conf, Fault};
use crate::nginx::ffi::{self, CONF_ERROR};
use nginx_sys as sys;
use std::ffi::{CStr, c_char, c_void};

/// A directive of another module, found.
struct Found {
    command: *mut sys::ngx_command_t,
    module: *mut sys::ngx_module_t,
}

/// Whether a module that comes after `own` has a directive of this name for the block that is being read.
///
/// # Safety
/// `own` is one of the cycle's modules.
pub unsafe fn is_known(conf: &Conf, own: *const sys::ngx_module_t, name: &[u8]) -> bool {
    // SAFETY: the caller's promise.
    unsafe { find(conf, own, name) }.is_some()
}

/// Whether the configuration is read by an nginx that has a module of this name.
pub fn has_module(conf: &Conf, name: &CStr) -> bool {
    // SAFETY: a cycle's list of modules ends with a null pointer, and nginx names each before it reads a configuration.
    unsafe {
        let mut at = (*conf.cycle()).modules;
        while let Some(module) = (*at).as_ref() {
            if !module.name.is_null() && CStr::from_ptr(module.name) == name {
                return true;
            }
            at = at.add(1);
        }
        false
    }
}

/// Gives the directive that is being read to the next module after `own` that has it; returns what that says.
///
/// # Safety
/// `own` is one of the cycle's modules, and a directive of http is being read.
pub unsafe fn hand_on(conf: &Conf, own: *const sys::ngx_module_t) -> *mut c_char {
    // SAFETY: the caller's promise; nginx itself calls `set` in the same way, with the structure at the command's offset in
    // the context and the module's index there.
    unsafe {
        let Some(found) = find(conf, own, conf.word(0)) else {
            return conf.fail(&Fault::new(format!("unknown directive \"{}\"", conf.name())));
        };
        let command = &*found.command;
        if !takes(command.type_, conf.words().len()) {
            return conf.fail(&Fault::new(format!("invalid number of arguments in \"{}\" directive", conf.name())));
        }
        let table = conf.ctx().byte_add(command.conf).cast::<*mut *mut c_void>().read();
        let structure = if table.is_null() { std::ptr::null_mut() } else { *table.add((*found.module).ctx_index) };
        command.set.map_or(CONF_ERROR, |set| set(conf.as_ptr(), found.command, structure))
    }
}

unsafe fn find(conf: &Conf, own: *const sys::ngx_module_t, name: &[u8]) -> Option<Found> {
    // SAFETY: a cycle's list of modules ends with a null pointer, and a module's list of commands with one without a name.
    unsafe {
        let block = (*conf.as_ptr()).cmd_type;
        let (mut at, mut passed) = ((*conf.cycle()).modules, false);
        while let Some(module) = (*at).as_mut() {
            at = at.add(1);
            if std::ptr::eq(module, own) {
                passed = true;
                continue;
            }
            if !passed || module.type_ != sys::NGX_HTTP_MODULE as sys::ngx_uint_t {
                continue;
            }
            let mut command = module.commands;
            while !command.is_null() && (*command).name.len != 0 {
                if ffi::bytes((*command).name) == name && (*command).type_ & block != 0 {
                    return Some(Found { command, module });
                }
                command = command.add(1);
            }
        }
        None
    }
}

/// Whether a directive of this type may have so many words, its name among them.
fn takes(kind: sys::ngx_uint_t, words: usize) -> bool {
    let is = |flag: u32| kind & flag as sys::ngx_uint_t != 0;
    match words {
        _ if is(sys::NGX_CONF_ANY) => true,
        _ if is(sys::NGX_CONF_FLAG) => words == 2,
        _ if is(sys::NGX_CONF_1MORE) => words >= 2,
        _ if is(sys::NGX_CONF_2MORE) => words >= 3,
        1..=8 => is(1 << (words - 1)),
        _ => false,
    }
}
