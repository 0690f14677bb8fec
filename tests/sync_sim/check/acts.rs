//! What was acknowledged, and what voids it.

use std::fmt;
use std::rc::Rc;
use zonemesh::record::{Identity, Millis, Stamp, Version};

/// An operation that a node acknowledged.
#[derive(Clone)]
pub enum Act {
    Put { value: Vec<u8>, expires: Option<Millis> },
    Delete,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Put { value, expires } => write!(f, "{} bytes until {expires:?}", value.len()),
            Act::Delete => f.write_str("delete"),
        }
    }
}

/// Clocks that aren't off by minutes are never further apart than this, milliseconds.
pub const CLOCKS_APART: Millis = 60_000;

/// The node of an act that binds nobody, as all nodes that had it have lost their memory. It may still be around.
pub const NOBODY: usize = usize::MAX;

#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub version: Version,
    /// In the order of all.
    pub number: u64,
    /// The version that it had before its node's clock was mended.
    pub was: Option<Version>,
    /// It was another node that gave it this version, as its own clock had been ahead, too.
    pub copied: bool,
    /// Who acknowledged it, or, if that has lost its memory, another one that had it by then.
    pub by: usize,
    /// Who acknowledged it.
    pub author: usize,
    pub act: Act,
    /// The node's clock.
    pub at: Millis,
    /// What it had of others when it last remembered this, and the record that it replaced.
    pub positions: Rc<[(Identity, Stamp)]>,
    pub replaced: Option<Version>,
}

impl Acknowledged {
    /// Whether who acknowledged it still has its memory.
    pub fn binds_author(&self) -> bool {
        self.by == self.author
    }

    /// Whether the node knew of this version when it acted.
    pub fn knew(&self, version: Version) -> bool {
        self.replaced == Some(version) || self.covers(version)
    }

    /// Whether what the node had then tells of this version, also where the act itself made room for others.
    pub fn covers(&self, version: Version) -> bool {
        (version.origin == self.version.origin && self.binds_author())
            || self.positions.iter().any(|(origin, stamp)| *origin == version.origin && *stamp >= version.stamp)
    }

    /// Whether it was stamped anew, and its node knew of `older` when it acted, which now seems to be newer.
    pub fn was_after(&self, older: &Acknowledged) -> bool {
        let knew = |was: Version| {
            older.version.origin == was.origin
                || self.replaced == Some(older.version)
                || self
                    .positions
                    .iter()
                    .any(|(origin, stamp)| *origin == older.version.origin && *stamp >= older.version.stamp)
        };
        self.number > older.number && self.binds_author() && self.was.is_some_and(knew)
    }

    /// Its node holds nothing for over any more but what these positions cover.
    pub fn forget_but(&mut self, known: &[(Identity, Stamp)]) {
        let of = |origin: Identity| known.iter().find(|(other, _)| *other == origin).map_or(Stamp::ZERO, |(_, at)| *at);
        self.positions = self.positions.iter().map(|(origin, at)| (*origin, (*at).min(of(*origin)))).collect();
        self.replaced = self.replaced.filter(|version| of(version.origin) >= version.stamp);
    }

    /// Whether it is a record that ends by then.
    pub fn ends_by(&self, at: Millis) -> bool {
        matches!(self.act, Act::Put { expires: Some(end), .. } if end <= at)
    }

    /// When what it did was over, if it is: a delete at once, a record at its end.
    pub fn over_since(&self, now: Millis) -> Option<Millis> {
        match self.act {
            Act::Delete => Some(self.at),
            Act::Put { expires, .. } => expires.filter(|at| *at <= now).map(|at| at.max(self.at)),
        }
    }
}

/// An emptying that a node acknowledged.
#[derive(Debug)]
pub struct Emptied {
    pub zone: usize,
    pub stamp: Stamp,
    pub number: u64,
    pub by: usize,
    /// Who did it, and what that had of others then.
    pub author: usize,
    pub positions: Rc<[(Identity, Stamp)]>,
    /// It was of the future, and another entry has the stamp that it got instead: what its author had by then is over.
    pub mended: bool,
    /// Another node took it that was ahead as well, and mended it. It holds for over what it had when it came.
    pub taken: bool,
    /// Another node has it, or a later one, and so may have taken along what its author didn't know of.
    pub spread: bool,
}

impl Emptied {
    /// Whether this is over with it.
    pub fn covers(&self, act: &Acknowledged) -> bool {
        // Under the version that it has now, or had before its node's clock was mended.
        let known = |(origin, stamp): &(Identity, Stamp)| {
            [Some(act.version), act.was].into_iter().flatten().any(|of| *origin == of.origin && *stamp >= of.stamp)
        };
        let was_there = || act.author == self.author && act.number < self.number || self.positions.iter().any(known);
        self.stamp >= act.version.stamp && (!self.mended || self.taken || self.spread || was_there())
    }
}

/// What voids the proof that something is over, in a zone of some node.
#[derive(Default)]
pub struct Past {
    /// Whose memory of it was made anew.
    pub anew: Vec<Identity>,
    /// The greatest stamp of a tombstone that was given up before its time, of a record that was given up for others, and of one
    /// that was left out.
    pub given_up: Stamp,
    pub evicted: Stamp,
    pub left_out: Stamp,
}

impl Past {
    /// What is later than this has made room for nothing.
    pub fn made_room(&self) -> Stamp {
        self.given_up.max(self.evicted)
    }
}
