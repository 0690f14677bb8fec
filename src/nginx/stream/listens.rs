//! What a server of `stream` listens on, while the configuration is read.

use super::symbols;
use crate::nginx::ffi;
use nginx_sys as sys;

/// One address.
struct Listen {
    sockaddr: *const sys::sockaddr,
    text: sys::ngx_str_t,
    ssl: bool,
    /// `SOCK_STREAM`, or `SOCK_DGRAM` with `udp`.
    kind: libc::c_int,
}

/// The addresses of the server of this context that take plain text from other machines.
///
/// # Safety
/// `cf` is live, and its context is that of a stream server whose block was read.
pub unsafe fn plain_and_remote(cf: *mut sys::ngx_conf_t) -> Vec<String> {
    // SAFETY: the caller's promise; addresses and texts live as long as the configuration.
    unsafe {
        of_server(cf)
            .into_iter()
            .filter(|listen| {
                !listen.ssl && ffi::ip_of(listen.sockaddr).is_some_and(|ip| !ip.to_canonical().is_loopback())
            })
            .map(|listen| listen.text.to_string())
            .collect()
    }
}

/// The addresses of this server that are of UDP.
///
/// # Safety
/// As for [`plain_and_remote`].
pub unsafe fn datagrams(cf: *mut sys::ngx_conf_t) -> Vec<String> {
    // SAFETY: the caller's promise.
    let listens = unsafe { of_server(cf) }.into_iter();
    listens.filter(|listen| listen.kind != libc::SOCK_STREAM).map(|listen| listen.text.to_string()).collect()
}

/// # Safety
/// As for [`plain_and_remote`].
unsafe fn of_server(cf: *mut sys::ngx_conf_t) -> Vec<Listen> {
    // SAFETY: the context's tables have a slot for stream's core module, with its main and its server's structure.
    unsafe {
        let Some(module) = symbols::module((*cf).cycle, "ngx_stream_core_module") else { return Vec::new() };
        let ctx = (*cf).ctx.cast::<sys::ngx_stream_conf_ctx_t>();
        let main = (*(*ctx).main_conf.add((*module).ctx_index)).cast::<sys::ngx_stream_core_main_conf_t>();
        let server = (*(*ctx).srv_conf.add((*module).ctx_index)).cast::<sys::ngx_stream_core_srv_conf_t>();
        listens(&*main, server)
    }
}

/// # Safety
/// Both are parts of a configuration that is being read.
#[cfg(not(nginx_1_25_5))]
unsafe fn listens(
    main: &sys::ngx_stream_core_main_conf_t,
    server: *const sys::ngx_stream_core_srv_conf_t,
) -> Vec<Listen> {
    // SAFETY: the array holds one element for each `listen`, with the context of its server.
    let all: &[sys::ngx_stream_listen_t] = unsafe { main.listen.as_slice() };
    // SAFETY: both contexts are live.
    let own = all.iter().filter(|listen| unsafe { (*listen.ctx).srv_conf == (*(*server).ctx).srv_conf });
    own.map(|listen| Listen {
        sockaddr: listen.sockaddr,
        text: listen.addr_text,
        ssl: listen.ssl() != 0,
        kind: listen.type_,
    })
    .collect()
}

/// # Safety
/// Both are parts of a configuration that is being read.
#[cfg(nginx_1_25_5)]
unsafe fn listens(
    main: &sys::ngx_stream_core_main_conf_t,
    server: *const sys::ngx_stream_core_srv_conf_t,
) -> Vec<Listen> {
    // SAFETY: null, or ports with their addresses, and for each address the servers that have it.
    unsafe {
        let ports: &[sys::ngx_stream_conf_port_t] = main.ports.as_ref().map_or(&[], |ports| ports.as_slice());
        ports
            .iter()
            .flat_map(|port| port.addrs.as_slice::<sys::ngx_stream_conf_addr_t>())
            .filter(|address| {
                let servers: &[*const sys::ngx_stream_core_srv_conf_t] = address.servers.as_slice();
                servers.contains(&server)
            })
            .map(|address| &address.opt)
            .map(|opt| Listen { sockaddr: opt.sockaddr, text: opt.addr_text, ssl: opt.ssl() != 0, kind: opt.type_ })
            .collect()
    }
}
