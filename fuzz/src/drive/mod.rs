//! The targets: each takes any bytes, and panics if something is broken that no peer, client or file may break.

pub mod api;
pub mod pull;
pub mod push;
pub mod script;
pub mod state;
pub mod talk;
pub mod world;
