//! How far a full state is that is being taken.

use super::super::NoteLevel;
use super::Context;
use crate::store::{Joining, Zone};

/// Between two lines of the log about how far a full state is, milliseconds; and records between two times that the zone is
/// told.
const PROGRESS: u64 = 10_000;
const TOLD_EVERY: u64 = 256;

/// A full state that is being taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) now: Joining,
    pub(super) began: u64,
    told: u64,
}

impl Progress {
    pub(super) fn new(t: u64) -> Progress {
        Progress { now: Joining::default(), began: t, told: t }
    }

    /// One more record.
    pub(super) fn step(&mut self, cx: &mut Context<'_>, name: &str, zone: &Zone) {
        let Joining { taken, total } = &mut self.now;
        *taken += 1;
        if !taken.is_multiple_of(TOLD_EVERY) {
            return;
        }
        let of = if *total > 0 { format!(" of about {total}") } else { String::new() };
        if cx.t.saturating_sub(self.told) >= PROGRESS {
            self.told = cx.t;
            let text =
                format!("zone \"{name}\" joins: {taken}{of} records of the full state of node {} are here", cx.peer);
            cx.notes.add(NoteLevel::Notice, text);
        }
        zone.set_joining(self.now);
    }
}
