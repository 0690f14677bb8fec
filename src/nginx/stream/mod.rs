//! The stream part: variables that read and write zones, and the server that receives from peers.
//!
//! nginx's stream module may be loaded before this one, after it, or not at all. So nothing here is linked to it: its
//! modules are found in the cycle by name, its functions by looking them up.

pub mod door;
mod lines;
pub mod listens;
mod session;
mod symbols;
mod turn;
mod variable;
mod waiting;

pub use symbols::{Symbols, configured, core_main, core_server};

use super::conf::keyval::{KeyvalDirective, KeyvalZoneDirective};
use super::conf::sync::{self, SrvConf, ZoneSync};
use super::conf::sync_settings::{Setting, Unsupported};
use super::conf::{self, Conf, Fault, command};
use super::ffi::{self, CONF_ERROR, ERROR, guard};
use super::modules::{Exported, STREAM};
use nginx_sys as sys;
use std::ffi::{c_char, c_void};
use variable::Stream;

/// The stream module's callbacks.
pub static CONTEXT: Exported<sys::ngx_stream_module_t> = Exported::new(sys::ngx_stream_module_t {
    preconfiguration: None,
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(conf::create::<SrvConf>),
    merge_srv_conf: Some(sync::merge),
});

const SERVER: usize = sys::NGX_STREAM_SRV_CONF_OFFSET;
const MAIN: u32 = sys::NGX_STREAM_MAIN_CONF;
const S: u32 = sys::NGX_STREAM_SRV_CONF;
const BOTH: u32 = sys::NGX_STREAM_MAIN_CONF | sys::NGX_STREAM_SRV_CONF;
const ONE: u32 = BOTH | sys::NGX_CONF_TAKE1;

/// Its directives.
pub static COMMANDS: Exported<[sys::ngx_command_t; 25]> = Exported::new([
    command::<ZoneSync>(c"zone_sync", S | sys::NGX_CONF_NOARGS, SERVER),
    command::<Setting>(c"zone_sync_server", S | sys::NGX_CONF_TAKE12, SERVER),
    command::<Setting>(c"zone_sync_buffers", BOTH | sys::NGX_CONF_TAKE2, SERVER),
    command::<Setting>(c"zone_sync_recv_buffer_size", ONE, SERVER),
    command::<Setting>(c"zone_sync_connect_retry_interval", ONE, SERVER),
    command::<Setting>(c"zone_sync_connect_timeout", ONE, SERVER),
    command::<Setting>(c"zone_sync_interval", ONE, SERVER),
    command::<Setting>(c"zone_sync_timeout", ONE, SERVER),
    command::<Setting>(c"zone_sync_max_drift", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_certificate", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_certificate_key", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_password_file", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_trusted_certificate", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_crl", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_verify", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_verify_depth", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_name", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_server_name", ONE, SERVER),
    command::<Setting>(c"zone_sync_ssl_protocols", BOTH | sys::NGX_CONF_1MORE, SERVER),
    command::<Setting>(c"zone_sync_ssl_ciphers", ONE, SERVER),
    command::<Unsupported>(c"zone_sync_ssl_conf_command", BOTH | sys::NGX_CONF_TAKE2, SERVER),
    command::<KeyvalZoneDirective<Stream>>(c"keyval_zone", MAIN | sys::NGX_CONF_1MORE, SERVER),
    command::<KeyvalDirective<Stream>>(c"keyval", MAIN | sys::NGX_CONF_TAKE3, SERVER),
    sys::ngx_command_t::empty(),
]);

/// A `stream` block of the main context, for the core module: nginx asks modules in the order in which they were
/// loaded, so this is met if the stream module comes later, or not at all.
pub static FALLBACK: Exported<[sys::ngx_command_t; 2]> = Exported::new([
    sys::ngx_command_t {
        name: ffi::constant(c"stream"),
        type_: (sys::NGX_MAIN_CONF | sys::NGX_CONF_BLOCK | sys::NGX_CONF_NOARGS) as sys::ngx_uint_t,
        set: Some(fallback),
        conf: 0,
        offset: 0,
        post: std::ptr::null_mut(),
    },
    sys::ngx_command_t::empty(),
]);

/// Hands a `stream` block over to the module that knows it.
unsafe extern "C" fn fallback(
    cf: *mut sys::ngx_conf_t,
    _cmd: *mut sys::ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    guard("stream", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` of the main context, whose `ctx` is a table with a slot for each module;
        // the command is one of the stream module's own, called as nginx would call it.
        unsafe {
            let conf = Conf::new(cf);
            let Some(module) = symbols::module(conf.cycle(), "ngx_stream_module") else {
                return conf.fail(&Fault::new(
                    "\"stream\" is unknown: the stream module is not loaded; put \
                     \"load_module modules/ngx_stream_module.so;\" first in the configuration",
                ));
            };
            let mut command = (*module).commands;
            while !command.is_null() && (*command).name.len > 0 {
                if ffi::bytes((*command).name) == b"stream" {
                    let Some(set) = (*command).set else { break };
                    let slot = conf.ctx().cast::<*mut c_void>().add((*module).index);
                    return set(cf, command, slot.cast());
                }
                command = command.add(1);
            }
            conf.fail(&Fault::new("the stream module that is loaded has no \"stream\" block"))
        }
    })
}

/// What a session to a server with `zone_sync` meets.
pub unsafe extern "C" fn handler(session: *mut sys::ngx_stream_session_t) {
    guard("a session of zone_sync", (), || {
        // SAFETY: nginx calls with a live session, in the thread of the event loop.
        unsafe {
            let main = conf::main::MainConf::current();
            let Some((main, sync)) = main.and_then(|main| Some((main, main.sync()?))) else { return };
            let Some(node) = main.node() else { return };
            session::begin(session, node, sync.symbols);
        }
    });
}

/// All servers are known.
unsafe extern "C" fn postconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    guard("the end of the stream block", ERROR, || {
        // SAFETY: nginx calls with the `cf` of the stream block, at its end.
        unsafe { Conf::new(cf).finish(waiting::install(cf)) }
    })
}

/// Whether this worker is to end.
fn exiting() -> bool {
    // SAFETY: a number that nginx sets in the thread of the event loop, which this is.
    unsafe { sys::ngx_exiting != 0 || (&raw const sys::ngx_terminate).read_volatile() != 0 }
}

/// Our context of a session.
///
/// # Safety
/// `session` is live.
unsafe fn context(session: *mut sys::ngx_stream_session_t) -> *mut *mut c_void {
    // SAFETY: contexts have a slot for each stream module, at the index that nginx gave it.
    unsafe { (*session).ctx.add((*STREAM.get()).ctx_index) }
}

/// Our part of a server's configuration.
///
/// # Safety
/// `table` is a server's, of a configuration that was read and is live for `'a`.
unsafe fn server<'a>(table: *mut *mut c_void) -> &'a SrvConf {
    // SAFETY: the table has a slot for each stream module, with what its `create_srv_conf` returned.
    unsafe { &*(*table.add((*STREAM.get()).ctx_index)).cast::<SrvConf>() }
}
