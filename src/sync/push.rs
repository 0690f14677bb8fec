//! The sending side of a session: the node that dialled.
use super::{Node, Note, SessionError};
use crate::record::{Identity, Millis};
use crate::store::ShardMask;

/// One outbound session.
pub struct Push {}
impl Push {
    /// `owner`: the lease's number, for feed cursors.
    pub fn new(_node: Node, _owner: u64, _now: Millis) -> Push { todo!() }
    /// Bytes came from the peer.
    pub fn handle(&mut self, _bytes: &[u8], _now: Millis) -> Result<(), SessionError> { todo!() }
    /// Shards of zone number `zone` (its index in `Node::zones`) have changed.
    pub fn mark(&mut self, _zone: usize, _shards: ShardMask) { todo!() }
    /// Appends frames to send, about `budget` bytes at most; nothing appended: nothing to send now.
    pub fn fill(&mut self, _out: &mut Vec<u8>, _budget: usize, _now: Millis) -> Result<(), SessionError> { todo!() }
    /// Time passed: heartbeats, silence.
    pub fn tick(&mut self, _now: Millis) -> Result<(), SessionError> { todo!() }
    /// When `tick` wants to be called next.
    pub fn deadline(&self) -> Millis { todo!() }
    /// Every change so far was sent and acknowledged.
    pub fn flushed(&self) -> bool { todo!() }
    /// Who the peer is, once its hello came.
    pub fn peer(&self) -> Option<Identity> { todo!() }
    /// Records that wait, by zone index (an upper bound).
    pub fn pending(&self, _zone: usize) -> u64 { todo!() }
    /// Log lines since the last call.
    pub fn notes(&mut self) -> Vec<Note> { todo!() }
    /// Says goodbye (appended to `out`) and gives feed cursors back.
    pub fn close(&mut self, _out: &mut Vec<u8>, _why: &str) { todo!() }
}
