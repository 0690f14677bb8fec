//! How a node ends by QUIT: its sessions send what was accepted, state files are written, and the log says which peers may lack
//! something.

use super::hub::Hub;
use super::link::{Link, State};
use super::moving::Moving;
use super::node::{farewell, look_for_upgrade, pass_on_panic};
use super::renew::Renewing;
use super::state_file::Keeper;
use super::upgrade::Upgrade;
use super::{Config, now};
use crate::store::Control;
use crate::sync::NoteLevel;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Between two looks for changes that came in late.
const LOOK: Duration = Duration::from_millis(20);
/// For peers that aren't connected just then. This node's own workers accept no more, for example.
const REACH: Duration = Duration::from_secs(1);
/// Rounds of sending and writing, as long as other workers still change something: who is slower is followed by another agent.
const ROUNDS: usize = 3;
/// For peers to have what came after the first round. State files may have taken long.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a node that ends has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Until {
    /// For peers to acknowledge what they were sent.
    pub(super) peers: Instant,
    /// For state files.
    pub(super) states: Instant,
}

/// What is brought to an end.
pub(super) struct Works<'a, 'c> {
    pub(super) moving: &'a mut Moving<'c>,
    pub(super) renewing: &'a mut Renewing<'c>,
    pub(super) keeper: &'a mut Keeper,
}

/// Takes in what older workers wrote last, sends what was accepted and writes state files, all once more if something was changed
/// meanwhile; then says goodbye.
pub(super) async fn finish(
    config: &Config,
    hub: &Rc<Hub>,
    mut dials: JoinSet<()>,
    works: Works<'_, '_>,
    until: Until,
) -> io::Result<()> {
    let Works { moving, renewing, keeper } = works;
    // What isn't done in time the next agent does.
    let _ = tokio::time::timeout_at(until.peers.into(), renewing.finish()).await;
    let (reach, mut peers) = (Instant::now() + REACH, until.peers);
    // Should a lock be stuck, the sessions have half of their time.
    let began = Instant::now();
    moving.catch_up(began + peers.saturating_duration_since(began) / 2).await;
    hub.finish();
    for _ in 0..ROUNDS {
        let changes = Control::changes(config.zones.iter());
        tokio::join!(flush(config, hub, &mut dials, reach, peers), keeper.finish(until.states));
        config.control.set_finished(&config.lease, changes);
        moving.catch_up(Instant::now() + LOOK).await;
        if config.control.is_finished(config.lease.generation, config.zones.iter()) || !hub.holds() {
            break;
        }
        peers = (Instant::now() + AGAIN).min(until.states.max(until.peers));
    }
    hub.tell_unsent();
    tokio::join!(farewell(hub, dials), keeper.end()).0
}

/// Lets the sessions send what there is.
async fn flush(config: &Config, hub: &Rc<Hub>, dials: &mut JoinSet<()>, reach: Instant, until: Instant) {
    hub.distribute();
    while hub.holds() && Instant::now() < until {
        config.control.beat(&config.lease, now());
        // A new binary may fail meanwhile.
        hub.set_upgrade(look_for_upgrade(config));
        let reached = Instant::now() > reach;
        if !hub.distribute() && hub.flushed(reached) {
            break;
        }
        tokio::select! {
            () = hub.until(|hub| hub.flushed(reached)) => {}
            Some(ended) = dials.join_next() => pass_on_panic(ended),
            () = tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))) => {}
        }
    }
}

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
