//! A request in an upstream with `sticky`: which server it asks for, and what is learned from the response.

use super::UpstreamConf;
use super::directive::{Form, Sticky, first};
use super::peers::{self, State, Tries};
use super::sid::Sid;
use crate::nginx::ffi::{self, DONE, ERROR, OK, guard};
use crate::nginx::log;
use crate::store::{StoreError, Told, Use};
use nginx_sys as sys;
use std::cell::UnsafeCell;
use std::ffi::c_void;

/// What a request needs to know. In its pool, as long as the request; without anything to drop.
struct Turn {
    request: *mut sys::ngx_http_request_t,
    /// Of the configuration that serves the request.
    conf: *const UpstreamConf,
    /// What the method keeps.
    state: *mut State,
    /// The list of servers that the method knows.
    peers: *const sys::ngx_http_upstream_rr_peers_t,
    tries: Tries,
    get: sys::ngx_event_get_peer_pt,
    free: sys::ngx_event_free_peer_pt,
    set_session: sys::ngx_event_set_peer_session_pt,
    save_session: sys::ngx_event_save_peer_session_pt,
    notify: sys::ngx_event_notify_peer_pt,
    /// What says where the request is bound to.
    lookup: Option<sys::ngx_str_t>,
    /// Where that was, when it was given the server that it has now.
    bound: Option<Sid>,
    /// The server that it has now.
    server: Option<Sid>,
    /// What that has answered is noted.
    noted: bool,
    /// The cookie that was set.
    cookie: *mut sys::ngx_table_elt_t,
}

/// A request comes to the upstream.
pub unsafe extern "C" fn init(
    r: *mut sys::ngx_http_request_t,
    upstream: *mut sys::ngx_http_upstream_srv_conf_t,
) -> sys::ngx_int_t {
    // SAFETY: nginx calls with a live request and the upstream that it comes to. The configuration isn't changed any more.
    guard("an upstream", ERROR, || unsafe {
        let Some(conf) = super::kept(upstream).map(|conf| &*conf) else { return ERROR };
        let Some((sticky, init)) = conf.sticky.as_ref().zip(conf.wrapped.init_peer) else { return ERROR };
        let done = init(r, upstream);
        if done != OK {
            return done;
        }
        let peer = &raw mut (*(*r).upstream).peer;
        if !peers::is_round_robin(peer) {
            let name = String::from_utf8_lossy(ffi::bytes((*upstream).host));
            let text =
                format_args!("\"sticky\" has no effect in upstream \"{name}\": its method is none of nginx's own");
            conf.complaints.write((*(*r).connection).log, log::ERR, ffi::now(), text);
            return OK;
        }
        let turn: *mut Turn = sys::ngx_palloc((*r).pool, size_of::<Turn>()).cast();
        if turn.is_null() {
            return ERROR;
        }
        let state: *mut State = (*peer).data.cast();
        turn.write(Turn {
            request: r,
            conf,
            state,
            peers: (*state).peers,
            tries: Tries::new((*r).upstream),
            get: (*peer).get,
            free: (*peer).free,
            set_session: (*peer).set_session,
            save_session: (*peer).save_session,
            notify: (*peer).notify,
            lookup: first(r, &sticky.lookup),
            bound: None,
            server: None,
            noted: false,
            cookie: std::ptr::null_mut(),
        });
        (*peer).data = turn.cast();
        (*peer).get = Some(get);
        (*peer).free = Some(free);
        (*peer).set_session = Some(set_session);
        (*peer).save_session = Some(save_session);
        if (*peer).notify.is_some() {
            (*peer).notify = Some(notify);
        }
        if matches!(&sticky.form, Form::Learn(sessions) if sessions.header) {
            *(*r).ctx.add(super::ctx_index()) = turn.cast();
        }
        OK
    })
}

/// The request wants a server, or another one.
unsafe extern "C" fn get(pc: *mut sys::ngx_peer_connection_t, data: *mut c_void) -> sys::ngx_int_t {
    // SAFETY: nginx calls with what `init` put there, and the request has no server now.
    guard("an upstream", ERROR, || unsafe {
        let turn = &mut *data.cast::<Turn>();
        let conf = &*turn.conf;
        (turn.server, turn.noted) = (None, false);
        turn.bound = turn.bound_to();
        let done = match turn.bound {
            Some(sid) if peers::take(pc, turn.state, &conf.servers, &sid, &mut turn.tries) => OK,
            // What a method keeps of its own (places of `random`, points of `hash`) is of its first list. Who is among the
            // backup servers goes on with round robin, as all methods but `least_conn` let it choose there.
            _ if !std::ptr::eq((*turn.state).peers, turn.peers) => {
                sys::ngx_http_upstream_get_round_robin_peer(pc, turn.state.cast())
            }
            _ => turn.get.map_or(ERROR, |get| get(pc, turn.state.cast())),
        };
        if done != OK && done != DONE {
            return done;
        }
        turn.server = peers::current(turn.state, &conf.servers);
        if let (Some(Sticky { form: Form::Cookie(cookie), .. }), Some(server)) = (&conf.sticky, &turn.server) {
            match cookie.set(turn.request, server, turn.cookie) {
                Some(header) => turn.cookie = header,
                // The server is given back when the request ends.
                None => return ERROR,
            }
        }
        done
    })
}

/// The request gives its server back.
unsafe extern "C" fn free(pc: *mut sys::ngx_peer_connection_t, data: *mut c_void, state: sys::ngx_uint_t) {
    // SAFETY: nginx calls with what `init` put there, for a server that `get` gave.
    guard("an upstream", (), || unsafe {
        let turn = &mut *data.cast::<Turn>();
        let failed = state & (sys::NGX_PEER_FAILED | sys::NGX_PEER_NEXT) as sys::ngx_uint_t != 0;
        if !failed {
            guard("a session", (), || turn.note());
        }
        turn.server = None;
        if let Some(free) = turn.free {
            free(pc, turn.state.cast(), state);
        }
    });
}

unsafe extern "C" fn set_session(pc: *mut sys::ngx_peer_connection_t, data: *mut c_void) -> sys::ngx_int_t {
    // SAFETY: nginx calls with what `init` put there; what it put there before gets what is its own.
    unsafe {
        let turn = &*data.cast::<Turn>();
        turn.set_session.map_or(OK, |set| set(pc, turn.state.cast()))
    }
}

unsafe extern "C" fn save_session(pc: *mut sys::ngx_peer_connection_t, data: *mut c_void) {
    // SAFETY: as in `set_session`.
    unsafe {
        let turn = &*data.cast::<Turn>();
        if let Some(save) = turn.save_session {
            save(pc, turn.state.cast());
        }
    }
}

unsafe extern "C" fn notify(pc: *mut sys::ngx_peer_connection_t, data: *mut c_void, what: sys::ngx_uint_t) {
    // SAFETY: as in `set_session`.
    unsafe {
        let turn = &*data.cast::<Turn>();
        if let Some(notify) = turn.notify {
            notify(pc, turn.state.cast(), what);
        }
    }
}

impl Turn {
    fn sticky(&self) -> Option<&Sticky> {
        // SAFETY: the configuration that serves the request outlives it.
        unsafe { (*self.conf).sticky.as_ref() }
    }

    /// The server that the request is bound to.
    fn bound_to(&self) -> Option<Sid> {
        // SAFETY: text in memory of the live request.
        let lookup = unsafe { ffi::bytes(self.lookup?) };
        match &self.sticky()?.form {
            Form::Cookie(_) | Form::Route => Sid::new(lookup),
            Form::Learn(sessions) => sessions.find(lookup).unwrap_or_else(|error| {
                self.complain("look up", &sessions.zone().name, error);
                None
            }),
        }
    }

    /// Keeps what the server's response says of the session, once for each server.
    fn note(&mut self) {
        let (Some(Sticky { form: Form::Learn(sessions), .. }), Some(server)) = (self.sticky(), self.server) else {
            return;
        };
        // SAFETY: the live request has its upstream as long as it has a server; variables of its configuration, whose text
        // is in its memory.
        let (created, lookup) = unsafe {
            // Who didn't answer has no part in a session.
            let answered = (*self.request).upstream.as_ref().is_some_and(|upstream| upstream.headers_in.status_n != 0);
            if self.noted || !answered {
                return;
            }
            // An old answer from nginx's cache that the server said is still good begins nothing: it did that when it came.
            let is_old = (*self.request).cached() != 0;
            let created = if is_old { None } else { first(self.request, &sessions.create) };
            (created.map(|text| ffi::bytes(text)), self.lookup.map(|text| ffi::bytes(text)))
        };
        let Some(session) = created.or(lookup) else { return };
        let told = match self.bound.as_ref() {
            _ if lookup != Some(session) => Told::Nothing,
            bound => Told::Server(bound.map(Sid::as_bytes)),
        };
        let used = Use { server: server.as_bytes(), create: created.is_some(), told };
        if let Err(error) = sessions.note(session, used) {
            self.complain("write to", &sessions.zone().name, error);
        }
        self.noted = true;
    }

    fn complain(&self, what: &str, zone: &str, error: StoreError) {
        // SAFETY: a live request, which has a connection with a log.
        unsafe {
            let log = (*(*self.request).connection).log;
            let text = format_args!("can't {what} zone \"{zone}\" of \"sticky\": {error}");
            (*self.conf).complaints.write(log, log::ERR, ffi::now(), text);
        }
    }
}

/// The filter that comes after this one.
struct Next(UnsafeCell<sys::ngx_http_output_header_filter_pt>);

// SAFETY: set while a configuration is read, and read in the event loop: both are the one thread of nginx.
unsafe impl Sync for Next {}

static NEXT: Next = Next(UnsafeCell::new(None));

/// Puts a filter of headers in front of all others; for the end of `http`.
///
/// # Safety
/// Called once for each configuration, by the thread that reads it.
pub unsafe fn install() {
    // SAFETY: the caller's promise; nginx makes its chain of filters anew with each configuration.
    unsafe {
        *NEXT.0.get() = sys::ngx_http_top_header_filter;
        sys::ngx_http_top_header_filter = Some(header);
    }
}

/// A response's header is there.
unsafe extern "C" fn header(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    // SAFETY: nginx calls with a live request; the filter after this one was there when this one was put in front. What is in
    // the request's slot is null or its turn.
    unsafe {
        guard("a session", (), || {
            if let Some(turn) = (*(*r).ctx.add(super::ctx_index())).cast::<Turn>().as_mut() {
                turn.note();
            }
        });
        (*NEXT.0.get()).map_or(OK, |next| next(r))
    }
}
