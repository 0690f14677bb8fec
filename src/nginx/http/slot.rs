//! What this module keeps of a request that it answers: each part in the request's pool, the pointers in nginx's place for it.

use super::ctx_index;
use super::flow::Flow;
use super::refusal::Refusal;
use super::work::Work;
use nginx_sys as sys;

/// Pointers, null or to what lives as long as the request's pool. Only ever read and written through a pointer: one part
/// may be in use while nginx calls back for another.
pub struct Slot {
    pub flow: *mut Flow,
    pub work: *mut Work,
    pub refusal: *mut Refusal,
    /// Its work has ended without an answer of its own: nginx makes one.
    pub left_to_nginx: bool,
}

/// Null if this module has answered nothing yet.
///
/// # Safety
/// `r` is live.
pub unsafe fn of(r: *mut sys::ngx_http_request_t) -> *mut Slot {
    // SAFETY: the table has a place for each http module.
    unsafe { (*(*r).ctx.add(ctx_index())).cast() }
}

/// The same, made if need be. Null: no memory.
///
/// # Safety
/// `r` is live.
pub unsafe fn of_mine(r: *mut sys::ngx_http_request_t) -> *mut Slot {
    // SAFETY: as above; a slot of zeroes is one of null pointers and of what isn't so.
    unsafe {
        let place = (*r).ctx.add(ctx_index());
        if (*place).is_null() {
            *place = sys::ngx_pcalloc((*r).pool, size_of::<Slot>());
        }
        (*place).cast()
    }
}
