//! What a peer was told of other origins than the two nodes, and what it is told next.

use super::message::Entry;
use crate::record::{Identity, Stamp};
use crate::store::{Known, Zone};

/// Positions of living origins that are told at once. They speak for themselves; what others know of them is of use to who
/// can't hear them, and can wait. In a full mesh whatever each tells each of everybody grows with the cube of the nodes.
const LIVING_AT_ONCE: usize = 4;

/// What one peer was told of one zone.
#[derive(Debug, Default)]
pub struct Telling {
    /// By the numbers that the zone has for them.
    told: Vec<Option<Entry>>,
    /// Living origins up to this one have had their turn.
    turn: Option<Identity>,
    /// What was known, and who was gone, when there was nothing more to tell.
    told_all: Option<(u64, Option<u64>)>,
    /// Who was gone at the last look.
    gone_then: Option<u64>,
}

impl Telling {
    /// How many entries it keeps.
    pub const fn held(&self) -> usize {
        self.told.len()
    }

    /// What has changed since the last time, as far as it is told now. `mark` is another one when `gone` says something else, and
    /// `None` while it says no of all: where neither that nor what is known has changed since there was nothing to tell, there is
    /// nothing now. In a mesh at rest every node looks as often as it has peers, at as many origins each time.
    pub fn next(
        &mut self,
        zone: &Zone,
        peer: Identity,
        mark: Option<u64>,
        gone: impl Fn(Identity) -> bool,
    ) -> Vec<Entry> {
        // Asked for before the look: what changes meanwhile is looked at next time.
        let all = (zone.known_mark(), mark);
        if self.told_all == Some(all) {
            return Vec::new();
        }
        let as_then = std::mem::replace(&mut self.gone_then, mark) == mark;
        let (mut tell, mut living) = (Vec::new(), Vec::with_capacity(LIVING_AT_ONCE));
        zone.known_of_others(|number, known| {
            let entry = told_as(&known);
            if entry.identity == peer {
                return;
            }
            let told = self.told.get(number).copied().flatten().filter(|told| told.identity == entry.identity);
            let gone = match told {
                Some(told) if as_then => told.gone,
                _ => gone(entry.identity),
            };
            let entry = Entry { gone, ..entry };
            if told == Some(entry) {
                return;
            }
            // Who is gone, or isn't any more, at once; the others by turns.
            if entry.gone || told.is_some_and(|told| told.gone) {
                tell.push((number, entry));
            } else {
                take_turn(&mut living, self.turn, (number, entry));
            }
        });
        self.turn = living.last().map(|(_, (_, entry))| entry.identity);
        tell.extend(living.into_iter().map(|(_, numbered)| numbered));
        self.told_all = tell.is_empty().then_some(all);
        for (number, entry) in &tell {
            if *number >= self.told.len() {
                self.told.resize(number + 1, None);
            }
            if let Some(told) = self.told.get_mut(*number) {
                *told = Some(*entry);
            }
        }
        tell.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// An entry and its number, with how far its origin is behind whose turn it was last, in a ring of all.
type Waiting = (u128, (usize, Entry));

/// One more that waits for its turn: those whose it is next are kept, in their order.
fn take_turn(living: &mut Vec<Waiting>, last: Option<Identity>, numbered: (usize, Entry)) {
    let begin = last.map_or(0, |last| last.number().wrapping_add(1));
    let behind = numbered.1.identity.number().wrapping_sub(begin);
    if living.len() == LIVING_AT_ONCE && living.pop_if(|(last, _)| behind < *last).is_none() {
        return;
    }
    let place = living.partition_point(|(other, _)| *other < behind);
    living.insert(place, (behind, numbered));
}

/// What a zone knows of all origins but this node itself; `about`: how many those may be.
pub fn known(zone: &Zone, about: usize) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(about);
    zone.known_of_others(|_, known| entries.push(told_as(&known)));
    entries
}

/// Nothing may be promised of an origin if records didn't fit here.
fn told_as(&Known { origin, position, is_lacking, is_whole }: &Known) -> Entry {
    let stamp = if is_lacking { Stamp::ZERO } else { position };
    Entry { identity: origin, stamp, gone: false, anew: !is_whole }
}
