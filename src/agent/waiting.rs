//! How many records wait, for each peer and zone, and for the peer that lacks most of a zone: what the zone shows.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Records that wait for one peer, by zone.
pub(super) struct Waiting(Box<[Cell<u64>]>);

impl Waiting {
    /// Nothing, of so many zones.
    pub(super) fn new(zones: usize) -> Waiting {
        Waiting((0..zones).map(|_| Cell::new(0)).collect())
    }

    /// Of all zones.
    pub(super) fn sum(&self) -> u64 {
        self.0.iter().map(Cell::get).sum()
    }
}

/// The same of all peers. Many sessions count many times a second: so no count costs a look at the others.
pub(super) struct MostWaiting(Box<[RefCell<BTreeMap<u64, usize>>]>);

impl MostWaiting {
    /// Nothing, of so many zones.
    pub(super) fn new(zones: usize) -> MostWaiting {
        MostWaiting((0..zones).map(|_| RefCell::default()).collect())
    }

    /// So many records of a zone wait for a peer now. Returns how many wait for the one that lacks most, if that has changed.
    pub(super) fn set(&self, waiting: &Waiting, zone: usize, records: u64) -> Option<u64> {
        let before = waiting.0.get(zone)?.replace(records);
        if before == records {
            return None;
        }
        // How many peers lack so many records. Most lack none, and aren't counted.
        let mut peers = self.0.get(zone)?.borrow_mut();
        let most = |peers: &BTreeMap<u64, usize>| peers.last_key_value().map_or(0, |(records, _)| *records);
        let most_before = most(&peers);
        if let Some(count) = peers.get_mut(&before) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&before);
            }
        }
        if records > 0 {
            *peers.entry(records).or_insert(0) += 1;
        }
        Some(most(&peers)).filter(|most| *most != most_before)
    }
}
