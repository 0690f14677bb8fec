//! What others are told of the origins that a zone knows, in one look at their table: who is connected to many tells it often.

use std::sync::atomic::Ordering::SeqCst;

use super::Zone;
use super::hash::mixed;
use super::layout::header;
use crate::record::{Identity, Stamp};

/// What others are told of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub origin: Identity,
    /// As [`Zone::position`] says.
    pub position: Stamp,
    /// Something of it may have been left out for want of room, as [`Zone::lacks`] tells.
    pub is_lacking: bool,
    /// As [`Zone::is_whole`] says.
    pub is_whole: bool,
}

impl Zone {
    /// Hands what is known of each origin to `each`, but for this node itself, with a number that stands for the origin as long
    /// as it is known.
    pub fn known_of_others(&self, mut each: impl FnMut(usize, Known)) {
        let own = usize::from(self.own_origin());
        for (index, place) in self.origin_places().enumerate().filter(|(index, _)| *index != own) {
            let told = self.entry(place, |at| {
                // Read before what is lacking: a record that is left out is noted before a position covers it.
                (self.position_in(at), self.lacked_in(at) > Stamp::ZERO, self.is_anew(at))
            });
            if let Some((origin, (position, is_lacking, is_anew))) = told {
                each(index, Known { origin, position, is_lacking, is_whole: !is_anew });
            }
        }
    }

    /// A number that stands for all that [`Zone::known_of_others`] tells: another one when that is something else. It costs less.
    pub fn known_mark(&self) -> u64 {
        let own = usize::from(self.own_origin());
        let lacks =
            [header::LACKED, header::LACKED_OF_ANY].map(|field| u64::from(self.region.load64(field, SeqCst) > 0));
        let others = self.origin_places().enumerate().filter(|(index, _)| *index != own);
        others.fold(lacks[0] | lacks[1] << 1, |sum, (index, at)| {
            sum.wrapping_add(mixed(self.entry_mark(at) ^ mixed(index as u64)))
        })
    }

    /// Whether a record of others was ever left out for want of room. If none was, [`Zone::lacks`] tells of none.
    pub fn has_left_out(&self) -> bool {
        [header::LACKED, header::LACKED_OF_ANY].iter().any(|field| self.region.load64(*field, SeqCst) > 0)
    }
}
