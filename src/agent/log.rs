//! Lines for nginx's error log: the thread can't write there itself, so they travel to the worker's event loop.

use super::sys::EventFd;
use crate::sync::NoteLevel;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// More lines than this aren't held for a worker that doesn't take them.
const HELD: usize = 1024;
/// More lines than this aren't written in so long: peers that make it say something all the time don't fill the disk.
const MOST: u32 = 500;
const WITHIN: Duration = Duration::from_secs(10);

/// A line for nginx's error log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// How grave.
    pub level: NoteLevel,
    /// Without level, time and line end.
    pub text: String,
}

/// Where the thread writes its lines.
pub(super) struct Log {
    lines: Sender<LogLine>,
    ready: EventFd,
    lost: Cell<u64>,
    /// When lines were first counted, and how many were written since.
    written: Cell<(Instant, u32)>,
}

impl Log {
    /// `ready` is written after each line.
    pub(super) fn new(ready: EventFd) -> (Log, Receiver<LogLine>) {
        let (lines, taken) = bounded(HELD);
        (Log { lines, ready, lost: Cell::new(0), written: Cell::new((Instant::now(), 0)) }, taken)
    }

    pub(super) fn info(&self, text: impl Into<String>) {
        self.line(NoteLevel::Info, text);
    }

    pub(super) fn error(&self, text: impl Into<String>) {
        self.line(NoteLevel::Error, text);
    }

    /// Never waits: a line too many is counted, and the next that passes tells how many were lost.
    pub(super) fn line(&self, level: NoteLevel, text: impl Into<String>) {
        self.line_at(level, text.into(), Instant::now());
    }

    fn line_at(&self, level: NoteLevel, mut text: String, now: Instant) {
        let lost = self.lost.get();
        let (since, written) = self.written.get();
        let (since, written) = if now.duration_since(since) < WITHIN { (since, written) } else { (now, 0) };
        if written >= MOST {
            self.lost.set(lost.saturating_add(1));
            return;
        }
        self.written.set((since, written + 1));
        if lost > 0 {
            text.push_str(&format!(" ({lost} log lines before this one were lost)"));
        }
        match self.lines.try_send(LogLine { level, text }) {
            Ok(()) => {
                self.lost.set(0);
                self.ready.signal();
            }
            Err(TrySendError::Full(_)) => self.lost.set(lost.saturating_add(1)),
            // Nobody listens any more: the worker is ending.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sys::test_eventfd;
    use super::*;

    #[test]
    fn lines_that_nobody_takes_are_counted_and_told() {
        let (log, taken) = Log::new(test_eventfd());
        let start = Instant::now();
        let line = |log: &Log, number: usize| {
            // So slowly that no more than are allowed come in any time.
            log.line_at(NoteLevel::Info, number.to_string(), start + WITHIN * number as u32 / (MOST - 1));
        };
        (0..HELD + 3).for_each(|number| line(&log, number));
        assert_eq!(taken.try_iter().count(), HELD);
        line(&log, HELD + 3);
        assert_eq!(taken.recv().unwrap().text, format!("{} (3 log lines before this one were lost)", HELD + 3));
        line(&log, HELD + 4);
        assert_eq!(taken.recv().unwrap().text, (HELD + 4).to_string());
    }

    #[test]
    fn a_flood_of_lines_is_cut_off_and_told_of() {
        let (log, taken) = Log::new(test_eventfd());
        let start = Instant::now();
        (0..MOST + 7).for_each(|_| log.line_at(NoteLevel::Warn, "again".into(), start));
        assert_eq!(taken.try_iter().count(), MOST as usize);
        log.line_at(NoteLevel::Warn, "later".into(), start + WITHIN);
        assert_eq!(taken.recv().unwrap().text, "later (7 log lines before this one were lost)");
    }
}
