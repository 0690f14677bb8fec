//! How far a client is: for each node that wrote to the zone, up to which stamp the client has everything of it.
//!
//! The same as what nodes tell each other, and so it means something on every node of a cluster. What has ended isn't
//! written by anybody, each node sees it for itself: of that a position has the time.

use crate::base64;
use crate::record::{Identity, Millis, Stamp};
use crate::store::{Change, Zone};

/// Clocks of nodes, and of the workers of one, are looked at some time before what they stand for is done.
pub const SLACK: Millis = 5_000;
/// Origins in a position: a header of HTTP has room for these. What is left out is sent again.
const MOST_ORIGINS: usize = 240;
/// The first byte of every position; another one is of another version.
const FORM: u8 = 1;
/// Bytes before the origins.
const HEAD: usize = 1 + 8 + 8 + 8 + 8;
const ORIGIN: usize = 8 + 8;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The node that told it, and what tells its memory of the zone from another one.
    issuer: u64,
    mark: u64,
    /// The issuer's time.
    pub(super) time: Millis,
    /// The last emptying that the client knows of.
    pub(super) cleared: Stamp,
    /// Sorted by identity.
    origins: Vec<(u64, Stamp)>,
}

impl Position {
    /// What a client will have once it was sent all that is in the feed now.
    pub(super) fn of(zone: &Zone, own: Stamp, now: Millis) -> Position {
        let node = zone.params().node;
        let mut origins: Vec<(u64, Stamp)> = zone
            .positions()
            .into_iter()
            .map(|(identity, stamp)| (short(identity), if identity == node { own } else { stamp }))
            .collect();
        if origins.len() > MOST_ORIGINS {
            origins.sort_unstable_by_key(|(origin, stamp)| (*origin != short(node), std::cmp::Reverse(*stamp)));
            origins.truncate(MOST_ORIGINS);
        }
        origins.sort_unstable();
        Position { issuer: short(node), mark: zone.mark(), time: now, cleared: zone.cleared(), origins }
    }

    /// Whether a client that was so far can be told what it missed: this zone knows where it stands, and has forgotten
    /// nothing since.
    pub(super) fn is_kept(&self, zone: &Zone) -> bool {
        let node = short(zone.params().node);
        let mine = self.issuer == node;
        let knows_issuer = || zone.positions().iter().any(|(identity, _)| short(*identity) == self.issuer);
        let shards = 0..zone.all_shards().count_ones();
        self.stamp(node).is_some()
            && if mine { self.mark == zone.mark() } else { knows_issuer() }
            && shards.map(|shard| zone.forgotten(shard)).all(|gone| gone == 0 || gone.saturating_add(SLACK) < self.time)
    }

    /// Whether the client has this change.
    pub(super) fn has(&self, change: &Change<'_>) -> bool {
        match change.lapsed {
            Some(gone) => gone.saturating_add(SLACK) < self.time,
            None => {
                let version = change.record.version;
                self.stamp(short(version.origin)).is_some_and(|stamp| version.stamp <= stamp)
            }
        }
    }

    fn stamp(&self, origin: u64) -> Option<Stamp> {
        let at = self.origins.binary_search_by_key(&origin, |(origin, _)| *origin).ok()?;
        self.origins.get(at).map(|(_, stamp)| *stamp)
    }

    /// As text, of letters, digits, `-` and `_`.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + ORIGIN * self.origins.len());
        bytes.push(FORM);
        for word in [self.issuer, self.mark, self.time, self.cleared.0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        for (origin, stamp) in &self.origins {
            bytes.extend_from_slice(&origin.to_be_bytes());
            bytes.extend_from_slice(&stamp.0.to_be_bytes());
        }
        let mut text = Vec::new();
        base64::encode(&mut text, &bytes);
        text.retain(|byte| *byte != b'=');
        text.iter_mut().for_each(|byte| swap(byte, [(b'+', b'-'), (b'/', b'_')]));
        text
    }

    /// From text. `None`: that isn't one.
    pub(super) fn parse(text: &[u8]) -> Option<Position> {
        let mut text = text.to_vec();
        text.iter_mut().for_each(|byte| swap(byte, [(b'-', b'+'), (b'_', b'/')]));
        text.resize(text.len().next_multiple_of(4), b'=');
        let bytes = base64::decode(&text)?;
        let (form, words) = bytes.split_first()?;
        let (words, rest) = words.as_chunks::<8>();
        if *form != FORM || !rest.is_empty() {
            return None;
        }
        let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
        let (issuer, mark, time, cleared) = (words.next()?, words.next()?, words.next()?, Stamp(words.next()?));
        let mut origins = Vec::new();
        while let Some(origin) = words.next() {
            origins.push((origin, Stamp(words.next()?)));
        }
        (origins.is_sorted() && origins.len() <= MOST_ORIGINS).then_some(Position {
            issuer,
            mark,
            time,
            cleared,
            origins,
        })
    }
}

/// The first half of an identity, enough to tell nodes apart.
fn short(identity: Identity) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = identity.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn swap(byte: &mut u8, pairs: [(u8, u8); 2]) {
    if let Some((_, other)) = pairs.iter().find(|(from, _)| from == byte) {
        *byte = *other;
    }
}
