//! What the agent shows of its connections to peers, in the control region: an entry for each, which the holder of the lease
//! alone writes. A sequence tells who reads whether an entry was whole.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use super::control::Control;
use super::heard::Traffic;
use super::region::Region;
use crate::record::{Identity, Millis};

/// Entries.
pub const LINKS: usize = 256;
/// Bytes of an entry: sequence, length and text of each of four, node, numbers.
pub const LINK_LEN: usize = 808;

/// Room for server, address, name in the certificate and error. What is longer is cut off; the longest name in DNS fits, with
/// its port and what is said of it.
const TEXTS: [usize; 4] = [280, 112, 64, 192];
const TEXTS_AT: usize = 8;
const NODE: usize = TEXTS_AT + 8 * TEXTS.len() + TEXTS[0] + TEXTS[1] + TEXTS[2] + TEXTS[3];
const NUMBERS_AT: usize = NODE + 16;
const NUMBERS: usize = 13;
const _: () = assert!(NUMBERS_AT + 8 * NUMBERS <= LINK_LEN);
/// How often an entry that is being written is looked at again.
const TRIES: usize = 16;

/// How this node stands with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum LinkState {
    /// Being dialled.
    #[default]
    Connecting,
    /// There is a session.
    Connected,
    /// The last try failed; it is dialled again and again.
    Unreachable,
    /// The address is this node's own.
    Itself,
}

impl LinkState {
    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            LinkState::Connecting => "connecting",
            LinkState::Connected => "connected",
            LinkState::Unreachable => "unreachable",
            LinkState::Itself => "itself",
        }
    }

    const fn from_number(number: u64) -> LinkState {
        match number {
            1 => LinkState::Connected,
            2 => LinkState::Unreachable,
            3 => LinkState::Itself,
            _ => LinkState::Connecting,
        }
    }
}

/// The certificate that a peer showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names first.
    pub name: String,
    /// When it ends; 0: not known.
    pub ends: Millis,
}

/// What a ping and its answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// From ping to answer, microseconds.
    pub round_trip: u64,
    /// How far the peer's clock is ahead of this node's, milliseconds.
    pub ahead: i64,
}

/// One peer as its connection shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    /// As in the configuration.
    pub server: String,
    /// What is dialled.
    pub address: String,
    /// How this node stands with it.
    pub state: LinkState,
    /// Who it is, while connected.
    pub node: Option<Identity>,
    /// Since when state and node are what they are.
    pub since: Millis,
    /// What it showed last; `None`: there is no TLS, or there was no handshake yet.
    pub certificate: Option<Certificate>,
    /// What last went wrong, and when.
    pub error: Option<(String, Millis)>,
    /// Over the connection that this node dialled.
    pub traffic: Traffic,
    /// Records that wait for it, of all zones.
    pub pending: u64,
    /// When the oldest change was made that it hasn't confirmed.
    pub behind: Option<Millis>,
    /// Of the last ping.
    pub pulse: Option<Pulse>,
}

impl LinkFigures {
    /// As in the configuration, with the address that a name led to.
    pub fn label(&self) -> String {
        match self.server.starts_with(&self.address) {
            true => self.server.clone(),
            false => format!("{} ({})", self.server, self.address),
        }
    }

    fn texts(&self) -> [&str; 4] {
        let certificate = self.certificate.as_ref().map_or("", |certificate| &certificate.name);
        let error = self.error.as_ref().map_or("", |(text, _)| text);
        [&self.server, &self.address, certificate, error]
    }

    fn numbers(&self) -> [u64; NUMBERS] {
        let Traffic { bytes_in, bytes_out, msgs_in, msgs_out } = self.traffic;
        [
            self.state as u64,
            self.since,
            u64::from(self.certificate.is_some()),
            self.certificate.as_ref().map_or(0, |certificate| certificate.ends),
            self.error.as_ref().map_or(0, |(_, at)| *at),
            bytes_in,
            bytes_out,
            msgs_in,
            msgs_out,
            self.pending,
            self.behind.unwrap_or(0),
            self.pulse.map_or(0, |pulse| pulse.round_trip.saturating_add(1)),
            self.pulse.map_or(0, |pulse| pulse.ahead.cast_unsigned()),
        ]
    }

    fn from_parts(texts: [String; 4], node: Option<Identity>, numbers: [u64; NUMBERS]) -> LinkFigures {
        let [server, address, name, error] = texts;
        let [state, since, shown, ends, error_at, bytes_in, bytes_out, msgs_in, msgs_out, pending, behind, trip, ahead] =
            numbers;
        LinkFigures {
            server,
            address,
            state: LinkState::from_number(state),
            node,
            since,
            certificate: (shown != 0).then_some(Certificate { name, ends }),
            error: (error_at != 0).then_some((error, error_at)),
            traffic: Traffic { bytes_in, bytes_out, msgs_in, msgs_out },
            pending,
            behind: (behind != 0).then_some(behind),
            pulse: trip.checked_sub(1).map(|round_trip| Pulse { round_trip, ahead: ahead.cast_signed() }),
        }
    }
}

impl Control {
    /// Shows a peer in a slot below [`LINKS`]. Its server must not be empty.
    pub fn show_link(&self, slot: usize, figures: &LinkFigures) {
        self.change_link(slot, |region, entry| {
            for ((at, room), text) in places().zip(figures.texts()) {
                let text = cut(text, room);
                region.store64(entry + at, text.len() as u64, Relaxed);
                region.write(entry + at + 8, text.as_bytes());
            }
            region.write(entry + NODE, &figures.node.map_or([0; 16], |node| node.0));
            for (n, number) in figures.numbers().into_iter().enumerate() {
                region.store64(entry + NUMBERS_AT + n * 8, number, Relaxed);
            }
        });
    }

    /// Shows nothing there any more.
    pub fn hide_link(&self, slot: usize) {
        self.change_link(slot, |region, entry| region.store64(entry + TEXTS_AT, 0, Relaxed));
    }

    /// All that are shown.
    pub fn links(&self) -> Vec<LinkFigures> {
        (0..LINKS).filter_map(|slot| (0..TRIES).find_map(|_| self.read_link(slot)).flatten()).collect()
    }

    fn change_link(&self, slot: usize, change: impl FnOnce(&Region, usize)) {
        if slot >= LINKS {
            return;
        }
        let (region, at) = self.link_entry(slot);
        // Odd while it changes; an agent that was killed meanwhile leaves it odd.
        let sequence = region.load64(at, Relaxed) | 1;
        region.store64(at, sequence, Relaxed);
        fence(Release);
        change(region, at);
        region.store64(at, sequence.wrapping_add(1), Release);
    }

    /// `None`: it was being written. `Some(None)`: nothing is shown there.
    fn read_link(&self, slot: usize) -> Option<Option<LinkFigures>> {
        let (region, entry) = self.link_entry(slot);
        let sequence = region.load64(entry, Acquire);
        let mut texts = [const { String::new() }; 4];
        for (n, (at, room)) in places().enumerate() {
            let mut text = vec![0; (region.load64(entry + at, Relaxed) as usize).min(room)];
            region.read(entry + at + 8, &mut text);
            if n == 0 && text.is_empty() {
                break;
            }
            texts[n] = String::from_utf8_lossy(&text).into_owned();
        }
        let mut node = [0; 16];
        region.read(entry + NODE, &mut node);
        let numbers = std::array::from_fn(|n| region.load64(entry + NUMBERS_AT + n * 8, Relaxed));
        fence(Acquire);
        let whole = sequence.is_multiple_of(2) && region.load64(entry, Relaxed) == sequence;
        let node = (node != [0; 16]).then_some(Identity(node));
        whole.then(|| (!texts[0].is_empty()).then(|| LinkFigures::from_parts(texts, node, numbers)))
    }
}

/// As much of a text as so many bytes hold, in whole characters.
pub(super) fn cut(text: &str, room: usize) -> &str {
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Where in an entry the length of each text stands, before the text, and how much room that has.
fn places() -> impl Iterator<Item = (usize, usize)> {
    TEXTS.into_iter().scan(TEXTS_AT, |at, room| Some((std::mem::replace(at, *at + 8 + room), room)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::control::CONTROL_SIZE;

    #[test]
    fn what_is_shown_is_read_and_what_is_hidden_is_not() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        assert_eq!(control.links(), []);
        let figures = |n: u64| LinkFigures {
            server: format!("node{n}.example.com:9000"),
            address: format!("10.0.0.{n}:9000"),
            state: LinkState::from_number(n % 4),
            node: n.is_multiple_of(2).then_some(Identity([n as u8 | 1; 16])),
            since: n,
            certificate: n.is_multiple_of(3).then(|| Certificate { name: format!("node{n}"), ends: n }),
            error: (n % 5 == 1).then(|| (format!("error {n}"), n)),
            traffic: Traffic { bytes_in: n, bytes_out: n * 10, msgs_in: n * 100, msgs_out: n * 1000 },
            pending: n,
            behind: n.is_multiple_of(7).then_some(n + 1),
            pulse: (n % 3 == 1).then_some(Pulse { round_trip: n, ahead: -(n as i64) }),
        };
        let all: Vec<_> = (0..LINKS as u64).map(figures).collect();
        all.iter().enumerate().for_each(|(slot, figures)| control.show_link(slot, figures));
        control.show_link(LINKS, &figures(1));
        assert_eq!(control.links(), all);
        control.hide_link(0);
        assert_eq!(control.links(), all[1..]);
        // The last entry is within the region, and the first isn't that of another table.
        assert!(control.other_workers() == 0 && control.heard_nodes().is_empty() && control.drifts().is_empty());
    }

    #[test]
    fn long_texts_are_cut_off_between_characters() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        let long = "é".repeat(200);
        let cut = |bytes: usize| "é".repeat(bytes / 2);
        let figures = LinkFigures {
            server: long.clone(),
            address: format!("x{long}"),
            certificate: Some(Certificate { name: long.clone(), ends: 1 }),
            error: Some((long.clone(), 2)),
            ..LinkFigures::default()
        };
        control.show_link(3, &figures);
        let shown = LinkFigures {
            server: cut(280),
            address: format!("x{}", cut(110)),
            certificate: Some(Certificate { name: cut(64), ends: 1 }),
            error: Some((cut(192), 2)),
            ..LinkFigures::default()
        };
        assert_eq!(control.links(), [shown]);
    }
}
