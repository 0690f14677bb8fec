//! What every call between nginx and Rust needs: a net for panics, return codes, strings, memory of a pool.

use super::log;
use nginx_sys as sys;
use std::ffi::{CStr, c_char, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `NGX_OK`, in the type that handlers return.
pub const OK: sys::ngx_int_t = sys::NGX_OK as sys::ngx_int_t;
/// `NGX_ERROR`.
pub const ERROR: sys::ngx_int_t = sys::NGX_ERROR as sys::ngx_int_t;
/// `NGX_DECLINED`.
pub const DECLINED: sys::ngx_int_t = sys::NGX_DECLINED as sys::ngx_int_t;
/// `NGX_DONE`.
pub const DONE: sys::ngx_int_t = sys::NGX_DONE as sys::ngx_int_t;

/// `NGX_CONF_OK`.
pub const CONF_OK: *mut c_char = std::ptr::null_mut();
/// `NGX_CONF_ERROR`.
pub const CONF_ERROR: *mut c_char = usize::MAX as *mut c_char;

/// Runs the body of a callback. A panic must not unwind into nginx's C: it is logged, and `failed` returned.
pub fn guard<T>(what: &str, failed: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            log::cycle(
                log::ALERT,
                format_args!("panic in {what}: {text}; this is a fault of zonemesh, please report it"),
            );
            failed
        }
    }
}

/// The bytes of an nginx string.
///
/// # Safety
/// `text` points to `len` bytes that stay as they are for `'a`.
pub unsafe fn bytes<'a>(text: sys::ngx_str_t) -> &'a [u8] {
    if text.len == 0 || text.data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

/// An nginx string of a constant with a NUL at its end, as nginx compares some with `strcmp`.
pub const fn constant(text: &'static CStr) -> sys::ngx_str_t {
    sys::ngx_str_t { len: text.count_bytes(), data: text.as_ptr().cast_mut().cast() }
}

/// An nginx string that borrows `text`: for calls that only read it.
pub fn borrowed(text: &[u8]) -> sys::ngx_str_t {
    sys::ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() }
}

/// Copies `text` into a pool, with a NUL after it. `None`: no memory.
///
/// # Safety
/// `pool` is a live pool; the copy lives as long.
pub unsafe fn copied(pool: *mut sys::ngx_pool_t, text: &[u8]) -> Option<sys::ngx_str_t> {
    // SAFETY: the caller's promise; the result is checked.
    let data: *mut u8 = unsafe { sys::ngx_pnalloc(pool, text.len().checked_add(1)?) }.cast();
    if data.is_null() {
        return None;
    }
    // SAFETY: `data` has room for the text and the NUL, and is new memory, so that they can't overlap.
    unsafe {
        data.copy_from_nonoverlapping(text.as_ptr(), text.len());
        data.add(text.len()).write(0);
    }
    Some(sys::ngx_str_t { len: text.len(), data })
}

/// What calls about a configuration want where no directive is being read: the cycle, its pool and its log.
///
/// # Safety
/// `cycle` is being configured.
pub unsafe fn bare_conf(cycle: *mut sys::ngx_cycle_t) -> sys::ngx_conf_t {
    // SAFETY: all fields of a configuration may be null or zero; the cycle is live by the caller's promise.
    unsafe {
        let mut cf: sys::ngx_conf_t = std::mem::zeroed();
        (cf.cycle, cf.pool, cf.log) = (cycle, (*cycle).pool, (*cycle).log);
        cf
    }
}

/// Moves `value` to the heap and lets the pool drop it at its end. Null: no memory.
///
/// # Safety
/// `pool` is a live pool, and nothing uses the value after the pool's end.
pub unsafe fn owned_by_pool<T>(pool: *mut sys::ngx_pool_t, value: T) -> *mut T {
    /// The cleanup handler.
    unsafe extern "C" fn drop_box<T>(data: *mut c_void) {
        // SAFETY: `data` came from `Box::into_raw` below, and nginx runs a cleanup once.
        guard("a pool's cleanup", (), || drop(unsafe { Box::from_raw(data.cast::<T>()) }));
    }
    // SAFETY: the caller's promise; the result is checked.
    let cleanup = unsafe { sys::ngx_pool_cleanup_add(pool, 0) };
    if cleanup.is_null() {
        return std::ptr::null_mut();
    }
    let value = Box::into_raw(Box::new(value));
    // SAFETY: `cleanup` is a new, live entry of the pool.
    unsafe {
        (*cleanup).handler = Some(drop_box::<T>);
        (*cleanup).data = value.cast();
    }
    value
}

/// The elements of an nginx list, as pointers.
///
/// # Safety
/// `list` is initialised, holds `T`s, and doesn't change while the iterator lives.
pub unsafe fn list<'a, T>(list: &'a sys::ngx_list_t) -> impl Iterator<Item = *mut T> + 'a {
    let mut part = Some(&list.part);
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let here = part?;
            if at < here.nelts && !here.elts.is_null() {
                // SAFETY: `at` is below the number of elements of this part.
                let element = unsafe { here.elts.cast::<T>().add(at) };
                at += 1;
                return Some(element);
            }
            // SAFETY: null, or the next part of a live list.
            part = unsafe { here.next.as_ref() };
            at = 0;
        }
    })
}

/// The IP address in a socket's; `None`: it is of another family, and so of this machine.
///
/// # Safety
/// `sockaddr` is a live address of the family that it names.
pub unsafe fn ip_of(sockaddr: *const sys::sockaddr) -> Option<IpAddr> {
    // SAFETY: the family says which of the structures it is.
    unsafe {
        match i32::from((*sockaddr).sa_family) {
            libc::AF_INET => {
                let bits = (*sockaddr.cast::<sys::sockaddr_in>()).sin_addr.s_addr;
                Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(bits))))
            }
            libc::AF_INET6 => {
                let bytes = (*sockaddr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            }
            _ => None,
        }
    }
}

/// The time that nginx took at the beginning of this turn of the event loop, milliseconds since the epoch.
pub fn now() -> u64 {
    let time = sys::ngx_timeofday();
    u64::try_from(time.sec).unwrap_or(0).saturating_mul(1000).saturating_add(time.msec as u64)
}
