//! What sessions have to say in the log, bounded: who connects again and again doesn't fill the disk.

use crate::nginx::{ffi, log};
use nginx_sys as sys;
use std::cell::Cell;
use std::fmt;

/// So many lines of a worker in so many milliseconds: more than 255 peers have to say when all are lost at once.
const LINES: u64 = 500;
const WHILE: u64 = 10_000;

thread_local! {
    /// When this while began, and the lines that there were since.
    static SAID: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Writes a line, or only counts it.
///
/// # Safety
/// `to` is a live log.
pub unsafe fn write(to: *mut sys::ngx_log_t, level: sys::ngx_uint_t, text: fmt::Arguments<'_>) {
    // SAFETY: the caller's promise.
    if unsafe { (*to).log_level } < level {
        return;
    }
    let now = ffi::now();
    let (mut since, mut said) = SAID.get();
    if now.abs_diff(since) > WHILE {
        if said > LINES {
            // SAFETY: the caller's promise.
            unsafe {
                log::write(
                    to,
                    log::WARN,
                    format_args!("{} lines about sessions of zone_sync were left out", said - LINES),
                );
            }
        }
        (since, said) = (now, 0);
    }
    SAID.set((since, said + 1));
    if said < LINES {
        // SAFETY: the caller's promise.
        unsafe { log::write(to, level, text) };
    }
}
