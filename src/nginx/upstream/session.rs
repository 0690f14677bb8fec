//! `sticky learn`: sessions that responses begin, kept in a zone.
//!
//! The key of a session's record is the MD5 of what the variable held: as short for each, and no one who can look into a
//! zone learns what a client's cookie is.

use super::directive::variable;
use super::sid::Sid;
use crate::md5;
use crate::nginx::conf::keyval::{name_and_size, session_zone};
use crate::nginx::conf::main::{KeyvalZone, MainConf};
use crate::nginx::conf::{Conf, Fault, parse};
use crate::nginx::{ffi, shm, wake};
use crate::record::Millis;
use crate::store::{Keeping, StoreError, Use};

/// How long sessions are kept that aren't used, unless `timeout=` says it.
const TIMEOUT: Millis = 600_000;

/// What `sticky learn` says.
pub struct Sessions {
    /// Indexes of the variables that make a session; the first that isn't empty does.
    pub create: Vec<usize>,
    /// Whether sessions are made when the header of a response is there, and not only at its end.
    pub header: bool,
    timeout: Millis,
    /// Part of the same configuration.
    zone: *const KeyvalZone,
}

impl Sessions {
    /// Reads the directive and makes the zone. Returns the variables to look up as well.
    pub fn read(conf: &mut Conf, upstream: &str) -> Result<(Sessions, Vec<usize>), Fault> {
        let (mut create, mut lookup, mut named, mut timeout) = (Vec::new(), Vec::new(), None, None);
        let (mut header, mut sync) = (false, false);
        for parameter in conf.parameters().skip(1) {
            let twice = || Fault::new(format!("a second \"{parameter}\"; keep one"));
            match parameter.split_once('=') {
                Some(("create", name)) => create.push(variable(conf, name.as_bytes())?),
                Some(("lookup", name)) => lookup.push(variable(conf, name.as_bytes())?),
                Some(("zone", value)) if named.is_none() => named = Some(name_and_size("sticky", value)?),
                Some(("timeout", value)) if timeout.is_none() => {
                    let bad = || {
                        Fault::new(format!("bad time \"{value}\" in \"timeout=\"; write for example \"timeout=1h\""))
                    };
                    timeout = Some(parse::time(value).ok_or_else(bad)?);
                }
                Some(("zone" | "timeout", _)) => return Err(twice()),
                None if parameter == "header" && !header => header = true,
                None if parameter == "sync" && !sync => sync = true,
                None if parameter == "header" || parameter == "sync" => return Err(twice()),
                _ => {
                    return Err(Fault::new(format!(
                        "unknown parameter \"{parameter}\" of \"learn\"; known are create=, lookup=, zone=, timeout=, \
                         header and sync"
                    )));
                }
            }
        }
        let lacks = |what: &str| Fault::new(format!("\"learn\" has no \"{what}\""));
        if create.is_empty() {
            return Err(lacks("create=$variable"));
        }
        if lookup.is_empty() {
            return Err(lacks("lookup=$variable"));
        }
        let (name, size) = named.ok_or_else(|| lacks("zone=name:size"))?;
        let mut zone = session_zone(name, size, sync, conf.place());
        zone.upstream = Some(upstream.to_owned());
        let main = conf.main()?;
        zone.main = main;
        let zone = main.add_zone(zone)?;
        shm::add_keyval(conf, zone)?;
        Ok((Sessions { create, header, timeout: timeout.unwrap_or(TIMEOUT), zone }, lookup))
    }

    /// The zone.
    pub fn zone(&self) -> &KeyvalZone {
        // SAFETY: an element of the configuration that this is part of, which doesn't move.
        unsafe { &*self.zone }
    }

    /// The server that a session leads to.
    pub fn find(&self, session: &[u8]) -> Result<Option<Sid>, StoreError> {
        let Some(zone) = self.zone().zone else { return Ok(None) };
        let mut server = Vec::new();
        let found = zone.get(&md5::digest(session), ffi::now(), &mut server)?;
        Ok(found.and_then(|_| Sid::new(&server)))
    }

    /// A request of a session was answered.
    pub fn note(&self, session: &[u8], used: Use<'_>) -> Result<(), StoreError> {
        let Some(zone) = self.zone().zone else { return Ok(()) };
        let keeping = Keeping { timeout: self.timeout, salt: std::process::id().into() };
        let written = zone.use_session(&md5::digest(session), used, keeping, ffi::now())?;
        if written && zone.announces() {
            // SAFETY: in a callback of the event loop, and done with when it returns.
            if let Some(control) = unsafe { MainConf::current() }.and_then(MainConf::control) {
                wake::everybody(control);
            }
        }
        Ok(())
    }
}
