//! `server` in upstream blocks, as far as sessions need it: `route=` and `drain`, which nginx before 1.29.6 doesn't have.

use super::UpstreamConf;
use super::sid::{MAX_SID, Sid};
use crate::nginx::conf::{Conf, Fault, shadow};
use crate::nginx::ffi::{self, CONF_ERROR, CONF_OK, guard};
use crate::nginx::modules;
use nginx_sys as sys;
use std::ffi::{c_char, c_void};

/// A line that has one of the two.
pub struct Line {
    /// As written, as nginx keeps it with each address that the line stands for.
    pub server: Box<[u8]>,
    /// `route=`
    pub route: Option<Sid>,
    /// `drain`
    pub drain: bool,
}

/// Takes off what is ours and hands the rest on. An nginx that has `sticky` itself knows these parameters: it gets them all.
pub unsafe extern "C" fn set(cf: *mut sys::ngx_conf_t, _: *mut sys::ngx_command_t, own: *mut c_void) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` in an upstream block, and with this module's structure for it.
        unsafe {
            let (conf, own) = (Conf::new(cf), &mut *own.cast::<UpstreamConf>());
            let line = match take(&conf, super::is_native(&conf)) {
                Ok(line) => line,
                Err(fault) => return conf.fail(&fault),
            };
            let said = shadow::hand_on(&conf, modules::UPSTREAM.get());
            if said == CONF_OK
                && let Some(line) = line
                && let Some(server) = super::servers(super::of_block(&conf)).last()
            {
                own.lines.push(Line { server: ffi::bytes(server.name).into(), ..line });
            }
            said
        }
    })
}

/// Reads `route=` and `drain`, and unless `keep` leaves the words as an nginx wants them that has neither: who drains is
/// `down` for the balancing method, and requests that are bound to it go there past the method.
unsafe fn take(conf: &Conf, keep: bool) -> Result<Option<Line>, Fault> {
    let fault = |why: &str| Fault::new(format!("\"server {}\": {why}", conf.text(1)));
    let mut line = Line { server: Box::default(), route: None, drain: false };
    let (mut kept, mut down) = (Vec::new(), false);
    for (n, word) in conf.words().iter().enumerate() {
        match conf.word(n) {
            text if n > 1 && text.starts_with(b"route=") => {
                let name = &text[b"route=".len()..];
                if line.route.is_some() {
                    return Err(fault("a second \"route=\"; keep one"));
                }
                let long =
                    || format!("\"route={}\" is empty or longer than {MAX_SID} bytes", String::from_utf8_lossy(name));
                line.route = Some(Sid::new(name).ok_or_else(|| fault(&long()))?);
            }
            b"drain" if n > 1 => {
                line.drain = true;
                kept.push(ffi::constant(c"down"));
            }
            text => {
                down |= n > 1 && text == b"down";
                kept.push(*word);
            }
        }
    }
    if line.route.is_none() && !line.drain {
        return Ok(None);
    }
    line.drain &= !down;
    if !keep {
        // SAFETY: the array of the directive's words, of which there are no more now than before.
        unsafe {
            let words = &mut *(*conf.as_ptr()).args;
            words.elts.cast::<sys::ngx_str_t>().copy_from_nonoverlapping(kept.as_ptr(), kept.len());
            words.nelts = kept.len();
        }
    }
    Ok(Some(line))
}
