//! The changes of a zone as server-sent events: `/zonemesh/keyvals/{zone}/watch`.
//!
//! Each worker walks the change feed of a watched zone once, whatever the number of its watchers, and writes each change to
//! those who asked for such keys. [`hub`] has the zones of a worker, [`group`] the watchers of one zone, `watcher` one
//! client with what waits for it; [`position`] is what a client resumes from, [`event`] the text.
//!
//! What holds for a client:
//!
//! - It gets the state of a key after each change, at least once, and never an older one after a newer. A key that changes
//!   faster than the feed is walked is told once, as it is then.
//! - An `id` says that everything up to it was sent. Who resumes from it misses nothing; what came after it may come twice.
//! - `reset` says: forget what you have, everything that there is follows.
//! - It is sent as much as it reads. What it doesn't read stays in the feed, which is walked on for it alone.

pub(super) mod event;
mod group;
mod hub;
mod position;
#[cfg(test)]
mod tests;
mod watcher;

pub use hub::{Hub, Work};
pub use position::Position;

use super::args;
use crate::record::Millis;

/// Between two signs of life.
pub const HEARTBEAT: Millis = 15_000;

/// What a client wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Keys that begin so.
    pub prefix: Vec<u8>,
    /// Where to begin.
    pub start: Start,
}

/// Where a client begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what changes from now on.
    Now,
    /// With everything that there is.
    Everything,
    /// After a position.
    After(Position),
}

impl Order {
    /// From the query and the header `Last-Event-ID`, which counts more: clients send it when they connect again. `None`:
    /// the query's position is none.
    pub(super) fn parse(query: &str, last_event_id: Option<&str>) -> Option<Order> {
        let prefix = args::first(query, "prefix").unwrap_or_default().into_owned();
        let asked = args::first(query, "position").filter(|text| !text.is_empty());
        let start = match (last_event_id.filter(|id| !id.is_empty()), asked) {
            // It was ours once, or somebody else's: in any case nothing that can be resumed from.
            (Some(id), _) => Position::parse(id.as_bytes()).map_or(Start::Everything, Start::After),
            (None, None) => Start::Now,
            (None, Some(text)) if *text == *b"0" => Start::Everything,
            (None, Some(text)) => Start::After(Position::parse(&text)?),
        };
        Some(Order { prefix, start })
    }
}
