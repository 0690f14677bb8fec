//! Decides when state files are written: soon after a change, not all the time, and at last when nginx ends.

use super::changes::Journal;
use super::write::{Licence, Saved, WriteError, sweep, write};
use super::{StateFile, Terms};
use crate::agent::Config;
use crate::agent::log::Log;
use crate::agent::upgrade::Upgrade;
use crate::store::failpoint::{Step, done};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// Between two looks for changes.
const LOOK: Duration = Duration::from_millis(100);
/// After a file was written, it rests: so long, or twice as long as that took if it took longer. So a file that is quickly
/// written is at most a second behind, and one that isn't costs a third of one thread's time, however much is written; its
/// changes are appended beside it in the meantime, which rests no longer than this.
const REST: Duration = Duration::from_millis(400);
/// Files that are written at the same time, and as many that are appended to: a large one mustn't hold up small ones.
const AT_ONCE: usize = 4;
/// Writes of one file once nginx ends: others that still change the zone are followed by another agent.
const LAST_WRITES: u32 = 3;
/// After a failure, the next try; twice as long after the next one.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Files of changes for one state file: the next one that would be begun lets that be written anew.
const CHANGES_FILES: u64 = 16;
/// Bytes a second that a file is written with at least, as far as is known before it was written once.
const SPEED: u64 = 50 << 20;

/// Keeps the state files of the node.
pub struct Keeper {
    files: Vec<Kept>,
    licence: Licence,
    /// A new binary of nginx has taken over: the files are its own now.
    outlived: bool,
    log: Rc<Log>,
    next_look: Instant,
    /// nginx ends, and waits until then.
    until: Option<Instant>,
    running: JoinSet<Ended>,
}

/// One file.
struct Kept {
    file: StateFile,
    /// What is being done with it.
    busy: Option<Task>,
    /// The file of changes that is open. It goes with the task.
    journal: Journal,
    /// How long it took to write all.
    took: Option<Duration>,
    not_before: Instant,
    /// The same for writing all.
    whole_not_before: Instant,
    retry: Duration,
    /// What failed, as the log has it.
    failure: Option<String>,
    /// What other writers may have left beside it is gone.
    swept: bool,
    /// Since nginx ends.
    last_writes: u32,
}

/// What can be done about a zone that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Append what has changed.
    Append,
    /// Write all anew.
    Whole,
}

/// What became of a task.
struct Ended {
    index: usize,
    journal: Journal,
    /// What was written anew; `None`: something was appended.
    result: Result<Option<Saved>, WriteError>,
}

impl Keeper {
    pub fn new(config: &Config, log: Rc<Log>) -> Keeper {
        let now = Instant::now();
        let kept = |file: &StateFile| Kept {
            file: file.clone(),
            busy: None,
            journal: Journal::default(),
            took: None,
            not_before: now,
            whole_not_before: now,
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
            until: None,
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

    /// Writes what has changed, at once, until `until` at most. Other workers change nothing any more, or not for long. May be
    /// called again; [`Keeper::end`] follows.
    pub async fn finish(&mut self, until: Instant) {
        self.until = Some(until);
        self.files.iter_mut().for_each(Kept::hurry);
        while Instant::now() < until {
            self.look(Instant::now());
            if self.running.is_empty() {
                break;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(until.into()) => {}
            }
            for kept in &mut self.files {
                // What fails now is left: nobody would wait for the next try.
                if kept.busy.is_none() && kept.failure.is_none() && kept.last_writes < LAST_WRITES {
                    kept.last_writes += 1;
                    kept.hurry();
                }
            }
        }
    }

    /// Ends what is still being written, and says what isn't.
    pub async fn end(&mut self) {
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
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended);
        }
    }

    /// Begins what is to be done and has rested.
    fn look(&mut self, now: Instant) {
        if self.outlived || self.licence.withdrawn.load(Ordering::Acquire) {
            return;
        }
        let (files, until) = (&self.files, self.until);
        let is_due = |at: &usize| files.get(*at).is_some_and(|kept| kept.task(now, until, true).is_some());
        let mut due: Vec<usize> = (0..files.len()).filter(is_due).collect();
        // Who has waited longest first.
        due.sort_by_key(|at| files.get(*at).map(|kept| kept.not_before));
        for index in due {
            self.start(index, now);
        }
    }

    fn start(&mut self, index: usize, now: Instant) {
        let at_once = |task| self.files.iter().filter(|kept| kept.busy == Some(task)).count();
        let (whole, append) = (at_once(Task::Whole) < AT_ONCE, at_once(Task::Append) < AT_ONCE);
        let Some(kept) = self.files.get_mut(index) else { return };
        let Some(task) = kept.task(now, self.until, whole).filter(|task| *task == Task::Whole || append) else {
            return;
        };
        kept.busy = Some(task);
        let (file, licence, mut journal) = (kept.file.clone(), self.licence.clone(), std::mem::take(&mut kept.journal));
        let swept = std::mem::replace(&mut kept.swept, true);
        self.running.spawn_blocking(move || {
            if !swept {
                sweep(&file.path);
            }
            let result = match task {
                Task::Whole => write(&file, &licence, &mut journal).map(Some),
                Task::Append => append_to(&file, &licence, &mut journal).map(|()| None),
            };
            Ended { index, journal, result }
        });
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended { index, journal, result }) => {
                if let Some(kept) = self.files.get_mut(index) {
                    kept.journal = journal;
                    kept.ended(result, &self.log);
                }
                // Others may have waited for that.
                self.look(Instant::now());
            }
            // The thread of the agent starts everything anew.
            Err(error) => crate::agent::node::pass_on_panic(Err(error)),
        }
    }
}

/// Appends what has changed; if that is all, the zone isn't stale any more.
fn append_to(file: &StateFile, licence: &Licence, journal: &mut Journal) -> Result<(), WriteError> {
    let round = journal.append(file, licence)?;
    if round.all {
        file.zone.state_covers(round.changes);
        done(Step::FileSaved);
    }
    Ok(())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.licence.withdrawn.store(true, Ordering::Release);
    }
}

impl Kept {
    /// What is to be done now. `whole`: all may be written, others don't keep the disk busy.
    fn task(&self, now: Instant, until: Option<Instant>, whole: bool) -> Option<Task> {
        if self.busy.is_some() {
            return None;
        }
        let stale = self.file.zone.state_is_stale();
        if whole && self.whole_not_before <= now && self.is_whole_wanted(stale, now, until) {
            return Some(Task::Whole);
        }
        (stale && self.not_before <= now && self.appends()).then_some(Task::Append)
    }

    fn is_whole_wanted(&self, stale: bool, now: Instant, until: Option<Instant>) -> bool {
        if !self.appends() {
            return stale;
        }
        let changes = self.file.zone.state_changes();
        match until {
            // In the end there is to be one file, if there is the time. What was appended is safe.
            Some(until) => (stale || changes.files > 0) && now + 2 * self.expected() < until,
            None => {
                let Terms { fewest, most, .. } = self.file.terms;
                let much = (self.bytes() / 2).clamp(fewest, most);
                changes.bytes >= much || changes.files >= CHANGES_FILES || self.file.zone.trail_missed()
            }
        }
    }

    /// Whether changes are appended, and don't let all be written anew.
    fn appends(&self) -> bool {
        let Terms { slow, slow_bytes, .. } = self.file.terms;
        let zone = &self.file.zone;
        zone.state_followed().is_some()
            && (zone.state_changes().files > 0 || self.took.map_or(self.bytes() >= slow_bytes, |took| took > slow))
    }

    /// How long it takes to write all.
    fn expected(&self) -> Duration {
        self.took.unwrap_or_else(|| Duration::from_millis(self.bytes().saturating_mul(1000) / SPEED))
    }

    fn bytes(&self) -> u64 {
        self.file.zone.state_figures().map_or(0, |figures| figures.bytes)
    }

    /// Rests no longer.
    fn hurry(&mut self) {
        (self.not_before, self.whole_not_before) = (Instant::now(), Instant::now());
    }

    fn ended(&mut self, result: Result<Option<Saved>, WriteError>, log: &Log) {
        self.busy = None;
        let now = Instant::now();
        let StateFile { name, path, zone, .. } = &self.file;
        self.not_before = now + REST;
        match result {
            Ok(saved) => {
                if let Some(saved) = saved {
                    self.whole_not_before = now + REST.max(saved.took * 2);
                    // What has changed since the last round may be appended at once.
                    self.not_before = now;
                    self.took = Some(saved.took);
                }
                self.retry = RETRY.0;
                if self.failure.take().is_some() {
                    log.info(format!("keyval_zone \"{name}\": the state file \"{}\" is written again", path.display()));
                }
            }
            // All is written anew, when that has rested.
            Err(WriteError::Lost) => {}
            // Who has it may give it back: not at once.
            Err(WriteError::Withdrawn) => self.whole_not_before = now + REST,
            Err(error) => {
                zone.state_failed();
                (self.not_before, self.whole_not_before) = (now + self.retry, now + self.retry);
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
