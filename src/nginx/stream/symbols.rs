//! The stream module, found while the configuration is read: it may be a shared object of its own.

use crate::nginx::conf::Fault;
use nginx_sys as sys;
use std::ffi::CStr;

/// What stream's TLS module keeps of a server.
#[cfg(not(nginx_1_25_5))]
pub use sys::ngx_stream_ssl_conf_t as SslServer;
/// What stream's TLS module keeps of a server.
#[cfg(nginx_1_25_5)]
pub use sys::ngx_stream_ssl_srv_conf_t as SslServer;

type Finalize = unsafe extern "C" fn(*mut sys::ngx_stream_session_t, sys::ngx_uint_t);

/// Functions of the stream module of this cycle.
#[derive(Clone, Copy)]
pub struct Symbols {
    finalize: Finalize,
}

impl Symbols {
    /// Looks them up.
    pub fn find() -> Result<Symbols, Fault> {
        // SAFETY: the function of that name is of this type in the headers that the module was built with.
        Ok(Symbols { finalize: unsafe { look_up(c"ngx_stream_finalize_session")? } })
    }

    /// `ngx_stream_finalize_session`
    ///
    /// # Safety
    /// `session` is live, and is not touched after this.
    pub unsafe fn finalize(&self, session: *mut sys::ngx_stream_session_t, status: sys::ngx_uint_t) {
        // SAFETY: the caller's promise.
        unsafe { (self.finalize)(session, status) };
    }
}

/// A function of the stream module.
///
/// # Safety
/// `F` is the type of a pointer to the function that has this name in nginx's public interface. (nginx refuses modules
/// built for another version, so what the headers say of it is true.)
pub unsafe fn look_up<F: Copy>(name: &CStr) -> Result<F, Fault> {
    const { assert!(size_of::<F>() == size_of::<*mut libc::c_void>()) };
    // SAFETY: the name is NUL-terminated.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(Fault::new(format!("the stream module lacks {}", name.to_string_lossy())));
    }
    // SAFETY: of the same size, not null, and of that type by the caller's promise.
    Ok(unsafe { std::mem::transmute_copy(&address) })
}

/// A module of a cycle, by its name.
///
/// # Safety
/// `cycle` is live.
pub unsafe fn module(cycle: *const sys::ngx_cycle_t, name: &str) -> Option<*mut sys::ngx_module_t> {
    // SAFETY: the cycle's table of modules ends with null, and every module in it has a name.
    unsafe {
        let mut entry = (*cycle).modules;
        while !entry.is_null() && !(*entry).is_null() {
            let module = *entry;
            if !(*module).name.is_null() && CStr::from_ptr((*module).name).to_bytes() == name.as_bytes() {
                return Some(module);
            }
            entry = entry.add(1);
        }
    }
    None
}

/// The configuration of a server that stream's own core module keeps, while the configuration is read.
///
/// # Safety
/// `cf` is live, and its context is that of a stream server.
pub unsafe fn core_server<'a>(cf: *mut sys::ngx_conf_t) -> Result<&'a mut sys::ngx_stream_core_srv_conf_t, Fault> {
    // SAFETY: within `stream`, the context is a `ngx_stream_conf_ctx_t`, whose tables have a slot for each stream module
    // at its `ctx_index`, filled before any directive is read.
    unsafe {
        let module = module((*cf).cycle, "ngx_stream_core_module")
            .ok_or_else(|| Fault::new("the stream module is not loaded"))?;
        let ctx = (*cf).ctx.cast::<sys::ngx_stream_conf_ctx_t>();
        let server = *(*ctx).srv_conf.add((*module).ctx_index);
        server.cast::<sys::ngx_stream_core_srv_conf_t>().as_mut().ok_or_else(|| Fault::new("stream has no server here"))
    }
}

/// What stream's own core module keeps of all of `stream`, while the configuration is read.
///
/// # Safety
/// `cf` is live, its context is that of `stream` or of one of its servers, and nothing else refers to the structure.
pub unsafe fn core_main<'a>(cf: *mut sys::ngx_conf_t) -> Result<&'a mut sys::ngx_stream_core_main_conf_t, Fault> {
    // SAFETY: as for `core_server`.
    unsafe {
        let absent = || Fault::new("the stream module is not loaded");
        let module = module((*cf).cycle, "ngx_stream_core_module").ok_or_else(absent)?;
        let ctx = (*cf).ctx.cast::<sys::ngx_stream_conf_ctx_t>();
        let main = *(*ctx).main_conf.add((*module).ctx_index);
        main.cast::<sys::ngx_stream_core_main_conf_t>().as_mut().ok_or_else(absent)
    }
}

/// Whether a cycle has a `stream` block.
///
/// # Safety
/// `cycle` is live and its configuration was read.
pub unsafe fn configured(cycle: *const sys::ngx_cycle_t) -> bool {
    // SAFETY: the caller's promise; the slot of a core module is null until its block is met.
    unsafe {
        module(cycle, "ngx_stream_module").is_some_and(|module| !(*(*cycle).conf_ctx.add((*module).index)).is_null())
    }
}
