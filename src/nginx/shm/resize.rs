//! Reloads that give a `keyval_zone` another size: its records move to the new memory.
//!
//! A configuration can fail until `init_module`, and a failure must leave everything as it was. So when nginx hands over
//! the new memory, everything is copied once to see whether it fits, which changes nothing in the old. In `init_module`,
//! where nothing can fail any more, it is copied for good, and what old workers write from then on is merged by the agent
//! until they have gone. For that the old memory must outlive the cycle that it belongs to: nginx is given a second
//! mapping of it to unmap.

use crate::nginx::conf::main::KeyvalZone;
use crate::nginx::{ffi, log};
use crate::store::{Control, Copied, Handover, Source, StoreError, Zone};
use nginx_sys as sys;
use std::ffi::c_void;
use std::sync::Mutex;

/// A zone whose records come from memory of another size.
pub struct Resized {
    /// As the last configuration has it, which lives until the new one is in force.
    old: *mut sys::ngx_shm_zone_t,
    /// Second mapping of the old memory.
    second: Mapping,
    /// What the old zone may still take.
    bound: Bound,
}

/// The bound on what is written to a zone while it isn't certain yet that another takes its place; released when this is
/// dropped, as it is with a configuration that failed.
struct Bound(Zone);

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A mapping that is unmapped when this is dropped.
struct Mapping {
    base: *mut c_void,
    len: usize,
}

// SAFETY: an address and a length; what is done with the memory goes through `Region`s, from whatever thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped, and nothing refers to it any more: the promise of whoever makes one.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// Old memory that records are still merged from. The master's list; workers inherit it.
struct Pending {
    name: String,
    source: Source,
    mapping: Mapping,
}

static PENDING: Mutex<Vec<Pending>> = Mutex::new(Vec::new());

/// Refuses a type other than the one that the records were written for.
pub fn same_type(old: &KeyvalZone, zone: &KeyvalZone) -> Result<(), String> {
    if let (Some(old), Some(new)) = (&old.limit, &zone.limit)
        && old.text != new.text
    {
        return Err(format!(
            "{} in {} uses the \"{}\" key while previously it used the \"{}\" key; give it another name",
            zone.title(),
            zone.place,
            new.text,
            old.text
        ));
    }
    if old.matching == zone.matching {
        return Ok(());
    }
    Err(format!(
        "{} in {} has type={}, but its records were written with type={}, which a reload can't change; \
         give it another name, or restart nginx to begin with an empty zone",
        zone.title(),
        zone.place,
        zone.matching.name(),
        old.matching.name()
    ))
}

/// Whether the last configuration has memory of this name and size in which no zone can be read.
///
/// # Safety
/// A configuration is being read.
pub unsafe fn is_unreadable(zone: &KeyvalZone) -> bool {
    // SAFETY: the caller's promise.
    let old = unsafe { of_last_cycle(zone) };
    // SAFETY: zones of the last cycle are live, and those with our tag carry a `KeyvalZone`.
    let region = old.and_then(|old| unsafe { super::keyval_of(&*old) }).and_then(|old| old.region);
    region.is_some_and(|region| Zone::check(&region).is_err())
}

/// The memory is new: looks whether that is so because the size is another one now, and then whether everything fits.
///
/// # Safety
/// As for nginx's `init` of a zone; `zone` has its memory.
pub unsafe fn prepare(shared: *mut sys::ngx_shm_zone_t, zone: &mut KeyvalZone) -> Result<(), String> {
    // SAFETY: until the new cycle is in force the last one and its zones are live and mapped.
    unsafe {
        let Some(old) = of_last_cycle(zone) else { return Ok(()) };
        let begins = if zone.state.is_some() { "begins with its state file" } else { "starts empty" };
        let warn = |why: &str| {
            let text = format_args!("{} in {} {begins}: {why}", zone.title(), zone.place);
            log::write((*shared).shm.log, log::WARN, text);
        };
        let Some(last) = super::keyval_of(&*old) else {
            warn("until now the name was that of a zone of another module, or of another build of this one");
            return Ok(());
        };
        same_type(last, zone)?;
        let (Some(region), Some(from), Some(new)) = (last.region, last.zone, zone.zone) else { return Ok(()) };
        if let Err(error) = Zone::check(&region) {
            // nginx frees what isn't taken over only if the old zone says so as well.
            (*old).noreuse = 1;
            warn(&error.to_string());
            return Ok(());
        }
        let title = format!("{} in {}", zone.title(), zone.place);
        let named = |why: &str| format!("{title}: {why}");
        let bound = Bound(from);
        let (new, copied) = try_copy(&from, new, zone).map_err(|why| named(&why))?;
        zone.zone = Some(new);
        let (was, is) = (last.size, zone.size);
        if copied.lost > 0 && !zone.evict {
            return Err(named(&format!(
                "{} of its {} records don't fit into {is} bytes (it has {was}); give it more, or add \"evict\" to give up \
                 what doesn't fit",
                copied.lost, copied.records
            )));
        }
        let second = libc::mremap((*old).shm.addr.cast(), 0, (*old).shm.size, libc::MREMAP_MAYMOVE);
        if second == libc::MAP_FAILED {
            return Err(named(&format!("can't map its old memory: {}", std::io::Error::last_os_error())));
        }
        zone.resized = Some(Resized { old, second: Mapping { base: second, len: (*old).shm.size }, bound });
    }
    Ok(())
}

/// Notes which stamps the zones of the last configuration have: what isn't in the new one is gone, and a later one that has it
/// again begins after them.
///
/// # Safety
/// In `init_module`: the last cycle is still live.
pub unsafe fn note_stamps(control: &Control) {
    // SAFETY: as in `of_last_cycle`; zones with our tag carry a `KeyvalZone`.
    unsafe {
        let Some(cycle) = sys::ngx_cycle.as_ref() else { return };
        let zones = ffi::list::<sys::ngx_shm_zone_t>(&cycle.shared_memory).filter(|zone| !(**zone).shm.addr.is_null());
        zones
            .filter_map(|zone| super::keyval_of(&*zone))
            .filter(|zone| zone.sync && zone.region.is_some_and(|region| Zone::check(&region).is_ok()))
            .filter_map(|zone| zone.zone)
            .for_each(|zone| control.leave_behind(zone.last_stamp()));
    }
}

/// Moves the records of zones that have another size now.
///
/// # Safety
/// In `init_module`: the new cycle is complete, and the last one still live.
pub unsafe fn commit(zones: &mut [Box<KeyvalZone>], control: &Control) -> Result<(), String> {
    let Ok(mut pending) = PENDING.lock() else { return Ok(()) };
    // SAFETY: a number of nginx's. Without a master, sessions and requests of the last configuration live on in this
    // process, and may still look at old memory.
    let single = unsafe { sys::ngx_process } == sys::NGX_PROCESS_SINGLE as sys::ngx_uint_t;
    let named = |name: &str| zones.iter().any(|zone| zone.name == name);
    for over in pending.extract_if(.., |old| !old.source.old.is_source() || !named(&old.name)) {
        if single {
            std::mem::forget(over.mapping);
        }
    }
    for zone in zones.iter_mut() {
        let Some(Resized { old, second, bound }) = zone.resized.take() else { continue };
        let Some((tried, region)) = zone.zone.zip(zone.region) else { continue };
        // SAFETY: the last cycle's zone and its `KeyvalZone` are live; nobody else in this process looks at either now.
        let last = unsafe { &mut *(*old).data.cast::<KeyvalZone>() };
        let Some(from) = last.zone else { continue };
        let new = Zone::create_like(&tried, region, &zone.params(control))
            .map_err(|error| format!("{}: {error}", zone.title()))?;
        let mut sources = sources_of(&pending, &zone.name);
        let (source, copied) = from.hand_over(&new, &mut sources, control.generation() + 1, ffi::now());
        pending
            .iter_mut()
            .filter(|old| old.name == zone.name)
            .zip(sources)
            .for_each(|(old, source)| old.source = source);
        std::mem::forget(bound);
        new.inherit_limited(&from);
        zone.zone = Some(new);
        tell(zone, last.size, copied.as_ref().ok());
        // Without a master, requests that began with the last configuration end with it.
        (last.zone, last.region) = (Some(new), Some(region));
        // SAFETY: nginx is about to unmap what this says. Both mappings are of the same memory and length.
        let first = unsafe { std::mem::replace(&mut (*old).shm.addr, second.base.cast()) };
        let mapping = Mapping { base: first.cast(), len: second.len };
        std::mem::forget(second);
        pending.push(Pending { name: zone.name.clone(), source, mapping });
    }
    Ok(())
}

/// Copies everything, to see whether it fits. Room is left for what old workers may still write: much of it, or if the
/// records don't fit beside that, none, and then old workers can only delete.
fn try_copy(from: &Zone, mut new: Zone, zone: &KeyvalZone) -> Result<(Zone, Copied), String> {
    // SAFETY: a zone that is being made belongs to a live configuration.
    let control = unsafe { (*zone.main).control() }.ok_or("the control zone is missing")?;
    let region = zone.region.ok_or("it has no memory")?;
    let others = PENDING.lock().map(|pending| sources_of(&pending, &zone.name)).unwrap_or_default();
    let text = |error: StoreError| error.to_string();
    from.bind(&new, &others, true).map_err(text)?;
    let mut copied = from.copy_to(&new, &others, ffi::now()).map_err(text)?;
    if copied.lost > 0 && !zone.evict {
        new = Zone::create_like(&new, region, &zone.params(control)).map_err(|error| error.to_string())?;
        from.bind(&new, &others, false).map_err(text)?;
        copied = from.copy_to(&new, &others, ffi::now()).map_err(text)?;
    }
    Ok((new, copied))
}

fn sources_of(pending: &[Pending], name: &str) -> Vec<Source> {
    pending.iter().filter(|old| old.name == name).map(|old| old.source).collect()
}

/// What the agent has to merge.
pub fn handovers(zones: &[Box<KeyvalZone>]) -> Vec<Handover> {
    let Ok(pending) = PENDING.lock() else { return Vec::new() };
    let of = |zone: &KeyvalZone| {
        Some(Handover { new: zone.zone?, sources: sources_of(&pending, &zone.name) })
            .filter(|handover| !handover.sources.is_empty())
    };
    zones.iter().filter_map(|zone| of(zone)).collect()
}

fn tell(zone: &KeyvalZone, was: usize, copied: Option<&Copied>) {
    let named = format!("{} has {} bytes now instead of {was}", zone.title(), zone.size);
    match copied {
        Some(Copied { records, lost: 0, evicted: 0 }) => {
            log::cycle(log::NOTICE, format_args!("{named}: all {records} records were moved"));
        }
        Some(Copied { records, lost, evicted }) => log::cycle(
            log::WARN,
            format_args!("{named}: of {records} records {} were given up", lost.saturating_add(*evicted)),
        ),
        None => log::cycle(
            log::ALERT,
            format_args!("{named}: a process holds its lock and does not go on; the rest is moved when it does"),
        ),
    }
}

/// The zone of this name that the last configuration has, of whichever module.
unsafe fn of_last_cycle(zone: &KeyvalZone) -> Option<*mut sys::ngx_shm_zone_t> {
    // SAFETY: until the new cycle is in force, `ngx_cycle` is the last one, whose zones are mapped; before the first it is
    // a zeroed one with an empty list.
    unsafe {
        let cycle = sys::ngx_cycle.as_ref()?;
        ffi::list::<sys::ngx_shm_zone_t>(&cycle.shared_memory)
            .filter(|other| !(**other).shm.addr.is_null())
            .find(|other| ffi::bytes((**other).shm.name) == zone.name.as_bytes())
    }
}
