//! The query string, and percent-decoding.
//!
//! As everywhere in nginx, `+` means itself, the first of several arguments of one name counts, and names match in any
//! case.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The value of the first argument `name`, decoded. An argument without `=` has none and is passed over.
pub(super) fn first<'a>(args: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    args.split('&')
        .filter_map(|arg| arg.split_once('='))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| decode(value))
}

/// Replaces each `%xx` by its byte. What only looks like one stays as it is.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(byte);
            rest = after;
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Which members of an object are to be shown: `?fields=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// No `fields`.
    All,
    /// `fields=`: only the names, as an array.
    Names,
    /// `fields=a,b`.
    Only(BTreeSet<Vec<u8>>),
}

impl Fields {
    /// Reads them from a query string. The list is decoded before it is split: clients encode the comma too.
    pub(super) fn of(args: &str) -> Fields {
        match first(args, "fields") {
            None => Fields::All,
            Some(list) if list.is_empty() => Fields::Names,
            Some(list) => Fields::Only(list.split(|&byte| byte == b',').map(<[u8]>::to_vec).collect()),
        }
    }

    /// Whether a member of this name is shown.
    pub(super) fn keep(&self, name: &[u8]) -> bool {
        match self {
            Fields::Only(names) => names.contains(name),
            Fields::All | Fields::Names => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_bytes_and_leaves_the_rest() {
        for (text, bytes) in [
            ("plain", &b"plain"[..]),
            ("a%2Fb%2fc", b"a/b/c"),
            ("%00%ff", b"\x00\xff"),
            ("a+b", b"a+b"),
            ("100%", b"100%"),
            ("%4", b"%4"),
            ("%zz%41", b"%zzA"),
            ("%%41", b"%A"),
            ("%2541", b"%41"),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(&*decode(text), bytes, "{text}");
        }
    }

    #[test]
    fn takes_the_first_argument_of_a_name() {
        assert_eq!(first("key=a&key=b", "key").as_deref(), Some(&b"a"[..]));
        assert_eq!(first("x=1&KEY=a%26b", "key").as_deref(), Some(&b"a&b"[..]));
        assert_eq!(first("key=a=b", "key").as_deref(), Some(&b"a=b"[..]));
        assert_eq!(first("key=", "key").as_deref(), Some(&b""[..]));
        assert_eq!(first("key", "key"), None);
        assert_eq!(first("monkey=a", "key"), None);
        assert_eq!(first("", "key"), None);
    }

    #[test]
    fn reads_fields() {
        assert_eq!(Fields::of(""), Fields::All);
        assert_eq!(Fields::of("fields="), Fields::Names);
        let only = Fields::Only([b"a".to_vec(), b"b".to_vec()].into());
        assert_eq!(Fields::of("fields=a,b"), only);
        assert_eq!(Fields::of("fields=a%2Cb"), only);
        assert!(only.keep(b"b") && !only.keep(b"c"));
    }
}
