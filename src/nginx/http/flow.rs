//! Sends a body while it is made: a piece at a time, the next when nginx is through with the last, and when it is its turn
//! among all that goes on for longer.

use super::again::Again;
use super::slot;
use crate::api::{Produce, Produced};
use crate::nginx::ffi::{self, DONE, ERROR, OK, guard};
use crate::nginx::log;
use crate::nginx::turns::SLICE;
use nginx_sys as sys;
use std::time::Instant;

/// Bytes of a piece, about: smaller ones are gathered.
const PIECE: usize = 32 * 1024;

/// A body on its way. The request's pool owns it.
pub struct Flow {
    again: Again,
    /// What makes the rest; gone when all is made.
    rest: Option<Box<dyn Produce>>,
    /// What was made, and how much of it nginx has. It isn't touched until the buffer says that all of that was taken.
    piece: Vec<u8>,
    given: usize,
    buffer: sys::ngx_buf_t,
    /// The producer has nothing before that time, by nginx's clock, unless it pokes.
    until: Option<sys::ngx_msec_t>,
}

/// Begins to send `begin` and then what `rest` makes; returns what the request is to be finalized with.
///
/// # Safety
/// `r` is live, and its header was sent without a length.
pub unsafe fn begin(r: *mut sys::ngx_http_request_t, begin: Vec<u8>, rest: Box<dyn Produce>) -> sys::ngx_int_t {
    // SAFETY: the caller's promise. The flow lives as long as the request's pool; all zeroes is an empty buffer.
    unsafe {
        let flow = Flow {
            again: Again::new(r, go_on),
            rest: Some(rest),
            piece: begin,
            given: 0,
            buffer: std::mem::zeroed(),
            until: None,
        };
        let (slot, flow) = (slot::of_mine(r), ffi::owned_by_pool((*r).pool, flow));
        if slot.is_null() || flow.is_null() {
            return ERROR;
        }
        (*slot).flow = flow;
        (*r).write_event_handler = Some(writable);
        if (*r).main == r && (*r).discard_body() == 0 {
            // Who goes away while there is nothing to send is noticed as well.
            (*r).read_event_handler = Some(sys::ngx_http_test_reading);
        }
        if let Some(rest) = &mut (*flow).rest {
            // The flow owns what will poke it, and nobody does so while it is in use.
            rest.poke_by(Box::new(move || {
                (*flow).until = None;
                (*flow).again.soon();
            }));
        }
        (*flow).again.soon();
        // Held until the flow finalizes the request; whoever called finalizes it with `DONE`.
        (*(*r).main).set_count((*(*r).main).count() + 1);
        DONE
    }
}

/// The client takes more, or what stood before this subrequest is sent.
unsafe extern "C" fn writable(r: *mut sys::ngx_http_request_t) {
    guard("a body that is sent", (), || {
        // SAFETY: nginx calls with a live request, whose handler this is only while it has a flow.
        unsafe {
            let write = (*(*r).connection).write;
            if (*write).timedout() != 0 {
                log::write((*write).log, log::INFO, format_args!("client timed out"));
                (*(*r).connection).set_timedout(1);
                return sys::ngx_http_finalize_request(r, sys::NGX_HTTP_REQUEST_TIME_OUT as sys::ngx_int_t);
            }
            (*(*slot::of(r)).flow).again.soon();
        }
    });
}

/// It is its turn.
unsafe fn go_on(r: *mut sys::ngx_http_request_t) {
    // SAFETY: a live request with a flow in its slot, to which nothing else refers in this thread.
    unsafe {
        let rc = (*(*slot::of(r)).flow).pump(r);
        if rc != DONE {
            sys::ngx_http_finalize_request(r, rc);
        }
    }
}

impl Flow {
    /// Sends and makes for a slice of time. `DONE`: it goes on later.
    unsafe fn pump(&mut self, r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
        let began = Instant::now();
        // SAFETY: the caller hands over this flow's live request.
        unsafe {
            if self.has_unsent(r) {
                let rc = sys::ngx_http_output_filter(r, std::ptr::null_mut());
                if rc == ERROR {
                    return ERROR;
                }
            }
            loop {
                if self.is_busy() {
                    return wait_until_writable(r);
                }
                stop_waiting(r);
                if began.elapsed() >= SLICE {
                    self.again.soon();
                    return DONE;
                }
                if self.given < self.piece.len() || self.rest.is_none() {
                    match self.give(r) {
                        ERROR => return ERROR,
                        rc if self.rest.is_none() && self.given >= self.piece.len() => return rc,
                        _ => continue,
                    }
                }
                let now = sys::ngx_current_msec;
                if let Some(until) = self.until.filter(|until| now < *until) {
                    self.again.later((until - now) as u64);
                    return DONE;
                }
                self.until = None;
                match self.make(began) {
                    Produced::Broken => {
                        let log = (*(*r).connection).log;
                        log::write(log, log::ERR, format_args!("an answer is cut short: its zone stays busy"));
                        return ERROR;
                    }
                    Produced::End => self.rest = None,
                    Produced::Wait(pause) => {
                        self.until = Some(now.saturating_add(sys::ngx_msec_t::try_from(pause).unwrap_or(0)));
                    }
                    Produced::More => {}
                }
            }
        }
    }

    /// Makes the next piece; nginx has nothing of the last one any more.
    fn make(&mut self, began: Instant) -> Produced {
        self.given = 0;
        self.piece.clear();
        // One large value isn't remembered for the whole of a body.
        self.piece.shrink_to(8 * PIECE);
        let Some(rest) = &mut self.rest else { return Produced::End };
        loop {
            let state = rest.produce(&mut self.piece, ffi::now());
            if state != Produced::More || self.piece.len() >= PIECE || began.elapsed() >= SLICE {
                return state;
            }
        }
    }

    /// Hands some of the piece to nginx, which has nothing of it or of what was handed over before.
    unsafe fn give(&mut self, r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
        let begin = self.given;
        self.given = self.piece.len().min(begin.saturating_add(PIECE));
        let last = self.rest.is_none() && self.given == self.piece.len();
        let some = self.piece.get_mut(begin..self.given).unwrap_or_default();
        // SAFETY: the caller hands over this flow's live request. The buffer and the bytes stay as they are until nginx
        // has moved `pos` to the end: see `is_busy`.
        unsafe {
            let main = (*r).main == r;
            self.buffer = std::mem::zeroed();
            self.buffer.start = some.as_mut_ptr();
            self.buffer.pos = self.buffer.start;
            self.buffer.last = self.buffer.pos.add(some.len());
            self.buffer.end = self.buffer.last;
            self.buffer.set_memory(u32::from(!some.is_empty()));
            // Without it nginx might keep a small piece, and never say that it can take the next.
            self.buffer.set_flush(u32::from(!last));
            self.buffer.set_last_buf(u32::from(last && main));
            self.buffer.set_sync(u32::from(last && !main && some.is_empty()));
            self.buffer.set_last_in_chain(u32::from(last));
            let mut chain = sys::ngx_chain_t { buf: &mut self.buffer, next: std::ptr::null_mut() };
            sys::ngx_http_output_filter(r, &mut chain)
        }
    }

    /// Whether nginx still has a part of the piece.
    fn is_busy(&self) -> bool {
        self.buffer.pos != self.buffer.last
    }

    /// Whether nginx has anything to send for this request: asked to without, it complains.
    unsafe fn has_unsent(&self, r: *mut sys::ngx_http_request_t) -> bool {
        // SAFETY: a live request and its connection.
        unsafe {
            self.is_busy() || (*r).buffered() != 0 || (*(*r).connection).buffered() != 0 || !(*r).postponed.is_null()
        }
    }
}

/// Lets nginx call when the client takes more, or give up after `send_timeout`. A subrequest whose turn to send hasn't
/// come is called when it has.
unsafe fn wait_until_writable(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    // SAFETY: the caller hands over a live request; its main one is live too, and has a location.
    unsafe {
        let connection = (*r).connection;
        if (*connection).data != r.cast() {
            return DONE;
        }
        let (write, location) = ((*connection).write, super::core_location((*(*r).main).loc_conf));
        // `limit_rate` has a timer of its own.
        if (*write).delayed() == 0 {
            sys::ngx_add_timer(write, location.send_timeout);
        }
        if sys::ngx_handle_write_event(write, location.send_lowat) == OK { DONE } else { ERROR }
    }
}

/// The client took all: `send_timeout` is over, and nginx needn't tell any more that it takes more.
unsafe fn stop_waiting(r: *mut sys::ngx_http_request_t) {
    // SAFETY: the caller hands over a live request.
    unsafe {
        let connection = (*r).connection;
        let write = (*connection).write;
        if (*connection).data == r.cast() && (*write).timer_set() != 0 && (*write).delayed() == 0 {
            sys::ngx_del_timer(write);
            // Where nginx waits by poll or select it would tell so without end.
            sys::ngx_handle_write_event(write, 0);
        }
    }
}
