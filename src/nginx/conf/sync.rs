//! `zone_sync`: the server that makes this nginx a node of a cluster, and what its directives amount to.

use super::peers::{self, Nodes};
use super::sync_settings::Settings;
use super::{Conf, Directive, Fault, Place, tls};
use crate::agent::{Peer, tls::Tls};
use crate::nginx::ffi::{CONF_ERROR, CONF_OK, guard};
use crate::nginx::stream::{self, Symbols, listens};
use crate::record::Millis;
use crate::sync::Limits;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// What a server of `stream`, or `stream` itself, says.
#[derive(Default)]
pub struct SrvConf {
    /// Where `zone_sync` stands, if it does.
    pub zone_sync: Option<Place>,
    /// Each `zone_sync_server`.
    pub servers: Vec<peers::Server>,
    /// The rest, which is inherited.
    pub settings: Settings,
}

/// The node's part in the cluster, ready for use.
pub struct SyncServer {
    /// Where `zone_sync` stands.
    pub place: Place,
    /// Times and sizes of sessions, both ways.
    pub limits: Limits,
    /// Nodes to dial.
    pub peers: Vec<Peer>,
    /// Names of further ones.
    pub names: Vec<peers::Name>,
    /// What asks for these names; there if there are any.
    pub resolver: Option<Resolver>,
    /// `zone_sync_connect_timeout`
    pub connect_timeout: Millis,
    /// `zone_sync_connect_retry_interval`
    pub retry_interval: Millis,
    /// `zone_sync_interval`, if set.
    pub interval: Option<Millis>,
    /// `zone_sync_ssl on`
    pub tls: Option<Tls>,
    /// Functions of the stream module.
    pub symbols: Symbols,
}

/// nginx's resolver, as the server or `stream` has it.
#[derive(Clone, Copy)]
pub struct Resolver {
    /// It lives as long as the configuration.
    pub resolver: *mut sys::ngx_resolver_t,
    /// `resolver_timeout`, milliseconds.
    pub timeout: sys::ngx_msec_t,
}

/// `zone_sync`
pub struct ZoneSync;

impl Directive for ZoneSync {
    type Own = SrvConf;

    fn set(conf: &mut Conf, own: &mut SrvConf) -> Result<(), Fault> {
        if own.zone_sync.is_some() {
            return Err(Fault::new("\"zone_sync\" is duplicate: keep one"));
        }
        // SAFETY: the directive is allowed in servers of stream alone, whose context this is.
        let server = unsafe { stream::core_server(conf.as_ptr())? };
        if server.handler.is_some() {
            return Err(not_alone(&conf.place()));
        }
        server.handler = Some(HANDLER);
        own.zone_sync = Some(conf.place());
        Ok(())
    }
}

const HANDLER: unsafe extern "C" fn(*mut sys::ngx_stream_session_t) = stream::handler;

/// Inherits from `stream`, and makes a node of the server with `zone_sync`.
pub unsafe extern "C" fn merge(cf: *mut sys::ngx_conf_t, outer: *mut c_void, inner: *mut c_void) -> *mut c_char {
    guard("the merging of servers", CONF_ERROR, || {
        // SAFETY: nginx merges this module's structures, made by `create`, and nothing else refers to them now.
        let (mut conf, outer, inner) =
            unsafe { (Conf::new(cf), &*outer.cast::<SrvConf>(), &mut *inner.cast::<SrvConf>()) };
        inner.settings.inherit(&outer.settings);
        let Some(place) = inner.zone_sync.clone() else {
            for server in &inner.servers {
                conf.warn_at(
                    &server.place,
                    format_args!("\"zone_sync_server {}\" has no effect: its server has no \"zone_sync\"", server.text),
                );
            }
            if let Some(named) = &inner.settings.first {
                let text = format_args!("\"{}\" has no effect: its server has no \"zone_sync\"", named.name);
                conf.warn_at(&named.place, text);
            }
            return CONF_OK;
        };
        match build(&conf, inner, place).and_then(|server| conf.main()?.set_sync(server)) {
            Ok(()) => CONF_OK,
            Err(fault) => conf.fail(&fault),
        }
    })
}

/// The resolver for the server of this context.
fn resolver(conf: &Conf, server: &peers::Server) -> Result<Resolver, Fault> {
    // SAFETY: servers are merged with their own context, by stream's core module first; a resolver without servers of DNS
    // is what that module makes where none was configured.
    let found = unsafe {
        let core = stream::core_server(conf.as_ptr())?;
        let resolver = core.resolver;
        let asks = resolver.as_ref().is_some_and(|resolver| resolver.connections.nelts > 0);
        asks.then_some(Resolver { resolver, timeout: core.resolver_timeout })
    };
    found.ok_or_else(|| {
        let text = &server.text;
        let why = format!(
            "\"zone_sync_server {text} resolve\" has no one to ask; set \"resolver\" in this server or in \"stream\""
        );
        Fault::at(&server.place, why)
    })
}

fn not_alone(place: &Place) -> Fault {
    let why = "\"zone_sync\" stands beside another directive that takes the sessions, such as \"proxy_pass\"; \
               give it a server of its own";
    Fault::at(place, why)
}

fn build(conf: &Conf, own: &SrvConf, place: Place) -> Result<SyncServer, Fault> {
    let set = &own.settings;
    // SAFETY: servers are merged with their own context, once all are read.
    let (handler, exposed, datagrams) = unsafe {
        let cf = conf.as_ptr();
        (stream::core_server(cf)?.handler, listens::plain_and_remote(cf), listens::datagrams(cf))
    };
    if let Some(address) = datagrams.first() {
        let why = format!("\"zone_sync\" takes connections, and \"listen {address} udp\" has none; leave out \"udp\"");
        return Err(Fault::at(&place, why));
    }
    if !handler.is_some_and(|handler| std::ptr::fn_addr_eq(handler, HANDLER)) {
        return Err(not_alone(&place));
    }
    // SAFETY: set once, before any configuration is read.
    let page = unsafe { sys::ngx_pagesize };
    let (number, size) = set.buffers.unwrap_or((8, page));
    let window = number.saturating_mul(size);
    let limits = Limits {
        timeout: set.timeout.unwrap_or(5_000),
        frame_size: size,
        window,
        recv_buffer: set.recv_buffer.unwrap_or(window),
        max_drift: set.max_drift.unwrap_or(60_000),
    };
    let tls = if set.ssl.unwrap_or(false) { Some(tls::build(conf, set, &place)?) } else { None };
    // Who turned it off in so many words knows.
    if set.ssl.is_none()
        && let Some(named) = &set.first_tls
    {
        conf.warn_at(&named.place, format_args!("\"{}\" has no effect without \"zone_sync_ssl on\"", named.name));
    }
    if tls.is_none() {
        for server in own.servers.iter().filter(|server| server.is_remote()) {
            conf.warn_at(
                &server.place,
                format_args!(
                    "\"zone_sync_server {}\": keys and values go over the network in plain text; set \"zone_sync_ssl on\"",
                    server.text
                ),
            );
        }
    }
    for address in exposed {
        conf.warn_at(
            &place,
            format_args!(
                "\"zone_sync\": keys and values come over the network in plain text; let its server \
                 \"listen {address} ssl\""
            ),
        );
    }
    let (mut peers, mut names) = (Vec::new(), Vec::new());
    for server in &own.servers {
        match &server.nodes {
            Nodes::Fixed(fixed) => peers.extend(fixed.iter().cloned()),
            Nodes::Named(name) => names.push(name.clone()),
        }
    }
    let by_name = own.servers.iter().find(|server| matches!(server.nodes, Nodes::Named(_)));
    let resolver = by_name.map(|server| resolver(conf, server)).transpose()?;
    Ok(SyncServer {
        place,
        limits,
        peers,
        names,
        resolver,
        connect_timeout: set.connect_timeout.unwrap_or(5_000),
        retry_interval: set.retry_interval.unwrap_or(1_000),
        interval: set.interval,
        tls,
        symbols: Symbols::find()?,
    })
}
