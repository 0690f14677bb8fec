//! The part of a request's path that is the API's: what follows the location's name.
//!
//! nginx decodes paths before it looks for a location, so that `%2F` in a zone's name has become a slash. Where the path
//! as sent says the same as the decoded one, it is used instead.

/// What follows the location's name, percent-encoded. `raw`: the path as sent, if the request hasn't been redirected.
pub fn below(name: &[u8], uri: &[u8], raw: Option<&[u8]>) -> String {
    let offset = offset(name, uri);
    let (location, rest) = uri.split_at(offset);
    let sent = raw
        .map(|raw| raw.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or(raw))
        .and_then(|raw| raw.strip_prefix(location))
        .filter(|sent| decoded(sent) == rest);
    match sent {
        Some(sent) => printable(sent),
        None => encoded(rest),
    }
}

/// What follows the location's name and a slash, decoded. nginx makes one of slashes that follow each other
/// (`merge_slashes`), also of encoded ones, and a key may have several: if that is all that it changed, they stay.
pub fn key(name: &[u8], uri: &[u8], raw: Option<&[u8]>) -> Vec<u8> {
    let (location, rest) = uri.split_at(offset(name, uri));
    let sent = raw
        .map(|raw| raw.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or(raw))
        .and_then(|raw| raw.strip_prefix(location))
        .map(decoded)
        .filter(|sent| merged(sent) == merged(rest));
    let rest = sent.as_deref().unwrap_or(rest);
    rest.strip_prefix(b"/").unwrap_or(rest).to_vec()
}

/// With one slash for several.
fn merged(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|next, last| *next == b'/' && *last == b'/');
    out
}

/// Text of any bytes: what isn't printable ASCII is percent-encoded, which means the same in paths and queries.
pub fn printable(bytes: &[u8]) -> String {
    escape(bytes, |byte| byte.is_ascii_graphic())
}

fn encoded(bytes: &[u8]) -> String {
    escape(bytes, |byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte))
}

fn escape(bytes: &[u8], plain: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Where the API's part begins. The name of a location by regular expression isn't a part of the path: there the first
/// segment that is a number, a version of the API, begins it.
fn offset(name: &[u8], uri: &[u8]) -> usize {
    if uri.starts_with(name) {
        return name.len() - usize::from(name.ends_with(b"/"));
    }
    let mut at = 0;
    for segment in uri.split(|byte| *byte == b'/') {
        if at > 0 && !segment.is_empty() && segment.iter().all(u8::is_ascii_digit) {
            return at - 1;
        }
        at += segment.len() + 1;
    }
    uri.len()
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let code = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
