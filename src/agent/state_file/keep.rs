//! Decides when state files are written: soon after a change, not all the time, and at last when nginx ends.

use super::StateFile;
use super::write::{Licence, Saved, WriteError, sweep, write};
use crate::agent::Config;
use crate::agent::log::Log;
use crate::agent::upgrade::Upgrade;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// Between two looks for changes.
const LOOK: Duration = Duration::from_millis(100);
/// After a file was written, it rests: so long, or twice as long as that took if it took longer. So a file that is quickly
/// written is at most a second behind, and one that isn't costs a third of one thread's time, however much is written.
const REST: Duration = Duration::from_millis(400);
/// Files that are written at the same time: a large one mustn't hold up small ones.
const AT_ONCE: usize = 4;
/// Writes of one file once nginx ends: others that still change the zone are followed by another agent.
const LAST_WRITES: u32 = 3;
/// After a failure, the next try; twice as long after the next one.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Keeps the state files of the node.
pub struct Keeper {
    files: Vec<Kept>,
    licence: Licence,
    /// A new binary of nginx has taken over: the files are its own now.
    outlived: bool,
    log: Rc<Log>,
    next_look: Instant,
    /// Stale files that wait for their turn, longest first.
    queue: VecDeque<usize>,
    running: JoinSet<(usize, Result<Saved, WriteError>)>,
}

/// One file.
struct Kept {
    file: StateFile,
    /// It waits or is being written.
    busy: bool,
    not_before: Instant,
    retry: Duration,
    /// What failed, as the log has it.
    failure: Option<String>,
    /// What other writers may have left beside it is gone.
    swept: bool,
    /// Since nginx ends.
    last_writes: u32,
}

impl Keeper {
    pub fn new(config: &Config, log: Rc<Log>) -> Keeper {
        let now = Instant::now();
        let kept = |file: &StateFile| Kept {
            file: file.clone(),
            busy: false,
            not_before: now,
            retry: RETRY.0,
            failure: None,
            swept: false,
            last_writes: 0,
        };
        Keeper {
            files: config.states.iter().map(kept).collect(),
            licence: Licence {
                control: config.control,
                lease: config.lease,
                pid_files: config.pid_files.clone(),
                withdrawn: Arc::new(AtomicBool::new(false)),
            },
            outlived: false,
            log,
            next_look: now,
            queue: VecDeque::new(),
            running: JoinSet::new(),
        }
    }

    /// nginx's binary is being upgraded, or isn't any more. If the new one has gone again, files are not what they were.
    pub fn set_upgrade(&mut self, upgrade: Upgrade) {
        let outlived = upgrade == Upgrade::Old;
        if std::mem::replace(&mut self.outlived, outlived) && !outlived {
            self.files.iter().for_each(|kept| kept.file.zone.state_lost());
        }
    }

    /// Runs until it is dropped, which may be at any time: the next call goes on.
    pub async fn run(&mut self) {
        if self.files.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            let now = Instant::now();
            if now >= self.next_look {
                self.next_look = now + LOOK;
                self.look(now);
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(self.next_look.into()) => {}
            }
        }
    }

    /// Writes what has changed, at once, until `until` at most. Other workers change nothing any more, or not for long.
    pub async fn finish(&mut self, until: Instant) {
        self.files.iter_mut().for_each(|kept| kept.not_before = Instant::now());
        while Instant::now() < until {
            self.look(Instant::now());
            if self.queue.is_empty() && self.running.is_empty() {
                break;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(until.into()) => {}
            }
            for kept in &mut self.files {
                // What fails now is left: nobody would wait for the next try.
                if !kept.busy && kept.failure.is_none() && kept.last_writes < LAST_WRITES {
                    kept.last_writes += 1;
                    kept.not_before = Instant::now();
                }
            }
        }
        let in_time = self.running.is_empty();
        self.withdraw().await;
        for kept in &self.files {
            if kept.file.zone.state_is_stale() && (!in_time || kept.failure.is_some()) {
                let StateFile { name, path, .. } = &kept.file;
                self.log.error(format!(
                    "keyval_zone \"{name}\": the state file \"{}\" stays as it is, without the last changes",
                    path.display()
                ));
            }
        }
    }

    /// Has what is being written stop, and waits until it has: a disk may take its time.
    pub async fn withdraw(&mut self) {
        self.licence.withdrawn.store(true, Ordering::Release);
        self.queue.clear();
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended);
        }
    }

    /// Begins to write what is stale and has rested.
    fn look(&mut self, now: Instant) {
        if self.outlived {
            return;
        }
        for (index, kept) in self.files.iter_mut().enumerate() {
            if !kept.busy && kept.not_before <= now && kept.file.zone.state_is_stale() {
                kept.busy = true;
                self.queue.push_back(index);
            }
        }
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(index) = self.queue.pop_front()
        {
            let Some(kept) = self.files.get_mut(index) else { continue };
            let (file, licence, swept) = (kept.file.clone(), self.licence.clone(), kept.swept);
            kept.swept = true;
            self.running.spawn_blocking(move || {
                if !swept {
                    sweep(&file.path);
                }
                (index, write(&file, &licence))
            });
        }
    }

    fn ended(&mut self, ended: Result<(usize, Result<Saved, WriteError>), JoinError>) {
        match ended {
            Ok((index, result)) => {
                if let Some(kept) = self.files.get_mut(index) {
                    kept.ended(result, &self.log);
                }
                self.start();
            }
            // The thread of the agent starts everything anew.
            Err(error) => crate::agent::node::pass_on_panic(Err(error)),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.licence.withdrawn.store(true, Ordering::Release);
    }
}

impl Kept {
    fn ended(&mut self, result: Result<Saved, WriteError>, log: &Log) {
        self.busy = false;
        let StateFile { name, path, zone } = &self.file;
        match result {
            Ok(saved) => {
                self.not_before = Instant::now() + REST.max(saved.took * 2);
                self.retry = RETRY.0;
                if self.failure.take().is_some() {
                    log.info(format!("keyval_zone \"{name}\": the state file \"{}\" is written again", path.display()));
                }
            }
            // Who has it may give it back: not at once.
            Err(WriteError::Withdrawn) => self.not_before = Instant::now() + REST,
            Err(error) => {
                zone.state_failed();
                self.not_before = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(RETRY.1);
                let text = error.to_string();
                if self.failure.as_ref() != Some(&text) {
                    log.error(format!(
                        "keyval_zone \"{name}\": the state file \"{}\" can't be written and stays as it is: {text}; it is \
                         tried again until that is mended",
                        path.display()
                    ));
                    self.failure = Some(text);
                }
            }
        }
    }
}
