//! Sessions of stream's servers.

use super::{bytes, enter, presence, worker};
use crate::api::StatusKind;
use crate::nginx::conf::status::{Setting, StatusZoneDirective, StreamServer};
use crate::nginx::conf::{self, Conf, Fault, command};
use crate::nginx::ffi::{DECLINED, ERROR, OK, guard};
use crate::nginx::modules::{Exported, STREAM_STATUS};
use crate::nginx::stream::core_main;
use crate::store::Ending;
use nginx_sys as sys;

/// The module's callbacks.
pub static CONTEXT: Exported<sys::ngx_stream_module_t> = Exported::new(sys::ngx_stream_module_t {
    preconfiguration: None,
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(conf::create::<Setting>),
    merge_srv_conf: None,
});

/// Its directive.
pub static COMMANDS: Exported<[sys::ngx_command_t; 2]> = Exported::new([
    command::<StatusZoneDirective<StreamServer>>(
        c"status_zone",
        sys::NGX_STREAM_SRV_CONF | sys::NGX_CONF_TAKE1,
        sys::NGX_STREAM_SRV_CONF_OFFSET,
    ),
    sys::ngx_command_t::empty(),
]);

/// The end of `stream`: the handlers, if anything is to be counted.
unsafe extern "C" fn postconfiguration(cf: *mut sys::ngx_conf_t) -> sys::ngx_int_t {
    guard("the end of stream", ERROR, || {
        // SAFETY: nginx calls with the `cf` of the stream block, at its end.
        let mut conf = unsafe { Conf::new(cf) };
        let result = conf.main().and_then(|main| {
            if main.status_zones(StatusKind::StreamServer).next().is_none() {
                return Ok(());
            }
            // SAFETY: as above.
            unsafe {
                push(cf, sys::ngx_stream_phases_NGX_STREAM_POST_ACCEPT_PHASE, begun)?;
                push(cf, sys::ngx_stream_phases_NGX_STREAM_LOG_PHASE, ended)
            }
        });
        conf.finish(result)
    })
}

type Handler = unsafe extern "C" fn(*mut sys::ngx_stream_session_t) -> sys::ngx_int_t;

/// # Safety
/// `cf` is that of the stream block, at its end.
unsafe fn push(cf: *mut sys::ngx_conf_t, phase: sys::ngx_stream_phases, handler: Handler) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe {
        let handlers = &raw mut core_main(cf)?.phases[phase as usize].handlers;
        let slot = sys::ngx_array_push(handlers).cast::<sys::ngx_stream_handler_pt>();
        slot.as_mut().ok_or_else(|| Fault::new("\"status_zone\": no memory"))?.replace(handler);
    }
    Ok(())
}

/// A client has connected.
unsafe extern "C" fn begun(session: *mut sys::ngx_stream_session_t) -> sys::ngx_int_t {
    guard("status_zone", DECLINED, || {
        // SAFETY: nginx calls with a live session.
        unsafe {
            if let Some(tally) = setting(session).tally() {
                enter((*(*session).connection).pool, tally, !may_move(session));
            }
        }
        DECLINED
    })
}

/// A session is over, also one that never came to its first phase.
unsafe extern "C" fn ended(session: *mut sys::ngx_stream_session_t) -> sys::ngx_int_t {
    guard("status_zone", OK, || {
        // SAFETY: nginx calls with a live session.
        unsafe {
            let connection = (*session).connection;
            let ending = Ending {
                code: Some(u16::try_from((*session).status).unwrap_or(0)),
                received: bytes((*session).received),
                sent: bytes((*connection).sent),
            };
            let presence = presence((*connection).pool);
            if let Some(presence) = presence {
                presence.ended = true;
                if presence.counted {
                    presence.tally.end(worker(), ending);
                    return OK;
                }
            }
            if let Some(tally) = setting(session).tally() {
                tally.count(worker());
                tally.end(worker(), ending);
            }
        }
        OK
    })
}

/// Whether the name that a TLS client sends may choose another server for the session, which is to be the one that counts
/// it. Until its end it is shown under the server that it came to.
unsafe fn may_move(session: *mut sys::ngx_stream_session_t) -> bool {
    #[cfg(nginx_1_25_5)]
    // SAFETY: the caller's session is live.
    return unsafe { !(*session).virtual_names.is_null() };
    #[cfg(not(nginx_1_25_5))]
    {
        let _ = session;
        false
    }
}

/// What the session's server says.
///
/// # Safety
/// `session` is live.
unsafe fn setting(session: *mut sys::ngx_stream_session_t) -> Setting {
    // SAFETY: the table has a slot for each stream module, with what its `create` callback returned.
    unsafe { *(*(*session).srv_conf.add((*STREAM_STATUS.get()).ctx_index)).cast::<Setting>() }
}
