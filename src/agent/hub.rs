//! What the tasks of the thread share: a link for each peer, and how they wake each other.
//!
//! All of them run on one thread, so cells do where threads would need locks.

use super::log::Log;
use super::now;
use super::upgrade::Upgrade;
use crate::record::{Identity, Millis};
use crate::store::{Control, LinkFigures, ShardMask, control::Lease};
use crate::sync::{NoteLevel, SyncZone};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::Notify;

/// Shared by the node's main loop and the tasks of its peers.
pub(super) struct Hub {
    pub(super) control: Control,
    pub(super) lease: Lease,
    pub(super) log: Rc<Log>,
    zones: Arc<[SyncZone]>,
    /// Of the peers that are dialled now.
    links: RefCell<Vec<Rc<Link>>>,
    finishing: Cell<bool>,
    ending: Cell<bool>,
    upgrade: Cell<Upgrade>,
    /// Somebody waits for `finishing`, `ending` or a link to change.
    changed: Notify,
}

impl Hub {
    pub(super) fn new(control: Control, lease: Lease, zones: Arc<[SyncZone]>, log: Rc<Log>) -> Hub {
        let links = RefCell::new(Vec::new());
        let (finishing, ending, upgrade) = (Cell::new(false), Cell::new(false), Cell::default());
        Hub { control, lease, log, zones, links, finishing, ending, upgrade, changed: Notify::new() }
    }

    /// A link for one more peer, which is called so in the log.
    pub(super) fn add_link(&self, label: String) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let slot = (0..).find(|slot| links.iter().all(|link| link.slot != *slot)).unwrap_or(usize::MAX);
        let link = Rc::new(Link::new(label, slot, self.zones.len()));
        links.push(link.clone());
        self.show(&link);
        link
    }

    /// Shows how things stand with a peer.
    pub(super) fn show(&self, link: &Link) {
        let node = link.peer.get();
        if link.shown.replace(node) != node || link.since.get() == 0 {
            link.since.set(now());
        }
        if self.holds() {
            let figures = LinkFigures {
                label: link.label.clone(),
                node,
                since: link.since.get(),
                sent: link.sent.get(),
                received: link.received.get(),
                pending: link.pending.borrow().iter().sum(),
            };
            self.control.show_link(link.slot, &figures);
        }
    }

    /// A peer isn't one of the cluster any more: its session ends.
    pub(super) fn remove_link(&self, link: &Rc<Link>) {
        self.links.borrow_mut().retain(|other| !Rc::ptr_eq(other, link));
        link.removed.set(true);
        if self.holds() {
            self.control.hide_link(link.slot);
        }
        link.wake();
        self.announce();
        self.count_online();
        self.count_pending();
    }

    /// Whether the lease is still ours. Without it nothing may be touched any more.
    pub(super) fn holds(&self) -> bool {
        self.control.holds(&self.lease)
    }

    /// Takes the changes of all zones and tells every connected session; `true`: there were some.
    pub(super) fn distribute(&self) -> bool {
        let mut any = false;
        for (index, sync) in self.zones.iter().enumerate() {
            let shards = sync.zone.take_dirty();
            if shards != 0 {
                any = true;
                self.links.borrow().iter().for_each(|link| link.mark(index, shards));
            }
        }
        if any {
            self.links.borrow().iter().for_each(|link| link.wake());
        }
        any
    }

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
            State::Dialling => reached || link.unreachable.get(),
            State::Over => true,
        })
    }

    /// Says which peers may lack something when this node ends.
    pub(super) fn tell_unsent(&self) {
        for link in self.links.borrow().iter() {
            let label = &link.label;
            match link.state.get() {
                State::Connected if !link.flushed.get() => {
                    let records: u64 = link.pending.borrow().iter().sum();
                    self.log.line(
                        NoteLevel::Warn,
                        format!(
                            "zone_sync peer {label}: did not acknowledge all changes before this node ended \
                             ({records} records waited when last counted)"
                        ),
                    );
                }
                State::Dialling => self.log.line(
                    NoteLevel::Warn,
                    format!("zone_sync peer {label}: not connected when this node ended; others must tell it the last changes"),
                ),
                State::Connected | State::Over => {}
            }
        }
    }

    /// Everybody says goodbye and ends.
    pub(super) fn end(&self) {
        self.ending.set(true);
        self.tell_all();
    }

    pub(super) fn ending(&self) -> bool {
        self.ending.get()
    }

    /// nginx's binary is being upgraded, or isn't any more.
    pub(super) fn set_upgrade(&self, upgrade: Upgrade) {
        if self.upgrade.replace(upgrade) != upgrade {
            self.announce();
        }
    }

    /// Whether an old and a new nginx run side by side.
    pub(super) fn upgrading(&self) -> bool {
        self.upgrade.get() != Upgrade::None
    }

    /// Waits until `condition` holds, which must depend on the hub and its links only.
    pub(super) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    /// A link has changed in a way that somebody may wait for.
    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
    }

    /// Counts the nodes that we are connected to: one that is reached at two addresses is one.
    pub(super) fn count_online(&self) {
        let online: BTreeSet<Identity> = self.links.borrow().iter().filter_map(|link| link.peer.get()).collect();
        self.control.set_nodes_online(online.len() as u64);
    }

    /// Says for each zone how many records wait for the peer that lacks most.
    pub(super) fn count_pending(&self) {
        for (index, sync) in self.zones.iter().enumerate() {
            let links = self.links.borrow();
            let waiting = links.iter().filter_map(|link| link.pending.borrow().get(index).copied()).max();
            sync.zone.set_pending(waiting.unwrap_or(0));
        }
    }

    fn tell_all(&self) {
        self.links.borrow().iter().for_each(|link| link.wake());
        self.announce();
    }
}

/// What becomes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Being dialled, or waiting for the next try.
    Dialling,
    /// There is a session.
    Connected,
    /// This node itself.
    Over,
}

/// One peer, as the others see it.
pub(super) struct Link {
    label: String,
    /// Where it is shown.
    slot: usize,
    /// Whom the entry there names, since when.
    shown: Cell<Option<Identity>>,
    since: Cell<Millis>,
    /// Bytes, of all its sessions.
    pub(super) sent: Cell<u64>,
    pub(super) received: Cell<u64>,
    pub(super) state: Cell<State>,
    /// It isn't to be dialled any more.
    pub(super) removed: Cell<bool>,
    /// The last try failed.
    pub(super) unreachable: Cell<bool>,
    /// The session has sent everything, and it was acknowledged.
    pub(super) flushed: Cell<bool>,
    /// Who it is, while connected.
    pub(super) peer: Cell<Option<Identity>>,
    /// Records that wait for it, by zone.
    pub(super) pending: RefCell<Vec<u64>>,
    marks: Box<[Cell<ShardMask>]>,
    marked: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Link {
    fn new(label: String, slot: usize, zones: usize) -> Link {
        Link {
            label,
            slot,
            shown: Cell::new(None),
            since: Cell::new(0),
            sent: Cell::new(0),
            received: Cell::new(0),
            state: Cell::new(State::Dialling),
            removed: Cell::new(false),
            unreachable: Cell::new(false),
            flushed: Cell::new(false),
            peer: Cell::new(None),
            pending: RefCell::new(vec![0; zones]),
            marks: (0..zones).map(|_| Cell::new(0)).collect(),
            marked: Cell::new(false),
            waker: Cell::new(None),
        }
    }

    /// A session begins; what changed before it is none of its business, as it begins with the whole feed.
    pub(super) fn open(&self) {
        self.state.set(State::Connected);
        self.flushed.set(false);
        self.take_marks(|_, _| {});
    }

    /// The session is over.
    pub(super) fn close(&self, state: State) {
        self.state.set(state);
        self.peer.set(None);
        self.pending.borrow_mut().fill(0);
        self.waker.set(None);
    }

    /// Hands each zone's changed shards to `each`, once.
    pub(super) fn take_marks(&self, mut each: impl FnMut(usize, ShardMask)) {
        if !self.marked.replace(false) {
            return;
        }
        for (index, mark) in self.marks.iter().enumerate() {
            let shards = mark.take();
            if shards != 0 {
                each(index, shards);
            }
        }
    }

    /// The session that polls is to be woken through `waker`.
    pub(super) fn listen(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }

    fn mark(&self, zone: usize, shards: ShardMask) {
        if self.state.get() != State::Connected {
            return;
        }
        if let Some(mark) = self.marks.get(zone) {
            mark.set(mark.get() | shards);
            self.marked.set(true);
            self.flushed.set(false);
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
