//! Taking the full state of another node: how far that is, and which session does it.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::layout::header;
use super::{Rule, Zone};
use crate::record::Millis;

/// How far a node is with taking the full state of another, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// That came.
    pub taken: u64,
    /// That there are, about; 0: the other node didn't say.
    pub total: u64,
}

impl Zone {
    /// Whether a full state was taken since this zone was made.
    pub fn joined(&self) -> bool {
        self.region.load32(header::JOINED, SeqCst) != 0
    }

    /// Says so.
    pub fn set_joined(&self) {
        self.region.store32(header::JOINED, 1, SeqCst);
    }

    /// How far this node is with taking the full state; `None`: it has joined, or hasn't begun.
    pub fn joining(&self) -> Option<Joining> {
        let joining = Joining {
            taken: self.region.load64(header::JOIN_TAKEN, Relaxed),
            total: self.region.load64(header::JOIN_TOTAL, Relaxed),
        };
        (!self.joined() && joining != Joining::default()).then_some(joining)
    }

    /// Says so.
    pub fn set_joining(&self, joining: Joining) {
        self.region.store64(header::JOIN_TAKEN, joining.taken, Relaxed);
        self.region.store64(header::JOIN_TOTAL, joining.total, Relaxed);
    }

    /// Tries to be the one session that takes the full state, or to stay it: true if `token` (not 0) has the claim now.
    /// A claim that wasn't renewed for `patience` milliseconds is free.
    pub fn claim_donor(&self, token: u64, now: Millis, patience: Millis) -> bool {
        let Some(word) = self.region.word64(header::DONOR) else { return false };
        let holder = word.load(SeqCst);
        let stale = now.abs_diff(self.region.load64(header::DONOR_TIME, SeqCst)) > patience;
        let mine = holder == token
            || !Rule::OneDonor.holds()
            || ((holder == 0 || stale) && word.compare_exchange(holder, token, SeqCst, Relaxed).is_ok());
        if mine {
            self.region.store64(header::DONOR_TIME, now, SeqCst);
        }
        mine
    }

    /// Gives the claim back.
    pub fn release_donor(&self, token: u64) {
        if let Some(word) = self.region.word64(header::DONOR) {
            let _ = word.compare_exchange(token, 0, SeqCst, Relaxed);
        }
    }
}
