//! JSON: bodies are read into a small tree that keeps what a map would lose (a name given twice), and answers are
//! written member by member, so that `?fields=` works the same everywhere.

use super::args::Fields;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A JSON text, as far as the API cares.
#[derive(Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    String(Cow<'a, str>),
    /// A whole number from 0 to what 64 bits hold.
    Number(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Members in their order; names may repeat.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    /// Any other: the API has no use for booleans, arrays and fractions.
    Other,
}

/// Why a text isn't JSON, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson(pub(super) String);

/// Reads a whole text. Text after the value, and bytes that aren't UTF-8, are errors.
pub(super) fn parse(text: &[u8]) -> Result<Json<'_>, NotJson> {
    // The error tells a place, and nothing of the content.
    serde_json::from_slice(text).map_err(|error| NotJson(error.to_string()))
}

/// Reads a part of a text. `first`: which byte of the text the part's first is, counted from 0.
pub(super) fn parse_part(part: &[u8], first: usize) -> Result<Json<'_>, NotJson> {
    serde_json::from_slice(part).map_err(|error| {
        let lines = part.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
        let byte = first + lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
        let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        NotJson(format!("{}, at byte {byte}", text.strip_suffix(&place).unwrap_or(&text)))
    })
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

/// Builds the tree. It accepts every value: what the API makes of one is decided when the whole text is known to be
/// JSON. serde_json bounds the depth.
struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Negative(number)) // only negative ones come here
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

/// A member's name, borrowed if it has no escapes (`Cow` itself would always be copied).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// An object in the making: with `?fields=`, only the members asked for, or an array of the names.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    fields: &'o Fields,
    any: bool,
}

impl<'o> Object<'o> {
    /// Begins one at the end of `out`. It must be [ended](Object::end).
    pub(super) fn new(out: &'o mut Vec<u8>, fields: &'o Fields) -> Object<'o> {
        out.push(if *fields == Fields::Names { b'[' } else { b'{' });
        Object { out, fields, any: false }
    }

    /// A member of any bytes as its name; `value` writes its value.
    pub(super) fn member(&mut self, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        if !self.fields.keep(name) {
            return self;
        }
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        string(self.out, name);
        if *self.fields != Fields::Names {
            self.out.push(b':');
            value(self.out);
        }
        self
    }

    /// A number.
    pub(super) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.member(name.as_bytes(), |out| out.extend_from_slice(value.to_string().as_bytes()))
    }

    /// A string.
    pub(super) fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.member(name.as_bytes(), |out| string(out, value.as_bytes()))
    }

    /// What isn't known.
    pub(super) fn null(&mut self, name: &str) -> &mut Self {
        self.member(name.as_bytes(), |out| out.extend_from_slice(b"null"))
    }

    /// A nested object, whole.
    pub(super) fn object(&mut self, name: &[u8], fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.member(name, |out| {
            let mut object = Object::new(out, &Fields::All);
            fill(&mut object);
            object.end();
        })
    }

    /// Ends it.
    pub(super) fn end(self) {
        self.out.push(if *self.fields == Fields::Names { b']' } else { b'}' });
    }
}

/// A whole object as a body.
pub(super) fn object(fields: &Fields, fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut object = Object::new(&mut body, fields);
    fill(&mut object);
    object.end();
    body
}

/// A collection of objects as a body: `fields` chooses among the members of each, which `fill` writes with the same
/// `fields`; empty, it leaves the names of the objects.
pub(super) fn collection(fields: &Fields, fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let outer = if *fields == Fields::Names { Fields::Names } else { Fields::All };
    object(&outer, fill)
}

/// `true` or `false`.
pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends a number of thousandths, as a decimal fraction.
pub(super) fn thousandths(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(format!("{}.{:03}", value / 1000, value % 1000).as_bytes());
}

/// Appends an array of what `one` writes of each item.
pub(super) fn array<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, one: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// An array of names as a body.
pub(super) fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    object(&Fields::Names, |array| {
        for name in list {
            array.member(name.as_bytes(), |_| ());
        }
    })
}

/// Appends any bytes as a JSON string. What isn't UTF-8 is shown as U+FFFD, one for each part that can't be read.
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    part(out, bytes);
    out.push(b'"');
}

/// The first of some bytes, about so many, and the rest, so that both as [parts](part) are as the whole.
pub(super) fn split(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    if bytes.len() <= most {
        return (bytes, &[]);
    }
    // No character has more than three bytes that go on from another.
    let goes_on = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let at = (most.saturating_sub(3)..=most).rev().find(|at| !goes_on(*at)).unwrap_or(most);
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

/// Appends what stands between the quotes of a string.
pub(super) fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escaped(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends UTF-8 with the escapes that JSON demands.
fn escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = text.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, special) = text.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, rest)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let digit = |half: u8| DIGITS.get(usize::from(half & 15)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            }
        }
        text = rest;
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Json<'_> {
        Json::String(text.into())
    }

    #[test]
    fn reads_what_the_api_cares_for() {
        let members = vec![
            ("a".into(), text("\"\u{1f980}\0")),
            ("a".into(), Json::Null),
            ("".into(), Json::Number(u64::MAX)),
            ("o".into(), Json::Object(vec![("é".into(), Json::Other)])),
        ];
        let body = br#" {"a":"\"\ud83e\udd80\u0000","a":null,"":18446744073709551615,"o":{"\u00e9":[{"x":[1]},"y"]}} "#;
        assert_eq!(parse(body), Ok(Json::Object(members)));
        assert_eq!(parse(b"-9223372036854775808"), Ok(Json::Negative(i64::MIN)));
        for other in ["true", "-9223372036854775809", "1.0", "1e3", "18446744073709551616", "[]", "[[[]]]"] {
            assert_eq!(parse(other.as_bytes()), Ok(Json::Other), "{other}");
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        let deep = "[".repeat(1_000_000);
        for body in ["", "nul", "{\"a\":1,}", "{\"a\":}", "{a:1}", "\"\t\"", "\"\\ud800\"", "1 2", "\u{feff}{}", &deep]
        {
            assert!(parse(body.as_bytes()).is_err(), "{}", body.get(..20).unwrap_or(body));
        }
        assert!(parse(b"\"\xc3\"").is_err());
    }

    #[test]
    fn writes_any_bytes_as_a_string() {
        for (bytes, written) in [
            (&b""[..], "\"\""),
            (b"plain /", "\"plain /\""),
            (b"\"\\\"", "\"\\\"\\\\\\\"\""),
            (b"\n\r\t\x00\x1f\x7f", "\"\\n\\r\\t\\u0000\\u001f\u{7f}\""),
            ("é\u{2028}\u{1f980}".as_bytes(), "\"é\u{2028}\u{1f980}\""),
            (b"\xff\xe2\x82z\xc3", "\"\u{fffd}\u{fffd}z\u{fffd}\""),
        ] {
            let mut out = Vec::new();
            string(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }

    #[test]
    fn a_string_in_parts_is_the_string() {
        for bytes in [
            &b"plain\"\n"[..],
            "é\u{2028}\u{1f980}x\u{1f980}".as_bytes(),
            b"\x80\x80\x80\x80\x80\xf0\x9f\xa6\xe2\x82z\xff",
        ] {
            let mut whole = Vec::new();
            part(&mut whole, bytes);
            for most in 1..=bytes.len() {
                let (mut parts, mut rest) = (Vec::new(), bytes);
                while !rest.is_empty() {
                    let (first, others) = split(rest, most.max(4));
                    assert!(!first.is_empty());
                    part(&mut parts, first);
                    rest = others;
                }
                assert_eq!(parts, whole, "{bytes:?} by {most}");
            }
        }
    }

    #[test]
    fn objects_show_the_fields_asked_for() {
        let show = |fields: Fields| {
            let body = object(&fields, |object| {
                object.number("n", 1).string("s", "t").object(b"o", |inner| {
                    inner.number("n", 2);
                });
            });
            String::from_utf8(body).unwrap()
        };
        assert_eq!(show(Fields::All), r#"{"n":1,"s":"t","o":{"n":2}}"#);
        assert_eq!(show(Fields::Only([b"s".to_vec(), b"o".to_vec()].into())), r#"{"s":"t","o":{"n":2}}"#);
        assert_eq!(show(Fields::Only([].into())), "{}");
        assert_eq!(show(Fields::Names), r#"["n","s","o"]"#);
    }
}
