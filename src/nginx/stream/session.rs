//! A session of a peer that dialled this node: an ordinary session of nginx's stream module, running a [`Pull`].
//!
//! It never holds up its worker: what comes at once is small or waits for its turn, and what waits to be sent is bounded as
//! well. Of those that say hello faster than a cluster's nodes do, each waits at the [`door`]. It ends when nginx wants it
//! to: at a reload, when it quits, and, until the peer has said hello, when connections run short.

use super::{Symbols, context, door, exiting, lines, turn};
use crate::nginx::ffi::{self, ERROR, OK, guard};
use crate::nginx::turns::{Place, SLICE, Work};
use crate::nginx::{log, wake};
use crate::store::control::Counter;
use crate::sync::{Node, Pull, SessionError};
use nginx_sys as sys;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const AGAIN: isize = sys::NGX_AGAIN as isize;
/// Bytes received at once.
const READ: usize = 16 * 1024;
/// Received at once when something comes; what is more queues up.
const FIRST_READ: usize = 4 * 1024;
/// While more waits to be sent than this, nothing is read: the peer doesn't read either.
const UNSENT: usize = 64 * 1024;

/// Takes a session over from nginx.
///
/// # Safety
/// `session` is live and has come to its content phase, in the thread of the event loop.
pub unsafe fn begin(session: *mut sys::ngx_stream_session_t, node: Node, symbols: Symbols) {
    // SAFETY: the caller's promise. The session's memory is the connection's pool, which outlives its events; contexts
    // have a slot for each stream module.
    unsafe {
        let c = (*session).connection;
        let own = Session {
            pull: Pull::new(node.clone(), token(), ffi::now()),
            connection: c,
            session,
            node,
            symbols,
            output: Vec::new(),
            sent: 0,
            admitted: !(*c).ssl.is_null(),
            waiting: None,
            greeted: false,
            over: false,
            place: Place::new(),
        };
        let own = ffi::owned_by_pool((*c).pool, own);
        if own.is_null() || (*c).type_ != libc::SOCK_STREAM {
            return symbols.finalize(session, sys::NGX_STREAM_INTERNAL_SERVER_ERROR as sys::ngx_uint_t);
        }
        *context(session) = own.cast::<c_void>();
        (*(*c).log).action = c"receiving from a peer of zone_sync".as_ptr().cast_mut().cast();
        (*(*c).read).handler = Some(happened);
        (*(*c).write).handler = Some(happened);
        // Otherwise a worker that ends would wait for the session's next deadline.
        (*(*c).read).set_cancelable(1);
        // So that nginx asks the session to end before it waits for it.
        (*c).set_idle(1);
        if !(*c).ssl.is_null() {
            // A goodbye is said already: nobody has to wait for TLS's own.
            (*(*c).ssl).set_no_wait_shutdown(1);
        }
        // Until the peer has said who it is, others may have the connection.
        sys::ngx_reusable_connection(c, 1);
        happened((*c).read);
    }
}

/// Something happened on the connection, or its time is over, or nginx wants it to close.
unsafe extern "C" fn happened(event: *mut sys::ngx_event_t) {
    // SAFETY: nginx calls with an event of a live connection, one that `begin` took over; its data is a stream session with
    // our own in its context.
    unsafe {
        let c = (*event).data.cast::<sys::ngx_connection_t>();
        if exiting() || (*c).close() != 0 {
            // nginx waits for it: it asks once, for the connection or before it exits.
            advance(c, Share::First);
        } else if turn::within(|| advance(c, Share::First)).is_none() {
            // Others have their turn before.
            let own = (*context((*c).data.cast())).cast::<Session>();
            (*own).place.take(Work::Short, run_first, c.cast());
        }
    }
}

/// It is the session's turn.
unsafe fn run(connection: *mut c_void) {
    // SAFETY: the place in the queue is left when the session ends, and its connection is live until then.
    unsafe { advance(connection.cast(), Share::Slice) };
}

/// The same, of those whose events there was no time for.
unsafe fn run_first(connection: *mut c_void) {
    // SAFETY: as in `run`.
    unsafe { advance(connection.cast(), Share::First) };
}

/// It is the session's turn at the door.
///
/// # Safety
/// In the thread of the event loop; `c` is the live connection of a session that waits there, and that isn't at work.
pub unsafe fn admit(c: *mut sys::ngx_connection_t) {
    // SAFETY: the caller's promise; a session's own context is what `begin` put there.
    unsafe {
        let own = &mut *(*context((*c).data.cast())).cast::<Session>();
        (own.admitted, own.waiting) = (true, None);
        own.place.take(Work::Short, run_first, c.cast());
    }
}

/// How much may be received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    First,
    Slice,
}

/// # Safety
/// `c` is a live connection that `begin` took over.
unsafe fn advance(c: *mut sys::ngx_connection_t, share: Share) {
    // SAFETY: the data of such a connection is a stream session, where `begin` put our own. The reference to it is gone
    // before `finalize` frees it.
    unsafe {
        let session = (*c).data.cast::<sys::ngx_stream_session_t>();
        let own = (*context(session)).cast::<Session>();
        let failed = Some((*own).symbols);
        let ended = guard("a session of zone_sync", failed, || {
            let own = &mut *own;
            own.advance(share).err().map(|why| {
                own.end(&why);
                own.symbols
            })
        });
        if let Some(symbols) = ended {
            // The end of TLS may take a moment, and nginx's worker has to wait for it.
            (*(*c).read).set_cancelable(0);
            (*own).place.leave();
            symbols.finalize(session, sys::NGX_STREAM_OK as sys::ngx_uint_t);
        }
    }
}

struct Session {
    pull: Pull,
    /// Live as long as this: its pool owns it.
    connection: *mut sys::ngx_connection_t,
    session: *mut sys::ngx_stream_session_t,
    node: Node,
    symbols: Symbols,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// What the peer says is read.
    admitted: bool,
    /// At the door, until it is.
    waiting: Option<door::Waiting>,
    greeted: bool,
    over: bool,
    /// Among those that have more to receive.
    place: Place,
}

/// Why a session ends.
enum Why {
    Protocol(SessionError),
    /// The peer closed the connection.
    Closed,
    /// nginx has logged the error.
    Broken,
    /// nginx has too few connections left.
    Wanted,
    /// This worker is to end. nginx tells idle connections so once; one that was in its TLS handshake then wasn't idle.
    Exiting,
}

impl From<SessionError> for Why {
    fn from(error: SessionError) -> Why {
        Why::Protocol(error)
    }
}

impl Session {
    /// Does what can be done now, and asks to be called again.
    fn advance(&mut self, share: Share) -> Result<(), Why> {
        // SAFETY: the connection is live, its events too, and this is the thread of the event loop; no Rust reference
        // to any of them exists elsewhere.
        let (c, read, write) =
            unsafe { (&mut *self.connection, &mut *(*self.connection).read, &mut *(*self.connection).write) };
        if exiting() {
            return Err(Why::Exiting);
        }
        if c.close() != 0 {
            return Err(Why::Wanted);
        }
        read.set_timedout(0);
        let now = ffi::now();
        self.send()?;
        if self.pull.is_waiting() && self.pull.is_due(now) {
            // Then there may be more to receive.
            self.tick(now)?;
        }
        let more = self.receive(share, now)?;
        if self.pull.is_due(now) {
            self.tick(now)?;
        }
        self.send()?;
        self.tell();
        // SAFETY: as above; both events belong to the live connection.
        unsafe {
            if !self.greeted
                && let Some(peer) = self.pull.peer()
            {
                self.greeted = true;
                lines::write(c.log, log::INFO, format_args!("session of node {peer} began"));
                sys::ngx_reusable_connection(c, 0);
                // The agent dials who has just come, if it waits to do so.
                wake::soon();
            }
            if more {
                self.place.take(Work::Long, run, self.connection.cast());
            }
            if read.timer_set() != 0 {
                sys::ngx_del_timer(read);
            }
            let pause = self.pull.deadline().saturating_sub(now).clamp(1, 60_000);
            sys::ngx_add_timer(read, pause as sys::ngx_msec_t);
            if sys::ngx_handle_read_event(read, 0) != OK || sys::ngx_handle_write_event(write, 0) != OK {
                return Err(Why::Broken);
            }
        }
        Ok(())
    }

    /// Receives its share and applies it; `true`: there may be more at once.
    fn receive(&mut self, share: Share, now: u64) -> Result<bool, Why> {
        if !self.is_admitted()? {
            return Ok(false);
        }
        self.take_preread(now)?;
        let began = Instant::now();
        let mut buffer = [0; READ];
        loop {
            if self.unsent() > UNSENT || self.pull.is_waiting() || !self.is_readable() {
                return Ok(false);
            }
            let most = if share == Share::First { FIRST_READ } else { READ };
            if !self.receive_once(&mut buffer, most, now)? {
                return Ok(false);
            }
            if share == Share::First || began.elapsed() >= SLICE {
                return Ok(self.is_readable() && !self.pull.is_waiting());
            }
        }
    }

    /// Whether the peer is to be heard now. Who goes while it waits is noticed without being read.
    fn is_admitted(&mut self) -> Result<bool, Why> {
        if !self.admitted && self.waiting.is_none() && (self.is_readable() || !self.preread().is_empty()) {
            // SAFETY: in the thread of the event loop; the connection is this session's, which keeps its place until it ends.
            self.waiting = unsafe { door::knock(self.connection, &self.node.control) };
            self.admitted = self.waiting.is_none();
        }
        if self.waiting.is_some() && self.has_gone() { Err(Why::Closed) } else { Ok(self.admitted) }
    }

    /// Whether the peer has closed the connection, however much it has said before.
    fn has_gone(&self) -> bool {
        // SAFETY: the connection and its read event are live, its descriptor is open, and there is room for one byte.
        unsafe {
            let mut byte = 0u8;
            (*(*self.connection).read).pending_eof() != 0
                || match libc::recv((*self.connection).fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) {
                    0 => true,
                    seen => seen < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock,
                }
        }
    }

    /// `false`: there was nothing.
    fn receive_once(&mut self, buffer: &mut [u8; READ], most: usize, now: u64) -> Result<bool, Why> {
        let len = most.min(self.node.limits.recv_buffer.max(1)).min(READ);
        // SAFETY: the connection is live; `recv` is one of nginx's, and writes to `len` bytes of the buffer at most.
        let received =
            unsafe { (*self.connection).recv.map_or(ERROR, |recv| recv(self.connection, buffer.as_mut_ptr(), len)) };
        match usize::try_from(received) {
            Ok(0) => Err(Why::Closed),
            Ok(n) => self.take(buffer.get(..n).unwrap_or_default(), now).map(|()| true),
            Err(_) if received == AGAIN => Ok(false),
            Err(_) => Err(Why::Broken),
        }
    }

    /// Whether nginx holds that something has come.
    fn is_readable(&self) -> bool {
        // SAFETY: the connection and its read event are live.
        unsafe { (*(*self.connection).read).ready() != 0 }
    }

    /// Takes what phases before ours have read already.
    fn take_preread(&mut self, now: u64) -> Result<(), Why> {
        let preread = self.preread();
        if preread.is_empty() {
            return Ok(());
        }
        let preread = preread.to_vec();
        // SAFETY: the connection is live, and its buffer, which it has if something is in it; nothing refers to what is in it.
        unsafe { (*(*self.connection).buffer).pos = (*(*self.connection).buffer).last };
        self.take(&preread, now)
    }

    fn preread(&self) -> &[u8] {
        // SAFETY: the connection is live, and so is its buffer, if it has one; from `pos` to `last` it is filled, and changes
        // only in `take_preread`.
        unsafe {
            let Some(buffer) = (*self.connection).buffer.as_ref() else { return &[] };
            let len = usize::try_from(buffer.last.offset_from(buffer.pos)).unwrap_or(0);
            if len == 0 { &[] } else { std::slice::from_raw_parts(buffer.pos, len) }
        }
    }

    fn take(&mut self, bytes: &[u8], now: u64) -> Result<(), Why> {
        self.node.control.count(Counter::BytesIn, bytes.len() as u64);
        // SAFETY: the session is live; a count for the access log.
        unsafe { (*self.session).received += bytes.len() as sys::off_t };
        let handled = self.pull.handle(bytes, &mut self.output, now);
        self.wake_others();
        Ok(handled?)
    }

    /// Does what is due. What has waited for a lock may be applied now.
    fn tick(&mut self, now: u64) -> Result<(), Why> {
        let ticked = self.pull.tick(&mut self.output, now);
        self.wake_others();
        Ok(ticked?)
    }

    /// Wakes those who follow what was applied.
    fn wake_others(&self) {
        wake::watchers(&self.node.control);
        if self.node.must_tell() {
            // SAFETY: in the event loop, as all of the session is.
            unsafe { wake::soon() };
        }
    }

    /// Sends what the connection takes.
    fn send(&mut self) -> Result<(), Why> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // SAFETY: the connection is live; `send` is one of nginx's, and only reads the bytes that it is given.
            let sent = unsafe {
                (*self.connection)
                    .send
                    .map_or(ERROR, |send| send(self.connection, rest.as_ptr().cast_mut(), rest.len()))
            };
            match usize::try_from(sent) {
                Ok(n) => {
                    self.node.control.count(Counter::BytesOut, n as u64);
                    self.sent = self.sent.saturating_add(n);
                }
                Err(_) if sent == AGAIN => return Ok(()),
                Err(_) => return Err(Why::Broken),
            }
        }
        self.output.clear();
        self.sent = 0;
        // A snapshot's many answers needn't be remembered.
        self.output.shrink_to(UNSENT);
        Ok(())
    }

    fn unsent(&self) -> usize {
        self.output.len().saturating_sub(self.sent)
    }

    /// Logs what the protocol has to say.
    fn tell(&mut self) {
        for note in self.pull.notes() {
            // SAFETY: the connection's log lives as long as the connection.
            unsafe { lines::write((*self.connection).log, log::level(note.level), format_args!("{}", note.text)) };
        }
    }

    /// Says goodbye, and why in the log.
    fn end(&mut self, why: &Why) {
        self.tell();
        let goodbye = match why {
            Why::Protocol(error) => Some(error.to_string()),
            Why::Wanted => Some("it needs the connection for others".into()),
            Why::Exiting => Some("its worker ends, as nginx reloads or quits".into()),
            // Nobody hears it.
            Why::Closed | Why::Broken => None,
        };
        self.close(goodbye.as_deref());
        if goodbye.is_some() {
            // What the connection doesn't take at once is lost: it is only said for the peer's log.
            let _ = self.send();
        }
        let (level, text) = match why {
            Why::Protocol(error @ SessionError::Protocol(_)) => (log::ERR, error.to_string()),
            Why::Protocol(error @ SessionError::Silent(_)) if self.greeted => (log::WARN, error.to_string()),
            Why::Protocol(error) => (log::INFO, error.to_string()),
            Why::Closed => (log::INFO, "the peer closed the connection".into()),
            Why::Broken => (log::INFO, "the connection broke".into()),
            Why::Wanted => (log::INFO, "nginx needs the connection for others".into()),
            Why::Exiting => (log::INFO, "this worker ends".into()),
        };
        let peer = self.pull.peer().map_or_else(|| "an unknown node".into(), |peer| format!("node {peer}"));
        // SAFETY: as in `tell`.
        unsafe { lines::write((*self.connection).log, level, format_args!("session of {peer} ended: {text}")) };
    }

    fn close(&mut self, goodbye: Option<&str>) {
        if !std::mem::replace(&mut self.over, true) {
            match goodbye {
                Some(goodbye) => self.pull.close(&mut self.output, goodbye),
                None => self.pull.lost(),
            }
        }
    }
}

/// However the session ends, it keeps no other from taking its place.
impl Drop for Session {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// Tells sessions apart, over all workers.
fn token() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    u64::from(std::process::id()) << 32 | number & 0xffff_ffff
}
