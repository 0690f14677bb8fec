//! What others are told of the origins that a zone knows, in one look at their table: who is connected to many tells it often.

use std::sync::atomic::Ordering::SeqCst;

use super::Zone;
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

/// What stands for what others are told of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownMark {
    /// Another one when the number comes to stand for another origin.
    pub whose: u32,
    /// Another one when something else is told.
    pub mark: u64,
}

impl Zone {
    /// Hands what is known of each origin to `each`, but for this node itself, with a number that stands for the origin as long
    /// as it is known.
    pub fn known_of_others(&self, mut each: impl FnMut(usize, Known)) {
        let own = usize::from(self.own_origin());
        self.origin_places().enumerate().for_each(|(index, place)| {
            if index != own
                && let Some(known) = self.known_in(place)
            {
                each(index, known);
            }
        });
    }

    /// The same of the origin for which a number stands.
    pub fn known_of(&self, number: usize) -> Option<Known> {
        self.known_in(self.origin_at(number))
    }

    /// The origin for which a number stands.
    pub fn origin_of(&self, number: usize) -> Option<Identity> {
        self.entry(self.origin_at(number), |_| ()).map(|(origin, ())| origin)
    }

    fn known_in(&self, place: usize) -> Option<Known> {
        let (origin, (position, is_lacking, is_anew)) = self.entry(place, |at| {
            // Read before what is lacking: a record that is left out is noted before a position covers it.
            (self.position_in(at), self.lacked_in(at) > Stamp::ZERO, self.is_anew(at))
        })?;
        Some(Known { origin, position, is_lacking, is_whole: !is_anew })
    }

    /// What stands for what is known of each origin, with its number: it costs less.
    pub fn known_marks(&self, mut each: impl FnMut(usize, KnownMark)) {
        let own = usize::from(self.own_origin());
        let [lacks, lacks_any] =
            [header::LACKED, header::LACKED_OF_ANY].map(|field| self.region.load64(field, SeqCst) > 0);
        self.origin_places().enumerate().for_each(|(index, place)| {
            if index != own
                && let Some(mark) = self.entry_mark(place, lacks, lacks_any)
            {
                each(index, mark);
            }
        });
    }

    /// Whether a record of others was ever left out for want of room. If none was, [`Zone::lacks`] tells of none.
    pub fn has_left_out(&self) -> bool {
        [header::LACKED, header::LACKED_OF_ANY].iter().any(|field| self.region.load64(*field, SeqCst) > 0)
    }
}
