//! `sticky cookie`, `sticky route` and `sticky learn`.

use super::UpstreamConf;
use super::cookie::Cookie;
use super::session::Sessions;
use crate::nginx::conf::{Conf, Fault, shadow};
use crate::nginx::ffi::{self, CONF_ERROR, CONF_OK, guard};
use crate::nginx::modules;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// A `sticky` that this module serves.
pub struct Sticky {
    /// Indexes of the variables that say where a request is bound to; the first that isn't empty does.
    pub lookup: Vec<usize>,
    /// What they hold.
    pub form: Form,
}

/// The three ways to keep a client with its server.
pub enum Form {
    /// The variable is a cookie that holds the server's name, and is set.
    Cookie(Box<Cookie>),
    /// A variable holds the server's name.
    Route,
    /// A variable holds a session, which a zone leads to a server.
    Learn(Box<Sessions>),
}

/// Their names in the configuration.
const FORMS: [&[u8]; 3] = [b"cookie", b"route", b"learn"];

/// What nginx calls for the directive. nginx from 1.29.6 has one of this name, which gets all but what is shared. One of a
/// module that was added to it gets what isn't a form known here.
pub unsafe extern "C" fn set(cf: *mut sys::ngx_conf_t, _: *mut sys::ngx_command_t, own: *mut c_void) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` in an upstream block, and with this module's structure for it.
        unsafe {
            let (mut conf, own) = (Conf::new(cf), &mut *own.cast::<UpstreamConf>());
            let upstream = String::from_utf8_lossy(ffi::bytes(super::of_block(&conf).host)).into_owned();
            if own.sticky.is_some() || own.is_others {
                let why = format!("\"sticky\" is duplicate in upstream \"{upstream}\": keep one");
                return conf.fail(&Fault::new(why));
            }
            let is_shared = conf.word(1) == b"learn" && (2..conf.words().len()).any(|n| conf.word(n) == b"sync");
            let is_ours = is_shared || (!super::is_native(&conf) && FORMS.contains(&conf.word(1)));
            if !is_ours && shadow::is_known(&conf, modules::UPSTREAM.get(), b"sticky") {
                own.is_others = true;
                return shadow::hand_on(&conf, modules::UPSTREAM.get());
            }
            match read(&mut conf, &upstream) {
                Ok(sticky) => {
                    own.sticky = Some(sticky);
                    CONF_OK
                }
                Err(fault) => {
                    let text = format!("\"sticky\" in upstream \"{upstream}\": {}", fault.text);
                    conf.fail(&Fault { text, ..fault })
                }
            }
        }
    })
}

fn read(conf: &mut Conf, upstream: &str) -> Result<Sticky, Fault> {
    match conf.word(1) {
        b"cookie" => {
            let (cookie, variable) = Cookie::read(conf)?;
            Ok(Sticky { lookup: vec![variable], form: Form::Cookie(Box::new(cookie)) })
        }
        b"route" => {
            let lookup =
                (2..conf.words().len()).map(|n| variable(conf, conf.word(n))).collect::<Result<Vec<_>, _>>()?;
            match lookup.is_empty() {
                true => Err(Fault::new("\"route\" has no variable; write for example \"sticky route $arg_route\"")),
                false => Ok(Sticky { lookup, form: Form::Route }),
            }
        }
        b"learn" => {
            let (sessions, lookup) = Sessions::read(conf, upstream)?;
            Ok(Sticky { lookup, form: Form::Learn(Box::new(sessions)) })
        }
        other => {
            let other = String::from_utf8_lossy(other);
            Err(Fault::new(format!("unknown form \"{other}\"; known are \"cookie\", \"route\" and \"learn\"")))
        }
    }
}

/// The index of a variable that is written as `$name`.
pub fn variable(conf: &Conf, text: &[u8]) -> Result<usize, Fault> {
    match text.strip_prefix(b"$") {
        Some(name) if !name.is_empty() => index_of(conf, name),
        _ => Err(Fault::new(format!("\"{}\" is no variable; write \"$name\"", String::from_utf8_lossy(text)))),
    }
}

/// The index of a variable.
pub fn index_of(conf: &Conf, name: &[u8]) -> Result<usize, Fault> {
    let memory = || Fault::new("no memory");
    // SAFETY: a live configuration of `http`, in whose pool the name is kept.
    let index = unsafe {
        let mut name = ffi::copied(conf.pool(), name).ok_or_else(memory)?;
        sys::ngx_http_get_variable_index(conf.as_ptr(), &mut name)
    };
    usize::try_from(index).map_err(|_| memory())
}

/// Of these variables the first that isn't empty; in memory of the request.
///
/// # Safety
/// `r` is live, and the indexes are of its configuration.
pub unsafe fn first(r: *mut sys::ngx_http_request_t, variables: &[usize]) -> Option<sys::ngx_str_t> {
    variables.iter().find_map(|index| {
        // SAFETY: the caller's promise.
        let value = unsafe { sys::ngx_http_get_flushed_variable(r, *index).as_ref() }?;
        let len = value.len() as usize;
        (value.not_found() == 0 && len > 0).then_some(sys::ngx_str_t { len, data: value.data })
    })
}
