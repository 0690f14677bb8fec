//! A node: real zones and a real control region in memory, and a clock that is wrong.

use crate::check::Seen;
use crate::limits::RATE;
use crate::rng::Rng;
use std::cell::RefCell;
use std::sync::Arc;
use zonemesh::record::{Identity, Kind, Millis, Record, Version};
use zonemesh::store::control::CONTROL_SIZE;
use zonemesh::store::{Control, FeedEnd, Mapping, Matching, Params, Region, ScanPlace, Zone};
use zonemesh::sync::{Limits, Node, SyncZone};

/// A zone of every node.
pub struct ZoneKind {
    pub name: &'static str,
    size: usize,
    timeout: Option<Millis>,
    pub evict: bool,
    /// Nodes add to what it holds, in most worlds; see [`Numbers`].
    pub counts: bool,
    /// Its table of origins is too small for more nodes than this and their incarnations.
    pub most_nodes: usize,
}

/// By name. One gives its records a life; two are too small for what is written to them, of which one gives up old records and
/// the other refuses new ones, and shows what it left out. Those that are not have a table of origins for the largest clusters.
pub const ZONES: [ZoneKind; 5] = [
    ZoneKind { name: "cache", size: 32 * 1024, timeout: None, evict: true, counts: false, most_nodes: usize::MAX },
    ZoneKind { name: "lasting", size: 256 * 1024, timeout: None, evict: false, counts: false, most_nodes: usize::MAX },
    ZoneKind { name: "numbers", size: 256 * 1024, timeout: None, evict: false, counts: true, most_nodes: usize::MAX },
    ZoneKind {
        name: "passing",
        size: 256 * 1024,
        timeout: Some(20_000),
        evict: false,
        counts: false,
        most_nodes: usize::MAX,
    },
    ZoneKind { name: "scarce", size: 32 * 1024, timeout: None, evict: false, counts: false, most_nodes: 9 },
];
/// The last of them.
pub const SCARCE: usize = ZONES.len() - 1;
/// The one that gives up records for others.
pub const GIVES_UP: usize = 0;

/// The one of numbers.
pub const NUMBERS: usize = 2;

/// What the zone of numbers is in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As the others.
    Registers,
    Counters,
    /// Of requests.
    Limits,
}

impl Numbers {
    pub fn of_seed(seed: u64) -> Numbers {
        match seed % 3 {
            1 => Numbers::Registers,
            _ if seed / 3 % 4 == 1 => Numbers::Limits,
            _ => Numbers::Counters,
        }
    }

    /// Whether its keys have parts.
    pub fn have_parts(self) -> bool {
        self != Numbers::Registers
    }

    fn matching(self) -> Matching {
        match self {
            Numbers::Registers => Matching::Exact,
            Numbers::Counters => Matching::Counter,
            Numbers::Limits => Matching::Limit,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Numbers::Registers => Kind::Register,
            Numbers::Counters => Kind::Counter,
            Numbers::Limits => Kind::Limit,
        }
    }
}

impl ZoneKind {
    fn make(&self, params: &Params, seed: [u8; 16], numbers: Numbers) -> (SyncZone, Memory) {
        let memory = Memory::new(self.size);
        let matching = if self.counts { numbers.matching() } else { Matching::Exact };
        let (timeout, evict) = (self.timeout, self.evict);
        let params = Params { timeout, sync: true, evict, matching, rate: RATE, ..*params };
        let zone = Zone::create_with(memory.region(), &params, seed).expect("a zone");
        (SyncZone { name: self.name.into(), zone }, memory)
    }
}

thread_local! {
    /// Memory of nodes that are gone.
    static SPARE: RefCell<Vec<Mapping>> = const { RefCell::new(Vec::new()) };
    /// Memory that no node has had.
    static ROOM: RefCell<Option<Mapping>> = const { RefCell::new(None) };
}

/// So much is asked of the system at once, which may give it in large pages: zones of many nodes, each with a few bytes in many
/// places, are beyond what a processor remembers of small ones.
const AT_ONCE: usize = 16 << 20;

/// Memory of a zone. It goes from one node to the next, as having the system make it and take it back costs more than most of
/// what happens in it: a zone is made in whatever was there.
struct Memory(Option<Mapping>);

impl Memory {
    fn new(size: usize) -> Memory {
        let spare = SPARE.with_borrow_mut(|spare| {
            let at = spare.iter().rposition(|memory| memory.region().len() == size)?;
            Some(spare.swap_remove(at))
        });
        Memory(Some(spare.unwrap_or_else(|| Memory::make(size))))
    }

    fn make(size: usize) -> Mapping {
        ROOM.with_borrow_mut(|room| {
            let from = || Region::private(AT_ONCE).expect("memory for simulated nodes");
            let made = room.get_or_insert_with(from).split_off(size);
            made.unwrap_or_else(|| room.insert(from()).split_off(size).expect("it is larger than any zone"))
        })
    }

    fn region(&self) -> Region {
        self.0.as_ref().expect("it is there until it is dropped").region()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A thread that ends has no use for it.
        _ = SPARE.try_with(|spare| spare.borrow_mut().extend(self.0.take()));
    }
}

/// A record in a state file.
pub type Saved = (Version, Vec<u8>, Option<Vec<u8>>, Option<Millis>, bool);

/// The true time at which a simulation begins.
pub const EPOCH: Millis = 1_700_000_000_000;

pub struct SimNode {
    pub node: Node,
    /// Milliseconds that its clock is ahead.
    pub skew: i64,
    /// The lease's number: counts up with each agent.
    pub owner: u64,
    /// While this is in the future (true time), the whole node is down.
    pub down_until: Millis,
    /// While this is, it has no agent: nobody dials.
    pub no_agent_until: Millis,
    /// What its state files hold, by zone; some time old.
    pub saved: Vec<Vec<Saved>>,
    tokens: u64,
    /// What checks have seen, by zone.
    pub seen: [RefCell<Seen>; ZONES.len()],
    retention: Millis,
    pub numbers: Numbers,
    seed: [u8; 16],
    // Given back after the handles above are gone: of the zones, and of the control region.
    memory: Vec<Memory>,
}

impl SimNode {
    /// One of a cluster of so many.
    pub fn new(rng: &mut Rng, skew: i64, limits: Limits, retention: Millis, nodes: usize, numbers: Numbers) -> SimNode {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.next().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.next().to_le_bytes());
        let identity = Identity(bytes);
        let kinds = ZONES.iter().filter(|kind| nodes <= kind.most_nodes);
        let (zones, mut memory): (Vec<_>, Vec<_>) =
            kinds.map(|kind| kind.make(&Params { retention, ..Params::new(identity) }, bytes, numbers)).unzip();
        let control_memory = Memory::new(CONTROL_SIZE);
        let control = Control::create_with(control_memory.region(), identity).expect("a control region");
        memory.push(control_memory);
        SimNode {
            node: Node { control, zones: Arc::from(zones), limits },
            skew,
            owner: 1,
            down_until: 0,
            no_agent_until: 0,
            saved: vec![Vec::new(); ZONES.len()],
            tokens: 0,
            seen: Default::default(),
            retention,
            numbers,
            seed: bytes,
            memory,
        }
    }

    /// What its clock says.
    pub fn clock(&self, now: Millis) -> Millis {
        now.saturating_add_signed(self.skew)
    }

    pub fn up(&self, now: Millis) -> bool {
        now >= self.down_until
    }

    pub fn has_agent(&self, now: Millis) -> bool {
        self.up(now) && now >= self.no_agent_until
    }

    pub fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// A zone's memory is made anew, as after a reload without the zone and another with it. No session lives.
    pub fn make_anew(&mut self, zone: usize, now: Millis) {
        let control = &self.node.control;
        control.leave_behind(self.zone(zone).last_stamp());
        control.next_generation();
        let params = Params { retention: self.retention, born: control.born(now), ..Params::new(control.identity()) };
        let (made, memory) = ZONES[zone].make(&params, self.seed, self.numbers);
        let mut zones = self.node.zones.to_vec();
        zones[zone] = made;
        self.node.zones = Arc::from(zones);
        self.memory[zone] = memory;
        self.seen[zone].take();
    }

    /// Whether a zone limits requests.
    pub fn limits(&self, zone: usize) -> bool {
        ZONES[zone].counts && self.numbers == Numbers::Limits
    }

    pub fn zone(&self, zone: usize) -> Zone {
        self.node.zones[zone].zone
    }

    /// The version of a key's record, if there is one.
    pub fn version(&self, zone: usize, key: &[u8], now: Millis) -> Option<Version> {
        let found = self.zone(zone).get(key, now, &mut Vec::new()).ok().flatten();
        found.map(|found| self.zone(zone).version(&found))
    }

    /// About how many bytes all records of a zone are on the wire.
    pub fn size_of_state(&self, zone: usize) -> u64 {
        let (mut cursor, mut size) = (self.zone(zone).feed_open(self.owner).expect("a walker"), 0);
        for shard in 0..self.zone(zone).all_shards().count_ones() {
            let mut add = |record: &Record<'_>| {
                size += 12 + record.key.len() + record.value.map_or(0, |value| 2 + value.len());
                size += if record.expires.is_some() { 6 } else { 0 };
                true
            };
            while self.zone(zone).feed(&mut cursor, shard, &mut add) == Ok(FeedEnd::More) {}
        }
        self.zone(zone).feed_close(cursor);
        size as u64
    }

    /// Writes its state files.
    pub fn save(&mut self) {
        for (zone, saved) in self.node.zones.iter().zip(&mut self.saved) {
            saved.clear();
            let (mut keys, mut place) = (Vec::new(), Some(ScanPlace::default()));
            while let Some(at) = place {
                place = zone.zone.survey(at, &mut |record| keys.push(record.key.to_vec())).expect("the lock");
            }
            for key in keys {
                let keep = &mut |record: &Record<'_>| {
                    let value = record.value.map(<[u8]>::to_vec);
                    saved.push((record.version, key.clone(), value, record.expires, record.shortened));
                };
                zone.zone.show(&key, keep).expect("the lock");
            }
        }
    }

    /// Begins with what the state files of another life hold.
    pub fn load(&mut self, saved: Vec<Vec<Saved>>, now: Millis) {
        self.saved = saved;
        (0..self.node.zones.len()).for_each(|zone| self.load_zone(zone, now));
    }

    /// The same of one zone.
    pub fn load_zone(&self, zone: usize, now: Millis) {
        let kind = if ZONES[zone].counts { self.numbers.kind() } else { Kind::Register };
        for (version, key, value, expires, shortened) in &self.saved[zone] {
            let (value, shortened, version) = (value.as_deref(), *shortened, *version);
            let record = Record { kind, version, key, value, expires: *expires, shortened };
            self.zone(zone).apply(&record, now, Millis::MAX).expect("a saved record");
        }
    }

    /// Another agent takes the lease: walkers of the old one are swept.
    pub fn next_agent(&mut self) {
        self.owner += 1;
        for zone in self.node.zones.iter() {
            zone.zone.feed_sweep(self.owner);
        }
    }
}
