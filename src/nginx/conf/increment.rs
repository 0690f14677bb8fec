//! `keyval_incr key zone=name [by=n] [if=condition]`

use super::api::{self, ApiConf};
use super::keyval::Waiting;
use super::main::KeyvalZone;
use super::{Conf, Directive, Fault};
use crate::nginx::ffi;
use crate::nginx::http::variable::Http;
use crate::nginx::variable::Side;
use crate::record::number;
use nginx_sys as sys;

/// Text and variables mixed, compiled.
pub type Value = sys::ngx_http_complex_value_t;

/// One `keyval_incr`. In the cycle's pool.
pub struct Increment {
    /// What is counted under.
    pub key: Value,
    /// By how much.
    pub by: By,
    /// Only if this is neither empty nor "0".
    pub condition: Option<Value>,
    /// Where; found when the configuration is complete.
    pub zone: *const KeyvalZone,
}

/// By how much a request counts.
pub enum By {
    /// The same for all.
    Number(i64),
    /// Another number for each.
    Value(Value),
}

/// What one level counts.
#[derive(Default)]
pub struct Increments(Vec<*const Increment>);

impl Increments {
    /// A level without any of its own has those of the one around it.
    pub fn inherit(&mut self, outer: &Increments) {
        if self.0.is_empty() {
            self.0.clone_from(&outer.0);
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Increment> {
        // SAFETY: made by the directive, in the pool of the configuration that this belongs to.
        self.0.iter().filter_map(|increment| unsafe { increment.as_ref() })
    }
}

/// See the module's text.
pub struct IncrementDirective;

impl Directive for IncrementDirective {
    type Own = ApiConf;

    fn set(conf: &mut Conf, own: &mut ApiConf) -> Result<(), Fault> {
        let (mut zone, mut by, mut condition) = (None, None, None);
        for n in 2..conf.words().len() {
            let parameter = conf.text(n).into_owned();
            let value = |conf: &Conf, prefix: usize| {
                let mut text = conf.words().get(n).copied().unwrap_or_else(sys::ngx_str_t::empty);
                // SAFETY: the word begins with so many bytes.
                (text.data, text.len) = (unsafe { text.data.add(prefix) }, text.len.saturating_sub(prefix));
                compile(conf, text, &parameter)
            };
            match parameter.split_once('=') {
                Some(("zone", "")) => {
                    return Err(Fault::new("\"keyval_incr\" has an empty \"zone=\": name a keyval_zone"));
                }
                Some(("zone", name)) if zone.is_none() => zone = Some(name.to_owned()),
                Some(("by", text)) if by.is_none() && text.contains('$') => {
                    by = Some(By::Value(value(conf, "by=".len())?));
                }
                Some(("by", text)) if by.is_none() => match number(text.as_bytes()) {
                    Some(number) => by = Some(By::Number(number)),
                    None => {
                        return Err(Fault::new(format!(
                            "bad \"by={text}\" of \"keyval_incr\"; it is a whole number, such as \"by=-1\", or has variables"
                        )));
                    }
                },
                Some(("if", _)) if condition.is_none() => condition = Some(value(conf, "if=".len())?),
                Some((name @ ("zone" | "by" | "if"), _)) => {
                    return Err(Fault::new(format!("a second \"{name}=\" of \"keyval_incr\"; keep one")));
                }
                _ => {
                    return Err(Fault::new(format!(
                        "unknown parameter \"{parameter}\" of \"keyval_incr\"; known are zone=, by= and if="
                    )));
                }
            }
        }
        let Some(name) = zone else {
            return Err(Fault::new("\"keyval_incr\" has no zone; write \"keyval_incr $remote_addr zone=name\""));
        };
        let text = conf.words().get(1).copied().unwrap_or_else(sys::ngx_str_t::empty);
        let key = compile(conf, text, &conf.text(1))?;
        let increment = Increment { key, by: by.unwrap_or(By::Number(1)), condition, zone: std::ptr::null() };
        // SAFETY: the pool of the configuration, which outlives the requests that it serves.
        let increment = unsafe { ffi::owned_by_pool(conf.pool(), increment) };
        if increment.is_null() {
            return Err(Fault::new("\"keyval_incr\": no memory"));
        }
        own.increments.0.push(increment);
        // SAFETY: the context of `http`, of which this directive is; just made, and read by one thread.
        let slot = unsafe {
            (*api::http_conf(conf)).counts = true;
            &raw mut (*increment).zone
        };
        let waiting = Waiting::new(slot, "\"keyval_incr\"".to_owned(), name, conf.place()).counting();
        conf.main()?.add_waiting(waiting);
        Ok(())
    }
}

fn compile(conf: &Conf, text: sys::ngx_str_t, word: &str) -> Result<Value, Fault> {
    Http.compile(conf, text).ok_or_else(|| Fault::new(format!("bad \"{word}\" of \"keyval_incr\"")))
}
