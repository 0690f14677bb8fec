//! How a worker ends: what was acknowledged is sent and written before nginx is gone, whoever of its workers ends last.
//!
//! When nginx quits, the worker with the helper thread waits for the others, so that what they still write leaves too. One that
//! takes longer writes when that is over; and right after a reload, or a failure, there may be no helper thread of the
//! configuration in force at all. So each worker says that it has gone, and then looks whether it was the last: if something is
//! left, it takes the lease, and starts a helper thread that only finishes. A worker of an older configuration whose request took
//! so long that nobody of the one in force is left does that for them.

use super::{MARGIN, Worker, names};
use crate::nginx::conf::main::MainConf;
use crate::nginx::log;
use nginx_sys as sys;
use std::time::{Duration, Instant};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// How long a node that ends waits.
struct Patience {
    /// For the other workers.
    others: Duration,
    /// For peers to acknowledge what they were sent.
    flush: Duration,
    /// For state files.
    states: Duration,
    /// For the helper thread of the last configuration to give the lease back: it may wait for a disk.
    lease: Duration,
}

/// nginx quits. Who doesn't want to wait for a large state file can still terminate.
const QUIT: Patience = Patience {
    others: Duration::from_secs(5),
    flush: Duration::from_secs(5),
    states: Duration::from_secs(300),
    lease: Duration::from_secs(300),
};

/// nginx is terminated: the master kills what is left after 1.5 s.
const TERMINATE: Patience = Patience {
    others: Duration::from_millis(100),
    flush: Duration::from_millis(300),
    states: Duration::from_millis(1000),
    lease: Duration::from_millis(100),
};

impl Worker {
    /// `nowhere`: names of which nobody was met.
    pub(super) fn end(&mut self, nowhere: &[String]) {
        // SAFETY: a number that a signal handler sets.
        let terminate = unsafe { (&raw const sys::ngx_terminate).read_volatile() } != 0;
        let patience = if terminate { &TERMINATE } else { &QUIT };
        if self.is_outdated() {
            self.stop_now();
        } else if self.running.is_some() {
            self.wait_for_others(patience.others);
            self.finish(patience, nowhere);
        }
        let left = self.control.worker_leave(self.generation);
        // SAFETY: the configuration in force, for the time of this call.
        if let Some(main) = unsafe { MainConf::current() }.filter(|_| left == 0) {
            self.stand_in(main);
            self.see_to_the_rest(main, patience);
        }
    }

    /// The last worker of all may serve an older configuration. Once a node has finished nobody comes after it. But where a zone
    /// has other memory in the configuration in force, that can't be reached from here; and if other zones, state files or peers
    /// are to be seen to now, this one would take its own for them.
    fn stand_in(&mut self, main: &MainConf) {
        let in_force = self.control.generation();
        let same = main.duties() == self.control.duties() && main.all_zones().all(|zone| !zone.is_handed_over());
        if same && self.control.has_finished(in_force) {
            self.generation = in_force;
        }
    }

    /// Until no other worker can change a zone. One that takes longer looks itself what is left.
    fn wait_for_others(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.control.other_workers() > 0 && Instant::now() < until {
            self.take_lines();
            std::thread::sleep(LOOK);
        }
    }

    fn finish(&mut self, patience: &Patience, nowhere: &[String]) {
        if let Some(running) = &self.running {
            running.agent.finish(patience.flush, patience.states);
        }
        for name in nowhere {
            let text =
                "led to no address when this node ended; nodes that it stands for were not told the last changes";
            log::cycle(log::WARN, format_args!("zone_sync_server {name} {text}"));
        }
        self.join(patience.flush.max(patience.states) + MARGIN);
    }

    /// The last worker does what no helper thread has done.
    fn see_to_the_rest(&mut self, main: &MainConf, patience: &Patience) {
        let until = Instant::now() + patience.lease;
        // A thread of this worker that doesn't end has the lease.
        while self.running.is_none() && !self.is_outdated() && self.is_left(main) {
            let refused = self.try_start();
            if let Some(running) = &self.running {
                let (peers, nowhere) =
                    main.sync().map_or_else(Default::default, |server| names::remembered(server, &running.before));
                running.agent.meet(peers);
                self.finish(patience, &nowhere);
                break;
            }
            if !refused || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.tell_left(main);
    }

    /// Whether zones hold something that no helper thread has seen to in its end.
    fn is_left(&self, main: &MainConf) -> bool {
        main.all_zones().any(|zone| zone.is_kept() && zone.changes() != 0)
            && !self.control.is_finished(self.generation, main.all_zones())
    }

    /// Says what is lost. A worker of an older configuration can't know before the node has finished: its successors may not be
    /// there yet.
    fn tell_left(&self, main: &MainConf) {
        let finished = self.control.has_finished(self.control.generation());
        let is_told = if self.is_outdated() { finished } else { self.is_left(main) };
        if !is_told {
            return;
        }
        // What memory that was replaced has and its successor lacks, nobody can tell.
        for named in main.named_all_zones().iter().filter(|named| !named.zone.is_handed_over()) {
            let zone = &named.zone;
            let stats = zone.stats();
            let is_written = stats.writes + stats.deletes + stats.clears > 0;
            let shared = main.sync().is_some() && zone.params().sync;
            let unsent = shared && (zone.is_dirty() || (!finished && is_written));
            let unsaved = zone.state_figures().is_some_and(|figures| figures.pending);
            let what = match (unsent, unsaved) {
                (true, true) => "were neither sent to other nodes nor written to its state file",
                (true, false) => "were not sent to other nodes",
                (false, true) => "were not written to its state file",
                (false, false) => continue,
            };
            log::cycle(
                log::ERR,
                format_args!("zone \"{}\": the last changes {what}, as nobody was left to do it", named.name),
            );
        }
    }
}
