//! The thread's main loop: it follows orders, looks after everything that isn't a session's, and shows that it lives.

use super::changes;
use super::dial::Dial;
use super::finish::{Works, finish};
use super::hub::Hub;
use super::link::Link;
use super::log::Log;
use super::moving::Moving;
use super::renew::Renewing;
use super::rest::Rest;
use super::state_file::Keeper;
use super::thread::Order;
use super::upgrade::{PidFiles, Upgrade};
use super::wake::{Wake, Watchers};
use super::{Config, Peer, now, upkeep};
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// For goodbyes.
const FAREWELL: Duration = Duration::from_millis(150);

/// Runs until it is told to end, or the lease is lost.
pub(super) fn run(
    config: &Rc<Config>,
    log: &Rc<Log>,
    orders: watch::Receiver<Order>,
    found: watch::Receiver<Vec<Peer>>,
) -> io::Result<()> {
    // At each beat it shows that it lives, and looks whether the lease is still ours.
    let rest = Rest::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // Walkers that an agent before this one left behind: none is ours yet, and no lease has the number 0.
    config.zones.iter().for_each(|zone| zone.feed_sweep(0));
    let zones = config.cluster.as_ref().map_or_else(|| Arc::from([]), |cluster| cluster.node.zones.clone());
    let hub = Rc::new(Hub::new(config.control, config.lease, zones, log.clone(), rest));
    hub.count_online();
    // A task like all others: what wakes the future that a runtime blocks on is a system call.
    let live = runtime.spawn_local(live(config.clone(), hub, orders, found));
    runtime.block_on(live).unwrap_or_else(|error| {
        let why = io::Error::other(error.to_string());
        pass_on_panic(Err(error));
        Err(why)
    })
}

async fn live(
    config: Rc<Config>,
    hub: Rc<Hub>,
    mut orders: watch::Receiver<Order>,
    mut found: watch::Receiver<Vec<Peer>>,
) -> io::Result<()> {
    let config = &*config;
    let mut changes = JoinSet::new();
    match Wake::new(config.control) {
        Ok(wake) => {
            let interval = config.cluster.as_ref().and_then(|cluster| cluster.interval).map(Duration::from_millis);
            changes.spawn_local(changes::follow(hub.clone(), wake, interval));
        }
        // It would tell of a newer configuration only.
        Err(_) if config.cluster.is_none() => {}
        Err(error) => return Err(error),
    }
    let mut dials = Dials::new(config, &hub);
    let mut moving = Moving::new(config, hub.log.clone());
    let mut upkeep = pin!(upkeep::upkeep(config.zones.clone(), Watchers::new(config.control), hub.rest));
    let mut keeper = Keeper::new(config, hub.log.clone());
    let mut renewing = Renewing::new(config.cluster.as_ref(), &hub);
    let mut looked: Option<Instant> = None;
    loop {
        if !hub.holds() {
            // Another worker has it now. No goodbyes: what is left here may touch nothing.
            return Ok(());
        }
        config.control.beat(&config.lease, now());
        dials.meet(&found.borrow_and_update());
        dials.meet_seconds();
        let mut order = *orders.borrow_and_update();
        if order == Order::Run && hub.is_outdated() {
            order = Order::Stop;
        }
        // Who is told to end may have got its successor a moment ago.
        if order != Order::Run || looked.is_none_or(|at| hub.rest.beat_after(at) <= Instant::now()) {
            let upgrade = look_for_upgrade(config);
            hub.set_upgrade(upgrade);
            keeper.set_upgrade(upgrade);
            hub.greet();
            if order == Order::Run {
                hub.tell_of_limits();
            }
            renewing.look();
            looked = Some(Instant::now());
        }
        if order != Order::Run {
            changes.shutdown().await;
        }
        match order {
            Order::Run => {}
            Order::Finish(until) => {
                let works = Works { moving: &mut moving, renewing: &mut renewing, keeper: &mut keeper };
                let ended = finish(config, &hub, dials.tasks, works, until);
                return tokio::select! { ended = ended => ended, never = alive(config, hub.rest) => never };
            }
            Order::Stop => return stop(config, &hub, dials.tasks, &mut keeper).await,
        }
        tokio::select! {
            () = hub.roused() => {}
            // The worker is gone if there is nobody to give orders: the next round stops.
            told = orders.changed() => if told.is_err() { return stop(config, &hub, dials.tasks, &mut keeper).await },
            Ok(()) = found.changed() => {}
            Some(ended) = changes.join_next() => pass_on_panic(ended),
            Some(ended) = dials.tasks.join_next() => pass_on_panic(ended),
            () = &mut upkeep => {}
            () = moving.run() => {}
            () = keeper.run() => {}
            () = renewing.run() => {}
            () = tokio::time::sleep_until(hub.rest.next_beat().into()) => {}
        }
    }
}

pub(super) fn look_for_upgrade(config: &Config) -> Upgrade {
    config.pid_files.as_ref().map(PidFiles::look).unwrap_or_default()
}

/// Ends at once, but for what a disk has to do.
async fn stop(config: &Config, hub: &Rc<Hub>, dials: JoinSet<()>, keeper: &mut Keeper) -> io::Result<()> {
    let ended = async { tokio::join!(farewell(hub, dials), keeper.withdraw()).0 };
    tokio::select! { ended = ended => ended, never = alive(config, hub.rest) => never }
}

/// Shows that the thread lives while something takes its time.
async fn alive(config: &Config, rest: Rest) -> io::Result<()> {
    loop {
        config.control.beat(&config.lease, now());
        tokio::time::sleep_until(rest.next_beat().into()).await;
    }
}

/// The tasks that dial, one for each peer.
struct Dials<'a> {
    config: &'a Config,
    hub: Rc<Hub>,
    tasks: JoinSet<()>,
    dialled: Vec<Dialled>,
}

/// A peer that is dialled.
struct Dialled {
    peer: Peer,
    link: Rc<Link>,
    /// A name leads there at present; otherwise the configuration has it.
    named: bool,
    /// That of the task that looks for another node at its address.
    second: Option<Rc<Link>>,
}

impl Dials<'_> {
    /// Dials the peers of the configuration.
    fn new<'a>(config: &'a Config, hub: &Rc<Hub>) -> Dials<'a> {
        let mut dials = Dials { config, hub: hub.clone(), tasks: JoinSet::new(), dialled: Vec::new() };
        for peer in config.cluster.iter().flat_map(|cluster| &cluster.peers) {
            dials.dial(peer, false);
        }
        dials
    }

    /// Dials those that names lead to now, and leaves those that they led to before.
    fn meet(&mut self, found: &[Peer]) {
        for gone in self.dialled.extract_if(.., |dialled| dialled.named && !found.contains(&dialled.peer)) {
            gone.second.iter().chain([&gone.link]).for_each(|link| self.hub.remove_link(link));
        }
        found.iter().for_each(|peer| self.dial(peer, true));
    }

    /// Looks for the second node where the first says that there is one.
    fn meet_seconds(&mut self) {
        let Some(cluster) = &self.config.cluster else { return };
        for dialled in &mut self.dialled {
            if dialled.link.wants_second() && dialled.second.as_ref().is_none_or(|second| second.removed.get()) {
                let link = self.hub.add_link(&dialled.peer, Some(dialled.link.clone()));
                dialled.second = Some(link.clone());
                self.tasks.spawn_local(Dial::new(cluster, &dialled.peer, self.hub.clone(), link).run());
            }
        }
    }

    /// Dials a peer, unless somebody dials its address already.
    fn dial(&mut self, peer: &Peer, named: bool) {
        let Some(cluster) = &self.config.cluster else { return };
        if self.dialled.iter().any(|known| known.peer.target.is_same_place(&peer.target)) {
            return;
        }
        let link = self.hub.add_link(peer, None);
        self.tasks.spawn_local(Dial::new(cluster, peer, self.hub.clone(), link.clone()).run());
        self.dialled.push(Dialled { peer: peer.clone(), link, named, second: None });
    }
}

/// Lets the sessions say goodbye.
pub(super) async fn farewell(hub: &Rc<Hub>, mut dials: JoinSet<()>) -> io::Result<()> {
    hub.end();
    // Who can't say it in time is cut off.
    let _ = tokio::time::timeout(FAREWELL, async { while dials.join_next().await.is_some() {} }).await;
    // Tasks end here, not in whatever order they fall out of scope: they give back what they hold while we may.
    dials.shutdown().await;
    if hub.holds() {
        hub.control.set_nodes_online(0);
    }
    Ok(())
}

/// A task that panicked takes the whole node with it, and the thread starts it again.
pub(super) fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
    }
}
