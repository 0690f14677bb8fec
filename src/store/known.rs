//! What others are told of the origins that a zone knows, in one look at their table: who is connected to many tells it often.

use std::sync::atomic::Ordering::SeqCst;

use super::Zone;
use super::layout::header;
use super::origins::ANEW;
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
    /// Hands what is known of each origin to `each`, but for this node itself.
    pub fn known_of_others(&self, mut each: impl FnMut(Known)) {
        let own = self.own_origin();
        for index in (0..self.origin_entries()).map(|index| index as u16).filter(|index| *index != own) {
            let Some(origin) = self.origin_identity(index) else { continue };
            // Read before what is lacking: a record that is left out is noted before a position covers it.
            let position = self.position_at(index.into());
            let is_lacking = self.lacked_of(index) > Stamp::ZERO;
            let is_whole = !self.is_flagged(index, ANEW);
            // Meanwhile it may have come to stand for another one, which is told of next time.
            if self.origin_identity(index) == Some(origin) {
                each(Known { origin, position, is_lacking, is_whole });
            }
        }
    }

    /// Whether a record of others was ever left out for want of room. If none was, [`Zone::lacks`] tells of none.
    pub fn has_left_out(&self) -> bool {
        [header::LACKED, header::LACKED_OF_ANY].iter().any(|field| self.region.load64(*field, SeqCst) > 0)
    }
}
