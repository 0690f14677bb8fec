//! Sessions that stay with their server: `sticky` in upstream blocks.
//!
//! The module stands before nginx's own of upstreams, so that it sees what stands in their blocks first: `server` ([`server`])
//! and `keepalive`. When the configuration is complete, the method of balancing is wrapped, whatever it is and wherever in
//! the block `sticky` stands ([`wrap`]); connections that are kept alive are looked for around that. A request ([`turn`])
//! first asks for the server that it is bound to ([`peers`]), and the method if that isn't to be had. Servers have names that
//! are the same on every node ([`sid`]), and learned sessions are records of a zone ([`session`]).

mod cookie;
pub mod directive;
mod peers;
mod server;
mod session;
mod sid;
mod turn;
mod wrap;

pub use directive::Sticky;
pub use turn::install as install_filter;

use super::conf::{self, Conf, shadow};
use super::ffi;
use super::log::Limited;
use super::modules::{self, Exported};
use nginx_sys as sys;

/// The module's callbacks.
pub static CONTEXT: Exported<sys::ngx_http_module_t> = Exported::new(sys::ngx_http_module_t {
    preconfiguration: None,
    postconfiguration: None,
    create_main_conf: None,
    init_main_conf: Some(wrap::complete),
    create_srv_conf: Some(conf::create::<UpstreamConf>),
    merge_srv_conf: None,
    create_loc_conf: None,
    merge_loc_conf: None,
});

/// Its directives. Each looks itself whether it has the words that it needs.
pub static COMMANDS: Exported<[sys::ngx_command_t; 4]> = Exported::new([
    command(c"sticky", directive::set),
    command(c"server", server::set),
    command(c"keepalive", wrap::keepalive),
    sys::ngx_command_t::empty(),
]);

type Set =
    unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_command_t, *mut std::ffi::c_void) -> *mut std::ffi::c_char;

const fn command(name: &'static std::ffi::CStr, set: Set) -> sys::ngx_command_t {
    sys::ngx_command_t {
        name: ffi::constant(name),
        type_: (sys::NGX_HTTP_UPS_CONF | sys::NGX_CONF_ANY) as sys::ngx_uint_t,
        set: Some(set),
        conf: sys::NGX_HTTP_SRV_CONF_OFFSET as sys::ngx_uint_t,
        offset: 0,
        post: std::ptr::null_mut(),
    }
}

/// What is kept of an upstream block.
#[derive(Default)]
pub struct UpstreamConf {
    /// `sticky`, if it is ours.
    sticky: Option<Sticky>,
    /// nginx's own `sticky` stands here.
    is_others: bool,
    /// Lines of `server` with parameters of ours.
    lines: Vec<server::Line>,
    wrapped: wrap::Wrapped,
    /// Once the configuration is complete.
    servers: sid::Servers,
    complaints: Limited,
}

/// Whether nginx has sessions itself (from 1.29.6), and with them `route=` and `drain`. A module that was added to it may
/// have a `sticky`, too, but doesn't teach `server` anything.
fn is_native(conf: &Conf) -> bool {
    shadow::has_module(conf, c"ngx_http_upstream_sticky_module")
}

/// The upstream whose block is being read.
///
/// # Safety
/// `conf` reads an upstream block.
unsafe fn of_block<'a>(conf: &Conf) -> &'a mut sys::ngx_http_upstream_srv_conf_t {
    // SAFETY: the caller's promise; nginx puts the structure there before it reads the block, with one thread.
    unsafe {
        let ctx = conf.ctx().cast::<sys::ngx_http_conf_ctx_t>();
        &mut *(*(*ctx).srv_conf.add(sys::ngx_http_upstream_module.ctx_index)).cast()
    }
}

/// What is kept of an upstream; `None`: it isn't one with a block.
///
/// # Safety
/// `upstream` is part of a live configuration, and nothing else refers to what is kept of it.
unsafe fn kept<'a>(upstream: *const sys::ngx_http_upstream_srv_conf_t) -> Option<&'a mut UpstreamConf> {
    // SAFETY: the caller's promise; a block has a slot for each module of http, with what `create` made for this one.
    unsafe {
        let table = (*upstream).srv_conf;
        if table.is_null() { None } else { (*table.add(ctx_index())).cast::<UpstreamConf>().as_mut() }
    }
}

/// The lines of `server`.
///
/// # Safety
/// `upstream` is part of a live configuration.
unsafe fn servers(upstream: &sys::ngx_http_upstream_srv_conf_t) -> &[sys::ngx_http_upstream_server_t] {
    // SAFETY: null, or an array of these.
    unsafe { upstream.servers.as_ref().map_or(&[], |servers| servers.as_slice()) }
}

/// The module's index among those of http.
fn ctx_index() -> usize {
    // SAFETY: nginx sets the field when it begins to read `http`, in this same thread.
    unsafe { (*modules::UPSTREAM.get()).ctx_index }
}
