//! What JSON is made of, read from a source in bounded memory: text, numbers, members. Says where what is wrong.

use crate::store::{MAX_KEY, MAX_VALUE};
use std::borrow::Cow;
use std::io::{self, Read};

/// Bytes read at once.
const BUFFER: usize = 128 * 1024;
/// Longest name of a member: a key in base64.
const LONGEST_NAME: usize = MAX_KEY.div_ceil(3) * 4;
/// Longest string of a member.
const LONGEST_TEXT: usize = MAX_VALUE.div_ceil(3) * 4;

/// Why a file can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system said so.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It isn't a state file, or not a whole one.
    #[error("is damaged at byte {offset}: {why}")]
    Damaged {
        /// Where, from 0.
        offset: u64,
        /// In words.
        why: Cow<'static, str>,
    },
}

/// A source that is being read.
pub struct Scanner<R> {
    source: R,
    buffer: Box<[u8]>,
    at: usize,
    len: usize,
    /// Where in the source the buffer ends.
    end: u64,
}

impl<R: Read> Scanner<R> {
    pub fn new(source: R) -> Scanner<R> {
        Scanner { source, buffer: vec![0; BUFFER].into(), at: 0, len: 0, end: 0 }
    }

    /// Where reading stands.
    pub fn offset(&self) -> u64 {
        self.end - (self.len - self.at) as u64
    }

    /// Passes the byte that was looked at.
    pub fn pass(&mut self) {
        self.at += 1;
    }

    /// The members of an object, each handed to `each` with where it begins.
    pub fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &[u8], u64) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.expect(b'{', "a string or an object has to begin here")?;
        if self.peek_text()? == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.peek_text()?;
            let offset = self.offset();
            let name = self.name()?;
            each(self, &name, offset)?;
            match self.peek_text()? {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => return self.damaged("a comma or the end of the object is missing"),
                None => return self.damaged("the file ends here, before its object does"),
            }
        }
    }

    /// A member's name and the colon.
    pub fn name(&mut self) -> Result<Vec<u8>, ReadError> {
        let name = self.string(LONGEST_NAME, "the key is longer than 65536 bytes")?;
        self.expect(b':', "a colon is missing")?;
        Ok(name)
    }

    pub fn text(&mut self) -> Result<Vec<u8>, ReadError> {
        self.string(LONGEST_TEXT, "the value is longer than 1048576 bytes")
    }

    fn string(&mut self, longest: usize, too_long: &'static str) -> Result<Vec<u8>, ReadError> {
        self.expect(b'"', "a string has to begin here")?;
        let begin = self.offset();
        let mut text = Vec::new();
        loop {
            if self.peek()?.is_none() {
                return self.damaged("the file ends here, within a string");
            }
            let ready = self.buffer.get(self.at..self.len).unwrap_or_default();
            let plain = ready.iter().position(|byte| *byte < b' ' || *byte == b'"' || *byte == b'\\');
            text.extend_from_slice(ready.get(..plain.unwrap_or(ready.len())).unwrap_or_default());
            self.at += plain.unwrap_or(ready.len());
            if text.len() > longest {
                return damage(begin, too_long);
            }
            if plain.is_none() {
                continue;
            }
            match self.peek()? {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => self.escape(&mut text)?,
                _ => return self.damaged("a control character within a string has to be escaped"),
            }
        }
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(text),
            Err(_) => damage(begin, "the text is not UTF-8; bytes have to be given in base64"),
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), ReadError> {
        let begin = self.offset();
        self.at += 1;
        let escaped = self.byte()?;
        let plain = match escaped {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'u') => {
                let mut units = [self.unit(begin)?, 0];
                let mut count = 1;
                if (0xd800..0xdc00).contains(&units[0]) {
                    if self.byte()? != Some(b'\\') || self.byte()? != Some(b'u') {
                        return damage(begin, "half of a character is missing");
                    }
                    (units[1], count) = (self.unit(begin)?, 2);
                }
                let Some(Ok(character)) = char::decode_utf16(units.into_iter().take(count)).next() else {
                    return damage(begin, "this is no character");
                };
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return damage(begin, "an unknown escape"),
        };
        text.push(plain);
        Ok(())
    }

    /// Four hexadecimal digits.
    fn unit(&mut self, begin: u64) -> Result<u16, ReadError> {
        let mut unit = 0;
        for _ in 0..4 {
            match self.byte()?.and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => unit = unit << 4 | digit as u16,
                None => return damage(begin, "four hexadecimal digits have to follow \"\\u\""),
            }
        }
        Ok(unit)
    }

    /// A whole number.
    pub fn number(&mut self) -> Result<u64, ReadError> {
        self.peek_text()?;
        let begin = self.offset();
        let (mut number, mut digits, mut leading_zero) = (0u64, 0, false);
        while let Some(digit) = self.peek()?.filter(u8::is_ascii_digit) {
            self.at += 1;
            digits += 1;
            leading_zero |= digits == 1 && digit == b'0';
            match number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit - b'0'))) {
                Some(more) => number = more,
                None => return damage(begin, "the number is too large"),
            }
        }
        match digits {
            0 => damage(begin, "a whole number has to be here"),
            2.. if leading_zero => damage(begin, "a number can't begin with zero"),
            _ => Ok(number),
        }
    }

    /// `true`.
    pub fn truth(&mut self) -> Result<(), ReadError> {
        self.peek_text()?;
        let begin = self.offset();
        for expected in b"true" {
            if self.byte()? != Some(*expected) {
                return damage(begin, "only \"true\" may be here");
            }
        }
        Ok(())
    }

    /// Passes white space and then this byte.
    pub fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), ReadError> {
        match self.peek_text()? {
            Some(here) if here == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.damaged(why),
            None => self.damaged("the file ends here, before its object does"),
        }
    }

    /// The next byte that isn't white space, which stays.
    pub fn peek_text(&mut self) -> Result<Option<u8>, ReadError> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return Ok(other),
            }
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, ReadError> {
        let byte = self.peek()?;
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        while self.at == self.len {
            match self.source.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(len) => {
                    (self.at, self.len) = (0, len);
                    self.end += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.buffer.get(self.at).copied())
    }

    pub fn damaged<T>(&self, why: &'static str) -> Result<T, ReadError> {
        damage(self.offset(), why)
    }
}

/// This is wrong, there.
pub fn damage<T>(offset: u64, why: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Damaged { offset, why: why.into() })
}
