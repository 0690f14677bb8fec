//! One zone as it comes from one peer: what is asked for, what was refused and is asked for again, who relays for whom.

mod progress;
mod promises;
mod steering;

use super::Node;
use super::compare::Compare;
use super::message::{Entry, Mode};
use super::session::{self, Heard, Notes, Seldom};
use super::write;
use super::{Held, NoteLevel, SyncZone};
use crate::record::{Identity, Millis, Record, Stamp};
use crate::store::{Applied, StoreError, Zone};
use progress::Progress;
use std::cell::OnceCell;

/// First and longest wait before what was refused is asked for again, milliseconds.
const AGAIN: (u64, u64) = (1_000, 30_000);

/// What a zone works with; belongs to the session.
pub struct Context<'a> {
    /// This node.
    pub node: &'a Node,
    /// Itself.
    pub own: Identity,
    /// The dialer.
    pub peer: Identity,
    /// This session's token for claims.
    pub token: u64,
    /// Of the protocol.
    pub version: u16,
    /// Largest frame to send.
    pub bound: usize,
    /// The clock.
    pub now: Millis,
    /// The session's time.
    pub t: u64,
    /// The clock has leapt: that somebody seems to be silent tells nothing.
    pub leapt: bool,
    /// What a lock is in the way of may be put off: it is tried again soon.
    pub may_wait: bool,
    /// Log lines.
    pub notes: &'a mut Notes,
    /// What stands for who was heard of lately, once a zone has asked.
    pub heard_mark: OnceCell<u64>,
}

impl Context<'_> {
    /// Who was heard of lately.
    pub fn heard(&self) -> Heard<'_> {
        Heard::new(self.node, self.now)
    }

    /// Whether it tells something that nothing was heard of an origin: for a while after the start everybody seems to be gone, as
    /// they do when the clock has leapt.
    pub const fn may_tell_who_is_gone(&self) -> bool {
        self.t > session::patience(&self.node.limits) && !self.leapt
    }

    /// See [`Heard::mark`].
    fn heard_mark(&self) -> u64 {
        *self.heard_mark.get_or_init(|| Heard::mark(self.node, self.now))
    }
}

/// One zone of one session.
#[derive(Debug)]
pub struct Incoming {
    /// Its index in `Node::zones`.
    pub index: usize,
    /// Whether the peer has taken a full state, or was there from the start.
    pub peer_joined: bool,
    number: u64,
    epoch: u64,
    mode: Mode,
    /// The positions that the peer goes on from: what it was told in this epoch, and has promised since.
    base: Vec<(Identity, Stamp)>,
    /// Origins of which this epoch asks for later records only than this node goes on from: the peer's positions for them
    /// tell nothing.
    spared: Vec<Identity>,
    /// A position of this epoch has come: the peer has sent what there was.
    begun: bool,
    /// The full state that this epoch asked for is on its way.
    filling: bool,
    /// How far it is, if it is this node's first.
    joining: Option<Progress>,
    /// Something was refused in this epoch: its positions don't count. Those of other origins neither, as the peer no
    /// longer has what the refused record replaced.
    held: bool,
    again_at: Option<u64>,
    again_after: u64,
    have: Vec<Have>,
    /// Who was heard of when it was last looked whether these origins are lost, and whether one was.
    looked: Option<(u64, bool)>,
    look_at: u64,
    /// When something of what this epoch asked for last came.
    moved: u64,
    /// What has later stamps was written after that was asked for.
    asked: Stamp,
    /// The origin that the zone last had room for.
    admitted: Option<Identity>,
    /// Entries of the position that comes to be tried again which needn't be looked at any more.
    noted: usize,
    /// The stamp to acknowledge when all that was received has been handled.
    ack: Option<Stamp>,
    /// The last one of this epoch, and whether something was said to have found no room.
    acked: Option<(Stamp, bool)>,
    /// What no change brings.
    pub compare: Compare,
    future: Seldom,
    busy: Seldom,
    origins: Seldom,
    unknown: Seldom,
}

/// What the peer has of an origin.
#[derive(Clone, Copy, Debug)]
struct Have {
    entry: Entry,
    /// It is gone on both sides, and the two nodes compare for that.
    compared: bool,
    /// It doesn't speak for itself here, as of the last look.
    lost: bool,
}

impl Incoming {
    /// A zone that the peer announced under `number`.
    pub fn new(index: usize, number: u64, peer_joined: bool) -> Incoming {
        Incoming {
            index,
            peer_joined,
            number,
            epoch: 0,
            mode: Mode::None,
            base: Vec::new(),
            spared: Vec::new(),
            begun: false,
            filling: false,
            joining: None,
            held: false,
            again_at: None,
            again_after: AGAIN.0,
            have: Vec::new(),
            looked: None,
            look_at: 0,
            moved: 0,
            asked: Stamp::ZERO,
            admitted: None,
            noted: 0,
            ack: None,
            acked: None,
            compare: Compare::new(index),
            future: Seldom::default(),
            busy: Seldom::default(),
            origins: Seldom::default(),
            unknown: Seldom::default(),
        }
    }

    /// Whether something of this epoch may come.
    pub const fn expects(&self, epoch: u64) -> bool {
        epoch > 0 && epoch <= self.epoch
    }

    /// Something that was asked for has come: of records one that was written before.
    pub fn moved(&mut self, t: u64, record: Option<Stamp>) {
        if record.is_none_or(|stamp| stamp <= self.asked) {
            self.moved = t;
        }
    }

    /// Whether the session should look at this zone often.
    pub const fn restless(&self) -> bool {
        self.filling || !self.begun || matches!(self.mode, Mode::None) || self.again_at.is_some()
    }

    /// Merges a record; `false`: a lock is in the way, and it is to be tried again.
    pub fn apply(&mut self, cx: &mut Context<'_>, record: &Record<'_>) -> bool {
        let Some(SyncZone { name, zone }) = cx.node.zones.get(self.index) else { return true };
        self.moved(cx.t, Some(record.version.stamp));
        let applied = if self.admits(zone, record.version.origin, None, cx.now) {
            zone.apply(record, cx.now, cx.node.limits.max_drift)
        } else {
            zone.count_lacked(record.version.stamp);
            Ok(Applied::Full)
        };
        if applied == Err(StoreError::Busy) && self.may_wait(cx) {
            return false;
        }
        if let Some(progress) = &mut self.joining {
            progress.step(cx, name, zone);
        }
        match applied {
            Ok(Applied::Newer) => self.compare.came(cx, zone, record.key),
            Ok(Applied::Stale) => {}
            Ok(Applied::Full) => {
                self.compare.refused(record.key);
                if zone.tell_full(cx.now) {
                    let text = format!(
                        "zone \"{name}\" is full: records of peers are left out until there is room (\"incomplete\" in the API \
                         says how many); give it more memory (keyval_zone zone={name}:SIZE)"
                    );
                    cx.notes.add(NoteLevel::Error, text);
                }
            }
            Ok(Applied::Future) => {
                self.hold(cx.t);
                if let Some(count) = self.future.happened(cx.t) {
                    let text = format!(
                        "zone \"{name}\": {count} records of node {} are more than {} ms ahead of this node's clock \
                         and are refused for now; check the time service of both",
                        record.version.origin, cx.node.limits.max_drift
                    );
                    cx.notes.add(NoteLevel::Warn, text);
                }
            }
            Err(StoreError::Busy) => {
                self.hold(cx.t);
                if let Some(count) = self.busy.happened(cx.t) {
                    cx.notes.add(NoteLevel::Warn, format!("zone \"{name}\" is busy: {count} records of a peer wait"));
                }
            }
            // Keys and values were measured when they were decoded; what the store refuses for another reason it
            // refuses again.
            Err(error) => {
                zone.count_lacked(record.version.stamp);
                if self.unknown.happened(cx.t).is_some() {
                    cx.notes
                        .add(NoteLevel::Error, format!("zone \"{name}\": a record of a peer was left out: {error}"));
                }
            }
        }
        true
    }

    /// Whether a lock that is in the way is waited for: not once all is to be sent again anyway.
    const fn may_wait(&self, cx: &Context<'_>) -> bool {
        cx.may_wait && !self.held
    }

    /// A record was of a kind that this version doesn't know.
    pub fn skipped(&mut self, cx: &mut Context<'_>) {
        self.moved(cx.t, None);
        if let Some(zone) = cx.node.zones.get(self.index) {
            // What others have and this node can't hold must not pass for deleted.
            zone.zone.count_lacked(Stamp::at(cx.now.saturating_add(cx.node.limits.max_drift)));
            let Some(count) = self.unknown.happened(cx.t) else { return };
            let text =
                format!("zone \"{}\": {count} records of a kind that this version lacks were skipped", zone.name);
            cx.notes.add(NoteLevel::Warn, text);
        }
    }

    /// Empties the zone as the peer did. Refused, it holds positions back too: the peer no longer sends what it removed. `false`: a
    /// lock is in the way, and it is to be tried again.
    pub fn clear(&mut self, cx: &Context<'_>, stamp: Stamp) -> bool {
        let Some(zone) = cx.node.zones.get(self.index) else { return true };
        match zone.zone.apply_clear(stamp, cx.now, cx.node.limits.max_drift) {
            Ok(Applied::Newer | Applied::Stale | Applied::Full) => {}
            Err(StoreError::Busy) if self.may_wait(cx) => return false,
            Ok(Applied::Future) | Err(_) => self.hold(cx.t),
        }
        true
    }

    /// Adds what it holds.
    pub fn add_held(&self, held: &mut Held) {
        held.origins += self.have.len() + self.base.len() + self.spared.len();
        held.compared += self.compare.held();
    }

    /// Whether there is something to acknowledge.
    pub const fn owes_ack(&self) -> bool {
        self.ack.is_some()
    }

    /// Appends the acknowledgement that is due, if there is one.
    pub fn acknowledge(&mut self, cx: &Context<'_>, out: &mut Vec<u8>) {
        let zone = cx.node.zones.get(self.index);
        if let Some((stamp, SyncZone { zone, .. })) = self.ack.take().zip(zone) {
            let lacking = zone.lacks_of(cx.peer);
            write::ack(out, self.number, self.epoch, stamp, lacking);
            self.acked = Some((stamp, lacking));
        }
    }

    /// Compares the zone with the peer's, when it is time and both have all that changes bring. `ahead`: how far the peer's
    /// clock is ahead of ours.
    pub fn compare(&mut self, cx: &mut Context<'_>, ahead: i64, may_begin: bool, out: &mut Vec<u8>) {
        if cx.t < self.compare.at() {
            return;
        }
        let joined = self.peer_joined && cx.node.zones.get(self.index).is_some_and(|zone| zone.zone.joined());
        if !joined || self.held || self.mode != Mode::Own {
            self.compare.rest(cx.t.saturating_add(cx.node.limits.timeout.max(1)));
            return;
        }
        self.compare.step(cx, self.number, ahead, may_begin, out);
    }

    /// The session is over.
    pub fn close(&mut self, node: &Node, token: u64) {
        if let Some(zone) = node.zones.get(self.index) {
            zone.zone.release_donor(token);
        }
    }

    /// Whether the zone has room for this origin, or for its position; see [`Zone::admits`].
    fn admits(&mut self, zone: &Zone, origin: Identity, position: Option<Stamp>, now: Millis) -> bool {
        if self.admitted != Some(origin) {
            self.admitted = zone.admits(origin, position, now).then_some(origin);
        }
        self.admitted.is_some()
    }
}
