//! All watched zones of a worker, and what its event loop has to do for them.

use super::group::{Catching, Group, Next};
use super::{HEARTBEAT, Order};
use crate::api::{NamedZone, Produce, Produced};
use crate::record::Millis;
use crate::store::Sparing;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between two tries of a client that there is no walker for.
const HELD: Millis = 500;
/// A client with nothing to send isn't asked again before it is poked; so long at most.
const IDLE: Millis = 60_000;

/// Handle of what a worker has; a copy is the same.
#[derive(Clone)]
pub struct Hub(Rc<RefCell<Inner>>);

struct Inner {
    groups: BTreeMap<String, Group>,
    next_token: u64,
    /// Makes the event loop call [`Hub::work`] soon.
    schedule: fn(),
    beat_at: Millis,
    ended: bool,
}

/// What the event loop has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Call again, after others had their turn.
    More,
    /// Call again after so many milliseconds.
    After(Millis),
    /// Nothing before something changes.
    Nothing,
}

impl Hub {
    /// `schedule` makes the event loop call [`Hub::work`] soon.
    pub fn new(schedule: fn()) -> Hub {
        let inner = Inner { groups: BTreeMap::new(), next_token: 0, schedule, beat_at: 0, ended: false };
        Hub(Rc::new(RefCell::new(inner)))
    }

    /// One more client: the body that it gets. `None`: the zone has as many walkers as it can, or is busy.
    pub fn join(&self, zone: &NamedZone, order: Order, now: Millis) -> Option<Box<dyn Produce>> {
        let mut inner = self.0.try_borrow_mut().ok()?;
        let inner = &mut *inner;
        let group = match inner.groups.entry(zone.name.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Group::open(zone.zone, now)?),
        };
        inner.next_token += 1;
        group.join(inner.next_token, order);
        (inner.schedule)();
        Some(Box::new(Stream { hub: self.clone(), zone: zone.name.clone(), token: inner.next_token }))
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.0.try_borrow().is_ok_and(|inner| inner.groups.is_empty())
    }

    /// Whether there is something new in some zone.
    pub fn has_news(&self) -> bool {
        self.0.try_borrow().is_ok_and(|inner| inner.groups.values().any(Group::has_news))
    }

    /// Goes on for `limit` at most.
    pub fn work(&self, now: Millis, limit: Duration) -> Work {
        let _sparing = Sparing::begin();
        let began = Instant::now();
        let Ok(mut inner) = self.0.try_borrow_mut() else { return Work::More };
        let mut soonest = Work::Nothing;
        for group in inner.groups.values_mut() {
            let next = match group.work(now, &|| began.elapsed() >= limit) {
                Next::More => return Work::More,
                Next::At(time) => Work::After(time.saturating_sub(now).max(1)),
                Next::Nothing => continue,
            };
            soonest = match (soonest, next) {
                (Work::After(one), Work::After(other)) => Work::After(one.min(other)),
                _ => next,
            };
        }
        soonest
    }

    /// To be called about each second: zones stay watched, clients get signs of life.
    pub fn tick(&self, now: Millis) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return };
        let beat = now >= inner.beat_at || inner.beat_at.saturating_sub(now) > HEARTBEAT;
        if beat {
            inner.beat_at = now.saturating_add(HEARTBEAT);
        }
        for group in inner.groups.values_mut() {
            group.renew(now);
            if beat {
                group.beat();
            }
        }
    }

    /// Ends every stream: the worker ends, or the memory of the zones goes.
    pub fn end(&self) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return };
        inner.ended = true;
        for (_, mut group) in std::mem::take(&mut inner.groups) {
            group.poke_all();
            group.close();
        }
    }
}

impl Inner {
    fn produce(&mut self, zone: &str, token: u64, out: &mut Vec<u8>, now: Millis) -> Produced {
        let Some(group) = self.groups.get_mut(zone) else { return Produced::End };
        let cleared = group.zone.cleared();
        let Some(watcher) = group.watcher(token) else { return Produced::End };
        if !watcher.is_full() {
            watcher.tell_clear(cleared);
        }
        out.append(&mut watcher.out);
        let state = match group.catch_up(token, out, now) {
            Catching::More => return Produced::More,
            Catching::Held => Produced::Wait(HELD),
            Catching::Abreast => Produced::Wait(IDLE),
        };
        let wanted = group.has_news();
        if let Some(watcher) = group.watcher(token) {
            watcher.idle = true;
        }
        if wanted {
            (self.schedule)();
        }
        state
    }
}

/// The body that one client gets.
struct Stream {
    hub: Hub,
    zone: String,
    token: u64,
}

impl Produce for Stream {
    fn produce(&mut self, out: &mut Vec<u8>, now: Millis) -> Produced {
        let _sparing = Sparing::begin();
        match self.hub.0.try_borrow_mut() {
            Ok(mut inner) if !inner.ended => inner.produce(&self.zone, self.token, out, now),
            Ok(_) => Produced::End,
            Err(_) => Produced::Wait(1),
        }
    }

    fn poke_by(&mut self, poke: Box<dyn Fn()>) {
        if let Ok(mut inner) = self.hub.0.try_borrow_mut()
            && let Some(watcher) = inner.groups.get_mut(&self.zone).and_then(|group| group.watcher(self.token))
        {
            watcher.poke_by(poke);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Ok(mut inner) = self.hub.0.try_borrow_mut() else { return };
        let Some(group) = inner.groups.get_mut(&self.zone) else { return };
        group.leave(self.token);
        if group.is_empty()
            && let Some(group) = inner.groups.remove(&self.zone)
        {
            group.close();
        }
    }
}
