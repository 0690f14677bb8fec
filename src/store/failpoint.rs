//! Steps between which a process may be killed. In tests each can be armed: who reaches it dies there, or stops.
//!
//! Outside of tests nothing of this is left in the code.

macro_rules! steps {
    (memory: $($name:ident),* ; limits: $($limit:ident),* ; files: $($file:ident),* $(,)?) => {
        /// The steps of everything that changes a zone or its state files, each named after what has just been done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Step {
            // Numbers begin at 1: 0 stands for none.
            #[allow(dead_code)]
            None,
            $($name,)*
            $($limit,)*
            $($file),*
        }

        /// Every step of what changes a zone.
        #[cfg(test)]
        pub const ALL: &[Step] = &[$(Step::$name),*];
        /// Every further step of what changes a zone of limits.
        #[cfg(test)]
        pub const OF_LIMITS: &[Step] = &[$(Step::$limit),*];
        /// Every step of what changes state files.
        #[cfg(test)]
        pub const OF_FILES: &[Step] = &[$(Step::$file),*];
    };
}

steps! {
    memory:
    PageOwned,
    PoolMoved,
    PageLinked,
    BlockTaken,
    SequenceMoved,
    BlockLinked,
    BlockFreed,
    SpareKept,
    SpareTaken,
    SpareGiven,
    PageUnlinked,
    PageDisowned,
    OverflowTaken,
    RecordFilled,
    Stamped,
    ChainContinued,
    Published,
    Removed,
    Shifted,
    FeedHalfIn,
    FeedIn,
    FeedHalfOut,
    TimerHalfIn,
    TimerIn,
    TimerHalfOut,
    TimerHalfReplaced,
    SlotTaken,
    Counted,
    Uncounted,
    Dirtied,
    BuriedStamp,
    Buried,
    Cleared,
    MarkerOut,
    OriginHalf,
    OriginUnmet,
    OriginsMet,
    OriginIdle,
    OriginGivenUp,
    AnnexOwned,
    AnnexLinked,
    GivenUpSoon,
    GivenUp,
    LeftOut,
    MadeUp,
    Sweeping;
    limits:
    Doubted,
    Heard,
    BucketFilled;
    files:
    NewFileMade,
    NewFileBegun,
    NewFileWritten,
    NewFileSynced,
    Renamed,
    FolderSynced,
    TrailMoved,
    FileFollowed,
    FileSaved,
    OldChangesGone,
    ChangesMade,
    ChangesBegun,
    ChangesWritten,
    ChangesSynced,
    ChangesReached,
    ChangesCounted,
    Sealed,
}

/// A step was done.
#[inline(always)]
pub fn done(_step: Step) {
    #[cfg(test)]
    armed::reach(_step);
}

#[cfg(test)]
pub mod armed {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;

    use super::Step;

    static STEP: AtomicU32 = AtomicU32::new(0);
    static COUNTDOWN: AtomicU32 = AtomicU32::new(0);
    static SIGNAL: AtomicU32 = AtomicU32::new(0);

    /// In place of a signal: a panic.
    pub const UNWIND: i32 = -1;

    /// From now on this process gets `signal` when it does `step` for the `nth` time (from 1).
    pub fn arm(step: Step, nth: u32, signal: i32) {
        SIGNAL.store(signal as u32, SeqCst);
        COUNTDOWN.store(nth, SeqCst);
        STEP.store(step as u32, SeqCst);
    }

    pub fn reach(step: Step) {
        if STEP.load(SeqCst) == step as u32 && COUNTDOWN.fetch_sub(1, SeqCst) == 1 {
            STEP.store(0, SeqCst);
            let signal = SIGNAL.load(SeqCst).cast_signed();
            assert_ne!(signal, UNWIND, "a failpoint");
            // SAFETY: a signal to this process itself, which is a child that a test made for this.
            unsafe { libc::kill(libc::getpid(), signal) };
        }
    }
}
