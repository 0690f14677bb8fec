//! Sessions: which server of an upstream a client stays with, in a zone of [`super::Matching::Session`].
//!
//! A session is an ordinary record: of two writes the later one wins, on every node. But a request leads its session only
//! from where it was when the request was given its server: one that ends late moves nothing that others have moved meanwhile.
//!
//! Each use would be a change that goes to all nodes if its end moved with it. So a session is given more life than asked for,
//! and is written again only when that surplus is nearly used up.

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

/// What a request says of its session once a server has answered it.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The server that did.
    pub server: &'a [u8],
    /// A session that isn't there begins with it.
    pub create: bool,
    /// What the request was told of the session when it was given that server.
    pub told: Told<'a>,
}

/// What a request was told of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// Where it leads; nowhere if there is none.
    Server(Option<&'a [u8]>),
    /// It didn't ask: the answer names another session than the request, or the request none.
    Nothing,
}

impl Told<'_> {
    /// Whether who was told this may lead a session elsewhere that leads to `server` now.
    fn allows_from(self, server: &[u8]) -> bool {
        matches!(self, Told::Nothing) || self == Told::Server(Some(server))
    }
}

impl Zone {
    /// Notes that a server has answered a request of a session. Whether anything had to be written.
    ///
    /// # Errors
    ///
    /// As [`Zone::set`].
    pub fn use_session(&self, key: &[u8], used: Use<'_>, keeping: Keeping, now: Millis) -> Result<bool, StoreError> {
        let mut held = Vec::new();
        let condition = match self.get(key, now, &mut held)? {
            Some(found) if held == used.server && keeping.is_fresh(found.expires, now) => return Ok(false),
            Some(found) if held == used.server || used.told.allows_from(&held) => {
                Condition::Version(self.version(&found))
            }
            None if used.create => Condition::Absent,
            _ => return Ok(false),
        };
        let written = self.set(key, used.server, Life::For(keeping.life()), condition, now)?;
        Ok(written != Written::Unmet)
    }
}
