//! Where sessions come between an upstream and its method of balancing.
//!
//! Around the method, and within `keepalive`, which looks for a connection to the server that was chosen. nginx builds such
//! wrappers by what stands in the block, the later around the earlier, and a method takes the place of all before it. So what
//! is around the method is put there when `keepalive` is met, before it takes hold of the method, and otherwise at the end, when
//! all of http is read. nginx from 1.29.7 puts `keepalive` around what there is at the end, and so around this, too.

use super::UpstreamConf;
use super::sid::Servers;
use super::turn;
use crate::nginx::conf::{Conf, shadow};
use crate::nginx::ffi::{self, CONF_ERROR, CONF_OK, ERROR, OK, guard};
use crate::nginx::modules;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// What was there before.
#[derive(Default)]
pub struct Wrapped {
    /// The method, as `keepalive` found it.
    within: sys::ngx_http_upstream_init_pt,
    /// All that stands in the block.
    around: sys::ngx_http_upstream_init_pt,
    /// What a request begins with; there once it is wrapped.
    pub init_peer: sys::ngx_http_upstream_init_peer_pt,
}

/// `keepalive`: what comes around the method goes there first.
pub unsafe extern "C" fn keepalive(
    cf: *mut sys::ngx_conf_t,
    _: *mut sys::ngx_command_t,
    own: *mut c_void,
) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` in an upstream block, and with this module's structure for it.
        unsafe {
            let (conf, own) = (Conf::new(cf), &mut *own.cast::<UpstreamConf>());
            let upstream = super::of_block(&conf);
            let before = upstream.peer.init_upstream;
            own.wrapped.within = method(before);
            upstream.peer.init_upstream = Some(init_within);
            let said = shadow::hand_on(&conf, modules::UPSTREAM.get());
            // One that takes hold of the method later is around it anyway.
            if upstream.peer.init_upstream.is_some_and(|init| std::ptr::fn_addr_eq(init, INIT_WITHIN)) {
                upstream.peer.init_upstream = before;
            }
            said
        }
    })
}

type Init = unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_http_upstream_srv_conf_t) -> sys::ngx_int_t;
const INIT_WITHIN: Init = init_within;

/// Without a method in the block it is round robin.
fn method(init: sys::ngx_http_upstream_init_pt) -> sys::ngx_http_upstream_init_pt {
    init.or(Some(sys::ngx_http_upstream_init_round_robin))
}

/// All of http is read, and nginx's own module of upstreams, which comes next, is about to make them.
pub unsafe extern "C" fn complete(cf: *mut sys::ngx_conf_t, _: *mut c_void) -> *mut c_char {
    guard("the end of http", CONF_ERROR, || {
        // SAFETY: nginx calls with the context of http, where its own structures are.
        unsafe {
            let ctx = (*cf).ctx.cast::<sys::ngx_http_conf_ctx_t>();
            let main = *(*ctx).main_conf.add(sys::ngx_http_upstream_module.ctx_index);
            let main = &*main.cast::<sys::ngx_http_upstream_main_conf_t>();
            for upstream in main.upstreams.as_slice::<*mut sys::ngx_http_upstream_srv_conf_t>() {
                if let Some(own) = super::kept(*upstream).filter(|own| own.sticky.is_some()) {
                    own.wrapped.around = method((**upstream).peer.init_upstream);
                    (**upstream).peer.init_upstream = Some(init_around);
                }
            }
        }
        CONF_OK
    })
}

/// The method, from within `keepalive`.
unsafe extern "C" fn init_within(
    cf: *mut sys::ngx_conf_t,
    upstream: *mut sys::ngx_http_upstream_srv_conf_t,
) -> sys::ngx_int_t {
    // SAFETY: nginx calls with an upstream of the configuration that it reads.
    guard("the start of an upstream", ERROR, || unsafe {
        let Some(own) = super::kept(upstream) else { return ERROR };
        let done = own.wrapped.within.map_or(ERROR, |init| init(cf, upstream));
        if done == OK && own.sticky.is_some() {
            wrap(own, upstream);
        }
        done
    })
}

/// All that stands in the block; then what needs all servers to be known.
unsafe extern "C" fn init_around(
    cf: *mut sys::ngx_conf_t,
    upstream: *mut sys::ngx_http_upstream_srv_conf_t,
) -> sys::ngx_int_t {
    // SAFETY: nginx calls with an upstream of the configuration that it reads. No reference to what is kept of it lives over
    // the call, which may come to `init_within`.
    guard("the start of an upstream", ERROR, || unsafe {
        let Some(around) = super::kept(upstream).and_then(|own| own.wrapped.around) else { return ERROR };
        let done = around(cf, upstream);
        let Some(own) = super::kept(upstream).filter(|_| done == OK) else { return ERROR };
        if own.wrapped.init_peer.is_none() {
            wrap(own, upstream);
        }
        let addresses = super::servers(&*upstream).iter().flat_map(|server| {
            let first = server.addrs.cast_const();
            // One that is to be resolved while nginx runs has no name yet.
            (0..server.naddrs).map(move |n| ffi::bytes((*first.add(n)).name)).filter(|name| !name.is_empty())
        });
        own.servers = Servers::new(std::mem::take(&mut own.lines), addresses);
        OK
    })
}

/// # Safety
/// `upstream` is one that its method has made, and `own` is what is kept of it.
unsafe fn wrap(own: &mut UpstreamConf, upstream: *mut sys::ngx_http_upstream_srv_conf_t) {
    // SAFETY: the caller's promise.
    unsafe {
        own.wrapped.init_peer = (*upstream).peer.init;
        (*upstream).peer.init = Some(turn::init);
    }
}
