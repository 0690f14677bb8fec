//! `limit_req_zone`: with `sync` it is this module's, without it nginx's own.

use super::original::Original;
use crate::nginx::conf::keyval::{empty_zone, name_and_size};
use crate::nginx::conf::main::{Block, KeyvalZone, Rule};
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::http::variable::Http;
use crate::nginx::shm;
use crate::nginx::variable::Side;
use crate::store::Matching;
use std::ffi::c_char;

/// The directive, for messages.
pub const NAME: &str = "limit_req_zone";

/// Reads one; returns what nginx is to be told.
pub fn read(conf: &mut Conf) -> Result<*mut c_char, Fault> {
    if !conf.parameters().skip(1).any(|parameter| parameter == "sync") {
        let original = Original::find(conf)?.ok_or_else(|| {
            Fault::new(
                "\"limit_req_zone\" without \"sync\" is for nginx's own limit_req module, without which this nginx was built \
                 (--without-http_limit_req_module): add \"sync\", or use an nginx that has it",
            )
        })?;
        if conf.words().len() != 4 {
            return Err(Fault::new(
                "invalid number of arguments in \"limit_req_zone\" directive: it takes a key, zone=name:size, rate=rate and, \
                 for zones that are shared, sync",
            ));
        }
        let own = original.conf(conf, NAME);
        // SAFETY: the directive that is being read, and the structure that is its.
        return unsafe { original.set(conf.as_ptr(), NAME, own) };
    }
    let mut zone = shared(conf)?;
    let main = conf.main()?;
    zone.main = main;
    let zone = main.add_zone(zone)?;
    shm::add_keyval(conf, zone).map(|()| crate::nginx::ffi::CONF_OK)
}

fn shared(conf: &Conf) -> Result<KeyvalZone, Fault> {
    let Some(text) = conf.words().get(1) else { return Err(Fault::new("\"limit_req_zone\" has no key")) };
    let key = Http
        .compile(conf, *text)
        .ok_or_else(|| Fault::new(format!("bad key \"{}\" of \"limit_req_zone\"", conf.text(1))))?;
    let (mut named, mut rate) = (None, None);
    for parameter in conf.parameters().skip(1) {
        let of = |named: &Option<(String, usize)>| match named {
            Some((name, _)) => format!("\"limit_req_zone\" \"{name}\""),
            None => "\"limit_req_zone\"".to_owned(),
        };
        match parameter.split_once('=') {
            Some(("zone", value)) if named.is_none() => named = Some(name_and_size(NAME, value)?),
            Some(("rate", value)) if rate.is_none() => {
                let read = thousandths(value).ok_or_else(|| {
                    Fault::new(format!(
                        "{}: invalid rate \"{parameter}\"; write for example \"rate=10r/s\" or \"rate=30r/m\"",
                        of(&named)
                    ))
                })?;
                rate = Some(read);
            }
            None if parameter == "sync" => {}
            _ => {
                return Err(Fault::new(format!(
                    "{}: invalid parameter \"{parameter}\"; known are zone=, rate= and sync, each once",
                    of(&named)
                )));
            }
        }
    }
    let Some((name, size)) = named else {
        return Err(Fault::new("\"limit_req_zone\" must have \"zone\" parameter, as in zone=name:1m"));
    };
    let Some(rate) = rate else {
        return Err(Fault::new(format!(
            "\"limit_req_zone\" \"{name}\" must have \"rate\" parameter, as in rate=10r/s"
        )));
    };
    let limit = Some(Rule { key, text: conf.text(1).into_owned(), rate });
    // nginx drops what was used least recently.
    let (sync, evict, matching) = (true, true, Matching::Limit);
    Ok(KeyvalZone { sync, evict, matching, limit, ..empty_zone(name, Block::Http, size, conf.place()) })
}

/// A rate in thousandths of a request a second, rounded as nginx does.
fn thousandths(text: &str) -> Option<u64> {
    let (number, seconds) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => (text, 1),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let rate = number.parse::<u64>().ok().filter(|number| digits && *number > 0)?.checked_mul(1000)? / seconds;
    (rate <= MAX_RATE).then_some(rate)
}

/// A thousand million requests a second: what is reckoned with a rate stays within its numbers.
const MAX_RATE: u64 = 1_000_000_000_000;
