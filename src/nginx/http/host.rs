//! What the API shows of nginx and of the node.

use super::request::Request;
use super::watch;
use crate::api::watch::Order;
use crate::api::{Connections, Host, NamedZone, Nginx, Produce, Requests, Reset, Slab, StatusKind, Worker, ZoneSync};
use crate::nginx::conf::main::{Block, MainConf};
use crate::nginx::shm::{self, Base};
use crate::nginx::{ffi, stream};
use crate::record::Millis;
use crate::store::control::Counter;
use crate::store::{Figures, Slot, Tally};
use nginx_sys as sys;
use std::ffi::CStr;

/// See [`Host`].
pub struct NginxHost<'a> {
    main: &'a MainConf,
    request: Request,
}

impl<'a> NginxHost<'a> {
    /// For one request, while the configuration is in force.
    pub fn new(main: &'a MainConf, request: Request) -> NginxHost<'a> {
        NginxHost { main, request }
    }

    /// The growth of one of nginx's counters since it was reset.
    fn since(&self, base: Base, total: u64) -> u64 {
        self.main.figures().map_or(total, |figures| figures.since(base, total))
    }
}

impl Host for NginxHost<'_> {
    fn http_zones(&self) -> &[NamedZone] {
        self.main.named_zones(Block::Http)
    }

    fn stream_zones(&self) -> &[NamedZone] {
        self.main.named_zones(Block::Stream)
    }

    fn limit_zones(&self) -> &[NamedZone] {
        self.main.named_limit_zones()
    }

    fn all_zones(&self) -> Vec<&NamedZone> {
        self.main.named_all_zones().iter().collect()
    }

    fn has_stream(&self) -> bool {
        // SAFETY: the cycle in force is live.
        unsafe { stream::configured(sys::ngx_cycle) }
    }

    fn nginx(&self) -> Nginx {
        Nginx {
            version: sys::NGINX_VERSION.to_string_lossy().into_owned(),
            build: build(),
            address: self.request.local_address(),
            generation: self.main.control().map_or(0, |control| control.generation()),
            load_timestamp: self.main.loaded(),
            pid: std::process::id(),
            ppid: std::os::unix::process::parent_id(),
        }
    }

    fn respawned(&self) -> Option<u64> {
        self.main.figures().map(|figures| figures.respawned())
    }

    fn connections(&self) -> Connections {
        let (accepted, handled) = (stat(c"ngx_stat_accepted"), stat(c"ngx_stat_handled"));
        let (active, idle) = (stat(c"ngx_stat_active"), stat(c"ngx_stat_waiting"));
        let accepted = self.since(Base::Accepted, accepted);
        Connections {
            accepted,
            dropped: accepted.saturating_sub(self.since(Base::Handled, handled)),
            active: active.saturating_sub(idle),
            idle,
        }
    }

    fn workers(&self) -> Vec<Worker> {
        let Some(figures) = self.main.figures() else { return Vec::new() };
        let list = figures.workers(worker_processes());
        list.map(|(id, pid, idle, requests)| Worker { id: id as u64, pid, idle, requests }).collect()
    }

    fn requests(&self) -> Requests {
        Requests {
            total: self.since(Base::Requests, stat(c"ngx_stat_requests")),
            current: stat(c"ngx_stat_reading") + stat(c"ngx_stat_writing"),
        }
    }

    fn slabs(&self) -> Vec<(String, Slab)> {
        shared_zones()
            .filter_map(|zone| {
                // SAFETY: a zone of the cycle in force, which stays while the request is handled.
                let (name, zone) = unsafe { ((*zone).shm.name, &*zone) };
                // SAFETY: names live as long as their cycle.
                let name = String::from_utf8_lossy(unsafe { ffi::bytes(name) }).into_owned();
                Some((name, slab(zone)?))
            })
            .collect()
    }

    fn zone_sync(&self) -> Option<ZoneSync> {
        self.main.sync()?;
        let control = self.main.control()?;
        Some(ZoneSync {
            zones: self.main.sync_zones().iter().map(|zone| (zone.name.clone(), zone.zone.stats())).collect(),
            bytes_in: control.counter(Counter::BytesIn),
            msgs_in: control.counter(Counter::MsgsIn),
            msgs_out: control.counter(Counter::MsgsOut),
            bytes_out: control.counter(Counter::BytesOut),
            nodes_online: control.nodes_online(),
            sessions_waited: control.counter(Counter::SessionsWaited),
            heard: control.heard_nodes(),
            peers: control.links(),
            drifts: control.drifts(),
        })
    }

    fn watch(&self, zone: &NamedZone, order: Order, now: Millis) -> Option<Box<dyn Produce>> {
        watch::join(self.main.control()?, zone, order, now)
    }

    fn status_zones(&self, kind: StatusKind) -> Vec<String> {
        self.main.status_zones(kind).map(|zone| zone.name.clone()).collect()
    }

    fn status_zone(&self, kind: StatusKind, name: &str) -> Option<Figures> {
        let tally = self.main.find_status_zone(kind, name)?.tally?;
        Some(tally.read(|worker| self.main.control().is_some_and(|control| control.worker_lives(worker))))
    }

    fn reset(&self, what: Reset<'_>) -> bool {
        let Some(figures) = self.main.figures() else { return false };
        match what {
            Reset::Processes => figures.reset_respawned(),
            Reset::Connections => {
                figures.reset(Base::Accepted, stat(c"ngx_stat_accepted"));
                figures.reset(Base::Handled, stat(c"ngx_stat_handled"));
            }
            Reset::Requests => figures.reset(Base::Requests, stat(c"ngx_stat_requests")),
            Reset::Slab(name) => return reset_slab(name),
            Reset::Workers => (0..worker_processes()).for_each(|id| figures.reset_worker(id)),
            Reset::Worker(id) => match usize::try_from(id) {
                Ok(id) if figures.workers(worker_processes()).any(|(found, ..)| found == id) => {
                    figures.reset_worker(id)
                }
                _ => return false,
            },
            Reset::Status(kind, name) => {
                let tally = self.main.find_status_zone(kind, name).and_then(|zone| zone.tally);
                tally.iter().for_each(Tally::reset);
                return tally.is_some();
            }
        }
        true
    }
}

/// The name of the build that nginx was configured with, if any.
fn build() -> String {
    let (version, whole) = (sys::NGINX_VER.to_string_lossy(), sys::NGINX_VER_BUILD.to_string_lossy());
    let name = whole.strip_prefix(&*version).unwrap_or_default().trim();
    name.trim_start_matches('(').trim_end_matches(')').to_owned()
}

/// One of nginx's counters over all workers; 0 if nginx was built without them (`--with-http_stub_status_module`).
fn stat(name: &CStr) -> u64 {
    // SAFETY: the name is NUL-terminated; a symbol of this name is a pointer to an atomic word in memory that the
    // workers share, set before they are forked.
    unsafe {
        let pointer = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()).cast::<*const std::sync::atomic::AtomicU64>();
        let Some(word) = pointer.as_ref().and_then(|word| word.as_ref()) else { return 0 };
        word.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// How many workers the configuration in force has.
fn worker_processes() -> usize {
    // SAFETY: the cycle in force has the core module's structure in its slot.
    unsafe {
        let core = *(*sys::ngx_cycle).conf_ctx.add(sys::ngx_core_module.index);
        let count = (*core.cast::<sys::ngx_core_conf_t>()).worker_processes;
        usize::try_from(count).unwrap_or(0).max(1)
    }
}

/// Every shared zone of the cycle in force, but those of `status_zone`: their memory is fixed.
fn shared_zones() -> impl Iterator<Item = *mut sys::ngx_shm_zone_t> {
    // SAFETY: the cycle in force is live while a request is handled, and its list is complete.
    let all = unsafe { ffi::list::<sys::ngx_shm_zone_t>(&(*sys::ngx_cycle).shared_memory) };
    // SAFETY: as above.
    all.filter(|zone| !shm::tallies::is_one(unsafe { &**zone }))
}

/// Figures of one: those of our store for a key-value zone, of nginx's slab pool for the others.
fn slab(zone: &sys::ngx_shm_zone_t) -> Option<Slab> {
    // SAFETY: a zone of the cycle in force.
    if let Some(keyval) = unsafe { shm::keyval_of(zone) } {
        let store = keyval.zone?;
        let stats = store.stats();
        return Some(Slab { pages_used: stats.pages_used, pages_free: stats.pages_free, slots: store.slots() });
    }
    // SAFETY: nginx puts a slab pool at the beginning of each zone. Its figures are words that other processes may be
    // changing: read one by one, as they are at that moment.
    unsafe {
        let pool = zone.shm.addr.cast::<sys::ngx_slab_pool_t>();
        let pages = (*pool).last.offset_from((*pool).pages).try_into().unwrap_or(0u64);
        let free = ((&raw const (*pool).pfree).read_volatile() as u64).min(pages);
        let slots = (0..size_classes(pool)).map(|n| {
            let figures = (*pool).stats.add(n).read_volatile();
            let (total, used) = (figures.total as u64, figures.used as u64);
            Slot {
                size: 1 << ((*pool).min_shift + n),
                used,
                free: total.saturating_sub(used),
                reqs: figures.reqs as u64,
                fails: figures.fails as u64,
            }
        });
        Some(Slab { pages_used: pages - free, pages_free: free, slots: slots.collect() })
    }
}

/// How many sizes of blocks, from the smallest to half a page, a pool has.
unsafe fn size_classes(pool: *const sys::ngx_slab_pool_t) -> usize {
    // SAFETY: the caller hands over a live pool.
    unsafe { sys::ngx_pagesize_shift.saturating_sub((*pool).min_shift) }
}

/// Lets the figures of a zone's requests begin anew. `false`: no such zone.
fn reset_slab(name: &str) -> bool {
    // SAFETY: zones and names of the cycle in force.
    let Some(zone) = shared_zones().find(|zone| unsafe { ffi::bytes((**zone).shm.name) } == name.as_bytes()) else {
        return false;
    };
    // SAFETY: a zone of the cycle in force.
    if let Some(keyval) = unsafe { shm::keyval_of(&*zone) } {
        if let Some(zone) = &keyval.zone {
            zone.reset_slots();
        }
        return true;
    }
    // SAFETY: as in `slab`; the pool's own lock is held while its figures change.
    unsafe {
        let pool = (*zone).shm.addr.cast::<sys::ngx_slab_pool_t>();
        sys::ngx_shmtx_lock(&mut (*pool).mutex);
        for n in 0..size_classes(pool) {
            let figures = (*pool).stats.add(n);
            (*figures).reqs = 0;
            (*figures).fails = 0;
        }
        sys::ngx_shmtx_unlock(&mut (*pool).mutex);
    }
    true
}
