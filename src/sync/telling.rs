//! What a peer was told of other origins than the two nodes, and what it is told next.

use super::message::Entry;
use crate::record::{Identity, Stamp};
use crate::store::{Known, Zone};

/// Positions of living origins that are told at once. They speak for themselves; what others know of them is of use to who
/// can't hear them, and can wait. In a full mesh whatever each tells each of everybody grows with the cube of the nodes.
const LIVING_AT_ONCE: usize = 4;

/// So many origins are known where there are few nodes.
const FEW: usize = 32;

/// What one peer was told of one zone.
#[derive(Debug, Default)]
pub struct Telling {
    /// By the numbers that the zone has for origins.
    told: Vec<Told>,
    /// Living origins up to this one have had their turn.
    turn: Option<Identity>,
    /// Who was gone at the last look.
    gone_then: Option<u64>,
}

/// What a peer was told of one origin.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// What stands for that, as the zone says.
    mark: u64,
    /// Whose number it was when it was looked at, and what stands for that; `None`: it wasn't.
    origin: Option<Identity>,
    whose: u32,
    /// It is the peer itself, who is told nothing of this.
    is_peer: bool,
    /// As the peer was told, or as it was at the last look.
    is_gone: bool,
    is_told: bool,
}

impl Telling {
    /// How many entries it keeps.
    pub const fn held(&self) -> usize {
        self.told.len()
    }

    /// What has changed since the last time, as far as it is told now. `mark` is another one when `gone` says something else, and
    /// `None` while it says no of all: nobody is asked about again for as long as it stays.
    ///
    /// In a mesh every node looks as often as it has peers, at as many origins each time: of those whose mark is still that of what
    /// was told, nothing else is looked at.
    pub fn next(
        &mut self,
        zone: &Zone,
        peer: Identity,
        mark: Option<u64>,
        gone: impl Fn(Identity) -> bool,
    ) -> Vec<Entry> {
        let as_then = std::mem::replace(&mut self.gone_then, mark) == mark;
        let (mut at_once, mut turns) = (Vec::new(), Turns::after(self.turn));
        zone.known_marks(|number, known| {
            if number >= self.told.len() {
                if self.told.capacity() == 0 {
                    self.told.reserve(FEW);
                }
                self.told.resize(number + 1, Told::default());
            }
            let Some(told) = self.told.get_mut(number) else { return };
            let seen = told.origin.filter(|_| told.whose == known.whose);
            let Some(origin) = seen.or_else(|| zone.origin_of(number)) else { return };
            if seen.is_none() {
                *told = Told { origin: Some(origin), whose: known.whose, is_peer: origin == peer, ..Told::default() };
            }
            let is_news = !told.is_told || told.mark != known.mark;
            if told.is_peer || seen.is_some() && as_then && !is_news {
                return;
            }
            let was_gone = told.is_told && told.is_gone;
            if seen.is_none() || !as_then {
                told.is_gone = gone(origin);
            }
            if !is_news && told.is_gone == was_gone {
                return;
            }
            // Who is gone, or isn't any more, at once; the others by turns.
            if told.is_gone || was_gone {
                at_once.push((number, known.mark));
            } else {
                turns.take(origin, (number, known.mark));
            }
        });
        self.turn = None;
        let living = turns.next.into_iter().take(turns.count).map(|(_, waiting)| (waiting, true));
        let mut tell = Vec::new();
        for ((number, mark), is_turn) in at_once.into_iter().map(|numbered| (numbered, false)).chain(living) {
            // A number that came to stand for another origin meanwhile is looked at next time.
            let now = self.told.get_mut(number).zip(zone.known_of(number));
            let Some((told, known)) = now.filter(|(told, known)| told.origin == Some(known.origin)) else { continue };
            (told.mark, told.is_told) = (mark, true);
            if is_turn {
                self.turn = Some(known.origin);
            }
            tell.push(Entry { gone: told.is_gone, ..told_as(&known) });
        }
        tell
    }
}

/// A number, with what stands for what is to be told.
type Waiting = (usize, u64);

/// Those of the living whose turn is next, in a ring of all.
struct Turns {
    begin: u128,
    /// In their order, with how far each is from there.
    next: [(u128, Waiting); LIVING_AT_ONCE],
    count: usize,
}

impl Turns {
    /// `last`: whose turn it was.
    fn after(last: Option<Identity>) -> Turns {
        let begin = last.map_or(0, |last| last.number().wrapping_add(1));
        Turns { begin, next: [(u128::MAX, (0, 0)); LIVING_AT_ONCE], count: 0 }
    }

    /// One more that waits for its turn.
    fn take(&mut self, origin: Identity, waiting: Waiting) {
        let behind = origin.number().wrapping_sub(self.begin);
        let place = self.next.iter().take(self.count).filter(|(other, _)| *other < behind).count();
        if let Some(later) = self.next.get_mut(place..)
            && let Some(last) = later.last_mut()
        {
            *last = (behind, waiting);
            later.rotate_right(1);
            self.count = LIVING_AT_ONCE.min(self.count + 1);
        }
    }
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
