//! What the peer promises, and says that it has.

use super::super::message::{Entry, MAX_ORIGINS, Mode};
use super::super::{NoteLevel, SyncZone};
use super::{AGAIN, Context, Have, Incoming, Progress};
use crate::record::Stamp;
use crate::store::{Rule, StoreError};

impl Incoming {
    /// What the peer promises to have sent, but for what it may have evicted before, up to a stamp. `false`: a lock is in the way,
    /// and it is to be tried again.
    pub fn position(
        &mut self,
        cx: &mut Context<'_>,
        epoch: u64,
        complete: bool,
        positions: impl Iterator<Item = Entry>,
        evicted: Stamp,
    ) -> bool {
        let Some(SyncZone { name, zone }) = cx.node.zones.get(self.index) else { return true };
        let noted = std::mem::take(&mut self.noted);
        if epoch != self.epoch {
            return true;
        }
        self.moved(cx.t, None);
        // What a clock that is ahead has closed may be given again when it is mended.
        let latest = Stamp::at(cx.now.saturating_add(cx.node.limits.max_drift));
        for (number, Entry { identity, stamp, anew, .. }) in positions.enumerate().skip(noted) {
            if identity == cx.own || self.held || self.spared.binary_search(&identity).is_ok() {
                continue;
            }
            let believed = stamp.min(latest);
            zone.doubt(identity, believed, evicted);
            // Before anything is noted of it: making room for another origin is for those that are admitted.
            let admitted = self.admits(zone, identity, Some(believed), cx.now);
            let place = self.base.binary_search_by_key(&identity, |(origin, _)| *origin);
            let base = place.ok().and_then(|at| self.base.get(at)).map_or(Stamp::ZERO, |(_, stamp)| *stamp);
            match admitted.then(|| zone.advance_from(identity, base, believed, anew)) {
                Some(Ok(true)) => match place {
                    Ok(at) => self.base.get_mut(at).into_iter().for_each(|(_, stamp)| *stamp = believed.max(base)),
                    Err(at) => self.base.insert(at, (identity, believed)),
                },
                Some(Err(StoreError::Busy)) if self.may_wait(cx) => {
                    // Those before it aren't admitted twice, nor counted.
                    self.noted = number;
                    return false;
                }
                Some(Ok(false) | Err(StoreError::Busy)) => {
                    self.hold(cx.t);
                    continue;
                }
                None | Some(Err(_)) => {
                    if let Some(count) = self.origins.happened(cx.t) {
                        let text = format!(
                            "zone \"{name}\" has no room for {count} more origins: what these nodes wrote is left out or \
                             comes again at each reconnect; give it more memory (keyval_zone zone={name}:SIZE)"
                        );
                        cx.notes.add(NoteLevel::Warn, text);
                    }
                }
            }
            if identity == cx.peer {
                self.ack = Some(stamp);
            }
        }
        if complete && self.filling {
            self.complete(cx);
        }
        if !self.begun && !self.filling {
            self.begun = true;
            // See `steer`: who has what this peer wrote may ask another one for the rest.
            zone.release_donor(cx.token);
            self.compare.rest(cx.t.saturating_add(cx.node.limits.timeout / 2));
        }
        if !self.held {
            self.again_after = AGAIN.0;
        }
        true
    }

    /// The full state is there, but for what this node refused and asks for again.
    fn complete(&mut self, cx: &mut Context<'_>) {
        let Some(SyncZone { name, zone }) = cx.node.zones.get(self.index) else { return };
        self.filling = false;
        self.mode = Mode::Own;
        if !zone.joined() {
            zone.set_joined();
            let progress = self.joining.unwrap_or_else(|| Progress::new(cx.t));
            let (records, millis) = (progress.now.taken, cx.t.saturating_sub(progress.began));
            let peer = cx.peer;
            cx.notes.add(
                NoteLevel::Notice,
                format!("zone \"{name}\" has joined: the full state of node {peer} is here ({records} records in {millis} ms)"),
            );
        }
        self.joining = None;
        zone.release_donor(cx.token);
    }

    /// The peer says how many records its full state has.
    pub fn total(&mut self, cx: &Context<'_>, epoch: u64, records: u64) {
        self.moved(cx.t, None);
        let zone = cx.node.zones.get(self.index).filter(|_| epoch == self.epoch);
        if let Some((progress, zone)) = self.joining.as_mut().zip(zone) {
            progress.now.total = records;
            zone.zone.set_joining(progress.now);
        }
    }

    /// What the peer has itself. `room`: how many more entries the session may keep. Of one zone it keeps no more than
    /// a zone has: then keeping their order costs little, whatever the order in which they come.
    pub fn have(&mut self, entries: impl Iterator<Item = Entry>, room: &mut usize) {
        for entry in entries {
            let new = Have { entry, compared: false, lost: false };
            match self.have.binary_search_by_key(&entry.identity, |have| have.entry.identity) {
                Ok(at) if Rule::OneEntry.holds() => {
                    if let Some(have) = self.have.get_mut(at).filter(|have| have.entry != entry) {
                        *have = Have { lost: have.lost, ..new };
                    }
                }
                Ok(at) | Err(at) if *room > 0 && (self.have.len() as u64) < MAX_ORIGINS => {
                    *room -= 1;
                    self.have.insert(at, new);
                    self.looked = None;
                }
                _ => {}
            }
        }
        self.look_at = 0;
    }
}
