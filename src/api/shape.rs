//! How a pair is written below `/zonemesh/`: text as text, other bytes as Base64, and with `?meta=1` all that is known.

use super::{condition, json};
use crate::base64;
use crate::record::{Millis, Version};

/// What is known of a record besides its value.
pub(super) struct Meta {
    /// Milliseconds of life that are left; `None`: it never ends.
    pub(super) expire: Option<Millis>,
    pub(super) version: Version,
}

/// Appends `"key":value`. A key that isn't UTF-8 is shown as well as can be, with its bytes in a member `key`.
pub(super) fn pair(out: &mut Vec<u8>, key: &[u8], value: &[u8], meta: Option<&Meta>) {
    json::string(out, key);
    out.push(b':');
    let is_text = std::str::from_utf8(key).is_ok();
    if is_text && meta.is_none() {
        return bytes(out, value);
    }
    out.push(b'{');
    if !is_text {
        out.extend_from_slice(b"\"key\":");
        bytes(out, key);
        out.push(b',');
    }
    out.extend_from_slice(b"\"value\":");
    bytes(out, value);
    if let Some(meta) = meta {
        out.extend_from_slice(b",\"expire\":");
        match meta.expire {
            Some(millis) => out.extend_from_slice(millis.to_string().as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"version\":");
        json::string(out, condition::text(meta.version).as_bytes());
        out.extend_from_slice(b",\"origin\":");
        json::string(out, meta.version.origin.to_string().as_bytes());
    }
    out.push(b'}');
}

/// Appends a string, or `{"base64":"..."}`.
pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    if std::str::from_utf8(value).is_ok() {
        return json::string(out, value);
    }
    out.extend_from_slice(b"{\"base64\":\"");
    base64::encode(out, value);
    out.extend_from_slice(b"\"}");
}
