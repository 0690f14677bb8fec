//! Zones that a reload takes away where nginx runs without a master: sessions and requests of the last configuration live on in
//! this process, and may still look at them. So their memory stays where it is, and nginx is given a second mapping of it to
//! unmap. It isn't used for anything later: whoever runs nginx so is trying something out.

use crate::nginx::{ffi, log};
use nginx_sys as sys;

/// Keeps the memory of our zones that the new configuration doesn't name.
///
/// # Safety
/// In `init_module`, `cycle` being the new one: the last one is still live.
pub unsafe fn keep(cycle: *const sys::ngx_cycle_t) {
    // SAFETY: the caller's promise. Before the first configuration the last cycle is a zeroed one with an empty list, and what a
    // zone of ours has mapped is at least as long as it says.
    unsafe {
        if sys::ngx_process != sys::NGX_PROCESS_SINGLE as sys::ngx_uint_t {
            return;
        }
        let (Some(last), Some(new)) = (sys::ngx_cycle.as_ref(), cycle.as_ref()) else { return };
        let named = |name: &[u8]| {
            ffi::list::<sys::ngx_shm_zone_t>(&new.shared_memory).any(|zone| ffi::bytes((*zone).shm.name) == name)
        };
        for zone in ffi::list::<sys::ngx_shm_zone_t>(&last.shared_memory) {
            let shm = &mut (*zone).shm;
            if shm.addr.is_null() || !super::is_ours(&*zone) || named(ffi::bytes(shm.name)) {
                continue;
            }
            let second = libc::mremap(shm.addr.cast(), 0, shm.size, libc::MREMAP_MAYMOVE);
            if second == libc::MAP_FAILED {
                let error = std::io::Error::last_os_error();
                let name = String::from_utf8_lossy(ffi::bytes(shm.name));
                log::cycle(log::ALERT, format_args!("can't keep the memory of zone \"{name}\": {error}"));
                continue;
            }
            shm.addr = second.cast();
        }
    }
}
