//! Who sleeps until a zone changes: the agent, and workers with watchers. Each says so before it looks for changes once
//! more, and who changes a zone asks after the change; in one order for all, so that one of the two sees the other.

use std::sync::atomic::Ordering::SeqCst;

use super::control::{Control, EVENTFD, SLEEPING, WATCH_EVENTFD, WATCHERS_SLEEP};

impl Control {
    /// The descriptor of the eventfd that wakes the agent, -1 while there is none.
    pub fn eventfd(&self) -> i32 {
        self.get(EVENTFD) as i32 - 1
    }

    /// Sets it, once for each master process.
    pub fn set_eventfd(&self, fd: i32) {
        self.put(EVENTFD, (i64::from(fd) + 1) as u64);
    }

    /// The agent is about to sleep: it must look for changes once more after this.
    pub fn sleeping(&self) {
        self.put(SLEEPING, 1);
    }

    /// The agent is awake.
    pub fn awake(&self) {
        self.put(SLEEPING, 0);
    }

    /// Whether the agent sleeps, for who asks before looking whether there is a change.
    pub fn is_asleep(&self) -> bool {
        self.get(SLEEPING) == 1
    }

    /// After a change: whether the caller has to write to the eventfd, as the agent sleeps and nobody woke it yet.
    pub fn must_wake(&self) -> bool {
        self.word(SLEEPING).is_some_and(|word| word.load(SeqCst) == 1 && word.swap(0, SeqCst) == 1)
    }

    /// The descriptor of the eventfd that wakes workers with watchers, -1 while there is none.
    pub fn watch_eventfd(&self) -> i32 {
        self.get(WATCH_EVENTFD) as i32 - 1
    }

    /// Sets it, once for each master process.
    pub fn set_watch_eventfd(&self, fd: i32) {
        self.put(WATCH_EVENTFD, (i64::from(fd) + 1) as u64);
    }

    /// A worker with watchers is about to sleep: it must look for changes once more after this.
    pub fn watchers_sleep(&self) {
        self.put(WATCHERS_SLEEP, 1);
    }

    /// After a change of a watched zone: whether the caller has to write to the eventfd, as some watchers sleep and nobody
    /// has woken them yet. One write wakes all workers.
    pub fn must_wake_watchers(&self) -> bool {
        self.word(WATCHERS_SLEEP).is_some_and(|word| word.load(SeqCst) == 1 && word.swap(0, SeqCst) == 1)
    }
}
