//! What a zone takes over of what other memory of this node, whose records move here, knew of other nodes; see `resize`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use super::layout::{header, shard};
use super::origins::{ANEW, EMPTIED, LACKING, POSITION};
use super::{StoreError, Zone};
use crate::record::{Identity, Stamp};

/// What a zone promises: read before what it is promised of.
#[derive(Default)]
pub(super) struct Promise {
    pub positions: BTreeMap<Identity, Stamp>,
    pub joined: bool,
    pub last: bool,
}

impl Zone {
    /// What holds of other nodes.
    pub(super) fn promised(&self) -> Promise {
        Promise { positions: self.positions().into_iter().collect(), joined: self.joined(), last: false }
    }

    /// Notes what another zone of this node met and lacks, for which all its records are copied here.
    pub(super) fn meet_as(&self, other: &Zone) {
        for place in other.origin_places() {
            let emptied = |at| other.region.load64(at + EMPTIED, SeqCst);
            let flags = |at| [ANEW, LACKING].map(|flag| (flag, other.is_flagged_in(at, flag)));
            let read = |at| (other.met_in(at), emptied(at), flags(at));
            let Some((origin, (met, emptied, flags))) = other.entry(place, read) else { continue };
            let _ = self.with_origin(origin, |here| {
                self.note_met(here, met);
                self.region.store64(self.origin_at(here.into()) + EMPTIED, emptied, SeqCst);
                flags.iter().for_each(|(flag, set)| self.flag(here, *flag, *set));
            });
        }
    }

    /// Takes over what another zone of this node, whose records move here, has met of others and what it lacks, if there is `news` of
    /// that; and then what it was `promised`, before the records moved that this covers.
    ///
    /// # Errors
    ///
    /// `Busy`: of some origins nothing is taken over. Nor is of one for which there is no entry, and that is no error.
    pub(super) fn learn_from(
        &self,
        other: &Zone,
        promised: &BTreeMap<Identity, Stamp>,
        news: bool,
    ) -> Result<(), StoreError> {
        if news
            && other.is_lacking()
            && let Some(count) = self.region.word64(self.geometry.shard(0) + shard::INCOMPLETE)
        {
            // First, as who leaves something out does: for who is finding out just now that nothing is lacking any more.
            count.fetch_add(1, SeqCst);
        }
        let raise =
            |field| self.region.word64(field).map(|word| word.fetch_max(other.region.load64(field, SeqCst), SeqCst));
        _ = [header::DOUBTED, header::EVICTED_STAMP].map(raise);
        if news {
            _ = [header::LACKED, header::LACKED_OF_ANY].map(raise);
        }
        let (own, flags) = (self.node(), |zone: &Zone, at| [ANEW, LACKING].map(|flag| zone.is_flagged_in(at, flag)));
        // Mostly all of it: looking each up in the table would take as long as a thousand do.
        let noted = |at| (self.met_in(at), self.position_in(at), flags(self, at));
        let here: BTreeMap<Identity, _> = self.origin_places().filter_map(|at| self.entry(at, noted)).collect();
        for place in other.origin_places() {
            let told = other.entry(place, |at| (other.met_in(at), flags(other, at)));
            let Some((origin, (met, [anew, lacking]))) = told else { continue };
            // What was made up for here is still lacking there.
            let lacking = lacking && news;
            let position = promised.get(&origin).copied().filter(|_| origin != own).unwrap_or_default();
            let is_noted = here.get(&origin).is_some_and(|(had_met, had_position, [is_anew, lacks])| {
                *had_met >= met && *had_position >= position && (*is_anew || !anew) && (*lacks || !lacking)
            });
            if is_noted {
                continue;
            }
            let noted = self.with_origin(origin, |here| {
                self.note_met(here, met);
                let flags = [(ANEW, anew), (LACKING, lacking)];
                flags.iter().filter(|(_, set)| *set).for_each(|(flag, _)| self.flag(here, *flag, true));
                // The position last: with that, what isn't here was here.
                let word = self.region.word64(self.origin_at(here.into()) + POSITION);
                _ = word.map(|word| word.fetch_max(position.0, SeqCst));
            });
            if noted == Err(StoreError::Busy) {
                return Err(StoreError::Busy);
            }
        }
        Ok(())
    }

    /// Takes over what another zone of this node, all of whose records are here, was promised.
    pub(super) fn take_promise(&self, promise: &Promise) {
        for (origin, stamp) in promise.positions.iter().filter(|(origin, _)| **origin != self.node()) {
            self.advance(*origin, *stamp);
        }
        if promise.joined {
            self.set_joined();
        }
    }
}
