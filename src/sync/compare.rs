//! Finding and mending what two nodes hold unlike and no feed covers: the side of the node that was dialled, which asks.
//!
//! A record that the peer has and this node lacks was deleted here if this node's position for its origin covers it, and
//! is wanted otherwise. One that this node has and the peer lacks was deleted there if the peer's position covers it, and
//! is taken away; otherwise it stays, and the peer finds it when it compares in its turn. So deletes hold although their
//! tombstones are gone, and what was written while nodes were apart is kept, whatever the two nodes still remember.

mod answers;
mod round;

use std::collections::{HashMap, HashSet};

use super::digest::{self, Digests, Terms};
use super::incoming::Context;
use super::message::{MAX_RANGE_BITS, MAX_WANTED};
use super::positions::Positions;
use super::write::{self, Question};
use super::{NoteLevel, SyncZone};
use crate::record::Stamp;
use crate::store::{Rule, Zone};
use round::{Phase, Round};

/// Holds of a lock in one step, and the pause after it in milliseconds.
const HOLDS: usize = 16;
const PAUSE: u64 = 10;
/// As long as other zones are compared with the same peer: what a round keeps is bounded, and so is the number of rounds.
const OTHERS: u64 = 100;
/// Between two comparisons with a peer, in timeouts of a session; and at least so many microseconds for each record and peer.
const PERIOD: u64 = 10;
const PERIOD_A_RECORD: u64 = 500;
/// Answers that take longer than this many timeouts aren't waited for.
const PATIENCE: u64 = 20;
/// Records in the parts whose versions are asked for at once, about; versions that are kept.
const ASKED: u64 = 16_384;
const MAX_LISTED: usize = 65_536;
/// How long nobody is asked for what has found no room, in those periods, unless there is more: at first, and at last. It doubles.
const VAIN: (u64, u64) = (2, 32);
/// Records in a part, about.
const RECORDS_A_RANGE: u64 = 32;

/// The comparing of one zone with one peer.
#[derive(Debug)]
pub struct Compare {
    /// The zone's place in `Node::zones`.
    index: usize,
    /// When something is due, in the session's time.
    at: u64,
    round: u64,
    /// How many records the peer has, as far as is known.
    theirs: u64,
    /// The part with which the next questions begin.
    next: usize,
    /// Parts asked for at once at most, since a list was too long; 0: as many as there are.
    most: usize,
    /// Bits of the number of a part at least: one part had more versions than are kept.
    finer: u8,
    /// Records that had been left out here, ever, when the last comparison began.
    left_out: Option<u64>,
    /// Records here of which the peer had a tombstone of the same version, in the last comparison.
    suspects: HashSet<Vec<u8>>,
    under_way: Option<Round>,
}

impl Compare {
    /// Of a zone by its index in `Node::zones`. Nothing is compared before [`Compare::rest`] says so.
    pub fn new(index: usize) -> Compare {
        Compare {
            index,
            at: u64::MAX,
            round: 0,
            theirs: 0,
            next: 0,
            most: 0,
            finer: 0,
            left_out: None,
            suspects: HashSet::new(),
            under_way: None,
        }
    }

    /// When something is due next.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Entries about records and parts that it holds.
    pub fn held(&self) -> usize {
        self.under_way.as_ref().map_or(0, |round| {
            let parts = round.digests.all.len() + round.theirs.len() + round.asked.len();
            parts + round.listed.len() + round.wanted.len() + round.gone.len()
        }) + self.suspects.len()
    }

    /// Nothing is compared for now, and what is under way is given up.
    pub fn rest(&mut self, until: u64) {
        self.at = until;
        self.under_way = None;
    }

    /// Whether one is under way.
    pub const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Compares now, if not at a later time than that. `false`: changes come first, or another comparison is under way.
    pub fn soon(&mut self, t: u64) -> bool {
        let may = self.at < u64::MAX && self.under_way.is_none();
        if may {
            self.at = self.at.min(t);
        }
        may
    }

    /// Begins a comparison if it may, or goes on with it. `ahead`: how far the peer's clock is ahead of ours.
    pub fn step(&mut self, cx: &mut Context<'_>, zone_number: u64, ahead: i64, may_begin: bool, out: &mut Vec<u8>) {
        if cx.t < self.at {
            return;
        }
        let node = cx.node;
        let Some(zone) = node.zones.get(self.index) else { return };
        self.at = cx.t.saturating_add(PAUSE);
        let Some(round) = self.under_way.as_mut() else {
            if may_begin {
                self.begin(cx, &zone.zone, zone_number, ahead, out);
            } else {
                self.at = cx.t.saturating_add(OTHERS);
            }
            return;
        };
        let walked = match &mut round.phase {
            // The peer doesn't answer, or doesn't know what this is.
            Phase::Asked | Phase::Listing | Phase::Fetching => return self.end(cx, zone),
            Phase::Digesting => round.digests.walk(&zone.zone, HOLDS),
            Phase::Matching { .. } => round.match_some(&zone.zone, &self.suspects, cx.now),
        };
        round.busy.take_if(|_| walked.is_ok());
        match walked {
            Ok(false) => {}
            Ok(true) if matches!(round.phase, Phase::Digesting) => self.ask_for_versions(cx, zone, out),
            Ok(true) => {
                self.suspects = std::mem::take(&mut round.suspects);
                self.ask_for_records(cx, zone, out);
            }
            // Other zones are to be compared meanwhile.
            Err(_) => {
                let since = *round.busy.get_or_insert(cx.t);
                if cx.t.saturating_sub(since) > cx.node.limits.timeout {
                    self.end(cx, zone);
                }
            }
        }
    }

    fn begin(&mut self, cx: &Context<'_>, zone: &Zone, number: u64, ahead: i64, out: &mut Vec<u8>) {
        self.round += 1;
        let margin = cx.node.limits.timeout.saturating_mul(2).clamp(1_000, 60_000);
        let (behind, before) = (cx.now.saturating_add_signed(ahead.min(0)), cx.now.saturating_add_signed(ahead.max(0)));
        let held = zone.held();
        // Tombstones are listed as well, although digests don't count them.
        let records = (held.0 + held.1).max(self.theirs);
        let bits = (records / RECORDS_A_RANGE).checked_ilog2().map_or(0, |log| log as u8 + 1);
        let bits = bits.max(self.finer).min(MAX_RANGE_BITS);
        let seed = zone.nonce(u128::from(cx.token) << 64 | u128::from(self.round));
        let (until, ends) = (Stamp::at(behind.saturating_sub(margin)), before.saturating_add(margin));
        let until = if Rule::Young.holds() { until } else { Stamp::at(cx.now) };
        let (evicted, lacks) = (zone.evicted(), zone.lacks());
        let steady = self.left_out.replace(lacks.count) == Some(lacks.count);
        zone.count_comparison_begun();
        write::compare(out, &Question { zone: number, round: self.round, seed, bits, until, ends, evicted });
        let by_counter = digest::by_counter(zone, cx.version);
        let terms = Terms::new(&seed, bits, until, ends, evicted).by_counter(by_counter);
        self.under_way = Some(Round {
            zone: number,
            digests: Digests::new(terms),
            theirs: Vec::new(),
            phase: Phase::Asked,
            asked: Vec::new(),
            left: false,
            lacks,
            steady,
            crowded: false,
            refused: 0,
            listed: HashMap::new(),
            positions: Vec::new(),
            ours: Positions::default(),
            trusted: false,
            evicted: Stamp::ZERO,
            wanted: HashSet::new(),
            awaited: HashSet::new(),
            suspects: HashSet::new(),
            gone: Vec::new(),
            brought: 0,
            retired: 0,
            compared: 0,
            busy: None,
        });
        self.wait(cx);
    }

    fn ask_for_versions(&mut self, cx: &mut Context<'_>, zone: &SyncZone, out: &mut Vec<u8>) {
        let Some(round) = self.under_way.as_mut() else { return };
        let ranges = round.digests.terms.ranges();
        round.compared = round.digests.all.iter().map(|digest| u64::from(digest.count)).sum();
        let (mut asked, mut records) = (Vec::new(), 0);
        let mut last = self.next % ranges;
        for step in 0..ranges {
            let range = (self.next + step) % ranges;
            let (Some(ours), Some(theirs)) = (round.digests.all.get(range), round.theirs.get(range)) else { break };
            if ours == theirs {
                continue;
            }
            records += u64::from(ours.count.max(theirs.count));
            if !asked.is_empty() && (records > ASKED || (self.most > 0 && asked.len() >= self.most)) {
                round.left = true;
                break;
            }
            asked.push(range as u16);
            last = range;
        }
        // Who lacks something has to hear from the peer that it lacks nothing.
        if asked.is_empty() && !round.lacks.is_empty() {
            asked.push(last as u16);
        }
        if asked.is_empty() {
            return self.complete(cx, zone);
        }
        self.next = last + 1;
        round.asked = vec![false; ranges];
        for range in &asked {
            if let Some(place) = round.asked.get_mut(usize::from(*range)) {
                *place = true;
            }
        }
        round.phase = Phase::Listing;
        (round.digests.all, round.theirs) = (Vec::new(), Vec::new());
        write::list(out, cx.bound, round.zone, self.round, &asked);
        self.wait(cx);
    }

    fn ask_for_records(&mut self, cx: &mut Context<'_>, zone: &SyncZone, out: &mut Vec<u8>) {
        let Some(round) = self.under_way.as_mut() else { return };
        round.want_missing(&zone.zone, cx.now);
        if round.crowded {
            // That nothing is left out until then tells nothing.
            self.left_out = None;
        }
        round.listed = HashMap::new();
        if round.wanted.is_empty() {
            let (made_up, unsure, lost) = round.made_up(cx, &zone.zone);
            if !made_up.is_empty() && zone.zone.made_up(&made_up, &unsure, &lost) {
                let text = format!("zone \"{}\" is complete: what had found no room is here, or over", zone.name);
                cx.notes.add(NoteLevel::Notice, text);
            }
            return self.complete(cx, zone);
        }
        let mut hashes: Vec<u64> = round.wanted.iter().copied().collect();
        hashes.sort_unstable();
        if hashes.len() > MAX_WANTED {
            round.left = true;
            hashes.truncate(MAX_WANTED);
        }
        round.phase = Phase::Fetching;
        write::want(out, cx.bound, round.zone, self.round, &hashes);
        self.wait(cx);
    }

    /// All was answered.
    fn complete(&mut self, cx: &mut Context<'_>, zone: &SyncZone) {
        if let Some(round) = &self.under_way {
            zone.zone.count_comparison_ended(round.compared);
        }
        self.end(cx, zone);
    }

    fn end(&mut self, cx: &mut Context<'_>, zone: &SyncZone) {
        let timeout = cx.node.limits.timeout.max(1);
        let records = zone.zone.held().0.max(self.theirs);
        // Each peer's turn comes later the more there are: what a node walks in a second stays the same, and what one peer has
        // mended the next need not.
        let walks = records.saturating_mul(PERIOD_A_RECORD) / 1000;
        let peers = cx.node.control.nodes_online().max(1);
        let mut pause = timeout.saturating_mul(PERIOD).max(walks.saturating_mul(peers));
        if let Some(round) = self.under_way.take() {
            if round.brought + round.retired > 0 {
                let text = format!(
                    "zone \"{}\": comparing with node {} brought {} records that no change had brought, and took {} away \
                     that were deleted there",
                    zone.name, cx.peer, round.brought, round.retired
                );
                cx.notes.add(NoteLevel::Notice, text);
            }
            // What else was asked for tells nothing of room for what was left out.
            if matches!(round.phase, Phase::Fetching) && !round.crowded {
                let period = timeout.saturating_mul(PERIOD);
                let pauses = (period.saturating_mul(VAIN.0), period.saturating_mul(VAIN.1));
                let in_vain = round.refused > 0 && round.brought == 0;
                zone.zone.note_room(in_vain.then_some(pauses), cx.now);
            }
            if round.left {
                // The rest soon, if that helps.
                let helps = round.brought + round.retired > round.refused;
                pause = match helps {
                    true => timeout / 2,
                    false if round.refused == 0 && !round.crowded => timeout.saturating_mul(2),
                    false => pause,
                };
            }
        }
        self.at = cx.t.saturating_add(pause);
    }

    fn wait(&mut self, cx: &Context<'_>) {
        self.at = cx.t.saturating_add(cx.node.limits.timeout.max(1).saturating_mul(PATIENCE));
    }
}
