//! Tests of the protocol below the simulator (`tests/sync_sim`): the wire, one pair of sessions, hostile peers.

mod busy;
mod clock;
mod compare;
mod hostile;
mod moving;
mod pair;
mod recorded;
mod renew;
mod wire;

use super::{Limits, Node, SyncZone};
use crate::record::{Identity, Millis};
use crate::store::control::CONTROL_SIZE;
use crate::store::{Control, Life, Params, Region, ScanPlace, Zone};
use std::sync::Arc;

/// The time of tests.
const NOW: Millis = 1_700_000_000_000;

fn limits() -> Limits {
    Limits { timeout: 5_000, frame_size: 4_096, window: 32_768, recv_buffer: 32_768, max_drift: 60_000 }
}

/// Regions live as long as the process: tests are short.
fn region(size: usize) -> Region {
    let mapping = Region::anonymous(size).unwrap();
    let region = mapping.region();
    std::mem::forget(mapping);
    region
}

/// A node with zones of these names, which have to be sorted.
fn node(number: u8, names: &[&str], limits: Limits) -> Node {
    let identity = Identity([number; 16]);
    let params = Params { sync: true, ..Params::new(identity) };
    let zones: Vec<_> = names
        .iter()
        .map(|name| SyncZone { name: (*name).into(), zone: Zone::create(region(512 * 1024), &params).unwrap() })
        .collect();
    Node { control: Control::create_with(region(CONTROL_SIZE), identity).unwrap(), zones: Arc::from(zones), limits }
}

fn set(zone: &Zone, key: &str, value: &[u8], now: Millis) {
    zone.set(key.as_bytes(), value, Life::Default, crate::store::Condition::Always, now).unwrap();
}

/// Keys and values of all live records.
fn contents(zone: &Zone, now: Millis) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    let mut place = Some(ScanPlace::default());
    while let Some(at) = place {
        place = zone.scan(at, now, &mut |key, value, _| records.push((key.to_vec(), value.to_vec()))).unwrap();
    }
    records.sort();
    records
}
