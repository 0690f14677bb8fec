//! What the agent shows of its connections to peers, in the control region: an entry for each, which the holder of the lease
//! alone writes. A sequence tells who reads whether an entry was whole.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use super::control::Control;
use super::region::Region;
use crate::record::{Identity, Millis};

/// Entries.
pub const LINKS: usize = 256;
/// Bytes of an entry: sequence, length of the label, label, node, since, sent, received, pending.
pub const LINK_LEN: usize = 128;

const LABEL_LEN: usize = 8;
const LABEL: usize = 16;
/// Longer ones are cut off.
const LONGEST_LABEL: usize = 64;
const NODE: usize = LABEL + LONGEST_LABEL;
const NUMBERS: usize = NODE + 16;
/// How often an entry that is being written is looked at again.
const TRIES: usize = 16;

/// One peer as its connection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFigures {
    /// As in the configuration, with the address that a name led to.
    pub label: String,
    /// Who it is, while connected.
    pub node: Option<Identity>,
    /// Since when it is connected, or isn't.
    pub since: Millis,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes received from it on the connection that this node dialled.
    pub received: u64,
    /// Records that wait for it, of all zones.
    pub pending: u64,
}

impl Control {
    /// Shows a peer in a slot below [`LINKS`].
    pub fn show_link(&self, slot: usize, figures: &LinkFigures) {
        let label = figures.label.as_bytes();
        let mut len = label.len().min(LONGEST_LABEL);
        while !figures.label.is_char_boundary(len) {
            len -= 1;
        }
        self.change_link(slot, |region, at| {
            region.store64(at + LABEL_LEN, len as u64, Relaxed);
            region.write(at + LABEL, &label[..len]);
            region.write(at + NODE, &figures.node.map_or([0; 16], |node| node.0));
            for (n, number) in [figures.since, figures.sent, figures.received, figures.pending].into_iter().enumerate()
            {
                region.store64(at + NUMBERS + n * 8, number, Relaxed);
            }
        });
    }

    /// Shows nothing there any more.
    pub fn hide_link(&self, slot: usize) {
        self.change_link(slot, |region, at| region.store64(at + LABEL_LEN, 0, Relaxed));
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
        let (region, at) = self.link_entry(slot);
        let sequence = region.load64(at, Acquire);
        let len = (region.load64(at + LABEL_LEN, Relaxed) as usize).min(LONGEST_LABEL);
        let mut label = vec![0; len];
        region.read(at + LABEL, &mut label);
        let mut node = [0; 16];
        region.read(at + NODE, &mut node);
        let number = |n: usize| region.load64(at + NUMBERS + n * 8, Relaxed);
        let figures = LinkFigures {
            label: String::from_utf8_lossy(&label).into_owned(),
            node: (node != [0; 16]).then_some(Identity(node)),
            since: number(0),
            sent: number(1),
            received: number(2),
            pending: number(3),
        };
        fence(Acquire);
        let whole = sequence.is_multiple_of(2) && region.load64(at, Relaxed) == sequence;
        whole.then(|| (len > 0).then_some(figures))
    }
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
            label: format!("node{n}.example.com:9000"),
            node: n.is_multiple_of(2).then_some(Identity([n as u8 | 1; 16])),
            since: n,
            sent: n * 10,
            received: n * 100,
            pending: n * 1000,
        };
        let all: Vec<_> = (0..LINKS as u64).map(figures).collect();
        all.iter().enumerate().for_each(|(slot, figures)| control.show_link(slot, figures));
        control.show_link(LINKS, &figures(1));
        assert_eq!(control.links(), all);
        control.hide_link(0);
        assert_eq!(control.links(), all[1..]);
        // The last entry is within the region, and the first isn't that of another table.
        assert!(control.other_workers() == 0 && control.peers().is_empty());
    }

    #[test]
    fn a_long_label_is_cut_off_between_characters() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        let figures = LinkFigures { label: "é".repeat(100), node: None, since: 1, sent: 2, received: 3, pending: 4 };
        control.show_link(3, &figures);
        assert_eq!(control.links(), [LinkFigures { label: "é".repeat(32), ..figures }]);
    }
}
