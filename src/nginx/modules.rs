//! What nginx finds in the shared object: its modules, and the tables that name them.
//!
//! The core module holds the configuration as a whole and the life of the processes, the http module variables and the
//! API, the stream module variables and the cluster; one binds clients to servers of upstreams, one limits requests, two more
//! count requests and sessions. All are always there: nginx leaves a stream module alone while it has no
//! stream, and nothing here refers to a symbol of stream but by looking it up.

use super::conf::Conf;
use super::conf::main::MainConf;
use super::ffi::{self, CONF_ERROR, CONF_OK, ERROR, OK, guard};
use super::{http, limit, log, process, shm, status, stream, upstream, wake};
use nginx_sys as sys;
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_void};

/// A static that nginx writes to, or that holds pointers: only ever handed out as a pointer.
#[repr(transparent)]
pub struct Exported<T>(UnsafeCell<T>);

// SAFETY: nginx has one thread that touches modules and their tables; Rust code only takes the address, or reads fields
// that nginx sets before it calls the module.
unsafe impl<T> Sync for Exported<T> {}

impl<T> Exported<T> {
    /// For a static.
    pub const fn new(value: T) -> Exported<T> {
        Exported(UnsafeCell::new(value))
    }

    /// Its address.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}

const MODULES: usize = 7;

/// The modules, in the order in which nginx calls them.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that nginx looks up")]
static ngx_modules: Exported<[*const sys::ngx_module_t; MODULES + 1]> = Exported::new([
    CORE.get(),
    HTTP.get(),
    STREAM.get(),
    HTTP_STATUS.get(),
    STREAM_STATUS.get(),
    UPSTREAM.get(),
    HTTP_LIMIT.get(),
    std::ptr::null(),
]);

/// Their names.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that nginx looks up")]
static ngx_module_names: Exported<[*const c_char; MODULES + 1]> = Exported::new([
    c"ngx_zonemesh_module".as_ptr(),
    c"ngx_http_zonemesh_module".as_ptr(),
    c"ngx_stream_zonemesh_module".as_ptr(),
    c"ngx_http_zonemesh_status_module".as_ptr(),
    c"ngx_stream_zonemesh_status_module".as_ptr(),
    c"ngx_http_zonemesh_upstream_module".as_ptr(),
    c"ngx_http_zonemesh_limit_module".as_ptr(),
    std::ptr::null(),
]);

/// Modules of ours, and behind each those of nginx that it has to stand before. nginx puts a module before all that follow it
/// here: so one of ours may come to stand further in front than it needs.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name that nginx looks up")]
static ngx_module_order: Exported<[*const c_char; 5]> = Exported::new([
    c"ngx_http_zonemesh_upstream_module".as_ptr(),
    c"ngx_http_upstream_module".as_ptr(),
    c"ngx_http_zonemesh_limit_module".as_ptr(),
    limit::BEFORE.as_ptr(),
    std::ptr::null(),
]);

/// Configuration as a whole, processes.
pub static CORE: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: CORE_CONTEXT.get().cast(),
    commands: stream::FALLBACK.get().cast(),
    type_: sys::NGX_CORE_MODULE as sys::ngx_uint_t,
    init_module: Some(init_module),
    init_process: Some(init_process),
    exit_process: Some(exit_process),
    ..sys::ngx_module_t::default()
});

/// Variables and the API.
pub static HTTP: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: http::CONTEXT.get().cast(),
    commands: http::COMMANDS.get().cast(),
    type_: sys::NGX_HTTP_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

/// The cluster.
pub static STREAM: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: stream::CONTEXT.get().cast(),
    commands: stream::COMMANDS.get().cast(),
    type_: sys::NGX_STREAM_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

/// Figures of http's servers and locations.
pub static HTTP_STATUS: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: status::http::CONTEXT.get().cast(),
    commands: status::http::COMMANDS.get().cast(),
    type_: sys::NGX_HTTP_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

/// Figures of stream's servers.
pub static STREAM_STATUS: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: status::stream::CONTEXT.get().cast(),
    commands: status::stream::COMMANDS.get().cast(),
    type_: sys::NGX_STREAM_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

/// Sessions of upstreams.
pub static UPSTREAM: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: upstream::CONTEXT.get().cast(),
    commands: upstream::COMMANDS.get().cast(),
    type_: sys::NGX_HTTP_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

/// Limits of requests, before nginx's own.
pub static HTTP_LIMIT: Exported<sys::ngx_module_t> = Exported::new(sys::ngx_module_t {
    ctx: limit::CONTEXT.get().cast(),
    commands: limit::COMMANDS.get().cast(),
    type_: sys::NGX_HTTP_MODULE as sys::ngx_uint_t,
    ..sys::ngx_module_t::default()
});

static CORE_CONTEXT: Exported<sys::ngx_core_module_t> = Exported::new(sys::ngx_core_module_t {
    name: ffi::constant(c"zonemesh"),
    create_conf: Some(create_conf),
    init_conf: Some(init_conf),
});

/// A configuration begins: its zones come after the control zone, which is asked for here.
unsafe extern "C" fn create_conf(cycle: *mut sys::ngx_cycle_t) -> *mut c_void {
    guard("create_conf", std::ptr::null_mut(), || {
        // SAFETY: nginx calls with the cycle that it begins, and its pool lives as long as the configuration.
        unsafe {
            let main = ffi::owned_by_pool((*cycle).pool, MainConf::default());
            if main.is_null() || !shm::add_control(cycle, main) {
                return std::ptr::null_mut();
            }
            main.cast()
        }
    })
}

/// All directives were read, nginx's own core module's first.
unsafe extern "C" fn init_conf(cycle: *mut sys::ngx_cycle_t, main: *mut c_void) -> *mut c_char {
    guard("init_conf", CONF_ERROR, || {
        // SAFETY: nginx calls with the cycle that it configures, and with what `create_conf` made; nothing else refers to
        // that now. The process's kind is a number of nginx's.
        unsafe {
            let main = &mut *main.cast::<MainConf>();
            // Who only sends a signal doesn't care for what workers can do.
            let signals = sys::ngx_process == sys::NGX_PROCESS_SIGNALLER as sys::ngx_uint_t;
            match main.resolve().and_then(|()| if signals { Ok(()) } else { main.check(cycle) }) {
                Ok(()) => CONF_OK,
                Err(fault) => Conf::new(&mut ffi::bare_conf(cycle)).fail(&fault),
            }
        }
    })
}

/// The configuration is in force; in the master, before workers are forked.
unsafe extern "C" fn init_module(cycle: *mut sys::ngx_cycle_t) -> sys::ngx_int_t {
    guard("init_module", ERROR, || {
        // SAFETY: the cycle is complete, and nothing else looks at its configuration yet.
        unsafe {
            let Some(main) = MainConf::of_mut(cycle) else { return OK };
            process::reconfiguring();
            shm::removed::keep(cycle);
            let result = main.complete().and_then(|()| match main.control() {
                Some(control) => wake::prepare(control).map_err(|error| format!("eventfd: {error}")),
                None => Ok(()),
            });
            if let Err(why) = result {
                log::write((*cycle).log, log::EMERG, format_args!("{why}"));
                return ERROR;
            }
            if let Some(figures) = main.figures() {
                figures.new_generation();
            }
            if let Some(control) = main.control() {
                process::configured(control);
            }
        }
        OK
    })
}

/// A process begins.
unsafe extern "C" fn init_process(cycle: *mut sys::ngx_cycle_t) -> sys::ngx_int_t {
    guard("init_process", ERROR, || {
        // SAFETY: the cycle in force, in the thread of the event loop; the core module's structure is in its slot.
        unsafe {
            let Some(main) = MainConf::of(cycle) else { return OK };
            if let Some(control) = main.control() {
                process::started(control);
            }
            status::started(main);
            let Some(figures) = main.figures() else { return OK };
            if sys::ngx_process == sys::NGX_PROCESS_WORKER as sys::ngx_uint_t {
                let core = *(*cycle).conf_ctx.add(sys::ngx_core_module.index);
                let core = &*core.cast::<sys::ngx_core_conf_t>();
                figures.worker_started(u64::try_from(core.worker_processes).unwrap_or(u64::MAX));
            }
            if sys::ngx_process != sys::NGX_PROCESS_HELPER as sys::ngx_uint_t {
                figures.worker_begins(sys::ngx_worker);
            }
        }
        OK
    })
}

/// A process ends.
unsafe extern "C" fn exit_process(_cycle: *mut sys::ngx_cycle_t) {
    guard("exit_process", (), process::ending);
}
