//! `sticky cookie`: the server's name in a cookie that nginx sets.

use super::directive::index_of;
use super::sid::Sid;
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::ffi::{self, OK};
use nginx_sys as sys;

/// The end of the time that cookies can tell, and as many seconds.
const FOR_EVER: &[u8] = b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000";
/// Bytes that nginx writes a date of a cookie in, at most.
const DATE: usize = 64;

/// What `sticky cookie` says.
pub struct Cookie {
    name: Vec<u8>,
    expires: Option<Expires>,
    domain: Option<Text>,
    path: Option<Vec<u8>>,
    same_site: Option<Text>,
    http_only: bool,
    secure: bool,
}

enum Expires {
    Never,
    After(sys::time_t),
}

/// Text, or text and variables mixed.
struct Text(sys::ngx_http_complex_value_t);

impl Cookie {
    /// Reads the directive. Returns the index of the variable that has the cookie of a request, too.
    pub fn read(conf: &Conf) -> Result<(Cookie, usize), Fault> {
        let name = conf.word(2).to_vec();
        if name.is_empty() {
            return Err(Fault::new("\"cookie\" has no name; write for example \"sticky cookie srv_id\""));
        }
        let mut cookie =
            Cookie { name, expires: None, domain: None, path: None, same_site: None, http_only: false, secure: false };
        for parameter in conf.parameters().skip(2) {
            let twice = || Fault::new(format!("a second \"{parameter}\" of \"cookie\"; keep one"));
            let bad = |wanted: &str| Fault::new(format!("bad \"{parameter}\" of \"cookie\"; {wanted}"));
            match parameter.split_once('=') {
                Some(("expires", value)) if cookie.expires.is_none() => {
                    let expires =
                        expires(value).ok_or_else(|| bad("it is a time, as in \"expires=1h\", or \"max\""))?;
                    cookie.expires = Some(expires);
                }
                Some(("domain", value)) if cookie.domain.is_none() && !value.is_empty() => {
                    cookie.domain = Some(Text::compile(conf, value)?);
                }
                Some(("path", value)) if cookie.path.is_none() && !value.is_empty() => {
                    cookie.path = Some(value.as_bytes().to_vec());
                }
                Some(("samesite", value)) if cookie.same_site.is_none() => {
                    let text = Text::compile(conf, value)?;
                    if !text.varies() && !is_same_site(value.as_bytes()) {
                        return Err(bad("it is \"strict\", \"lax\", \"none\" or a variable"));
                    }
                    cookie.same_site = Some(text);
                }
                None if parameter == "httponly" && !cookie.http_only => cookie.http_only = true,
                None if parameter == "secure" && !cookie.secure => cookie.secure = true,
                Some(("domain" | "path", "")) => return Err(bad("it is empty")),
                Some(("expires" | "domain" | "path" | "samesite", _)) => return Err(twice()),
                None if parameter == "httponly" || parameter == "secure" => return Err(twice()),
                _ => {
                    return Err(Fault::new(format!(
                        "unknown parameter \"{parameter}\" of \"cookie\"; known are expires=, domain=, httponly, samesite=, \
                         secure and path="
                    )));
                }
            }
        }
        let variable = index_of(conf, &[b"cookie_", &*cookie.name].concat())?;
        Ok((cookie, variable))
    }

    /// Sets the cookie of a response to a server's name, in the place of what `header` had of it. `None`: no memory.
    ///
    /// # Safety
    /// `r` is live, and its header was not sent; `header` is null or what this returned for it before.
    pub unsafe fn set(
        &self,
        r: *mut sys::ngx_http_request_t,
        server: &Sid,
        header: *mut sys::ngx_table_elt_t,
    ) -> Option<*mut sys::ngx_table_elt_t> {
        // SAFETY: the caller's promise; a new entry of the list is filled at once.
        unsafe {
            let value = ffi::copied((*r).pool, &self.value(r, server)?)?;
            let mut header = header;
            if header.is_null() {
                header = sys::ngx_list_push(&raw mut (*r).headers_out.headers).cast();
                if header.is_null() {
                    return None;
                }
                header.write_bytes(0, 1);
                (*header).hash = 1;
                (*header).key = ffi::constant(c"Set-Cookie");
                (*header).lowcase_key = c"set-cookie".as_ptr().cast_mut().cast();
            }
            (*header).value = value;
            Some(header)
        }
    }

    unsafe fn value(&self, r: *mut sys::ngx_http_request_t, server: &Sid) -> Option<Vec<u8>> {
        let mut value = [&*self.name, b"=", server.as_bytes()].concat();
        match self.expires {
            Some(Expires::Never) => value.extend_from_slice(FOR_EVER),
            Some(Expires::After(seconds)) => {
                let mut date = [0; DATE];
                // SAFETY: nginx writes less than this into the buffer, and returns where it stopped.
                let len = unsafe {
                    let end = sys::ngx_http_cookie_time(date.as_mut_ptr(), sys::ngx_timeofday().sec + seconds);
                    end.offset_from_unsigned(date.as_ptr())
                };
                value.extend_from_slice(b"; expires=");
                value.extend_from_slice(date.get(..len)?);
                value.extend_from_slice(format!("; max-age={seconds}").as_bytes());
            }
            None => {}
        }
        if let Some(domain) = &self.domain {
            // SAFETY: the caller's promise.
            attribute(&mut value, b"; domain=", unsafe { domain.evaluate(r) }?);
        }
        value.extend_from_slice(if self.http_only { b"; httponly" } else { b"" });
        value.extend_from_slice(if self.secure { b"; secure" } else { b"" });
        if let Some(same_site) = &self.same_site {
            // SAFETY: the caller's promise.
            let wanted = unsafe { same_site.evaluate(r) }?;
            let is_fit = wanted.is_empty() || is_same_site(wanted);
            attribute(&mut value, b"; samesite=", if is_fit { wanted } else { b"strict" });
        }
        attribute(&mut value, b"; path=", self.path.as_deref().unwrap_or_default());
        Some(value)
    }
}

/// An empty one is left out.
fn attribute(value: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    if !text.is_empty() {
        value.extend_from_slice(name);
        value.extend_from_slice(text);
    }
}

fn expires(value: &str) -> Option<Expires> {
    if value == "max" {
        return Some(Expires::Never);
    }
    let mut text = ffi::borrowed(value.as_bytes());
    // SAFETY: nginx only reads the string.
    let seconds = unsafe { sys::ngx_parse_time(&mut text, 1) };
    (seconds >= 0 && !value.is_empty()).then_some(Expires::After(seconds as sys::time_t))
}

fn is_same_site(value: &[u8]) -> bool {
    [&b"strict"[..], b"lax", b"none"].iter().any(|known| known.eq_ignore_ascii_case(value))
}

impl Text {
    fn compile(conf: &Conf, text: &str) -> Result<Text, Fault> {
        let bad = || Fault::new(format!("bad text \"{text}\""));
        // SAFETY: zero is the empty state of both structures; the value's parts are in the cycle's pool, its text too.
        unsafe {
            let mut value: sys::ngx_http_complex_value_t = std::mem::zeroed();
            let mut order: sys::ngx_http_compile_complex_value_t = std::mem::zeroed();
            let mut text = ffi::copied(conf.pool(), text.as_bytes()).ok_or_else(bad)?;
            order.cf = conf.as_ptr();
            order.value = &mut text;
            order.complex_value = &mut value;
            if sys::ngx_http_compile_complex_value(&mut order) == OK { Ok(Text(value)) } else { Err(bad()) }
        }
    }

    fn varies(&self) -> bool {
        !self.0.lengths.is_null()
    }

    /// # Safety
    /// `r` is live, and served with the configuration that this is part of.
    unsafe fn evaluate<'r>(&self, r: *mut sys::ngx_http_request_t) -> Option<&'r [u8]> {
        let mut text = sys::ngx_str_t::empty();
        // SAFETY: the caller's promise; nginx only reads the compiled value, and the result is in the request's pool.
        unsafe {
            let done = sys::ngx_http_complex_value(r, (&raw const self.0).cast_mut(), &mut text);
            (done == OK).then(|| ffi::bytes(text))
        }
    }
}
