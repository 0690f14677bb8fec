//! Reads a state file, one pair at a time, in bounded memory, and says where what is wrong with it.

use super::FORMAT;
use crate::base64;
use crate::record::{Identity, Millis, Stamp, Version};
use crate::store::{MAX_KEY, MAX_VALUE};
use std::io::{self, Read};

/// Bytes read at once.
const BUFFER: usize = 128 * 1024;
/// Longest name of a member: a key in base64.
const LONGEST_NAME: usize = MAX_KEY.div_ceil(3) * 4;
/// Longest string of a member.
const LONGEST_TEXT: usize = MAX_VALUE.div_ceil(3) * 4;
/// Records have their ends in 48 bits.
const LATEST: u64 = (1 << 48) - 1;

/// Why a file can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't a state file, or not a whole one.
    #[error("byte {offset}: {why}")]
    Damaged {
        /// Where, from 0.
        offset: u64,
        /// In words.
        why: &'static str,
    },
}

/// What a file is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// What belongs to the zone as a whole: its last emptying.
    Zone { cleared: Stamp },
    /// A pair.
    Pair(Pair),
}

/// A pair.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Where it begins.
    pub offset: u64,
    pub key: Vec<u8>,
    /// `None`: deleted.
    pub value: Option<Vec<u8>>,
    /// When it ends.
    pub end: Option<Millis>,
    pub version: Option<Version>,
    pub shortened: bool,
}

/// Reads one file.
pub struct Reader<R> {
    source: R,
    buffer: Box<[u8]>,
    at: usize,
    len: usize,
    /// Where in the file the buffer ends.
    end: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    First,
    Further,
    After,
}

impl<R: Read> Reader<R> {
    pub fn new(source: R) -> Reader<R> {
        Reader { source, buffer: vec![0; BUFFER].into(), at: 0, len: 0, end: 0, state: State::Before }
    }

    /// The next item; `None`: the file is read to its end. One that holds nothing at all has none.
    pub fn item(&mut self) -> Result<Option<Item>, ReadError> {
        if self.state == State::Before {
            match self.peek_text()? {
                None => self.state = State::After,
                Some(_) => {
                    self.expect(b'{', "an object of pairs has to begin here")?;
                    self.state = State::First;
                }
            }
        }
        match (self.state, self.peek_text()?) {
            (State::After, None) => return Ok(None),
            (State::After, Some(_)) => return self.damaged("nothing may follow the object"),
            (State::First | State::Further, Some(b'}')) => {
                self.at += 1;
                self.state = State::After;
                return self.item();
            }
            (State::Further, Some(b',')) => self.at += 1,
            (State::Further, Some(_)) => return self.damaged("a comma or the end of the object is missing"),
            (State::Before | State::First, Some(_)) => {}
            (_, None) => return self.damaged("the file ends here, before its object does"),
        }
        let first = self.state == State::First;
        self.state = State::Further;
        self.peek_text()?;
        let offset = self.offset();
        let name = self.name()?;
        if name.is_empty() {
            if !first {
                return damage(offset, "a key can't be empty");
            }
            return self.zone().map(Some);
        }
        self.pair(offset, name).map(|pair| Some(Item::Pair(pair)))
    }

    /// Where reading stands.
    pub fn offset(&self) -> u64 {
        self.end - (self.len - self.at) as u64
    }

    /// The member of the empty name.
    fn zone(&mut self) -> Result<Item, ReadError> {
        let (mut format, mut cleared) = (None, None);
        self.members(|reader, name, offset| {
            match name {
                b"zonemesh" => once(&mut format, offset, reader.number()?)?,
                b"cleared" => {
                    let text = reader.text()?;
                    match hex(&text).map(u64::from_be_bytes) {
                        Some(stamp) => once(&mut cleared, offset, Stamp(stamp))?,
                        None => return damage(offset, "a stamp has 16 hexadecimal digits"),
                    }
                }
                _ => return damage(offset, "of the zone as a whole only \"zonemesh\" and \"cleared\" are known"),
            }
            match format {
                Some(number) if number > FORMAT => damage(offset, "a later version of zonemesh has written this"),
                _ => Ok(()),
            }
        })?;
        Ok(Item::Zone { cleared: cleared.unwrap_or_default() })
    }

    fn pair(&mut self, offset: u64, name: Vec<u8>) -> Result<Pair, ReadError> {
        if self.peek_text()? == Some(b'"') {
            let value = Some(self.text()?);
            return Ok(Pair { offset, key: name, value, ..Pair::default() });
        }
        let (mut key, mut value, mut end, mut version, mut shortened) = (None, None, None, None, None);
        self.members(|reader, name, offset| match name {
            b"value" => once(&mut value, offset, Some(reader.text()?)),
            b"base64" => match base64::decode(&reader.text()?) {
                Some(bytes) => once(&mut value, offset, Some(bytes)),
                None => damage(offset, "this is not base64"),
            },
            b"deleted" => reader.truth().and_then(|()| once(&mut value, offset, None)),
            b"expire" => match reader.number()? {
                millis if millis <= LATEST => once(&mut end, offset, millis),
                _ => damage(offset, "an end is a time in milliseconds since the epoch"),
            },
            b"version" => match version_of(&reader.text()?) {
                Some(read) => once(&mut version, offset, read),
                None => damage(offset, "a version has 16 hexadecimal digits, a point and 32 more"),
            },
            b"shortened" => reader.truth().and_then(|()| once(&mut shortened, offset, true)),
            b"key" => match &*reader.text()? {
                b"base64" => once(&mut key, offset, ()),
                _ => damage(offset, "of \"key\" only \"base64\" is known"),
            },
            _ => damage(
                offset,
                "of a pair only \"value\", \"base64\", \"expire\", \"key\", \"deleted\", \"shortened\" and \"version\" are known",
            ),
        })?;
        let Some(value) = value else { return damage(offset, "the pair has no value") };
        let key = match key {
            None => name,
            Some(()) => match base64::decode(&name) {
                Some(key) if !key.is_empty() => key,
                _ => return damage(offset, "the name is not base64, as its member \"key\" says"),
            },
        };
        Ok(Pair { offset, key, value, end, version, shortened: shortened.is_some() })
    }

    /// The members of an object, each handed to `each` with where it begins.
    fn members(
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
    fn name(&mut self) -> Result<Vec<u8>, ReadError> {
        let name = self.string(LONGEST_NAME, "the key is longer than 65536 bytes")?;
        self.expect(b':', "a colon is missing")?;
        Ok(name)
    }

    fn text(&mut self) -> Result<Vec<u8>, ReadError> {
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
    fn number(&mut self) -> Result<u64, ReadError> {
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
    fn truth(&mut self) -> Result<(), ReadError> {
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
    fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), ReadError> {
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
    fn peek_text(&mut self) -> Result<Option<u8>, ReadError> {
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

    fn damaged<T>(&self, why: &'static str) -> Result<T, ReadError> {
        damage(self.offset(), why)
    }
}

fn damage<T>(offset: u64, why: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Damaged { offset, why })
}

/// Sets what may be given once.
fn once<T>(slot: &mut Option<T>, offset: u64, value: T) -> Result<(), ReadError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => damage(offset, "this is given twice"),
    }
}

fn version_of(text: &[u8]) -> Option<Version> {
    let (stamp, origin) = text.split_at_checked(16)?;
    let (stamp, origin) = (u64::from_be_bytes(hex(stamp)?), hex::<16>(origin.strip_prefix(b".")?)?);
    (stamp != 0 && origin != [0; 16]).then_some(Version { stamp: Stamp(stamp), origin: Identity(origin) })
}

/// So many bytes in hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (mut bytes, digit) = ([0; N], |byte: u8| char::from(byte).to_digit(16));
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Some(bytes)
}
