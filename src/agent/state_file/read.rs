//! Reads a state file, or a file of changes, one pair at a time, in bounded memory, and says where what is wrong with it.

use super::FORMAT;
use super::scan::{Scanner, damage};
use crate::base64;
use crate::record::{Count, Identity, Millis, PartId, Role, Stamp, Version, number};
use crate::store::Followed;
use std::io::Read;

pub use super::scan::ReadError;

/// Records have their ends in 48 bits.
const LATEST: u64 = (1 << 48) - 1;

/// What a file is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// What belongs to the whole.
    About(About),
    /// A pair.
    Pair(Pair),
}

/// What stands under the empty name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Where it begins.
    pub offset: u64,
    /// The zone's last emptying.
    /// The seed of the zone's hash, if that matters.
    pub seed: Option<[u8; 16]>,
    pub cleared: Option<Stamp>,
    /// Of a file of changes: its number.
    pub changes: Option<u64>,
    /// The number of the file of changes that it goes on from.
    pub continues: Option<u64>,
    /// The state file that the changes follow.
    pub follows: Option<Followed>,
}

/// A pair.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Where it begins.
    pub offset: u64,
    /// That of its record.
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
    scan: Scanner<R>,
    state: State,
    /// One object follows another.
    many: bool,
    /// Pairs are counters.
    counters: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    First,
    Further,
    After,
}

impl<R: Read> Reader<R> {
    /// Reads a state file: one object.
    pub fn new(source: R) -> Reader<R> {
        Reader { scan: Scanner::new(source), state: State::Before, many: false, counters: false }
    }

    /// The same; `counters`: for a zone of them, where a key has several records.
    pub fn with(self, counters: bool) -> Reader<R> {
        Reader { counters, ..self }
    }

    /// Reads a file of changes: an object a line.
    pub fn of_changes(source: R) -> Reader<R> {
        Reader { many: true, ..Reader::new(source) }
    }

    /// The next item; `None`: the file is read to its end. One that holds nothing at all has none.
    pub fn item(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            match (self.state, self.scan.peek_text()?) {
                (State::Before | State::After, None) => {
                    self.state = State::After;
                    return Ok(None);
                }
                (State::After, Some(_)) if !self.many => return self.scan.damaged("nothing may follow the object"),
                (State::Before | State::After, Some(_)) => {
                    self.scan.expect(b'{', "an object of pairs has to begin here")?;
                    self.state = State::First;
                }
                (State::First | State::Further, Some(b'}')) => {
                    self.scan.pass();
                    self.state = State::After;
                }
                (State::Further, Some(b',')) => {
                    self.scan.pass();
                    return self.member(false);
                }
                (State::Further, Some(_)) => {
                    return self.scan.damaged("a comma or the end of the object is missing");
                }
                (State::First, Some(_)) => return self.member(true),
                (_, None) => return self.scan.damaged("the file ends here, before its object does"),
            }
        }
    }

    /// Where reading stands.
    pub fn offset(&self) -> u64 {
        self.scan.offset()
    }

    fn member(&mut self, first: bool) -> Result<Option<Item>, ReadError> {
        self.state = State::Further;
        self.scan.peek_text()?;
        let offset = self.offset();
        let name = self.scan.name()?;
        match name.is_empty() {
            true if !first => damage(offset, "a key can't be empty"),
            true => self.about(offset).map(|about| Some(Item::About(about))),
            false => self.pair(offset, name).map(|pair| Some(Item::Pair(pair))),
        }
    }

    /// The member of the empty name.
    fn about(&mut self, offset: u64) -> Result<About, ReadError> {
        let (mut format, mut about, many) = (None, About { offset, ..About::default() }, self.many);
        self.scan.members(|scan, name, offset| {
            match name {
                b"zonemesh" => once(&mut format, offset, scan.number()?)?,
                b"cleared" => once(&mut about.cleared, offset, stamp(scan, offset)?)?,
                b"seed" if !many => match hex(&scan.text()?) {
                    Some(bytes) => once(&mut about.seed, offset, bytes)?,
                    None => return damage(offset, "a seed has 32 hexadecimal digits"),
                },
                b"changes" if many => once(&mut about.changes, offset, scan.number()?)?,
                b"continues" if many => once(&mut about.continues, offset, scan.number()?)?,
                b"follows" if many => once(&mut about.follows, offset, followed(scan)?)?,
                _ if many => {
                    return damage(
                        offset,
                        "of a file of changes only \"zonemesh\", \"changes\", \"continues\", \"follows\" and \"cleared\" are known",
                    );
                }
                _ => {
                    return damage(
                        offset,
                        "of the zone as a whole only \"zonemesh\", \"cleared\" and \"seed\" are known",
                    );
                }
            }
            match format {
                Some(number) if number > FORMAT => damage(offset, "a later version of zonemesh has written this"),
                _ => Ok(()),
            }
        })?;
        Ok(about)
    }

    fn pair(&mut self, offset: u64, name: Vec<u8>) -> Result<Pair, ReadError> {
        if self.scan.peek_text()? == Some(b'"') {
            let value = Some(self.scan.text()?);
            let key = if self.counters { Role::Base.of(&name) } else { name };
            return Ok(Pair { offset, key, value, ..Pair::default() });
        }
        let (mut key, mut value, mut end, mut version, mut shortened) = (None, None, None, None, None);
        let (mut part, mut begun, counters) = (None, None, self.counters);
        self.scan.members(|scan, name, offset| match name {
            b"value" => once(&mut value, offset, Some(scan.text()?)),
            b"base64" => match base64::decode(&scan.text()?) {
                Some(bytes) => once(&mut value, offset, Some(bytes)),
                None => damage(offset, "this is not base64"),
            },
            b"deleted" => scan.truth().and_then(|()| once(&mut value, offset, None)),
            b"expire" => match scan.number()? {
                millis if millis <= LATEST => once(&mut end, offset, millis),
                _ => damage(offset, "an end is a time in milliseconds since the epoch"),
            },
            b"version" => match version_of(&scan.text()?) {
                Some(read) => once(&mut version, offset, read),
                None => damage(offset, "a version has 16 hexadecimal digits, a point and 32 more"),
            },
            b"shortened" => scan.truth().and_then(|()| once(&mut shortened, offset, true)),
            b"key" => match &*scan.text()? {
                b"base64" => once(&mut key, offset, ()),
                _ => damage(offset, "of \"key\" only \"base64\" is known"),
            },
            b"part" if counters => match hex(&scan.text()?) {
                Some(id) => once(&mut part, offset, PartId(id)),
                None => damage(offset, "a part has 16 hexadecimal digits"),
            },
            b"begun" if counters => once(&mut begun, offset, stamp(scan, offset)?),
            _ if counters => damage(
                offset,
                "of a counter only \"value\", \"expire\", \"key\", \"part\", \"begun\", \"deleted\", \"shortened\" and \"version\" are known",
            ),
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
        let pair = Pair { offset, key, value, end, version, shortened: shortened.is_some() };
        if self.counters { counter(pair, part, begun) } else { Ok(pair) }
    }
}

/// Makes a pair the record of a counter that it says.
fn counter(pair: Pair, part: Option<PartId>, begun: Option<Stamp>) -> Result<Pair, ReadError> {
    let Some(id) = part else {
        return match begun {
            Some(_) => damage(pair.offset, "\"begun\" belongs to a \"part\""),
            None => Ok(Pair { key: Role::Base.of(&pair.key), ..pair }),
        };
    };
    if pair.version.is_none() {
        return damage(pair.offset, "a part of a counter needs its \"version\"");
    }
    let value = match (&pair.value, begun) {
        (None, None) => None,
        (None, Some(_)) => return damage(pair.offset, "what is \"deleted\" isn't \"begun\""),
        (Some(text), begun) => match number(text) {
            Some(amount) => Some(Count { begun: begun.unwrap_or_default(), amount }.encode().to_vec()),
            None => return damage(pair.offset, "the value of a part is a whole number"),
        },
    };
    Ok(Pair { key: Role::Part(id).of(&pair.key), value, ..pair })
}

/// By which a state file is known.
fn followed<R: Read>(scan: &mut Scanner<R>) -> Result<Followed, ReadError> {
    let (mut modified, mut bytes, mut since) = (None, None, None);
    scan.members(|scan, name, offset| match name {
        b"modified" => once(&mut modified, offset, scan.number()?),
        b"bytes" => once(&mut bytes, offset, scan.number()?),
        b"stamp" => once(&mut since, offset, stamp(scan, offset)?),
        _ => damage(offset, "of a state file only \"modified\", \"bytes\" and \"stamp\" are known here"),
    })?;
    match (modified, bytes, since) {
        (Some(modified), Some(bytes), Some(stamp)) => Ok(Followed { modified, bytes, stamp }),
        _ => scan.damaged("\"modified\", \"bytes\" or \"stamp\" is missing"),
    }
}

fn stamp<R: Read>(scan: &mut Scanner<R>, offset: u64) -> Result<Stamp, ReadError> {
    match hex(&scan.text()?).map(u64::from_be_bytes) {
        Some(stamp) => Ok(Stamp(stamp)),
        None => damage(offset, "a stamp has 16 hexadecimal digits"),
    }
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
