//! A key-value store inside one flat region of shared memory.
//!
//! It knows nothing of nginx or of sockets: it is given a region and the time. [`Zone`] is its face; everything else
//! here is how a zone keeps its promises.

pub mod control;
pub mod region;
mod zone;

pub use control::Control;
pub use region::Region;
pub use zone::*;
