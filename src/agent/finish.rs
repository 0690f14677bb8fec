//! How a node ends by QUIT: its sessions send what was accepted, and the log says which peers may lack something.

use super::hub::Hub;
use super::link::{Link, State};
use super::upgrade::Upgrade;
use crate::sync::NoteLevel;
use std::rc::Rc;

impl Hub {
    /// No new changes will come: sessions end when everything is sent.
    pub(super) fn finish(&self) {
        self.finishing.set(true);
        self.tell_all();
    }

    pub(super) fn finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Whether every peer has acknowledged everything, of those that can be reached, or `reached` already are.
    pub(super) fn flushed(&self, reached: bool) -> bool {
        self.links.borrow().iter().all(|link| match link.state.get() {
            State::Connected => link.flushed.get(),
            _ if self.awaits_successor(link) => false,
            State::Dialling => reached || link.unreachable.get(),
            State::Over => true,
        })
    }

    /// Whether a link has yet to meet the new nginx of an upgrade. That one is there for certain: it is waited for as long
    /// as there is time.
    fn awaits_successor(&self, link: &Link) -> bool {
        self.upgrade.get() == Upgrade::Old && link.own.get() && link.beside.is_none()
    }

    /// Says which peers may lack something when this node ends.
    pub(super) fn tell_unsent(&self) {
        let told = |link: &Rc<Link>| link.own.get() || (link.state.get() == State::Connected && link.flushed.get());
        if self.upgrade.get() == Upgrade::Old && !self.links.borrow().iter().any(told) {
            self.log.line(
                NoteLevel::Warn,
                "zone_sync: the new nginx was told nothing, as this node's own address isn't among its zone_sync_server, nor was \
                 another node; what it had is lost",
            );
        }
        for link in self.links.borrow().iter() {
            let label = link.label();
            self.tell_left_out(link, &label);
            match link.state.get() {
                State::Connected if !link.flushed.get() => {
                    let records = link.waiting.sum();
                    self.log.line(
                        NoteLevel::Warn,
                        format!(
                            "zone_sync peer {label}: did not acknowledge all changes before this node ended \
                             ({records} records waited when last counted)"
                        ),
                    );
                }
                State::Dialling | State::Over if self.awaits_successor(link) => self.log.line(
                    NoteLevel::Warn,
                    format!(
                        "zone_sync peer {label}: the new nginx, which listens there too, was not met before this one ended; \
                         what no other node has is lost"
                    ),
                ),
                State::Dialling => self.log.line(
                    NoteLevel::Warn,
                    format!("zone_sync peer {label}: not connected when this node ended; others must tell it the last changes"),
                ),
                State::Connected | State::Over => {}
            }
        }
    }

    /// Says in which zones a peer had no room.
    fn tell_left_out(&self, link: &Link, label: &str) {
        let left_out = link.left_out.borrow();
        let mut names = left_out.iter().filter_map(|zone| self.zones.get(*zone)).map(|sync| sync.name.as_str());
        if let Some(first) = names.next() {
            let more = match names.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.log.line(
                NoteLevel::Warn,
                format!(
                    "zone_sync peer {label}: had no room for some of what this node wrote (zone \"{first}\"{more}); what no other \
                     node has is lost"
                ),
            );
        }
    }
}
