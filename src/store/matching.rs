//! Which record answers a look-up: the one with the same key, or the longest network or prefix that contains it.
//!
//! Without trees: all types share the hash index. A zone keeps the set of lengths that its keys have, and a look-up
//! probes these, longest first. A length that is in the set but not in use any more costs a probe and nothing else.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::find::{Met, Place};
use super::layout::header;
use super::{MAX_KEY, Zone};
use crate::record::{ENDING, Role};

/// How a zone compares keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Matching {
    /// The same bytes.
    #[default]
    Exact = 0,
    /// Keys are addresses or networks; the longest that contains what is looked up.
    Ip = 1,
    /// The longest key that what is looked up begins with.
    Prefix = 2,
    /// The same bytes; of each key there are several records, which are what nodes have added. See `parts`.
    Counter = 3,
    /// The same bytes: keys are sessions of `sticky learn`, values the servers that they lead to.
    Session = 8,
    /// The same, for what nodes have admitted of what is limited. See `limit`.
    Limit = 4,
}

/// Longest key of a zone of [`Matching::Prefix`]: a bit is kept for each length.
pub const MAX_PREFIX: usize = 2048;
/// Longest key of which there are several records.
pub const MAX_PARTED: usize = MAX_KEY - ENDING;
/// Words of the set of lengths.
pub const LENGTH_WORDS: usize = MAX_PREFIX / 64 + 1;
/// In a zone of [`Matching::Ip`], the lengths of IPv6 networks follow those of IPv4.
const V6_LENGTHS: usize = 64;

impl Matching {
    /// Every type.
    pub const ALL: [Matching; 6] =
        [Matching::Exact, Matching::Ip, Matching::Prefix, Matching::Counter, Matching::Limit, Matching::Session];

    /// The type that a stored or received byte names.
    pub fn from_byte(byte: u8) -> Option<Matching> {
        Matching::ALL.into_iter().find(|matching| *matching as u8 == byte)
    }

    /// As `type=` of a zone's configuration says it.
    pub const fn name(self) -> &'static str {
        match self {
            Matching::Exact => "string",
            Matching::Ip => "ip",
            Matching::Prefix => "prefix",
            Matching::Counter => "counter",
            Matching::Session => "session",
            Matching::Limit => "limit",
        }
    }

    /// Whether a zone of this type can have such a key.
    pub fn accepts(self, key: &[u8]) -> bool {
        match self {
            Matching::Exact | Matching::Session => true,
            Matching::Ip => Network::parse(key).is_some(),
            Matching::Prefix => key.len() <= MAX_PREFIX,
            Matching::Counter | Matching::Limit => key.len() <= MAX_PARTED,
        }
    }

    /// Whether each key is several records, with keys of their own.
    #[inline]
    pub const fn has_parts(self) -> bool {
        matches!(self, Matching::Counter | Matching::Limit)
    }

    /// Whether a full zone gives up what was used longest ago: ends follow from uses there, and tell less.
    pub const fn goes_by_use(self) -> bool {
        matches!(self, Matching::Session | Matching::Limit)
    }
}

/// An address or network in the one form that its spellings share: bits beyond the length are zero, and an IPv4 address
/// inside IPv6 (`::ffff:0:0/96`) is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    len: u8,
    v6: bool,
}

impl Network {
    /// Reads `10.0.0.1`, `10.0.0.0/8`, `2001:db8::1`, `2001:db8::/32`. Host bits may be set and don't count.
    pub fn parse(text: &[u8]) -> Option<Network> {
        let text = std::str::from_utf8(text).ok()?;
        let (address, len) = match text.split_once('/') {
            Some((address, len)) if len.len() <= 3 && len.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(len.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let (bits, full, v6) = match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32, false),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if len.is_none_or(|len| len >= 96) => {
                    let len = len.map(|len| len - 96);
                    return (len.unwrap_or(0) <= 32)
                        .then(|| Network::new(u128::from(v4.to_bits()) << 96, len.unwrap_or(32), false));
                }
                _ => (v6.to_bits(), 128, true),
            },
        };
        let len = len.unwrap_or(full);
        (len <= full).then(|| Network::new(bits, len, v6))
    }

    fn new(bits: u128, len: u8, v6: bool) -> Network {
        let mask = if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len)) };
        Network { bits: bits & mask, len, v6 }
    }

    /// The network of `len` bits that contains this one.
    fn cut(&self, len: u8) -> Network {
        Network::new(self.bits, len, self.v6)
    }

    /// What is hashed.
    fn canonical(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.bits.to_be_bytes());
        bytes[16] = self.len;
        bytes[17] = self.v6.into();
        bytes
    }

    fn length(&self) -> usize {
        usize::from(self.len) + if self.v6 { V6_LENGTHS } else { 0 }
    }
}

impl Zone {
    /// Where the record of `key` belongs. All spellings of a network belong to one place, and so do all records of one key.
    #[inline]
    pub(super) fn place(&self, key: &[u8]) -> Place {
        self.place_of_hash(self.hash_of(key))
    }

    /// What a key's place follows from.
    #[inline]
    pub(super) fn hash_of(&self, key: &[u8]) -> u64 {
        match self.matching {
            Matching::Exact | Matching::Prefix | Matching::Session => self.hash(key),
            Matching::Ip => self.hash_of_network(key),
            Matching::Counter | Matching::Limit => self.hash(Role::split(key).map_or(key, |(key, _)| key)),
        }
    }

    #[inline(never)]
    fn hash_of_network(&self, key: &[u8]) -> u64 {
        Network::parse(key).map_or_else(|| self.hash(key), |network| self.hash(&network.canonical()))
    }

    /// A record with this key is about to be published: look-ups that begin from now on probe its length.
    pub(super) fn note_length(&self, key: &[u8]) {
        let length = match self.matching {
            Matching::Exact | Matching::Session | Matching::Counter | Matching::Limit => return,
            Matching::Ip => match Network::parse(key) {
                Some(network) => network.length(),
                None => return,
            },
            Matching::Prefix => key.len().min(MAX_PREFIX),
        };
        let (word, bit) = (header::LENGTHS + length / 64 * 8, 1 << (length % 64));
        if let Some(word) = self.region.word64(word)
            && word.load(Relaxed) & bit == 0
        {
            word.fetch_or(bit, Release);
        }
    }

    /// Whether a new key may be written: of one network there are so many spellings at most, as they all have one place.
    pub(super) fn has_place(&self, place: Place, key: &[u8]) -> bool {
        if self.matching != Matching::Ip {
            return true;
        }
        let Some(network) = Network::parse(key) else { return true };
        let mut spellings = 0;
        self.find_each(place, |met| spellings += usize::from(self.spells(met, network)));
        spellings < MAX_SPELLINGS
    }

    /// Whether a record's key is a spelling of this network.
    fn spells(&self, met: &Met, network: Network) -> bool {
        let mut text = [0; 64];
        text.get_mut(..met.fields.key_len)
            .is_some_and(|text| self.read_key(met, text) && Network::parse(text) == Some(network))
    }

    /// The candidates for a look-up of `key`, best first: for each, `probe` is given the hash and what tells the record
    /// from others in its chain, until it returns something.
    pub(super) fn candidates<T>(&self, key: &[u8], mut probe: impl FnMut(u64, Wanted<'_>) -> Option<T>) -> Option<T> {
        match self.matching {
            Matching::Exact | Matching::Session | Matching::Counter | Matching::Limit => {
                probe(self.hash(key), Wanted::Key(key))
            }
            Matching::Prefix => self.lengths(key.len().min(MAX_PREFIX), 0).find_map(|len| {
                let prefix = key.get(..len)?;
                probe(self.hash(prefix), Wanted::Key(prefix))
            }),
            Matching::Ip => {
                let network = Network::parse(key)?;
                let lowest = if network.v6 { V6_LENGTHS } else { 0 };
                self.lengths(network.length(), lowest).find_map(|length| {
                    let cut = network.cut((length - lowest) as u8);
                    probe(self.hash(&cut.canonical()), Wanted::Network(cut))
                })
            }
        }
    }

    /// The lengths in use from `highest` down to `lowest`.
    fn lengths(&self, highest: usize, lowest: usize) -> impl Iterator<Item = usize> {
        let region = self.region;
        (lowest / 64..=highest / 64).rev().flat_map(move |word| {
            let mut bits = region.load64(header::LENGTHS + word * 8, Relaxed);
            if word == highest / 64 {
                bits &= u64::MAX >> (63 - highest % 64);
            }
            std::iter::from_fn(move || {
                let bit = 63_u32.checked_sub(bits.leading_zeros())?;
                bits &= !(1 << bit);
                Some(word * 64 + bit as usize)
            })
        })
    }
}

/// Spellings of one network, of this node's own writing: host bits don't count, so that there may be millions.
pub const MAX_SPELLINGS: usize = 64;

/// What a probe looks for in a chain.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// A record of this key.
    Key(&'a [u8]),
    /// Records of any spelling of this network; of several, the one written last answers.
    Network(Network),
}

impl Zone {
    /// Follows a chain to the record that is wanted and alive at `now`.
    #[inline(always)]
    pub(super) fn find_wanted(&self, place: Place, wanted: Wanted<'_>, is_live: impl Fn(&Met) -> bool) -> Option<Met> {
        let network = match wanted {
            Wanted::Key(key) => {
                let met = self.find(place, key)?;
                return if is_live(&met) { Some(met) } else { None };
            }
            Wanted::Network(network) => network,
        };
        let mut best: Option<Met> = None;
        self.find_each(place, |met| {
            if self.spells(met, network) && is_live(met) && best.is_none_or(|best| best.fields.stamp < met.fields.stamp)
            {
                best = Some(*met);
            }
        });
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) {
        assert!(Network::parse(a.as_bytes()).is_some(), "{a}");
        assert_eq!(Network::parse(a.as_bytes()), Network::parse(b.as_bytes()), "{a} is {b}");
    }

    #[test]
    fn spellings_of_one_network_are_one() {
        same("10.0.0.1", "10.0.0.1/32");
        same("10.1.2.3/8", "10.0.0.0/8");
        same("::ffff:10.0.0.1", "10.0.0.1");
        same("::ffff:10.0.0.0/104", "10.0.0.0/8");
        same("2001:DB8:0:0::1", "2001:db8::1/128");
        same("2001:db8::5/32", "2001:db8::/32");
        same("0.0.0.0/0", "1.2.3.4/0");
        assert_ne!(Network::parse(b"0.0.0.0/0"), Network::parse(b"::/0"));
        assert_ne!(Network::parse(b"10.0.0.0/8"), Network::parse(b"10.0.0.0/9"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/+8", "10.0.0/8", "10.0.0.1/", "::/129", "a", "::1%lo"]
        {
            assert_eq!(Network::parse(text.as_bytes()), None, "{text}");
        }
        for text in ["10.0.0.1/8 ", " 10.0.0.1", "unix:", "010.0.0.1", "::ffff:10.0.0.1/129", "1.2.3.4/008a"] {
            assert_eq!(Network::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Network::parse(b"\xff"), None);
    }
}
