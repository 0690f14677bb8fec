//! The thread itself: how it starts, what it is told, and what becomes of a panic.

use super::finish::Until;
use super::log::{Log, LogLine};
use super::sys::{EventFd, SignalsBlocked};
use super::{Config, Peer, node, now};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::any::Any;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the worker wants of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// Send what was accepted and write state files; then end.
    Finish(Until),
    /// End at once.
    Stop,
}

/// The running thread.
pub struct Agent {
    orders: watch::Sender<Order>,
    found: watch::Sender<Vec<Peer>>,
    thread: Option<JoinHandle<()>>,
    /// Nothing is ever sent: it is disconnected when the thread is through.
    through: Receiver<()>,
}

impl Agent {
    /// Starts the thread, with all signals blocked in it. Log lines go to the returned channel; after each send the
    /// eventfd `log_ready` is written, so that the worker's event loop can take them. If it can't be started the lease
    /// has been released.
    pub fn start(config: Config, log_ready: RawFd) -> io::Result<(Agent, Receiver<LogLine>)> {
        let acting = config.control.acting();
        let release = Release { control: config.control, lease: config.lease };
        let (log, lines) = Log::new(EventFd::duplicate(log_ready)?);
        let (orders, ordered) = watch::channel(Order::Run);
        let (found, to_meet) = watch::channel(Vec::new());
        let (running, through) = bounded::<()>(0);
        // The thread inherits the mask of this one, so that not even its first instruction meets a signal.
        let _blocked = SignalsBlocked::new()?;
        let thread = std::thread::Builder::new().name("zonemesh".into()).spawn(move || {
            // In this order they are dropped last to first: the lease is free before anyone is told of the end.
            let _running = running;
            let _release = release;
            let acting = acting;
            if let Ok(blocked) = SignalsBlocked::new() {
                blocked.for_ever();
            }
            if !acting.begin() {
                log.error("another helper thread of this node still acts, and there must be one: report it");
            }
            main(&Rc::new(config), &Rc::new(log), &ordered, &to_meet);
        })?;
        Ok((Agent { orders, found, thread: Some(thread), through }, lines))
    }

    /// Tells it which peers there are besides those of its configuration. Returns at once.
    pub fn meet(&self, peers: Vec<Peer>) {
        self.found.send_replace(peers);
    }

    /// Asks it to send what was accepted and wait for acknowledgements, at most `peers`, and to write state files, at most
    /// `states`, then to end and release the lease. Returns at once.
    pub fn finish(&self, peers: Duration, states: Duration) {
        let now = Instant::now();
        self.orders.send_replace(Order::Finish(Until { peers: now + peers, states: now + states }));
    }

    /// Asks it to end at once and release the lease. Returns at once.
    pub fn stop(&self) {
        self.orders.send_replace(Order::Stop);
    }

    /// Whether the thread has ended.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end, at most `limit`; `false`: it has not ended.
    pub fn join(&mut self, limit: Duration) -> bool {
        if let Err(RecvTimeoutError::Timeout) = self.through.recv_timeout(limit) {
            return false;
        }
        if let Some(thread) = self.thread.take() {
            // Its panics were caught and logged inside.
            let _ = thread.join();
        }
        true
    }
}

/// Releases the lease, whichever way the thread ends.
struct Release {
    control: crate::store::Control,
    lease: crate::store::control::Lease,
}

impl Drop for Release {
    fn drop(&mut self) {
        if self.control.holds(&self.lease) {
            self.control.release(&self.lease);
        }
    }
}

/// Pauses before a new start after a panic.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Who ran for this long begins again with the first pause.
const STEADY: Duration = Duration::from_secs(60);

/// Runs the node until it is told to end, and starts it again if it fails. Once it is to finish, it is started once more: what
/// was accepted is still to be sent.
fn main(config: &Rc<Config>, log: &Rc<Log>, orders: &watch::Receiver<Order>, found: &watch::Receiver<Vec<Peer>>) {
    let mut pause = FIRST_PAUSE;
    let mut last = false;
    loop {
        let began = Instant::now();
        let failure = match catch_unwind(AssertUnwindSafe(|| node::run(config, log, orders.clone(), found.clone()))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("failed: {error}"),
            Err(panic) => format!("panicked: {}", message(panic.as_ref())),
        };
        if last {
            return log.error(format!("the helper thread of zonemesh {failure}, while nginx ends"));
        }
        if began.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        log.error(format!("the helper thread of zonemesh {failure}; it starts again in {} ms", pause.as_millis()));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            let order = *orders.borrow();
            if order == Order::Stop || !config.control.holds(&config.lease) {
                return;
            }
            last = order != Order::Run;
            if last {
                break;
            }
            // It does live: what hangs is something that nothing can be done about by replacing the worker.
            config.control.beat(&config.lease, now());
            std::thread::sleep(Duration::from_millis(20));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
