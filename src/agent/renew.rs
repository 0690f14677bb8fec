//! Notices that the node's clock was ahead of its peers' and has been mended, and has what it wrote stamped anew.
//!
//! Whether that is so, the peers' clocks tell ([`crate::sync::clock`]). If they don't, nothing is done, and stamps go on from
//! where they are.

use super::hub::Hub;
use super::{Cluster, now};
use crate::record::Millis;
use crate::store::{Control, Renewal, StoreError, Zone};
use crate::sync::clock::{Clocks, Verdict};
use crate::sync::{NoteLevel, SyncZone};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A step ends after this time; what else the thread has to do comes before the next.
const STEP: Duration = Duration::from_micros(500);
/// After something that can't be done now.
const PAUSE: Duration = Duration::from_millis(20);
/// So often in a row the clock has to be behind.
const LOOKS: u32 = 2;

/// The node's stamps, looked after.
pub(super) struct Renewing<'a> {
    cluster: Option<&'a Cluster>,
    hub: Rc<Hub>,
    /// How often in a row the clock was behind.
    seen: u32,
    /// That the peers hold with the stamps was said.
    told: bool,
    /// Why it goes on as it is was said, and nothing is tried until the clock has caught up.
    stays: bool,
    work: Option<Work>,
}

struct Work {
    began: Instant,
    /// Zones that aren't done, the present one last.
    left: Vec<(String, Renewal)>,
    next: Instant,
}

impl<'a> Renewing<'a> {
    pub(super) fn new(cluster: Option<&'a Cluster>, hub: &Rc<Hub>) -> Renewing<'a> {
        Renewing { cluster, hub: hub.clone(), seen: 0, told: false, stays: false, work: None }
    }

    /// Looks whether something is to be done; called now and then.
    pub(super) fn look(&mut self) {
        let Some(cluster) = self.cluster.filter(|_| self.work.is_none() && self.hub.holds()) else { return };
        let (control, zones) = (&self.hub.control, &cluster.node.zones);
        if zones.iter().any(|sync| sync.zone.is_moving()) {
            return;
        }
        let identity = control.identity();
        // Somebody died in the midst of it.
        let is_half_done = control.is_renewing() || zones.iter().any(|sync| !sync.zone.is_of(identity));
        let peers = self.hub.clocks();
        let clocks = Clocks { own: now(), peers: &peers, max_drift: cluster.node.limits.max_drift };
        let verdict = clocks.judge(zones);
        self.seen = if verdict == Verdict::Fine { 0 } else { self.seen + 1 };
        if self.seen == 0 && !is_half_done {
            (self.told, self.stays) = (false, false);
        }
        if self.stays {
            return;
        }
        let (latest, behind) = (clocks.latest(), clocks.behind(zones));
        if is_half_done {
            return self.begin(cluster, latest, behind);
        }
        match verdict {
            Verdict::Mended if self.seen >= LOOKS => self.begin(cluster, latest, behind),
            Verdict::Wrong(peers) if self.seen >= LOOKS => self.go_on(behind, peers),
            _ => {}
        }
    }

    /// Goes on from the stamps that there are, and says so once.
    fn go_on(&mut self, behind: Millis, peers: usize) {
        if !std::mem::replace(&mut self.told, true) {
            self.hub.log.line(
                NoteLevel::Warn,
                format!(
                    "this node's clock is {behind} ms behind its own last stamp, and the clocks of {peers} peers are not: \
                     it goes on from that stamp; check the time service"
                ),
            );
        }
    }

    /// Goes on as before, and says why.
    fn stay(&mut self, behind: Millis, why: &str) {
        self.stays = true;
        self.hub.log.line(
            NoteLevel::Warn,
            format!(
                "this node's clock is {behind} ms behind its own last stamp, and was mended, as its peers' clocks say, but \
                 {why}: nothing is stamped anew, and what is too far ahead of other nodes' clocks waits until they have caught up"
            ),
        );
    }

    /// `clock`: the latest that is right.
    fn begin(&mut self, cluster: &Cluster, clock: Millis, behind: Millis) {
        let control = &self.hub.control;
        let goes_on = control.is_renewing();
        let zones = &cluster.node.zones;
        let Ok(identity) = Control::random_identity() else { return };
        // Before sessions end for it.
        let is_full = |sync: &&SyncZone| matches!(sync.zone.expect_identity(identity), Err(StoreError::NoMemory));
        if let Some(full) = zones.iter().find(is_full).filter(|_| !goes_on) {
            return self.stay(behind, &format!("zone \"{}\" has no room to note another identity", full.name));
        }
        let identity = control.begin_renewal(identity);
        let why = if goes_on {
            "an agent died while it stamped anew what was from the future".into()
        } else {
            format!(
                "this node's clock is {behind} ms behind its own last stamp, and was mended, as its peers' clocks say"
            )
        };
        self.hub.log.line(
            NoteLevel::Warn,
            format!("{why}: it goes on as node {identity}, and what is from the future gets stamps of the present"),
        );
        self.hub.set_renewing(true);
        let (last, latest) = (control.last_identity(), Renewal::latest(clock, cluster.node.limits.max_drift));
        let renewal = |zone: &Zone| Renewal::new(*zone, identity, last, latest);
        let left = zones.iter().map(|sync| (sync.name.clone(), renewal(&sync.zone))).collect();
        self.work = Some(Work { began: Instant::now(), left, next: Instant::now() });
        self.seen = 0;
    }

    /// Works, if there is something to do; then returns. Otherwise it waits until it is dropped.
    pub(super) async fn run(&mut self) {
        while let Some(work) = &mut self.work {
            tokio::time::sleep_until(work.next.into()).await;
            if !self.hub.holds() {
                return;
            }
            let began = Instant::now();
            let pause = loop {
                match work.step(&self.hub) {
                    Ok(true) if began.elapsed() < STEP => {}
                    // As long as it took, and so at most half of the thread's time.
                    Ok(true) => break began.elapsed(),
                    Ok(false) => {
                        self.end();
                        return;
                    }
                    Err(_) => break PAUSE,
                }
            };
            work.next = Instant::now() + pause;
        }
        std::future::pending::<()>().await;
    }

    /// Does what is begun, as the node ends.
    pub(super) async fn finish(&mut self) {
        if self.work.is_some() {
            self.run().await;
        }
    }

    fn end(&mut self) {
        let took = self.work.take().map_or(0, |work| work.began.elapsed().as_millis());
        let control = &self.hub.control;
        control.end_renewal();
        self.hub.log.line(
            NoteLevel::Notice,
            format!("this node is node {} now ({took} ms); sessions begin anew", control.identity()),
        );
        self.hub.set_renewing(false);
    }
}

impl Work {
    /// `false`: all is done.
    fn step(&mut self, hub: &Hub) -> Result<bool, StoreError> {
        let Some((name, renewal)) = self.left.last_mut() else { return Ok(false) };
        if let Some(done) = renewal.step(now())? {
            if done.records > 0 || done.cleared {
                let emptied = if done.cleared { ", and so has the last emptying" } else { "" };
                let text =
                    format!("zone \"{name}\": {} records from the future have new stamps{emptied}", done.records);
                hub.log.line(NoteLevel::Notice, text);
            }
            self.left.pop();
        }
        Ok(true)
    }
}
