//! Lines for nginx's error log: the thread can't write there itself, so they travel to the worker's event loop.

use super::sys::EventFd;
use crate::sync::NoteLevel;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::cell::Cell;

/// More lines than this aren't held for a worker that doesn't take them.
const HELD: usize = 1024;

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
}

impl Log {
    /// `ready` is written after each line.
    pub(super) fn new(ready: EventFd) -> (Log, Receiver<LogLine>) {
        let (lines, taken) = bounded(HELD);
        (Log { lines, ready, lost: Cell::new(0) }, taken)
    }

    pub(super) fn info(&self, text: impl Into<String>) {
        self.line(NoteLevel::Info, text);
    }

    pub(super) fn error(&self, text: impl Into<String>) {
        self.line(NoteLevel::Error, text);
    }

    /// Never waits: a line too many is counted, and the next that passes tells how many were lost.
    pub(super) fn line(&self, level: NoteLevel, text: impl Into<String>) {
        let mut text = text.into();
        let lost = self.lost.get();
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
        (0..HELD + 3).for_each(|number| log.info(number.to_string()));
        assert_eq!(taken.try_iter().count(), HELD);
        log.error("next");
        assert_eq!(taken.recv().unwrap().text, "next (3 log lines before this one were lost)");
        log.error("last");
        assert_eq!(taken.recv().unwrap().text, "last");
    }
}
