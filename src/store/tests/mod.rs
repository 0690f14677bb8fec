//! Tests of the store through its face, and of what must hold inside.

mod active;
mod check;
mod chosen;
mod counter;
mod crash;
mod dump;
mod evict;
mod expire;
mod feed;
mod full;
mod generations;
mod geometry;
mod kept;
mod limit;
mod limit_crash;
mod limit_merge;
mod matching;
mod model;
mod origins;
mod past;
mod processes;
mod read_model;
mod region;
mod renew;
mod replicate;
mod resize;
mod session;
mod small;
mod survivors;
mod watch;

use std::sync::atomic::Ordering::SeqCst;

use super::layout::{header, shard};
use super::{Mapping, Params, Region, Zone, lock};
use crate::record::{Identity, Millis};

/// A time to begin at.
pub const START: Millis = 1_800_000_000_000;

/// A zone of its own memory.
pub struct Fixture {
    pub zone: Zone,
    _mapping: Mapping,
}

impl Fixture {
    pub fn new(size: usize, timeout: Option<Millis>, sync: bool) -> Fixture {
        Fixture::of(1, size, timeout, sync)
    }

    /// A zone of the node whose identity is sixteen times `node`.
    pub fn of(node: u8, size: usize, timeout: Option<Millis>, sync: bool) -> Fixture {
        Fixture::with(size, Params { timeout, sync, ..Params::new(identity(node)) })
    }

    pub fn with(size: usize, params: Params) -> Fixture {
        let mapping = Region::anonymous(size).expect("memory");
        let zone = Zone::create(mapping.region(), &params).expect("a zone");
        Fixture { zone, _mapping: mapping }
    }
}

impl std::ops::Deref for Fixture {
    type Target = Zone;

    fn deref(&self) -> &Zone {
        &self.zone
    }
}

impl Zone {
    /// Which shard a key is in.
    pub fn shard_of(&self, key: &[u8]) -> u32 {
        self.place(key).shard
    }

    /// As if a shard's lock were held by a thread that stands still: whoever waits for itself waits in vain.
    pub fn stop_in(&self, shard: u32) {
        self.region.store64(self.geometry.shard(shard) + shard::LOCK, lock::this_thread(), SeqCst);
    }

    /// That thread has gone on.
    pub fn go_on_in(&self, shard: u32) {
        self.region.store64(self.geometry.shard(shard) + shard::LOCK, 0, SeqCst);
    }

    /// The same with the lock of the table of origins.
    pub fn stop_in_origins(&self) {
        self.region.store64(header::ORIGINS_LOCK, lock::this_thread(), SeqCst);
    }

    /// That thread has gone on.
    pub fn go_on_in_origins(&self) {
        self.region.store64(header::ORIGINS_LOCK, 0, SeqCst);
    }
}

pub fn identity(node: u8) -> Identity {
    Identity([node; 16])
}

/// The value of a key, if it is there.
pub fn value(zone: &Zone, key: &[u8], now: Millis) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    zone.get(key, now, &mut value).expect("a look-up").map(|_| value)
}

/// All live records: key, value and end, sorted.
pub fn listing(zone: &Zone, now: Millis) -> Vec<(Vec<u8>, Vec<u8>, Option<Millis>)> {
    let (mut all, mut place) = (Vec::new(), Some(Default::default()));
    while let Some(at) = place {
        place = zone.scan(at, now, &mut |k, v, f| all.push((k.to_vec(), v.to_vec(), f.expires))).expect("a listing");
    }
    all.sort();
    all
}
