//! `limit_req`: its lines are kept until the http block has been read, as only then it is known whose zone each names.

use super::original::Original;
use super::{Limit, LimitConf};
use crate::nginx::conf::main::MainConf;
use crate::nginx::conf::{Conf, Fault, Place};
use crate::nginx::ffi::{self, CONF_ERROR, CONF_OK};
use nginx_sys as sys;
use std::ffi::{CStr, c_void};

/// One `limit_req`, as it stood.
pub struct Line {
    words: Vec<sys::ngx_str_t>,
    file: sys::ngx_str_t,
    place: Place,
    cmd_type: sys::ngx_uint_t,
    /// What this module and nginx's have of the level that it stood in; both live as long as the configuration.
    ours: *mut LimitConf,
    theirs: *mut c_void,
}

impl Line {
    /// The directive that is being read.
    pub fn new(conf: &Conf, original: Option<&Original>, ours: *mut LimitConf) -> Line {
        // SAFETY: a live configuration, in the middle of a directive.
        let (file, cmd_type) = unsafe {
            let cf = &*conf.as_ptr();
            (cf.conf_file.as_ref().map_or(sys::ngx_str_t::empty(), |file| file.file.name), cf.cmd_type)
        };
        let theirs = original.map_or(std::ptr::null_mut(), |original| original.conf(conf, "limit_req"));
        Line { words: conf.words().to_vec(), file, place: conf.place(), cmd_type, ours, theirs }
    }

    /// The zone that it names: as with nginx the last, if there are several.
    fn zone(&self) -> Option<&[u8]> {
        self.parameters().filter_map(|word| word.strip_prefix(b"zone=")).last()
    }

    fn parameters(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: nginx keeps the words in the pool of the configuration.
        self.words.iter().skip(1).map(|word| unsafe { ffi::bytes(*word) })
    }

    /// Gives it to whom it belongs. `false`: it can't stand so, which was told.
    ///
    /// # Safety
    /// `conf` is that of the http block, at its end, before levels are merged.
    pub unsafe fn settle(mut self, conf: &mut Conf, original: Option<&Original>) -> Result<bool, Fault> {
        let main = conf.main()?;
        let found = self.zone().and_then(|name| main.find_limit_zone(&String::from_utf8_lossy(name)));
        // SAFETY: structures of the configuration that is being read, by one thread.
        let ours = unsafe { &mut *self.ours };
        ours.any = true;
        if let Some(zone) = found {
            let limit = self.read(zone).map_err(|why| Fault::at(&self.place, why))?;
            if ours.limits.iter().any(|other| other.zone == limit.zone) {
                return Err(Fault::at(&self.place, "\"limit_req\" directive is duplicate"));
            }
            ours.limits.push(limit);
            return Ok(true);
        }
        let Some(original) = original else { return Err(Fault::at(&self.place, self.homeless())) };
        ours.plain = true;
        // SAFETY: the directive's own words at its own place, and the structure of the level that it stood in.
        let said = unsafe {
            let mut file: sys::ngx_conf_file_t = std::mem::zeroed();
            (file.file.name, file.line) = (self.file, self.place.line);
            let mut args: sys::ngx_array_t = std::mem::zeroed();
            (args.elts, args.nelts) = (self.words.as_mut_ptr().cast(), self.words.len());
            (args.size, args.nalloc, args.pool) = (size_of::<sys::ngx_str_t>(), self.words.len(), conf.pool());
            let mut cf = *conf.as_ptr();
            (cf.args, cf.conf_file, cf.cmd_type) = (&mut args, &mut file, self.cmd_type);
            original.set(&mut cf, "limit_req", self.theirs)?
        };
        match said {
            CONF_OK => Ok(true),
            CONF_ERROR => Ok(false),
            // SAFETY: what nginx's functions for directives return besides those two is a text.
            why => unsafe {
                let why = CStr::from_ptr(why).to_string_lossy();
                Err(Fault::at(&self.place, format!("\"limit_req\" directive {why}")))
            },
        }
    }

    /// What to say of it if it is for nobody.
    fn homeless(&self) -> String {
        match self.zone().map(String::from_utf8_lossy) {
            Some(zone) => format!(
                "\"limit_req\": there is no \"limit_req_zone\" with \"sync\" of the name \"{zone}\", and this nginx was built \
                 without its own limit_req module (--without-http_limit_req_module)"
            ),
            None => "\"limit_req\" must have \"zone\" parameter".to_owned(),
        }
    }

    /// Reads it as nginx does.
    fn read(&self, zone: *const crate::nginx::conf::main::KeyvalZone) -> Result<Limit, String> {
        let mut limit = Limit { zone, burst: 0, delay: 0 };
        for word in self.parameters() {
            let text = String::from_utf8_lossy(word);
            match text.split_once('=') {
                Some(("zone", _)) => {}
                Some(("burst", value)) => {
                    limit.burst = thousandths(value).filter(|burst| *burst <= MAX_BURST * 1000).ok_or_else(|| {
                        format!("\"limit_req\": invalid burst value \"{text}\"; it is a number from 1 to {MAX_BURST}")
                    })?;
                }
                Some(("delay", value)) => {
                    limit.delay = thousandths(value).ok_or_else(|| {
                        format!("\"limit_req\": invalid delay value \"{text}\"; it is a number from 1 on")
                    })?;
                }
                None if text == "nodelay" => limit.delay = u64::MAX,
                _ => {
                    return Err(format!(
                        "\"limit_req\": invalid parameter \"{text}\"; known are zone=, burst=, nodelay and delay="
                    ));
                }
            }
        }
        Ok(limit)
    }
}

/// The largest burst: shared zones keep the excess in thousandths, in 32 bits. A greater one would never refuse.
const MAX_BURST: u64 = u32::MAX as u64 / 1000;

/// A number of requests from 1 on, in thousandths.
fn thousandths(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|number| digits && *number > 0)?;
    number.checked_mul(1000)
}

impl MainConf {
    /// The zone of limits that this module counts in, by its name.
    fn find_limit_zone(&self, name: &str) -> Option<*const crate::nginx::conf::main::KeyvalZone> {
        self.limit_zones().find(|zone| zone.name == name).map(|zone| &raw const *zone)
    }
}
