//! Which nodes dialled this one, when they were last heard of, and what passed: a table in the control region, which the
//! inbound sessions of all workers write.

use std::ops::RangeInclusive;

use super::control::Control;
use super::hash::mixed;
use crate::record::{Identity, Millis};

/// Entries: several times as many as a cluster has nodes.
pub(super) const HEARD: usize = 1024;
/// Where a node's entry may be: in one of so many, so that who makes nodes up doesn't have all entries looked at for each.
const SET: usize = 16;
/// Bytes of an entry: identity, when, traffic.
pub(super) const HEARD_LEN: usize = 16 + 8 + 4 * 8;

const AT: usize = 16;
const TRAFFIC: usize = 24;

/// What passed between two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Messages received.
    pub msgs_in: u64,
    /// Messages sent.
    pub msgs_out: u64,
}

/// A node that has dialled this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardNode {
    /// Who it is.
    pub node: Identity,
    /// When a message of it last came in.
    pub at: Millis,
    /// Over the connections that it dialled.
    pub traffic: Traffic,
}

impl Control {
    /// Messages of `node` came in, or went to it over a connection that it dialled.
    pub fn heard(&self, node: Identity, now: Millis, traffic: &Traffic) {
        let entry = self.heard_entry(node).or_else(|| {
            self.locked(|| {
                if let Some(entry) = self.heard_entry(node) {
                    return Some(entry);
                }
                // A free place, or that of whoever was silent for longest.
                let entry = set_of(node).min_by_key(|entry| self.get(entry + AT))?;
                self.write(entry, &node.0);
                (0..4).for_each(|n| self.put(entry + TRAFFIC + 8 * n, 0));
                // The last store makes it valid.
                self.put(entry + AT, now.max(1));
                Some(entry)
            })?
        });
        let Some(entry) = entry else { return };
        self.put(entry + AT, now.max(1));
        let Traffic { bytes_in, bytes_out, msgs_in, msgs_out } = *traffic;
        for (n, by) in [bytes_in, bytes_out, msgs_in, msgs_out].into_iter().enumerate() {
            self.add(entry + TRAFFIC + 8 * n, by);
        }
    }

    /// All that were heard of, and when, sorted.
    pub fn heard_of(&self) -> Vec<(Identity, Millis)> {
        let mut all: Vec<_> =
            self.heard_entries().map(|entry| (self.identity_at(entry), self.get(entry + AT))).collect();
        all.sort_unstable();
        all
    }

    /// When a message of this node last came in, if it is known to have dialled.
    pub fn heard_at(&self, node: Identity) -> Option<Millis> {
        self.heard_entry(node).map(|entry| self.get(entry + AT))
    }

    /// A number that tells which nodes were heard of in that time: another one when these are others. It costs less than their list.
    pub fn heard_mark(&self, when: RangeInclusive<Millis>) -> u64 {
        let mut sum = 0u64;
        for set in (0..HEARD / SET).map(|set| Control::heard_place(set * SET)) {
            // Most sets of a small cluster are empty.
            let mut entry = set;
            while entry < set + SET * HEARD_LEN {
                let at = self.get(entry + AT);
                if at == 0 {
                    break;
                }
                if when.contains(&at) {
                    sum = sum.wrapping_add(mixed(self.get(entry) ^ mixed(self.get(entry + 8))));
                }
                entry += HEARD_LEN;
            }
        }
        sum
    }

    /// Every node that was heard of.
    pub fn heard_nodes(&self) -> Vec<HeardNode> {
        self.heard_entries()
            .map(|entry| {
                let number = |n: usize| self.get(entry + TRAFFIC + 8 * n);
                let traffic =
                    Traffic { bytes_in: number(0), bytes_out: number(1), msgs_in: number(2), msgs_out: number(3) };
                HeardNode { node: self.identity_at(entry), at: self.get(entry + AT), traffic }
            })
            .collect()
    }

    fn heard_entry(&self, node: Identity) -> Option<usize> {
        let (low, high) = halves(node);
        let is_it = |entry: &usize| self.get(*entry) == low && self.get(*entry + 8) == high;
        self.used(set_of(node)).find(is_it)
    }

    fn heard_entries(&self) -> impl Iterator<Item = usize> {
        (0..HEARD / SET).flat_map(|set| self.used(places(set)))
    }

    /// Those of a set that are used: it is filled from the first on.
    fn used(&self, places: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        places.take_while(|entry| self.get(entry + AT) != 0)
    }
}

fn set_of(node: Identity) -> impl Iterator<Item = usize> {
    let (low, high) = halves(node);
    places(mixed(low ^ mixed(high)) as usize % (HEARD / SET))
}

fn places(set: usize) -> impl Iterator<Item = usize> {
    let first = Control::heard_place(set * SET);
    (first..first + SET * HEARD_LEN).step_by(HEARD_LEN)
}

/// The two words that an identity is in memory.
fn halves(Identity(bytes): Identity) -> (u64, u64) {
    (u128::from_le_bytes(bytes) as u64, (u128::from_le_bytes(bytes) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Region;
    use crate::store::control::CONTROL_SIZE;

    fn id(n: u64) -> Identity {
        let mut bytes = [1; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Identity(bytes)
    }

    #[test]
    fn traffic_adds_up_and_who_was_silent_for_longest_gives_way() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        let traffic = |n| Traffic { bytes_in: n, bytes_out: 2 * n, msgs_in: 3 * n, msgs_out: 4 * n };
        (0..300).for_each(|n| control.heard(id(n), 1000 + n, &traffic(n)));
        control.heard(id(0), 5000, &traffic(7));
        let mut nodes = control.heard_nodes();
        nodes.sort_unstable_by_key(|heard| heard.node);
        assert_eq!(nodes.len(), 300, "all nodes of a large cluster fit");
        assert_eq!(nodes[0], HeardNode { node: id(0), at: 5000, traffic: traffic(7) });
        assert_eq!(nodes[9], HeardNode { node: id(9), at: 1009, traffic: traffic(9) });
        for n in 1000..20_000 {
            control.heard(id(n), 5000 + n, &traffic(1));
            control.heard(id(0), 5000 + n, &traffic(1));
        }
        let nodes = control.heard_nodes();
        assert_eq!(nodes.len(), HEARD);
        assert!(nodes.iter().all(|heard| heard.node != id(1)));
        assert!(nodes.contains(&HeardNode { node: id(19_999), at: 24_999, traffic: traffic(1) }));
        assert!(nodes.contains(&HeardNode { node: id(0), at: 24_999, traffic: traffic(19_007) }));
        assert!(control.heard_of().is_sorted());
    }

    #[test]
    fn the_mark_changes_with_who_was_heard_of_and_not_with_how_often() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        let nobody = control.heard_mark(0..=9000);
        let heard = |n, at| control.heard(id(n), at, &Traffic::default());
        heard(1, 1000);
        let one = control.heard_mark(500..=9000);
        heard(1, 2000);
        assert_eq!(control.heard_mark(500..=9000), one);
        heard(2, 2000);
        let both = control.heard_mark(500..=9000);
        assert!(nobody != one && one != both && nobody != both);
        heard(1, 3000);
        assert_eq!(control.heard_mark(2500..=9000), one, "the other was silent since");
        assert_eq!(
            control.heard_mark(500..=2500),
            control.heard_mark(2000..=2000),
            "what is ahead of the clock isn't lately"
        );
        assert_eq!(control.heard_mark(4000..=9000), nobody);
    }
}
