//! Tags of versions, and requests that depend on them: `ETag`, `If-Match`, `If-None-Match`.
//!
//! The tag of a record is its version, so it changes with every write on any node, and with nothing else.

use super::Request;
use crate::record::Version;
use crate::store::Condition;
use std::fmt::Write;

/// A version as text: the stamp, and who wrote it.
pub(super) fn text(version: Version) -> String {
    let mut text = format!("{:016x}-", version.stamp.0);
    for byte in version.origin.0 {
        // Writing to a string doesn't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The value of `ETag`.
pub(super) fn tag(version: Version) -> String {
    format!("\"{}\"", text(version))
}

/// What a request demands of the record that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    None,
    Match(Tags),
    NoneMatch(Tags),
}

/// A list of tags, without quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`
    Any,
    List(Vec<String>),
}

/// What a precondition makes of a look at a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Good,
    /// `If-None-Match` names it: the client has it.
    Unmodified,
    Failed,
}

impl Precondition {
    /// That of a request; as HTTP says, `If-None-Match` isn't looked at beside `If-Match`.
    pub(super) fn of(request: &Request<'_>) -> Precondition {
        let header = |name| (request.header)(name);
        match (header("if-match"), header("if-none-match")) {
            (Some(list), _) => Precondition::Match(tags(&list, false)),
            (None, Some(list)) => Precondition::NoneMatch(tags(&list, true)),
            (None, None) => Precondition::None,
        }
    }

    /// For a look at a record of this version.
    pub(super) fn seen(&self, version: Version) -> Seen {
        match self {
            Precondition::Match(tags) if !tags.have(version) => Seen::Failed,
            Precondition::NoneMatch(tags) if tags.have(version) => Seen::Unmodified,
            _ => Seen::Good,
        }
    }

    /// For a write, where `current` is there now: what must still hold under the lock. `None`: it doesn't hold.
    pub(super) fn write(&self, current: Option<Version>) -> Option<Condition> {
        match (self, current) {
            (Precondition::None, _) => Some(Condition::Always),
            (Precondition::Match(Tags::Any), Some(_)) => Some(Condition::Present),
            (Precondition::Match(tags), Some(version)) if tags.have(version) => Some(Condition::Version(version)),
            (Precondition::NoneMatch(_), None) => Some(Condition::Absent),
            (Precondition::NoneMatch(tags), Some(version)) if !tags.have(version) => Some(Condition::Version(version)),
            _ => None,
        }
    }
}

impl Tags {
    fn have(&self, version: Version) -> bool {
        match self {
            Tags::Any => true,
            Tags::List(list) => list.contains(&text(version)),
        }
    }
}

/// Reads a list. `weak`: tags that compression has weakened (`W/"..."`) count too.
fn tags(list: &str, weak: bool) -> Tags {
    if list.trim() == "*" {
        return Tags::Any;
    }
    let one = |tag: &str| {
        let tag = tag.trim();
        let strong = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        Some(strong.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    };
    Tags::List(list.split(',').filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Identity, Stamp};

    const ONE: Version = Version { stamp: Stamp(0x18bc_fe56_8000_0001), origin: Identity([0xab; 16]) };
    const TWO: Version = Version { stamp: Stamp(0x18bc_fe56_8000_0002), origin: Identity([0xab; 16]) };

    #[test]
    fn tags_are_versions() {
        assert_eq!(text(ONE), "18bcfe5680000001-abababababababababababababababab");
        assert_eq!(tag(ONE), "\"18bcfe5680000001-abababababababababababababababab\"");
    }

    #[test]
    fn lists_are_read_as_http_says() {
        let list = format!(" \"x\" , W/{}, {}", tag(TWO), tag(ONE));
        let strong = tags(&list, false);
        assert!(strong.have(ONE) && !strong.have(TWO));
        let weak = tags(&list, true);
        assert!(weak.have(ONE) && weak.have(TWO));
        assert_eq!(tags(" * ", false), Tags::Any);
        for nothing in ["", ",", "\"", "x", "\"a"] {
            assert!(!tags(nothing, true).have(ONE), "{nothing}");
        }
    }

    #[test]
    fn what_must_hold_for_a_write() {
        let list = |version| Tags::List(vec![text(version)]);
        let rules = [
            (Precondition::None, Some(Condition::Always), Some(Condition::Always)),
            (Precondition::Match(Tags::Any), Some(Condition::Present), None),
            (Precondition::Match(list(ONE)), Some(Condition::Version(ONE)), None),
            (Precondition::Match(list(TWO)), None, None),
            (Precondition::NoneMatch(Tags::Any), None, Some(Condition::Absent)),
            (Precondition::NoneMatch(list(ONE)), None, Some(Condition::Absent)),
            (Precondition::NoneMatch(list(TWO)), Some(Condition::Version(ONE)), Some(Condition::Absent)),
        ];
        for (rule, there, absent) in rules {
            assert_eq!((rule.write(Some(ONE)), rule.write(None)), (there, absent), "{rule:?}");
        }
    }
}
