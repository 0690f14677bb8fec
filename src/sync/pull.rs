//! The receiving side of a session: the node that was dialled.
use super::{Node, Note, SessionError};
use crate::record::{Identity, Millis};

/// One inbound session.
pub struct Pull {}
impl Pull {
    /// `token`: not 0, unlike that of every other session of the node.
    pub fn new(_node: Node, _token: u64, _now: Millis) -> Pull { todo!() }
    /// Bytes came from the peer; replies are appended to `out`. On an error `out` may hold a goodbye that is worth sending.
    pub fn handle(&mut self, _bytes: &[u8], _out: &mut Vec<u8>, _now: Millis) -> Result<(), SessionError> { todo!() }
    /// Time passed.
    pub fn tick(&mut self, _out: &mut Vec<u8>, _now: Millis) -> Result<(), SessionError> { todo!() }
    /// When `tick` wants to be called next.
    pub fn deadline(&self) -> Millis { todo!() }
    /// Whether a valid hello was received (until then the connection may be reused by nginx).
    pub fn established(&self) -> bool { todo!() }
    /// Who the peer is.
    pub fn peer(&self) -> Option<Identity> { todo!() }
    /// Log lines since the last call.
    pub fn notes(&mut self) -> Vec<Note> { todo!() }
    /// The session is over (for whatever reason): claims are given back, a goodbye appended.
    pub fn close(&mut self, _out: &mut Vec<u8>, _why: &str) { todo!() }
}
