//! Sessions: which server of an upstream a client stays with, in a zone of [`super::Matching::Session`].
//!
//! A session is an ordinary record: of two writes the later one wins, on every node. Each use would be a change that goes to
//! all nodes if its end moved with it. So a session is given more life than asked for, and is written again only when
//! that surplus is nearly used up.

use super::hash::mixed;
use super::{Condition, Life, StoreError, Written, Zone};
use crate::record::Millis;

/// How sessions of a zone are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// An unused session is kept at least so long, and at most three eighths longer.
    pub timeout: Millis,
    /// Whatever differs between processes, so that they don't write the same session at the same moment.
    pub salt: u64,
}

impl Keeping {
    /// The life that a session is given.
    pub const fn life(&self) -> Millis {
        self.timeout.saturating_add(self.timeout / 8 * 3)
    }

    /// Whether a session that ends then lasts for now: until at least a quarter of its time has passed, and by chance up
    /// to an eighth longer.
    fn is_fresh(&self, expires: Option<Millis>, now: Millis) -> bool {
        let chance = mixed(self.salt ^ now) % (self.timeout / 8 + 1);
        expires.is_none_or(|end| end >= now.saturating_add(self.timeout).saturating_add(chance))
    }
}

impl Zone {
    /// Notes that a request of a session was served by `server`. A session that isn't there is made if `create` says so.
    /// Whether anything had to be written.
    ///
    /// # Errors
    ///
    /// As [`Zone::set`].
    pub fn use_session(
        &self,
        key: &[u8],
        server: &[u8],
        create: bool,
        keeping: Keeping,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let mut held = Vec::new();
        let condition = match self.get(key, now, &mut held)? {
            Some(found) if held == server && keeping.is_fresh(found.expires, now) => return Ok(false),
            None if !create => return Ok(false),
            _ if create => Condition::Always,
            _ => Condition::Present,
        };
        let written = self.set(key, server, Life::For(keeping.life()), condition, now)?;
        Ok(written != Written::Unmet)
    }
}
