//! The members of a JSON object, taken out of a text that comes piece by piece: a body, however large, is never parsed in
//! one go, only each of its pairs.
//!
//! Here only strings, brackets and commas are told apart; whether a member is JSON is for the parser to say. What a whole
//! text would be refused for is refused here too.

use crate::api::json::{self, Json, NotJson};
use std::borrow::Cow;

/// The longest text of one member: the largest key and value, if every byte is escaped.
pub(super) const MAX_MEMBER: usize = 8 << 20;

/// A text on its way.
#[derive(Default)]
pub(super) struct Members {
    /// What came and is still of use.
    text: Vec<u8>,
    /// Bytes of the whole before `text`.
    before: usize,
    /// The member begins here, and was looked at up to there.
    from: usize,
    at: usize,
    state: State,
    is_string: bool,
    is_escaped: bool,
    /// Brackets that are open within the member.
    depth: usize,
    /// The last member that was found, as an object of its own, and where it began in the whole.
    found: Vec<u8>,
    found_at: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text's first byte that isn't a space.
    #[default]
    Begin,
    /// Behind the bracket that opens the object.
    First,
    /// Within a member, or right before it.
    Member,
    /// Behind the object.
    After,
    /// The text is no object.
    Other,
}

/// What [`Members::next`] came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A member: see [`Members::member`].
    Member,
    /// More of the text is needed.
    Nothing,
    /// The end of the object, and of the text.
    End,
    /// The end of a text that is no object: see [`Members::whole`].
    Whole,
}

/// Why it doesn't go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Json(NotJson),
    /// A member, or a text that is no object, has more than [`MAX_MEMBER`] bytes.
    TooLong,
}

impl Members {
    /// A text that is taken as a whole, also if it is an object.
    pub(super) fn whole_text() -> Members {
        Members { state: State::Other, ..Members::default() }
    }

    /// Where the next piece of the text is to be appended.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.text.drain(..self.from);
        self.before += self.from;
        self.at -= self.from;
        self.from = 0;
        &mut self.text
    }

    /// Whether the text is taken as a whole.
    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Other
    }

    /// Goes on to the end of the next member. `at_end`: there is no more text than was appended.
    pub(super) fn next(&mut self, at_end: bool) -> Result<Found, Wrong> {
        loop {
            match self.state {
                State::Begin => match self.skip_space() {
                    Some(b'{') => self.pass(State::First),
                    Some(_) => self.state = State::Other,
                    None => return self.wants_more(at_end, "it is empty"),
                },
                State::First => match self.skip_space() {
                    Some(b'}') => self.pass(State::After),
                    Some(_) => self.state = State::Member,
                    None => return self.wants_more(at_end, "it ends within an object"),
                },
                State::Member => match self.find_end() {
                    Some(byte) => {
                        self.take();
                        self.pass(if byte == b',' { State::Member } else { State::After });
                        return Ok(Found::Member);
                    }
                    None => return self.wants_more(at_end, "it ends within an object"),
                },
                State::After => {
                    return match self.skip_space() {
                        Some(_) => Err(self.wrong("something follows the object")),
                        None if at_end => Ok(Found::End),
                        None => Ok(Found::Nothing),
                    };
                }
                State::Other if at_end => return Ok(Found::Whole),
                State::Other => return self.wants_more(false, ""),
            }
        }
    }

    /// Name and value of the member that was found.
    pub(super) fn member(&self) -> Result<(Cow<'_, str>, Json<'_>), NotJson> {
        // The bracket stands for the one byte before the member.
        let first = match json::parse_part(&self.found, self.found_at.saturating_sub(1))? {
            Json::Object(members) => members.into_iter().next(),
            _ => None,
        };
        first.ok_or_else(|| NotJson(format!("a member is missing, at byte {}", self.found_at)))
    }

    /// The text that is no object.
    pub(super) fn whole(&self) -> Result<Json<'_>, NotJson> {
        json::parse(&self.text)
    }

    fn wrong(&self, why: &str) -> Wrong {
        Wrong::Json(NotJson(format!("{why}, at byte {}", self.before + self.at)))
    }

    fn wants_more(&self, at_end: bool, otherwise: &str) -> Result<Found, Wrong> {
        match at_end {
            true => Err(self.wrong(otherwise)),
            false if self.text.len() - self.from > MAX_MEMBER => Err(Wrong::TooLong),
            false => Ok(Found::Nothing),
        }
    }

    /// Passes the byte that stands there; what follows is new.
    fn pass(&mut self, state: State) {
        self.at += 1;
        self.from = self.at;
        self.state = state;
    }

    /// The next byte that isn't a space.
    fn skip_space(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at += spaces;
        self.from = self.at;
        rest.get(spaces).copied()
    }

    /// Looks for the comma or bracket that ends the member.
    fn find_end(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if self.is_escaped {
                self.is_escaped = false;
            } else if self.is_string {
                self.is_escaped = byte == b'\\';
                self.is_string = byte != b'"';
            } else {
                match byte {
                    b'"' => self.is_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => self.depth -= 1,
                    b'}' | b',' if self.depth == 0 => return Some(byte),
                    _ => {}
                }
            }
            self.at += 1;
        }
        None
    }

    /// Keeps the text of the member as an object: the parser wants one.
    fn take(&mut self) {
        self.found_at = self.before + self.from;
        self.found.clear();
        self.found.push(b'{');
        self.found.extend_from_slice(self.text.get(self.from..self.at).unwrap_or_default());
        self.found.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes of a text in pieces of so many bytes: its members as text, or that it is refused.
    fn members(text: &[u8], piece: usize) -> Result<Vec<String>, Wrong> {
        let mut members = Members::default();
        let (mut list, mut pieces) = (Vec::new(), text.chunks(piece));
        let mut at_end = false;
        loop {
            match members.next(at_end)? {
                Found::Member => {
                    let (name, value) = members.member().map_err(Wrong::Json)?;
                    list.push(format!("{name}={value:?}"));
                }
                Found::Nothing => match pieces.next() {
                    Some(piece) => members.room().extend_from_slice(piece),
                    None => at_end = true,
                },
                Found::End => return Ok(list),
                Found::Whole => {
                    members.whole().map_err(Wrong::Json)?;
                    return Ok(vec!["no object".into()]);
                }
            }
        }
    }

    /// The same from the parser, given the text as a whole.
    fn expected(text: &[u8]) -> Option<Vec<String>> {
        match json::parse(text).ok()? {
            Json::Object(members) => Some(members.iter().map(|(name, value)| format!("{name}={value:?}")).collect()),
            _ => Some(vec!["no object".into()]),
        }
    }

    #[test]
    fn members_are_those_of_the_whole_text() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        for text in [
            "{}",
            " { } ",
            "{\"a\":\"b\"}",
            "\n{ \"a\" : \"},{\\\"\" , \"b\\\\\" : { \"c\" : [ 1 , {} ] , \"d\":null } ,\"a\":1 }\t",
            "{\"\\u007d\":\"\\ud83e\\udd80\"}",
            "",
            " ",
            "{",
            "{\"a\"",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "{,\"a\":1}",
            "{\"a\":1,,\"b\":2}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{\"a\":1}{}",
            "{\"a\":1]}",
            "{\"a\":[1}",
            "{\"a\":[1}]}",
            "{\"a\":{1]}",
            "{\"a\":\"",
            "{\"a\":\"\\\"}",
            "{\"a\" 1}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1 \"b\":2}",
            "[]",
            "[{}]",
            "[",
            "\"text\"",
            "null",
            "12",
            "12 3",
            "\u{feff}{}",
            &deep,
        ] {
            for piece in [1, 2, 3, 1000] {
                assert_eq!(members(text.as_bytes(), piece).ok(), expected(text.as_bytes()), "{text} by {piece}");
            }
        }
        assert!(members(b"{\"\xff\":1}", 1).is_err() && members(b"{\xff\"a\":1}", 1).is_err());
    }

    #[test]
    fn what_is_longer_than_any_member_is_not_gathered() {
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_MEMBER + (1 << 17)));
        assert_eq!(members(text.as_bytes(), 1 << 16), Err(Wrong::TooLong));
        let text = format!("[\"{}\"]", "x".repeat(MAX_MEMBER + (1 << 17)));
        assert_eq!(members(text.as_bytes(), 1 << 16), Err(Wrong::TooLong));
        let spaces = format!("{{{}}}", " ".repeat(MAX_MEMBER + 1));
        assert_eq!(members(spaces.as_bytes(), 1 << 16), Ok(Vec::new()), "spaces aren't kept");
    }

    #[test]
    fn errors_say_where() {
        let error = |text: &str| match members(text.as_bytes(), 4) {
            Err(Wrong::Json(NotJson(text))) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(error("{\"a\":1} x"), "something follows the object, at byte 8");
        assert_eq!(error("{\"a\":1, \"b\"}"), "expected `:`, at byte 11");
        assert_eq!(error("{\"a\":1,}"), "a member is missing, at byte 7");
    }

    proptest! {
        /// Any text of these parts, in pieces of any size, is taken and refused as the parser takes and refuses the whole.
        #[test]
        fn any_text(parts in prop::collection::vec(
            prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", "\\", "a", "1", " ", "null", "\"k\":", "\"v\"", "\"x\":\"y\""]), 0..24),
            piece in 1usize..9)
        {
            let text = parts.concat();
            for text in [text.clone(), format!("{{{text}}}")] {
                prop_assert_eq!(members(text.as_bytes(), piece).ok(), expected(text.as_bytes()), "{}", text);
            }
        }
    }
}
