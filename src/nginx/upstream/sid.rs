//! The names that servers of an upstream have for sessions, the same on every node: `route=`, or the MD5 of the address.

use super::server::Line;
use crate::md5;
use std::cell::RefCell;
use std::collections::HashMap;

/// Longest name, bytes: as many as an MD5 has digits. nginx's own `route=` has the same bound.
pub const MAX_SID: usize = 32;
/// Names of addresses that came later, remembered at most.
const MAX_LATE: usize = 1024;

/// A server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sid {
    len: u8,
    bytes: [u8; MAX_SID],
}

impl Sid {
    /// `None`: no server has a name that is empty or so long.
    pub fn new(name: &[u8]) -> Option<Sid> {
        let mut bytes = [0; MAX_SID];
        bytes.get_mut(..name.len()).filter(|room| !room.is_empty())?.copy_from_slice(name);
        Some(Sid { len: name.len() as u8, bytes })
    }

    /// That of an address with its port, or of `unix:` and a path.
    pub fn of_address(address: &[u8]) -> Sid {
        Sid { len: MAX_SID as u8, bytes: md5::hex(address) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// What is known of an upstream's servers when its configuration is complete.
#[derive(Default)]
pub struct Servers {
    /// By their text.
    lines: HashMap<Box<[u8]>, Line>,
    sids: HashMap<Box<[u8]>, Sid>,
    /// Those of addresses that were resolved while nginx runs, as far as they were asked for.
    late: RefCell<HashMap<Box<[u8]>, Sid>>,
    addresses: HashMap<Sid, Box<[u8]>>,
}

/// Which server is looked for.
pub struct Wanted<'a> {
    servers: &'a Servers,
    sid: &'a Sid,
    /// The address of this name, if the configuration has it.
    address: Option<&'a [u8]>,
}

impl Servers {
    /// `lines` are those of `server` with parameters of ours, `addresses` all that the configuration has.
    pub fn new<'a>(lines: Vec<Line>, addresses: impl Iterator<Item = &'a [u8]>) -> Servers {
        let sids: Vec<(Box<[u8]>, Sid)> = addresses.map(|address| (address.into(), Sid::of_address(address))).collect();
        let addresses = sids.iter().map(|(address, sid)| (*sid, address.clone())).collect();
        let sids = sids.into_iter().collect();
        // Of lines with one text the first counts.
        let lines = lines.into_iter().rev().map(|line| (line.server.clone(), line)).collect();
        Servers { lines, sids, late: RefCell::default(), addresses }
    }

    fn line(&self, server: &[u8]) -> Option<&Line> {
        self.lines.get(server)
    }

    /// The name of a server with this address, of the `server` line of this text.
    pub fn sid(&self, address: &[u8], server: &[u8]) -> Sid {
        let route = self.line(server).and_then(|line| line.route);
        route.or_else(|| self.sids.get(address).copied()).unwrap_or_else(|| self.late(address))
    }

    /// The name of an address that the configuration doesn't have: lists are searched for names under a lock.
    fn late(&self, address: &[u8]) -> Sid {
        let mut late = self.late.borrow_mut();
        if let Some(sid) = late.get(address) {
            return *sid;
        }
        if late.len() >= MAX_LATE {
            late.clear();
        }
        let sid = Sid::of_address(address);
        late.insert(address.into(), sid);
        sid
    }

    /// Whether the line of this text has `drain`.
    pub fn is_draining(&self, server: &[u8]) -> bool {
        self.line(server).is_some_and(|line| line.drain)
    }

    /// To compare many servers with one name.
    pub fn wanted<'a>(&'a self, sid: &'a Sid) -> Wanted<'a> {
        Wanted { servers: self, sid, address: self.addresses.get(sid).map(|address| &**address) }
    }
}

impl Wanted<'_> {
    /// Whether it is the server with this address, of the `server` line of this text.
    pub fn is(&self, address: &[u8], server: &[u8]) -> bool {
        match (self.servers.line(server).and_then(|line| line.route), self.address) {
            (Some(route), _) => route == *self.sid,
            (None, Some(known)) => known == address,
            (None, None) => !self.servers.sids.contains_key(address) && self.servers.late(address) == *self.sid,
        }
    }
}
