//! Values of parameters, read as nginx reads them.

use super::super::ffi;
use crate::record::Millis;
use nginx_sys as sys;

/// A size, `32k`, `1m` or `1g`; `None`: not one.
pub fn size(text: &str) -> Option<usize> {
    let mut text = ffi::borrowed(text.as_bytes());
    // SAFETY: nginx only reads the string. What it reads sizes of files with knows gigabytes too.
    usize::try_from(unsafe { sys::ngx_parse_offset(&mut text) }).ok()
}

/// A time, `1h30m`, `500ms` or seconds without a unit, that isn't zero; `None`: not one.
pub fn time(text: &str) -> Option<Millis> {
    let mut text = ffi::borrowed(text.as_bytes());
    // SAFETY: nginx only reads the string.
    let millis = unsafe { sys::ngx_parse_time(&mut text, 0) };
    Millis::try_from(millis).ok().filter(|millis| *millis > 0)
}

/// `on` or `off`, any case.
pub fn flag(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("on") => Some(true),
        _ if text.eq_ignore_ascii_case("off") => Some(false),
        _ => None,
    }
}
