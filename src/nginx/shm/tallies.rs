//! The memory of each `status_zone`: a shared zone of its own, so that nginx keeps those that a reload keeps, makes those
//! that it adds and gives back those that it removes.

use super::{block, report, tag};
use crate::api::StatusKind;
use crate::nginx::conf::status::StatusZone;
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::ffi::{self, ERROR, guard};
use crate::store::{Region, TALLY_SIZE, Tally};
use nginx_sys as sys;
use std::ffi::c_void;

static TAG: u8 = 2;

/// Asks nginx for the memory; `zone` is part of the configuration and stays where it is.
pub fn add(conf: &Conf, zone: *mut StatusZone) -> Result<(), Fault> {
    // SAFETY: `zone` is a live element of the configuration; nginx keeps the name, so it is copied to the cycle's pool.
    unsafe {
        let memory = || Fault::new("\"status_zone\": no memory");
        let mut name = ffi::copied(conf.pool(), shared_name(&*zone).as_bytes()).ok_or_else(memory)?;
        // A page or two of the slab pool's own are before what is asked for.
        let size = TALLY_SIZE + 8 * sys::ngx_pagesize;
        let shared = sys::ngx_shared_memory_add(conf.as_ptr(), &mut name, size, tag(&TAG));
        if shared.is_null() {
            return Err(memory());
        }
        (*shared).init = Some(init);
        (*shared).data = zone.cast();
    }
    Ok(())
}

/// Whether a shared zone is one of these.
pub fn is_one(zone: &sys::ngx_shm_zone_t) -> bool {
    zone.tag == tag(&TAG)
}

/// What nginx knows it by: like no name that a configuration can give to a zone.
fn shared_name(zone: &StatusZone) -> String {
    let kind = match zone.kind {
        StatusKind::HttpServer => "http server",
        StatusKind::HttpLocation => "http location",
        StatusKind::StreamServer => "stream server",
    };
    format!("status_zone of {kind}: {}", zone.name)
}

unsafe extern "C" fn init(shared: *mut sys::ngx_shm_zone_t, old: *mut c_void) -> sys::ngx_int_t {
    guard("a status zone", ERROR, || {
        // SAFETY: nginx hands over a mapped zone with a slab pool at its beginning, and the data that `add` set. The
        // block stays where it is over reloads, under the pool's `data`; a new one is zero, as all new memory is.
        let result = unsafe {
            let zone = &mut *(*shared).data.cast::<StatusZone>();
            let pool = (*shared).shm.addr.cast::<sys::ngx_slab_pool_t>();
            let base = if old.is_null() { block(pool, TALLY_SIZE) } else { Ok((*pool).data.cast()) };
            base.and_then(|base| {
                (*pool).data = base.cast();
                zone.tally = Some(Tally::new(Region::new(base, TALLY_SIZE)).map_err(|error| error.to_string())?);
                Ok(())
            })
        };
        report(shared, result)
    })
}
