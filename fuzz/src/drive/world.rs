//! The node that the input meets: the same at each run, with zones of each type and little memory.

use super::script::Item;
use std::sync::Arc;
use zonemesh::record::{Identity, Millis};
use zonemesh::store::control::CONTROL_SIZE;
use zonemesh::store::{Condition, Control, Life, Mapping, Matching, Params, Region, ScanEach, ScanPlace, Zone};
use zonemesh::sync::{Limits, Node, SyncZone};

/// When a run begins.
pub const BEGIN: Millis = 1_700_000_000_000;
/// How long the longest wait of a script is.
const LONGEST_WAIT: u64 = 120_000;

/// The settings that people have, with small frames, so that input reaches what happens to large records.
pub const LIMITS: Limits =
    Limits { timeout: 5_000, frame_size: 2_048, window: 8_192, recv_buffer: 8_192, max_drift: 60_000 };

/// A node and its memory.
pub struct World {
    pub node: Node,
    pub now: Millis,
    /// Bytes received at once.
    pub cut: usize,
    _memory: Vec<Mapping>,
}

impl World {
    /// Node number `number`, whose zones are new and hold what `fill` writes.
    pub fn new(number: u8, joined: bool) -> World {
        let identity = Identity([number; 16]);
        let mut memory = Vec::new();
        let mut region = |size| {
            let mapping = Region::anonymous(size).expect("memory");
            let region = mapping.region();
            memory.push(mapping);
            region
        };
        let mut zone = |name: &str, size, params: Params| {
            let params = Params { sync: true, ..params };
            let zone = Zone::create_with(region(size), &params, [number; 16]).expect("a zone");
            if joined {
                zone.set_joined();
            }
            SyncZone { name: name.into(), zone }
        };
        let plain = Params::new(identity);
        let zones = Arc::from([
            zone("evict", 32 * 1024, Params { evict: true, timeout: Some(3_600_000), ..plain }),
            zone("ip", 32 * 1024, Params { matching: Matching::Ip, ..plain }),
            zone("z", 96 * 1024, plain),
        ]);
        let control = Control::create_with(region(CONTROL_SIZE), identity).expect("a control zone");
        World { node: Node { control, zones, limits: LIMITS }, now: BEGIN, cut: usize::MAX, _memory: memory }
    }

    /// What an item does to the node itself.
    pub fn happens(&mut self, item: &Item<'_>) {
        match item.kind {
            super::script::CUT => self.cut = (item.number() as usize).clamp(1, 65_536),
            super::script::WAIT => self.now += item.number() % LONGEST_WAIT,
            super::script::WRITE => self.write(item.body),
            _ => {}
        }
    }

    /// A write of the node's own.
    pub fn write(&self, body: &[u8]) {
        let Some((how, key)) = body.split_first() else { return };
        let zone = &self.node.zones[usize::from(how >> 4) % self.node.zones.len()].zone;
        let value = vec![b'v'; 1 << (how & 7)];
        let _ = match how & 15 {
            0..8 => zone.set(key, &value, Life::Default, Condition::Always, self.now).map(|_| ()),
            8 => zone.delete(key, self.now).map(|_| ()),
            9 => zone.clear(self.now).map(|_| ()),
            _ => zone.set(key, &value, Life::For(5_000), Condition::Always, self.now).map(|_| ()),
        };
    }

    /// What must hold whatever a peer said.
    pub fn check(&self) {
        let latest = self.now + LIMITS.max_drift;
        for SyncZone { name, zone } in self.node.zones.iter() {
            let (mut live, mut buried) = (0, 0);
            let mut place = Some(ScanPlace::default());
            while let Some(at) = place {
                place = zone
                    .survey(at, &mut |record| {
                        *(if record.tombstone { &mut buried } else { &mut live }) += 1;
                        assert!(record.version.stamp.millis() <= latest, "{name}: a record from the future");
                    })
                    .expect("nobody holds a lock");
            }
            let stats = zone.stats();
            assert_eq!((stats.records, stats.tombstones), (live, buried), "{name}: what is counted is what is there");
            assert!(zone.cleared().millis() <= latest, "{name}: an emptying from the future");
            for (identity, stamp) in zone.positions() {
                assert!(stamp.millis() <= latest, "{name}: a position from the future, of {identity}");
            }
            // A write made now is what is read, unless there is no room: no peer's stamp is beyond this node's.
            let key: &[u8] = if name == "ip" { b"10.1.2.3" } else { b"written at the end" };
            if zone.set(key, b"now", Life::Default, Condition::Always, self.now).is_ok() {
                let mut value = Vec::new();
                assert!(matches!(zone.get(key, self.now, &mut value), Ok(Some(_))) && value == b"now", "{name}");
            }
        }
    }

    /// All live records.
    pub fn contents(&self) -> Vec<(usize, Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        for (index, zone) in self.node.zones.iter().enumerate() {
            let mut place = Some(ScanPlace::default());
            while let Some(at) = place {
                let each: ScanEach<'_> = &mut |key, value, _| {
                    records.push((index, key.to_vec(), value.to_vec()));
                };
                place = zone.zone.scan(at, self.now, each).expect("nobody holds a lock");
            }
        }
        records.sort();
        records
    }
}
