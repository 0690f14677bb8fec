//! The life of the processes: who runs the agent, and how it ends.
//!
//! Every worker looks whether the lease of the node can be had; who gets it starts the helper thread. It looks fifty times a
//! second until somebody of its own generation has it, and then seldom: a holder that dies is replaced, and its successor
//! looks at once. After a reload the holder is of an older generation and gives it back as soon as a new worker asks for it,
//! or when it is told to end, before its last requests are done. The timer is one that nginx doesn't wait for when a worker ends;
//! how that goes is in `end`.

mod end;
pub mod lines;
mod names;
pub mod timer;

use super::conf::main::MainConf;
use super::http::watch;
use super::stream::door;
use super::{ffi, log, wake};
use crate::agent::{Agent, Config, LogLine, PidFiles};
use crate::store::{Control, LinkFigures, Zone};
use crossbeam_channel::Receiver;
use lines::{Calls, LinesReady};
use nginx_sys as sys;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use timer::Timer;

/// Between two looks, as long as the lease moves, and once it has settled. Each costs an idle processor's awakening.
const TICK_MS: usize = 20;
const SETTLED_TICK_MS: usize = 1000;
/// The helper thread shows its life twice a second: after so many milliseconds of ticks without, it hangs.
const SILENT_MS: usize = 10_000;
/// For the thread to end once it is through with its work.
const MARGIN: Duration = Duration::from_millis(700);
/// Between two looks, where there is no limit.
const FOR_GOOD: Duration = Duration::from_secs(3600);

/// The generation of the configuration that workers forked from now on serve. In the control zone it may be newer.
static GENERATION: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This process as a worker. Only the thread of the event loop has one.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// A configuration is about to come into force. Without a master, the helper thread of this process works with memory that
/// is about to go: nginx unmaps the zones of the last configuration after this.
pub fn reconfiguring() {
    wake::ending();
    watch::end();
    names::stop();
    with_worker(Worker::stop_for_good);
}

/// A configuration came into force: for `init_module`, once the control zone counts the new generation.
pub fn configured(control: &Control) {
    GENERATION.store(control.generation(), Ordering::Relaxed);
    // Without a master, this process goes on with the new configuration.
    with_worker(|worker| {
        worker.control = *control;
        worker.generation = control.generation();
        worker.control.worker_enter(worker.generation);
    });
}

/// A process begins: for `init_process`.
///
/// # Safety
/// In the thread of the event loop, after nginx has made it.
pub unsafe fn started(control: &Control) {
    // SAFETY: a number that nginx sets before it calls modules. Cache managers are no workers.
    let process = unsafe { sys::ngx_process };
    if process != sys::NGX_PROCESS_WORKER as sys::ngx_uint_t && process != sys::NGX_PROCESS_SINGLE as sys::ngx_uint_t {
        return;
    }
    // SAFETY: the event loop is there, and `tick` may run in it at any time.
    let timer = unsafe { Timer::new(tick) };
    // SAFETY: as above.
    let ready = match unsafe { LinesReady::new(&Calls { written: take_lines, ending: told_to_end }) } {
        Ok(ready) => ready,
        Err(error) => {
            log::cycle(log::ALERT, format_args!("this worker can't run the helper thread: {error}"));
            return;
        }
    };
    let worker = Worker {
        control: *control,
        generation: GENERATION.load(Ordering::Relaxed),
        timer,
        ready,
        tick_ms: TICK_MS,
        running: None,
    };
    worker.control.worker_enter(worker.generation);
    // SAFETY: the configuration in force, for the time of this call.
    let zones = unsafe { MainConf::current() }.into_iter().flat_map(MainConf::all_zones);
    // Those of a worker that this one may replace.
    zones.for_each(Zone::sweep_watchers);
    // It may have been killed before it said what it had changed.
    wake::everybody(control);
    WORKER.with_borrow_mut(|slot| *slot = Some(worker));
    tick();
}

/// A process ends: for `exit_process`.
pub fn ending() {
    let nowhere = names::leading_nowhere();
    wake::ending();
    door::close();
    names::stop();
    watch::end();
    // Out of its place: what comes of log lines now is done here.
    if let Some(mut worker) = WORKER.with_borrow_mut(Option::take) {
        worker.end(&nowhere);
    }
}

/// Where the master shows upgrades of its binary; `None`: there is no master.
fn pid_files() -> Option<PidFiles> {
    // SAFETY: in a worker, with the cycle in force, whose core module's structure is in its slot.
    unsafe {
        if sys::ngx_process != sys::NGX_PROCESS_WORKER as sys::ngx_uint_t {
            return None;
        }
        let core = *(*sys::ngx_cycle).conf_ctx.add(sys::ngx_core_module.index);
        let core = &*core.cast::<sys::ngx_core_conf_t>();
        // nginx counts the NUL at the end of the second.
        let path = |name| PathBuf::from(OsStr::from_bytes(without_nul(ffi::bytes(name))));
        Some(PidFiles { master: parent_id(), pid: path(core.pid), old: path(core.oldpid) })
    }
}

fn without_nul(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"\0").unwrap_or(name)
}

/// A worker, in its own eyes.
struct Worker {
    control: Control,
    generation: u64,
    timer: Timer,
    ready: LinesReady,
    /// Until the next look.
    tick_ms: usize,
    running: Option<Running>,
}

/// The helper thread, in the worker that has the lease.
struct Running {
    agent: Agent,
    lines: Receiver<LogLine>,
    /// What the one before it has shown of its connections.
    before: Vec<LinkFigures>,
    stopping: bool,
    beat: u64,
    /// Ticks are counted instead of looking at a clock: a process that was stopped isn't a thread that hangs.
    silent_ms: usize,
    /// That it hangs was said.
    told: bool,
}

impl Worker {
    fn tick(&mut self) {
        self.take_lines();
        let newer = self.is_outdated();
        match &mut self.running {
            Some(running) if running.agent.ended() => {
                running.agent.join(Duration::ZERO);
                self.take_lines();
                self.running = None;
            }
            Some(running) => {
                if newer {
                    running.stop();
                }
                // Also one that is to stop: as long as it holds the lease nobody takes its place.
                if !running.lives(self.control.last_beat(), self.tick_ms) {
                    self.give_up();
                }
            }
            None if newer => {}
            None => {
                self.try_start();
            }
        }
        self.tick_ms = if self.is_settled() { SETTLED_TICK_MS } else { TICK_MS };
        self.timer.set(self.tick_ms);
    }

    /// Whether there is nothing to wait for: the lease is where it is to be, or is no more this worker's concern.
    fn is_settled(&self) -> bool {
        match &self.running {
            Some(running) => !running.stopping,
            None => self.is_outdated() || self.control.lease_generation() == Some(self.generation),
        }
    }

    /// Gives the lease back if it is a newer configuration's.
    fn heed_newer(&mut self) {
        if self.is_outdated()
            && let Some(running) = &mut self.running
        {
            running.stop();
            // For its end.
            self.timer.set(TICK_MS);
        }
    }

    /// A newer configuration is in force: what is left to do is others'.
    fn is_outdated(&self) -> bool {
        self.control.generation() != self.generation
    }

    /// Starts the helper thread, if the lease can be had; `true`: somebody else has it.
    fn try_start(&mut self) -> bool {
        let Some(lease) = self.control.try_lease(self.generation, ffi::now()) else {
            if self.control.lease_generation() < Some(self.generation) {
                // The helper thread of an older configuration may not know yet.
                wake::agent(&self.control);
            }
            return true;
        };
        let pinned = lines::stay_loaded();
        // The thread shows its own from its start on.
        let before = self.control.links();
        // SAFETY: in a callback of the event loop, and done with when it returns.
        let config = unsafe { MainConf::current() }.and_then(|main| main.agent_config(lease));
        let started = match config {
            _ if !pinned => Err(io::Error::other("the shared object can't be found again")),
            Some(config) => Agent::start(Config { pid_files: pid_files(), ..config }, self.ready.fd()),
            None => Err(io::Error::other("there is no configuration")),
        };
        match started {
            Ok((agent, lines)) => {
                log::cycle(log::INFO, format_args!("the helper thread runs in this worker"));
                let beat = self.control.last_beat();
                self.running = Some(Running { agent, lines, before, stopping: false, beat, silent_ms: 0, told: false });
            }
            Err(error) => {
                self.control.release(&lease);
                log::cycle(log::ALERT, format_args!("the helper thread can't be started: {error}"));
            }
        }
        false
    }

    /// The thread hangs. It can't be ended from outside, but with its process. Where nobody would start another, it is said once.
    fn give_up(&mut self) {
        if self.running.as_mut().is_none_or(|running| std::mem::replace(&mut running.told, true)) {
            return;
        }
        // SAFETY: a number of nginx's.
        let single = unsafe { sys::ngx_process } == sys::NGX_PROCESS_SINGLE as sys::ngx_uint_t;
        let what = match single {
            true => "restart nginx",
            false if self.is_outdated() => "this worker exits, so that a new one can take its place",
            false => "this worker exits and is replaced",
        };
        log::cycle(
            log::ALERT,
            format_args!("the helper thread has shown no sign of life for {} s; {what}", SILENT_MS / 1000),
        );
        if !single {
            // SAFETY: ends the process at once, without handlers that might wait for the thread. Not 2: the master
            // would not replace it.
            unsafe { libc::_exit(1) };
        }
    }

    fn take_lines(&self) {
        if let Some(running) = &self.running {
            running.lines.try_iter().for_each(|line| log::cycle(log::level(line.level), format_args!("{}", line.text)));
        }
    }

    /// Ends the thread now, without sending what may be left.
    fn stop_now(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop();
            self.join(MARGIN);
        }
    }

    /// The same, however long it takes: nothing of it is left afterwards.
    fn stop_for_good(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.stop();
        if !running.agent.join(MARGIN) {
            let text = "the new configuration waits for the helper thread, which may write to zones that go: it hangs, or its disk";
            log::cycle(log::WARN, format_args!("{text}"));
            while !running.agent.join(FOR_GOOD) {}
        }
        self.take_lines();
        self.running = None;
    }

    fn join(&mut self, limit: Duration) {
        let joined = self.running.as_mut().is_none_or(|running| running.agent.join(limit));
        self.take_lines();
        if joined {
            self.running = None;
        } else {
            // It stays where it is, and the code that it runs stays too: see `stay_loaded`.
            log::cycle(log::ALERT, format_args!("the helper thread doesn't end"));
        }
    }
}

impl Running {
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.agent.stop();
        }
    }

    /// Whether the thread has shown its life within a while, `passed` milliseconds after the last look.
    fn lives(&mut self, beat: u64, passed: usize) -> bool {
        if self.beat == beat {
            self.silent_ms += passed;
        } else {
            (self.beat, self.silent_ms) = (beat, 0);
        }
        self.silent_ms < SILENT_MS
    }
}

fn with_worker(work: impl FnOnce(&mut Worker)) {
    WORKER.with(|slot| {
        if let Ok(mut slot) = slot.try_borrow_mut()
            && let Some(worker) = slot.as_mut()
        {
            work(worker);
        }
    });
}

/// The worker is to end once its requests are done.
fn told_to_end() {
    with_worker(Worker::heed_newer);
    watch::end();
}

fn tick() {
    with_worker(Worker::tick);
    // SAFETY: a number that nginx sets in this thread.
    if unsafe { (&raw const sys::ngx_exiting).read_volatile() } != 0 {
        watch::end();
    }
    follow_names();
    show_idle();
}

/// Tells the others how many connections of this worker wait for a request.
fn show_idle() {
    // SAFETY: in a callback of the event loop; nginx's own counts.
    unsafe {
        if let Some(figures) = MainConf::current().and_then(MainConf::figures) {
            figures.set_idle(sys::ngx_worker, (*sys::ngx_cycle).reusable_connections_n as u64);
        }
    }
}

/// The names of peers are asked for as long as the helper thread runs here. Outside of any borrow: nginx may know an answer at
/// once.
fn follow_names() {
    // What an agent before this one had dialled is of use once.
    let mut before = None;
    with_worker(|worker| {
        let running = worker.running.as_mut().filter(|running| !running.stopping);
        before = running.map(|running| std::mem::take(&mut running.before));
    });
    match before {
        Some(before) if !names::is_started() => {
            // SAFETY: in a callback of the event loop.
            if let Some(server) = unsafe { MainConf::current() }.and_then(MainConf::sync) {
                // SAFETY: the names are stopped before their configuration ends.
                unsafe { names::start(server, &before, names_found) };
            }
        }
        None => names::stop(),
        Some(_) => {}
    }
}

fn names_found() {
    let peers = names::peers();
    with_worker(|worker| {
        if let Some(running) = &worker.running {
            running.agent.meet(peers);
        }
    });
}

fn take_lines() {
    with_worker(|worker| worker.take_lines());
}
