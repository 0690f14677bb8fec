//! What the tasks of the thread share: a link for each peer, and how they wake each other.
//!
//! All of them run on one thread, so cells do where threads would need locks.

use super::apart::Apart;
use super::link::{Link, State};
use super::log::Log;
use super::rest::Rest;
use super::upgrade::Upgrade;
use super::waiting::MostWaiting;
use super::{Peer, now};
use crate::record::{Identity, Millis};
use crate::store::{Control, LINKS, LinkFigures, LinkState, Matching, control::Lease};
use crate::sync::SyncZone;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A node that says hello here is dialled at once, if that was so lately; and not again and again if that fails, until nothing
/// was heard of it for several times as long as sessions are silent.
const JUST: Millis = 1000;
const GREET_AGAIN: Millis = 60_000;
/// Nor for each of many: whoever can say hello under ever new names could have others dialled without a pause.
const GREET_EVERY: Duration = Duration::from_millis(100);

/// Shared by the node's main loop and the tasks of its peers.
pub(super) struct Hub {
    pub(super) control: Control,
    pub(super) lease: Lease,
    pub(super) log: Rc<Log>,
    pub(super) rest: Rest,
    pub(super) zones: Arc<[SyncZone]>,
    /// Of the peers that are dialled now.
    pub(super) links: RefCell<Vec<Rc<Link>>>,
    /// How many records wait for them.
    waiting: MostWaiting,
    /// What an agent before this one has shown: figures go on from there.
    before: Vec<LinkFigures>,
    /// Without whom requests are limited; `None`: there are no limits.
    apart: Option<RefCell<Apart>>,
    pub(super) finishing: Cell<bool>,
    ending: Cell<bool>,
    pub(super) upgrade: Cell<Upgrade>,
    /// Records are stamped anew: nobody is dialled.
    renewing: Cell<bool>,
    /// Nodes that have said hello here while no session leads to them, and when that was noticed.
    newcomers: RefCell<BTreeMap<Identity, Instant>>,
    /// How often there was one.
    greetings: Cell<u64>,
    /// Somebody waits for `finishing`, `ending` or a link to change.
    changed: Notify,
    /// The main loop is to look around.
    roused: Notify,
}

impl Hub {
    pub(super) fn new(control: Control, lease: Lease, zones: Arc<[SyncZone]>, log: Rc<Log>, rest: Rest) -> Hub {
        let (links, before) = (RefCell::new(Vec::new()), control.links());
        let waiting = MostWaiting::new(zones.len());
        // What an agent before this one counted waits for nobody yet.
        zones.iter().for_each(|sync| sync.zone.set_pending(0));
        (0..LINKS).for_each(|slot| control.hide_link(slot));
        let any = zones.iter().any(|sync| sync.zone.params().matching == Matching::Limit);
        let apart = any.then(RefCell::default);
        let (finishing, ending, upgrade) = (Cell::new(false), Cell::new(false), Cell::default());
        let (newcomers, greetings) = (RefCell::default(), Cell::new(0));
        let (changed, roused) = (Notify::new(), Notify::new());
        let renewing = Cell::new(control.is_renewing());
        Hub {
            control,
            lease,
            log,
            rest,
            zones,
            links,
            waiting,
            before,
            apart,
            finishing,
            ending,
            upgrade,
            renewing,
            newcomers,
            greetings,
            changed,
            roused,
        }
    }

    /// A link for one more peer. `beside`: that of another session to the same address, if this one looks for a second
    /// node there.
    pub(super) fn add_link(&self, peer: &Peer, beside: Option<Rc<Link>>) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let slot = (0..).find(|slot| links.iter().all(|link| link.slot != *slot)).unwrap_or(usize::MAX);
        let second = if beside.is_some() { " (second node)" } else { "" };
        let mut figures =
            LinkFigures { server: format!("{}{second}", peer.text), address: peer.address(), ..LinkFigures::default() };
        let before = self.before.iter().find(|old| old.label() == figures.label() && old.state != LinkState::Itself);
        let behind = before.and_then(|old| old.behind).unwrap_or_else(now);
        if let Some(old) = before {
            (figures.traffic, figures.error) = (old.traffic, old.error.clone());
        }
        let link = Rc::new(Link::new(figures, slot, self.zones.len(), behind, beside));
        links.push(link.clone());
        self.keep_walkers(links.len());
        self.show(&link);
        link
    }

    /// Shows how things stand with a peer.
    pub(super) fn show(&self, link: &Link) {
        // The slot of one that was removed may be another's already.
        if !self.holds() || link.removed.get() {
            return;
        }
        if link.beside.is_some() && link.peer.get().is_none() {
            // There may be no second node, or not any more.
            return self.control.hide_link(link.slot);
        }
        self.control.show_link(link.slot, &link.figures());
    }

    /// Each peer is to find a place for its walker, whoever watches a zone.
    fn keep_walkers(&self, links: usize) {
        if self.holds() {
            self.zones.iter().for_each(|sync| sync.zone.keep_walkers(links));
        }
    }

    /// A peer isn't one of the cluster any more: its session ends.
    pub(super) fn remove_link(&self, link: &Rc<Link>) {
        self.links.borrow_mut().retain(|other| !Rc::ptr_eq(other, link));
        self.keep_walkers(self.links.borrow().len());
        link.removed.set(true);
        if self.holds() {
            self.control.hide_link(link.slot);
        }
        link.wake();
        self.announce();
        self.count_online();
        self.set_waiting(link, |_| 0);
    }

    /// Notices nodes that have said hello to this one while it waits to dial: one of those that couldn't be reached is there now.
    pub(super) fn greet(&self) {
        let links = self.links.borrow();
        if links.iter().all(|link| link.state.get() != State::Dialling) {
            return;
        }
        let (at, wall) = (Instant::now(), now());
        let mut newcomers = self.newcomers.borrow_mut();
        if newcomers.values().any(|noticed| at.duration_since(*noticed) < GREET_EVERY) {
            // Who is new now is so at the next look.
            return;
        }
        let mut heard = self.control.heard_of();
        heard.retain(|(node, at)| {
            wall.abs_diff(*at) < GREET_AGAIN && links.iter().all(|link| link.peer.get() != Some(*node))
        });
        newcomers.retain(|node, _| heard.binary_search_by_key(node, |(heard, _)| *heard).is_ok());
        let known = newcomers.len();
        for (node, _) in heard.into_iter().filter(|(_, heard)| wall.abs_diff(*heard) < JUST) {
            newcomers.entry(node).or_insert(at);
        }
        if newcomers.len() > known {
            self.greetings.set(self.greetings.get() + 1);
            self.announce();
        }
    }

    /// Counts newcomers: who waits to dial again needn't wait when this changes.
    pub(super) fn greetings(&self) -> u64 {
        self.greetings.get()
    }

    /// Whether the lease is still ours. Without it nothing may be touched any more.
    pub(super) fn holds(&self) -> bool {
        self.control.holds(&self.lease)
    }

    /// A newer configuration is in force, and its workers wait for the lease.
    pub(super) fn is_outdated(&self) -> bool {
        self.control.generation() > self.lease.generation
    }

    /// Takes the changes of all zones and tells every connected session; `true`: there were some. What it takes nobody else is
    /// told of any more. That is no other agent's: the lease goes to another only when the process of this one is dead, and none
    /// of its threads goes on, or when this thread itself has ended.
    pub(super) fn distribute(&self) -> bool {
        let mut any = false;
        for (index, sync) in self.zones.iter().enumerate() {
            let shards = sync.zone.take_dirty();
            if shards != 0 {
                any = true;
                for link in self.links.borrow().iter() {
                    if link.mark(index, shards) {
                        self.show(link);
                    }
                }
            }
        }
        if any {
            self.links.borrow().iter().for_each(|link| link.wake());
        }
        any
    }

    /// The main loop is to look around: somebody woke the agent, and no zone was changed.
    pub(super) fn rouse(&self) {
        self.roused.notify_one();
    }

    /// Waits for that.
    pub(super) async fn roused(&self) {
        self.roused.notified().await;
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
        let under_way = upgrade != Upgrade::None;
        if self.control.upgrading() != under_way {
            self.control.set_upgrading(under_way);
        }
        if self.upgrade.replace(upgrade) != upgrade {
            let links = self.links.borrow();
            if upgrade == Upgrade::Old && links.iter().all(|link| link.peer.get().is_none()) {
                // Nobody else has anything to join with. The new nginx is to take all that there is here, of whatever
                // origin, and not to wait for somebody better.
                self.zones.iter().for_each(|sync| sync.zone.set_joined());
            }
            self.announce();
        }
    }

    /// Whether an old and a new nginx run side by side.
    pub(super) fn upgrading(&self) -> bool {
        self.upgrade.get() != Upgrade::None
    }

    /// Records are stamped anew, which ends all sessions, or that is over.
    pub(super) fn set_renewing(&self, renewing: bool) {
        self.renewing.set(renewing);
        self.tell_all();
    }

    pub(super) fn renewing(&self) -> bool {
        self.renewing.get()
    }

    /// The clocks of the nodes that this one has a session to, whatever its own says.
    pub(super) fn clocks(&self) -> Vec<Millis> {
        let mut clocks = BTreeMap::new();
        for link in self.links.borrow().iter() {
            if let (Some(peer), Some((clock, at))) = (link.peer.get(), link.clock.get()) {
                clocks.insert(peer, clock.saturating_add(at.elapsed().as_millis() as Millis));
            }
        }
        clocks.into_values().collect()
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
        if self.holds() {
            self.control.set_nodes_online(online.len() as u64);
        }
    }

    /// Says without whom requests are limited: together nodes may then admit more. To be called now and then.
    pub(super) fn tell_of_limits(&self) {
        let Some(apart) = &self.apart else { return };
        let links = self.links.borrow();
        let missing = links.iter().filter(|link| link.is_missed()).map(|link| link.label()).collect();
        let connected = links.iter().any(|link| link.peer.get().is_some());
        if let Some((level, text)) = apart.borrow_mut().look(missing, connected) {
            self.log.line(level, text);
        }
    }

    /// So many records of each zone wait for a peer. A zone shows how many wait for the one that lacks most.
    pub(super) fn set_waiting(&self, link: &Link, records: impl Fn(usize) -> u64) {
        for (index, sync) in self.zones.iter().enumerate() {
            if let Some(most) = self.waiting.set(&link.waiting, index, records(index)).filter(|_| self.holds()) {
                sync.zone.set_pending(most);
            }
        }
    }

    pub(super) fn tell_all(&self) {
        self.links.borrow().iter().for_each(|link| link.wake());
        self.announce();
    }
}
