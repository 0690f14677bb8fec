//! Shared memory: the control zone of the node, and a region for each `keyval_zone` and `status_zone`.
//!
//! nginx maps a zone and puts a slab pool at its beginning. Ours take their memory as one block of it: all that is left
//! for a key-value zone, a fixed size for the control zone. Zones stay mapped where they are over reloads and forks, so
//! that the next configuration takes the address over from the last.

mod figures;
pub mod removed;
pub mod resize;
pub mod state;
pub mod tallies;

pub use figures::{Base, Figures};

use super::conf::main::{KeyvalZone, MainConf};
use super::conf::{Conf, Fault};
use super::ffi::{self, ERROR, OK, guard};
use super::log;
use crate::agent::state_file;
use crate::store::control::CONTROL_SIZE;
use crate::store::{Control, Params, Region, Zone};
use nginx_sys as sys;
use std::ffi::c_void;

/// The name of the control zone.
pub const CONTROL_NAME: &str = "zonemesh";

/// Of the control zone as a whole: the region, the figures, and what the slab pool itself takes.
const CONTROL_ZONE_SIZE: usize = CONTROL_SIZE + 96 * 1024;

// nginx knows whose a zone is by an address of the module that made it; two, so that a `keyval_zone` called like the
// control zone is a conflict and not the same zone.
static CONTROL_TAG: u8 = 0;
static KEYVAL_TAG: u8 = 1;

/// What the slab pool of the control zone points to.
#[repr(C)]
struct Root {
    control: *mut u8,
    figures: *mut u8,
}

/// Asks nginx for the control zone. First of all, so that it is there when other zones are made.
///
/// # Safety
/// `cycle` is being configured, and `main` is its configuration.
pub unsafe fn add_control(cycle: *mut sys::ngx_cycle_t, main: *mut MainConf) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let mut cf = ffi::bare_conf(cycle);
        let Some(mut name) = ffi::copied((*cycle).pool, CONTROL_NAME.as_bytes()) else { return false };
        let zone = sys::ngx_shared_memory_add(&mut cf, &mut name, CONTROL_ZONE_SIZE, tag(&CONTROL_TAG));
        if zone.is_null() {
            return false;
        }
        (*zone).init = Some(init_control);
        (*zone).data = main.cast();
        true
    }
}

/// Asks nginx for the memory of a key-value zone; `zone` is part of the configuration and stays where it is.
pub fn add_keyval(conf: &Conf, zone: *mut KeyvalZone) -> Result<(), Fault> {
    // SAFETY: `zone` is a live element of the configuration; nginx keeps the name, so it is copied to the cycle's pool.
    unsafe {
        let memory = || Fault::new("no memory");
        let mut name = ffi::copied(conf.pool(), (*zone).name.as_bytes()).ok_or_else(memory)?;
        let shared = sys::ngx_shared_memory_add(conf.as_ptr(), &mut name, (*zone).size, tag(&KEYVAL_TAG));
        if shared.is_null() {
            return Err(Fault::new(format!(
                "{}: another directive has a zone of this name; choose another",
                (*zone).title()
            )));
        }
        // What can't be read isn't taken over: nginx gives the zone memory of its own.
        (*shared).noreuse = sys::ngx_uint_t::from(resize::is_unreadable(&*zone));
        (*shared).init = Some(init_keyval);
        (*shared).data = zone.cast();
    }
    Ok(())
}

fn tag(of: &'static u8) -> *mut c_void {
    (&raw const *of).cast_mut().cast()
}

/// Whether a shared zone has been made by this module.
fn is_ours(zone: &sys::ngx_shm_zone_t) -> bool {
    [&CONTROL_TAG, &KEYVAL_TAG].iter().any(|of| zone.tag == tag(of)) || tallies::is_one(zone)
}

/// Whether a shared zone is one of ours, and then which.
///
/// # Safety
/// `zone` is a zone of the cycle in force.
pub unsafe fn keyval_of<'a>(zone: &sys::ngx_shm_zone_t) -> Option<&'a KeyvalZone> {
    if zone.tag != tag(&KEYVAL_TAG) {
        return None;
    }
    // SAFETY: zones with this tag carry a live element of the cycle's configuration.
    unsafe { zone.data.cast::<KeyvalZone>().as_ref() }
}

unsafe extern "C" fn init_control(shared: *mut sys::ngx_shm_zone_t, old: *mut c_void) -> sys::ngx_int_t {
    guard("the control zone", ERROR, || {
        // SAFETY: nginx hands over a mapped zone with a slab pool at its beginning, and the data that `add_control` set.
        let result = unsafe {
            let main = (*shared).data.cast::<MainConf>();
            control_root(shared, !old.is_null()).map(|(control, figures)| (*main).set_control(control, figures))
        };
        report(shared, result)
    })
}

unsafe fn control_root(shared: *mut sys::ngx_shm_zone_t, there: bool) -> Result<(Control, Figures), String> {
    // SAFETY: as in `init_control`; blocks come from the pool, have the sizes asked for and are never freed.
    unsafe {
        let pool = (*shared).shm.addr.cast::<sys::ngx_slab_pool_t>();
        if there {
            let root = (*pool).data.cast::<Root>();
            let root = root.as_ref().ok_or("the old zone is empty")?;
            let control =
                Control::attach(Region::new(root.control, CONTROL_SIZE)).map_err(|error| error.to_string())?;
            return Ok((control, Figures::new(root.figures)));
        }
        let control = block(pool, CONTROL_SIZE)?;
        let figures = block(pool, Figures::SIZE)?;
        figures.write_bytes(0, Figures::SIZE);
        let root = block(pool, size_of::<Root>())?.cast::<Root>();
        root.write(Root { control, figures });
        let handle = Control::create(Region::new(control, CONTROL_SIZE)).map_err(|error| error.to_string())?;
        (*pool).data = root.cast();
        Ok((handle, Figures::new(figures)))
    }
}

unsafe extern "C" fn init_keyval(shared: *mut sys::ngx_shm_zone_t, old: *mut c_void) -> sys::ngx_int_t {
    guard("a key-value zone", ERROR, || {
        // SAFETY: nginx hands over a mapped zone with a slab pool at its beginning, and the data that `add_keyval` set;
        // `old` is what `add_keyval` of the last configuration set, which lives until the new one is in force.
        let result = unsafe {
            let zone = &mut *(*shared).data.cast::<KeyvalZone>();
            // Newer nginx tells of the last zone also where its memory isn't taken over.
            match old.cast::<KeyvalZone>().as_ref().filter(|_| (*shared).noreuse == 0) {
                // Parameters wait until the configuration is in force: what fails after this must change nothing.
                Some(old) => resize::same_type(old, zone).map(|()| {
                    (zone.region, zone.zone) = (old.region, old.zone);
                    zone.inherited = true;
                }),
                None => {
                    make(shared, zone).and_then(|()| resize::prepare(shared, zone)).and_then(|()| match zone.resized {
                        // What is in memory is newer than what is in a file.
                        Some(_) => Ok(()),
                        None => state::load(zone),
                    })
                }
            }
        };
        // This was about the last memory, not about the new: the next reload would take that over and free it.
        // SAFETY: nginx's own zone.
        unsafe { (*shared).noreuse = 0 };
        report(shared, result)
    })
}

/// A new zone in new memory.
unsafe fn make(shared: *mut sys::ngx_shm_zone_t, zone: &mut KeyvalZone) -> Result<(), String> {
    // SAFETY: as in `init_keyval`; the control zone was made before, because it was asked for before. A fresh pool is
    // contiguous: all its free pages are one block.
    unsafe {
        let pool = (*shared).shm.addr.cast::<sys::ngx_slab_pool_t>();
        let control = (*zone.main).control().ok_or("the control zone is missing")?;
        let size = (*pool).pfree * sys::ngx_pagesize;
        let base = block(pool, size)?;
        let region = Region::new(base, size);
        // A reload may bring a zone back that there was before, and that this node wrote to.
        let params = Params { born: control.born(ffi::now()), ..zone.params(control) };
        let made = match zone.state.as_deref().and_then(state_file::seed) {
            Some(seed) => Zone::create_seeded(region, &params, seed),
            None => Zone::create(region, &params),
        };
        let made = made.map_err(|error| error.to_string())?;
        (zone.region, zone.zone) = (Some(region), Some(made));
    }
    Ok(())
}

/// One block of a slab pool.
unsafe fn block(pool: *mut sys::ngx_slab_pool_t, size: usize) -> Result<*mut u8, String> {
    // SAFETY: the caller hands over a live pool.
    let block: *mut u8 = unsafe { sys::ngx_slab_alloc(pool, size) }.cast();
    if block.is_null() { Err(format!("no room for {size} bytes")) } else { Ok(block) }
}

fn report(shared: *mut sys::ngx_shm_zone_t, result: Result<(), String>) -> sys::ngx_int_t {
    let Err(why) = result else { return OK };
    // SAFETY: nginx's own zone, with the log it set.
    unsafe {
        let name = String::from_utf8_lossy(ffi::bytes((*shared).shm.name)).into_owned();
        log::write((*shared).shm.log, log::EMERG, format_args!("zone \"{name}\": {why}"));
    }
    ERROR
}
