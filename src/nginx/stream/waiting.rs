//! Clients of a TLS `listen` that say nothing, or too little: until a handshake begins, others may have the connection.
//!
//! nginx waits for a handshake for a minute, and keeps the connection all that time, whoever else needs one, and
//! whether or not its worker is to end. So ours is the handler before nginx's own of the TLS phase: it waits for a
//! first record, like the session that comes after does for a hello.

use super::{context, exiting, lines, server, symbols};
use crate::nginx::conf::{Fault, main::MainConf};
use crate::nginx::ffi::{self, DECLINED, ERROR, OK, guard};
use crate::nginx::log;
use nginx_sys as sys;
use std::ffi::c_void;

const AGAIN: sys::ngx_int_t = sys::NGX_AGAIN as sys::ngx_int_t;

/// Adds the handler, and bounds the time of handshakes; once all servers are known.
///
/// # Safety
/// `cf` is that of the stream block, at its end.
pub unsafe fn install(cf: *mut sys::ngx_conf_t) -> Result<(), Fault> {
    // SAFETY: contexts of servers have a slot for each stream module, filled with that module's own structure; arrays and
    // their elements are those of the configuration that was just read.
    unsafe {
        let main = symbols::core_main(cf)?;
        let phase = &mut main.phases[sys::ngx_stream_phases_NGX_STREAM_SSL_PHASE as usize];
        let slot = sys::ngx_array_push(&raw mut phase.handlers).cast::<sys::ngx_stream_handler_pt>();
        slot.as_mut().ok_or_else(|| Fault::new("no memory")).map(|slot| *slot = Some(phase_handler))?;

        let Some(ssl) = symbols::module((*cf).cycle, "ngx_stream_ssl_module") else { return Ok(()) };
        let Some(own) = MainConf::of((*cf).cycle).and_then(MainConf::sync) else { return Ok(()) };
        let servers = &main.servers;
        for index in 0..servers.nelts {
            let each = *servers.elts.cast::<*mut sys::ngx_stream_core_srv_conf_t>().add(index);
            let table = (*(*each).ctx).srv_conf;
            if server(table).zone_sync.is_some() {
                let tls = (*table.add((*ssl).ctx_index)).cast::<symbols::SslServer>();
                let patience = own.limits.timeout as sys::ngx_msec_t;
                (*tls).handshake_timeout = (*tls).handshake_timeout.min(patience);
            }
        }
        Ok(())
    }
}

/// What the session does when its first record is there.
struct Waiting {
    then: sys::ngx_event_handler_pt,
}

unsafe extern "C" fn phase_handler(session: *mut sys::ngx_stream_session_t) -> sys::ngx_int_t {
    guard("the wait for a TLS handshake", ERROR, || {
        // SAFETY: nginx calls with a live session, in the thread of the event loop; its connection and events are live.
        // A context that isn't null is the `Waiting` that this put there.
        unsafe {
            let c = (*session).connection;
            let main = MainConf::current();
            let Some(sync) = main.and_then(MainConf::sync) else { return DECLINED };
            let ours = server((*session).srv_conf).zone_sync.is_some();
            // A handshake that is under way must not be held up: it may have read all there is.
            if !ours || (*session).ssl() == 0 || !(*c).ssl.is_null() || (*c).type_ != libc::SOCK_STREAM || spoke(c) {
                return DECLINED;
            }
            if exiting() {
                // Too late for nginx to ask it to end.
                return sys::NGX_STREAM_SERVICE_UNAVAILABLE as sys::ngx_int_t;
            }
            let read = (*c).read;
            let waiting = ffi::owned_by_pool((*c).pool, Waiting { then: (*read).handler });
            if waiting.is_null() {
                return ERROR;
            }
            *context(session) = waiting.cast::<c_void>();
            (*read).handler = Some(happened);
            (*read).set_cancelable(1);
            (*c).set_idle(1);
            sys::ngx_reusable_connection(c, 1);
            sys::ngx_add_timer(read, sync.limits.timeout as sys::ngx_msec_t);
            if sys::ngx_handle_read_event(read, 0) == OK { AGAIN } else { ERROR }
        }
    })
}

unsafe extern "C" fn happened(read: *mut sys::ngx_event_t) {
    // SAFETY: nginx calls with the read event of a live connection whose data is a stream session, with the context
    // that the phase handler put there. Nothing is touched after `finalize` or after the session went on.
    unsafe {
        let c = (*read).data.cast::<sys::ngx_connection_t>();
        let session = (*c).data.cast::<sys::ngx_stream_session_t>();
        if (*c).close() != 0 || (*read).timedout() != 0 {
            lines::write(
                (*c).log,
                log::INFO,
                format_args!("session of an unknown node ended: no TLS handshake was begun"),
            );
            if let Some(sync) = MainConf::current().and_then(MainConf::sync) {
                sync.symbols.finalize(session, sys::NGX_STREAM_OK as sys::ngx_uint_t);
            }
            return;
        }
        if !spoke(c) {
            let _ = sys::ngx_handle_read_event(read, 0);
            return;
        }
        let waiting = (*context(session)).cast::<Waiting>();
        let then = (*waiting).then;
        *context(session) = std::ptr::null_mut();
        if (*read).timer_set() != 0 {
            sys::ngx_del_timer(read);
        }
        sys::ngx_reusable_connection(c, 0);
        (*read).set_cancelable(0);
        (*read).handler = then;
        if let Some(then) = then {
            then(read);
        }
    }
}

/// Whether the TLS module has something to work on: a whole first record, the end of the connection, or what is no TLS.
///
/// # Safety
/// `c` is a live connection.
unsafe fn spoke(c: *mut sys::ngx_connection_t) -> bool {
    const HEADER: usize = 5;
    const HANDSHAKE: u8 = 22;
    const LONGEST: usize = 16 * 1024;
    let mut header = [0u8; HEADER];
    let mut there: libc::c_int = 0;
    // SAFETY: the descriptor is open; `recv` has room for the bytes it may give, and the ioctl for the number it
    // writes.
    let (seen, error) = unsafe {
        let seen = libc::recv((*c).fd, header.as_mut_ptr().cast(), HEADER, libc::MSG_PEEK);
        let error = std::io::Error::last_os_error();
        libc::ioctl((*c).fd, libc::FIONREAD, &raw mut there);
        (seen, error)
    };
    let waits = match usize::try_from(seen) {
        Err(_) => error.kind() == std::io::ErrorKind::WouldBlock,
        Ok(0) => false,
        Ok(_) if header[0] != HANDSHAKE => false,
        Ok(seen) => {
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let whole = seen == HEADER && usize::try_from(there).unwrap_or(0) >= HEADER + length;
            // SAFETY: the read event of a live connection; nginx has seen that the peer sends no more.
            let ended = unsafe { (*(*c).read).pending_eof() } != 0;
            !whole && !ended && length <= LONGEST
        }
    };
    if waits {
        // SAFETY: as above. nginx would otherwise take it that there is something to read, and wait for no event.
        unsafe { (*(*c).read).set_ready(0) };
    }
    !waits
}
