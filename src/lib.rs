//! zonemesh: key-value zones for stock nginx, shared between the nodes of a cluster.
//!
//! The modules stand in the order of the way that data takes, from memory up to nginx; each uses only those above it.
//!
//! ```text
//! nginx workers ── reads, writes ──> store <── walks the change feed ── agent (one thread a node) ──> peers
//! nginx workers <── sync sessions of peers ── applies ──> store
//! ```

mod base64;
#[cfg(any(feature = "nginx", test))]
mod md5;
pub mod record;
pub mod store;
pub mod sync;

pub mod agent;
pub mod api;

#[cfg(feature = "nginx")]
mod nginx;
