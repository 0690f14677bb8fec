//! Lines for nginx's error log.

use crate::sync::NoteLevel;
use nginx_sys as sys;
use std::fmt::Arguments;
use std::sync::atomic::{AtomicU64, Ordering};

/// Levels, as nginx numbers them.
pub const EMERG: sys::ngx_uint_t = sys::NGX_LOG_EMERG as sys::ngx_uint_t;
/// Something that can't be.
pub const ALERT: sys::ngx_uint_t = sys::NGX_LOG_ALERT as sys::ngx_uint_t;
/// A request or a session failed.
pub const ERR: sys::ngx_uint_t = sys::NGX_LOG_ERR as sys::ngx_uint_t;
/// Worth a look.
pub const WARN: sys::ngx_uint_t = sys::NGX_LOG_WARN as sys::ngx_uint_t;
/// Worth knowing.
pub const NOTICE: sys::ngx_uint_t = sys::NGX_LOG_NOTICE as sys::ngx_uint_t;
/// For the curious.
pub const INFO: sys::ngx_uint_t = sys::NGX_LOG_INFO as sys::ngx_uint_t;

/// Writes one line to a log.
///
/// # Safety
/// `log` is null (nothing is written) or a live log, and this is a thread of nginx's own.
pub unsafe fn write(log: *mut sys::ngx_log_t, level: sys::ngx_uint_t, text: Arguments<'_>) {
    // SAFETY: the caller's promise.
    unsafe { plain(log, level, format_args!("zonemesh: {text}")) };
}

/// The same, as nginx itself would write it.
///
/// # Safety
/// As for [`write`].
pub unsafe fn plain(log: *mut sys::ngx_log_t, level: sys::ngx_uint_t, text: Arguments<'_>) {
    // SAFETY: the caller's promise.
    if (unsafe { log.as_ref() }).is_none_or(|log| log.log_level < level) {
        return;
    }
    let text = text.to_string();
    // SAFETY: `%*s` takes a length and that many bytes, which live until the call is over.
    unsafe { sys::ngx_log_error_core(level, log, 0, c"%*s".as_ptr(), text.len(), text.as_ptr()) };
}

/// Writes one line to the log of the cycle in force. Only from a thread of nginx's own.
pub fn cycle(level: sys::ngx_uint_t, text: Arguments<'_>) {
    // SAFETY: nginx sets `ngx_cycle` before it calls any module, to a cycle whose log is live.
    unsafe {
        let cycle = sys::ngx_cycle;
        if !cycle.is_null() {
            write((*cycle).log, level, text);
        }
    }
}

/// The same, as nginx itself would write it.
pub fn cycle_plain(level: sys::ngx_uint_t, text: Arguments<'_>) {
    // SAFETY: as in `cycle`.
    unsafe {
        let cycle = sys::ngx_cycle;
        if !cycle.is_null() {
            plain((*cycle).log, level, text);
        }
    }
}

/// nginx's level for what the protocol or the agent has to say.
pub fn level(note: NoteLevel) -> sys::ngx_uint_t {
    match note {
        NoteLevel::Info => INFO,
        NoteLevel::Notice => NOTICE,
        NoteLevel::Warn => WARN,
        NoteLevel::Error => ERR,
    }
}

/// Lets one line a second through, and counts what it held back: for what each request may cause anew.
pub struct Limited {
    last: AtomicU64,
    held: AtomicU64,
}

impl Default for Limited {
    fn default() -> Limited {
        Limited::new()
    }
}

impl Limited {
    /// For a static.
    pub const fn new() -> Limited {
        Limited { last: AtomicU64::new(0), held: AtomicU64::new(0) }
    }

    /// Writes the line, unless there was one within the last second.
    ///
    /// # Safety
    /// As for [`write`].
    pub unsafe fn write(&self, log: *mut sys::ngx_log_t, level: sys::ngx_uint_t, now: u64, text: Arguments<'_>) {
        if now.abs_diff(self.last.load(Ordering::Relaxed)) < 1000 {
            self.held.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.last.store(now, Ordering::Relaxed);
        let held = self.held.swap(0, Ordering::Relaxed);
        let left_out = if held > 0 { format!(" ({held} similar lines were left out)") } else { String::new() };
        // SAFETY: the caller's promise.
        unsafe { write(log, level, format_args!("{text}{left_out}")) };
    }
}
