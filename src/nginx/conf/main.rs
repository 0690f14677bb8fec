//! What one cycle's configuration amounts to: the control zone, the key-value zones, the part in the cluster.
//!
//! Made when nginx begins to read a configuration, filled by directives and by [`super::super::shm`], completed in
//! `init_module`; from then on, and in the workers that are forked after, it only is read.

use super::keyval::Waiting;
use super::status::StatusZone;
use super::sync::SyncServer;
use super::{Fault, Place};
use crate::agent::state_file::{self, StateFile};
use crate::agent::{Cluster, Config};
use crate::api::{NamedZone, StatusKind};
use crate::nginx::log::Limited;
use crate::nginx::shm::resize::{self, Resized};
use crate::nginx::shm::{Figures, state};
use crate::nginx::{ffi, limit, log, modules};
use crate::record::Millis;
use crate::store::control::Lease;
use crate::store::{Control, Matching, Params, Region, Zone};
use crate::sync::{Node, SyncZone};
use nginx_sys as sys;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// The part of nginx that a zone is declared in; the API keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `http`
    Http,
    /// `stream`
    Stream,
}

impl Block {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Block::Http => "http",
            Block::Stream => "stream",
        }
    }
}

/// A `keyval_zone`, or the zone of a `sticky learn`.
pub struct KeyvalZone {
    /// `zone=name`
    pub name: String,
    /// Where it was declared.
    pub block: Block,
    /// Size in bytes, of the shared memory as a whole.
    pub size: usize,
    /// `timeout=` or `ttl=`
    pub timeout: Option<Millis>,
    /// `sync`
    pub sync: bool,
    /// `type=`
    pub matching: Matching,
    /// `evict`
    pub evict: bool,
    /// `state=`: the whole path.
    pub state: Option<PathBuf>,
    /// For sessions: the upstream whose they are.
    pub upstream: Option<String>,
    /// For messages.
    pub place: Place,
    /// The configuration it belongs to.
    pub main: *const MainConf,
    /// The memory, once nginx has made it or found the old.
    pub region: Option<Region>,
    /// The zone in it.
    pub zone: Option<Zone>,
    /// The memory was there before this configuration: parameters are still those of the last one.
    pub inherited: bool,
    /// The memory of the last configuration had another size, and its records move to this one.
    pub resized: Option<Resized>,
    /// Lines about what variables couldn't do.
    pub complaints: Limited,
    /// It isn't for pairs: `limit_req_zone` made it.
    pub limit: Option<Rule>,
}

/// What is limited, and how.
pub struct Rule {
    /// Compiled, and as it was written.
    pub key: sys::ngx_http_complex_value_t,
    pub text: String,
    /// Thousandths of a request a second.
    pub rate: u64,
}

impl KeyvalZone {
    /// Whether it is for key-values: a `keyval_zone`.
    pub fn is_keyval(&self) -> bool {
        !matches!(self.matching, Matching::Session | Matching::Limit)
    }

    /// The directive and the name, for messages.
    pub fn title(&self) -> String {
        match &self.upstream {
            Some(upstream) => format!("zone \"{}\" of \"sticky\" in upstream \"{upstream}\"", self.name),
            None if self.limit.is_some() => format!("{} \"{}\"", limit::ZONE, self.name),
            None => format!("keyval_zone \"{}\"", self.name),
        }
    }

    /// What the store is to know, once there is a control zone.
    pub fn params(&self, control: &Control) -> Params {
        Params {
            timeout: self.timeout,
            sync: self.sync,
            matching: self.matching,
            evict: self.evict,
            rate: self.limit.as_ref().map_or(0, |rule| rule.rate),
            ..Params::new(control.identity())
        }
    }
}

/// See the module's text.
#[derive(Default)]
pub struct MainConf {
    control: Option<Control>,
    figures: Option<Figures>,
    // Boxed: variables and nginx's zones keep pointers to the elements.
    #[allow(clippy::vec_box)]
    zones: Vec<Box<KeyvalZone>>,
    waiting: Vec<Waiting>,
    // Boxed for the same reason. Sorted by kind and name, once the configuration is in force.
    #[allow(clippy::vec_box)]
    status_zones: Vec<Box<StatusZone>>,
    sync: Option<SyncServer>,
    http_zones: Vec<NamedZone>,
    stream_zones: Vec<NamedZone>,
    limit_zones: Vec<NamedZone>,
    named_zones: Vec<NamedZone>,
    sync_zones: Arc<[SyncZone]>,
    loaded: Millis,
}

impl MainConf {
    /// That of a cycle; `None`: the module isn't part of it.
    ///
    /// # Safety
    /// `cycle` is null or live, and nothing else refers to its configuration mutably while the result lives.
    pub unsafe fn of<'a>(cycle: *const sys::ngx_cycle_t) -> Option<&'a MainConf> {
        // SAFETY: the caller's promise.
        unsafe { MainConf::pointer(cycle).as_ref() }
    }

    /// The same, to be changed: while the configuration is read, and in `init_module`.
    ///
    /// # Safety
    /// `cycle` is null or live, and nothing else refers to its configuration while the result lives.
    pub unsafe fn of_mut<'a>(cycle: *const sys::ngx_cycle_t) -> Option<&'a mut MainConf> {
        // SAFETY: the caller's promise.
        unsafe { MainConf::pointer(cycle).as_mut() }
    }

    /// That of the cycle in force, for callbacks in a worker, and no longer than one callback.
    ///
    /// # Safety
    /// This is the thread of the event loop, and the result is gone when the callback returns: the configuration is
    /// not changed any more when workers run, and no cycle ends during a callback.
    pub unsafe fn current<'a>() -> Option<&'a MainConf> {
        // SAFETY: nginx keeps `ngx_cycle` live; the rest is the caller's promise.
        unsafe { MainConf::of(sys::ngx_cycle) }
    }

    unsafe fn pointer(cycle: *const sys::ngx_cycle_t) -> *mut MainConf {
        // SAFETY: `cycle` is null or live. The slot at the module's index holds what the module's `create_conf`
        // returned, if the module is one of the cycle's: its index is its place among them.
        unsafe {
            let Some(cycle) = cycle.as_ref() else { return std::ptr::null_mut() };
            let module = modules::CORE.get();
            let index = (*module).index;
            if cycle.conf_ctx.is_null() || index == sys::ngx_uint_t::MAX {
                return std::ptr::null_mut();
            }
            (*cycle.conf_ctx.add(index)).cast()
        }
    }

    // ---- while the configuration is read ----

    /// Adds a zone. Fails on a name that is taken.
    pub fn add_zone(&mut self, zone: KeyvalZone) -> Result<*mut KeyvalZone, Fault> {
        if let Some(other) = self.zones.iter().find(|other| other.name == zone.name) {
            let remedy = match other.block == zone.block || !other.is_keyval() || !zone.is_keyval() {
                true => "give one of them another name",
                false => {
                    "\"http\" and \"stream\" can use one zone: keep one \"keyval_zone\", and name it in \"keyval\" of both"
                }
            };
            let text = format!(
                "duplicate {}: it is declared already in \"{}\", in {}; {remedy}",
                zone.title(),
                other.block.name(),
                other.place
            );
            return Err(Fault::at(&zone.place, text));
        }
        if let Some(path) = &zone.state
            && let Some(other) = self.zones.iter().find(|other| other.state.as_ref() == Some(path))
        {
            return Err(Fault::at(
                &zone.place,
                format!(
                    "\"keyval_zone\" \"{}\": its state file \"{}\" is that of \"{}\" in {} already; give each zone its own",
                    zone.name,
                    path.display(),
                    other.name,
                    other.place
                ),
            ));
        }
        let mut zone = Box::new(zone);
        let pointer = &raw mut *zone;
        self.zones.push(zone);
        Ok(pointer)
    }

    /// Adds a variable that is to get its zone from [`MainConf::resolve`].
    pub fn add_waiting(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// All blocks are read: gives each variable its zone.
    pub fn resolve(&mut self) -> Result<(), Fault> {
        let zones = &self.zones;
        self.waiting.drain(..).try_for_each(|waiting| waiting.resolve(zones))
    }

    /// What `status_zone` counts under a name, and whether that name is new.
    pub fn status_zone(&mut self, kind: StatusKind, name: &str) -> (*mut StatusZone, bool) {
        let found = self.status_zones.iter_mut().find(|zone| zone.kind == kind && zone.name == name);
        if let Some(zone) = found {
            return (&raw mut **zone, false);
        }
        let mut zone = Box::new(StatusZone { kind, name: name.to_owned(), tally: None });
        let pointer = &raw mut *zone;
        self.status_zones.push(zone);
        (pointer, true)
    }

    /// Makes this cycle a node of a cluster. Fails if another server did so before.
    pub fn set_sync(&mut self, server: SyncServer) -> Result<(), Fault> {
        if let Some(other) = &self.sync {
            return Err(Fault::at(
                &server.place,
                format!(
                    "a second server with \"zone_sync\": there is one already in {}; one server can have several \"listen\"",
                    other.place
                ),
            ));
        }
        self.sync = Some(server);
        Ok(())
    }

    /// All directives were read, nginx's own among them: looks whether workers can do what they ask for.
    ///
    /// # Safety
    /// In `init_conf`, for the cycle that this belongs to.
    pub unsafe fn check(&self, cycle: *const sys::ngx_cycle_t) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { state::check(cycle, &self.zones) }
    }

    /// The control zone is there.
    pub fn set_control(&mut self, control: Control, figures: Figures) {
        self.control = Some(control);
        self.figures = Some(figures);
    }

    /// The configuration is in force: gives inherited zones their new parameters and lists what is there.
    ///
    /// # Safety
    /// In `init_module`.
    pub unsafe fn complete(&mut self) -> Result<(), String> {
        let control = self.control.ok_or("the control zone is missing")?;
        // The agent of the last configuration may just now give the node another identity: see `agent/renew.rs`.
        let mut incarnation = None;
        while incarnation != Some(control.incarnation()) {
            incarnation = Some(control.incarnation());
            for zone in &mut self.zones {
                let region = zone.region.ok_or_else(|| format!("{} has no memory", zone.title()))?;
                if zone.inherited {
                    let params = zone.params(&control);
                    let attached =
                        Zone::attach(region, &params).map_err(|error| format!("{}: {error}", zone.title()))?;
                    if !attached.is_of(params.node) {
                        let why = "a process holds its lock and does not go on, or its table of nodes is full";
                        log::cycle(
                            log::WARN,
                            format_args!(
                                "{}: it is still written under this node's last identity: {why}",
                                zone.title()
                            ),
                        );
                    }
                    zone.zone = Some(attached);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            resize::note_stamps(&control);
            resize::commit(&mut self.zones, &control)
        }?;
        self.status_zones.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        for zone in &self.zones {
            if let Some(store) = &zone.zone {
                store.keep_state(zone.state.as_deref().map(state_file::number));
            }
        }
        self.http_zones = self.named(|zone| zone.block == Block::Http && zone.is_keyval());
        self.stream_zones = self.named(|zone| zone.block == Block::Stream && zone.is_keyval());
        self.limit_zones = self.named(|zone| zone.limit.is_some());
        self.named_zones = self.named(|_| true);
        let mut synchronized: Vec<SyncZone> = self
            .zones
            .iter()
            .filter(|zone| zone.sync)
            .filter_map(|zone| Some(SyncZone { name: zone.name.clone(), zone: zone.zone? }))
            .collect();
        synchronized.sort_by(|a, b| a.name.cmp(&b.name));
        self.sync_zones = synchronized.into();
        self.loaded = ffi::now();
        control.set_duties(self.duties());
        control.next_generation();
        Ok(())
    }

    fn named(&self, wanted: impl Fn(&KeyvalZone) -> bool) -> Vec<NamedZone> {
        let mut named: Vec<NamedZone> = self
            .zones
            .iter()
            .filter(|zone| wanted(zone))
            .filter_map(|zone| {
                Some(NamedZone { name: zone.name.clone(), zone: zone.zone?, timeout: zone.timeout.is_some() })
            })
            .collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named
    }

    // ---- in force ----

    /// What belongs to the node. There once shared memory is.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Counters that nginx itself doesn't keep.
    pub fn figures(&self) -> Option<&Figures> {
        self.figures.as_ref()
    }

    /// Those of one block, sorted by name.
    pub fn named_zones(&self, block: Block) -> &[NamedZone] {
        match block {
            Block::Http => &self.http_zones,
            Block::Stream => &self.stream_zones,
        }
    }

    /// Zones that limits are counted in.
    pub fn limit_zones(&self) -> impl Iterator<Item = &KeyvalZone> {
        self.zones.iter().map(|zone| &**zone).filter(|zone| zone.limit.is_some())
    }

    /// The same once the configuration is in force, sorted by name.
    pub fn named_limit_zones(&self) -> &[NamedZone] {
        &self.limit_zones
    }

    /// All zones, whatever they are for, once the configuration is in force; sorted by name.
    pub fn named_all_zones(&self) -> &[NamedZone] {
        &self.named_zones
    }

    /// All that `status_zone` counts.
    pub fn all_status_zones(&self) -> impl Iterator<Item = &StatusZone> {
        self.status_zones.iter().map(|zone| &**zone)
    }

    /// What it counts of one kind; once the configuration is in force, sorted by name.
    pub fn status_zones(&self, kind: StatusKind) -> impl Iterator<Item = &StatusZone> {
        self.all_status_zones().filter(move |zone| zone.kind == kind)
    }

    /// What it counts under a name, once the configuration is in force.
    pub fn find_status_zone(&self, kind: StatusKind, name: &str) -> Option<&StatusZone> {
        let at = self.status_zones.binary_search_by(|zone| (zone.kind, &*zone.name).cmp(&(kind, name))).ok()?;
        self.status_zones.get(at).map(|zone| &**zone)
    }

    /// When this configuration came in force.
    pub fn loaded(&self) -> Millis {
        self.loaded
    }

    /// The server with `zone_sync`, if any.
    pub fn sync(&self) -> Option<&SyncServer> {
        self.sync.as_ref()
    }

    /// Every synchronized zone, sorted by name.
    pub fn sync_zones(&self) -> &Arc<[SyncZone]> {
        &self.sync_zones
    }

    /// What sessions share; `None`: this node is in no cluster.
    pub fn node(&self) -> Option<Node> {
        let sync = self.sync.as_ref()?;
        Some(Node { control: self.control?, zones: self.sync_zones.clone(), limits: sync.limits })
    }

    /// Every key-value zone.
    pub fn all_zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter().filter_map(|zone| zone.zone.as_ref())
    }

    /// A number for what an agent of this configuration has to see to: another configuration with the same one has the same
    /// zones, state files and peers, as far as changes are to be sent or written.
    pub fn duties(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let kept = self.zones.iter().filter(|zone| zone.sync || zone.state.is_some());
        let mut kept: Vec<_> = kept.map(|zone| (&zone.name, zone.sync, &zone.state)).collect();
        kept.sort();
        kept.hash(&mut hasher);
        if let Some(sync) = &self.sync {
            sync.peers.iter().map(|peer| &peer.text).for_each(|peer| peer.hash(&mut hasher));
            sync.names.iter().for_each(|name| name.text.hash(&mut hasher));
        }
        hasher.finish()
    }

    /// What the agent is started with.
    pub fn agent_config(&self, lease: Lease) -> Option<Config> {
        let cluster = self.sync.as_ref().zip(self.node()).map(|(sync, node)| Cluster {
            node,
            peers: sync.peers.clone(),
            connect_timeout: sync.connect_timeout,
            retry_interval: sync.retry_interval,
            interval: sync.interval,
            tls: sync.tls.clone(),
        });
        let zones = self.zones.iter().filter_map(|zone| zone.zone).collect();
        let handovers = resize::handovers(&self.zones);
        let states = self
            .zones
            .iter()
            .filter_map(|zone| Some(StateFile::new(zone.name.clone(), zone.zone?, zone.state.clone()?)));
        Some(Config {
            control: self.control?,
            lease,
            zones,
            handovers,
            states: states.collect(),
            pid_files: None,
            cluster,
        })
    }
}
