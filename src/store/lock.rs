//! A lock in shared memory that knows its owner, a thread, so that it outlives the owner's death.
//!
//! The word holds the owner's thread id and the low half of the time that this thread started: together they tell a
//! dead owner from another thread that got its number. 0 is free.

use std::cell::Cell;
use std::fs::File;
use std::hint::spin_loop;
use std::io::Read;
use std::sync::Once;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::{StoreError, patience};

/// The same for who has no requests to serve meanwhile.
const LONG_PATIENCE: Duration = Duration::from_secs(2);
/// A look at the owner costs a file in /proc: not before this.
const SUSPICION: Duration = Duration::from_millis(2);
/// How often a lock is looked at before its waiter lets others run, and the processor's pauses between two looks at most.
const LOOKS: u32 = 100;
const PAUSES: u32 = 16;
/// How often a waiter lets others run before it sleeps, and for how long it sleeps.
const YIELDS: u32 = 8;
const NAP: Duration = Duration::from_micros(50);

/// The start of a thread that couldn't find out its own.
const UNKNOWN: u32 = 0;

/// An owner that never lived: no thread has this number.
const NOBODY: u64 = u64::MAX;

/// How a lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obtained {
    /// It was free.
    Clean,
    /// Its owner died: what it protects may be half done.
    FromTheDead,
}

/// Takes the lock, which is now to be given back with [`unlock`].
///
/// # Errors
///
/// `Busy` if a living owner held it for as long as the thread has [`patience`].
pub fn lock(word: &AtomicU64) -> Result<Obtained, StoreError> {
    let me = this_thread();
    // SeqCst, as the closing of stamps relies on one order of taking locks and reading what is closed.
    if word.compare_exchange(0, me, SeqCst, Relaxed).is_ok() {
        return Ok(Obtained::Clean);
    }
    wait(word, me)
}

/// A lock that is given back when this is dropped; in an unwinding thread as one of the dead, so that what it protects is put
/// right by who comes next.
pub struct Held<'a> {
    word: &'a AtomicU64,
    /// Whether the thread was unwinding when it took the lock.
    late: bool,
}

impl<'a> Held<'a> {
    /// Of a lock that the calling thread has.
    pub fn new(word: &'a AtomicU64) -> Held<'a> {
        Held { word, late: thread::panicking() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.late { self.word.store(NOBODY, SeqCst) } else { unlock(self.word) }
    }
}

/// Gives the lock back, if it is the calling thread's.
pub fn unlock(word: &AtomicU64) {
    // Nobody else changes the word of a living owner, so looking and storing needn't be one step, which would cost more than
    // all the rest. Release: a closing of stamps that finds the lock free finds what was marked before.
    if word.load(Relaxed) == this_thread() {
        word.store(0, Release);
    }
}

/// Does something again as long as locks are in its way, for some seconds: for the master and its like.
pub fn in_time<T>(mut work: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let began = Instant::now();
    loop {
        match work() {
            Err(StoreError::Busy) if began.elapsed() < LONG_PATIENCE => {}
            done => return done,
        }
    }
}

/// Looks for some microseconds: a running owner is done by then.
#[cold]
fn wait(word: &AtomicU64, me: u64) -> Result<Obtained, StoreError> {
    if patience::is_hopeless(word.load(Relaxed)) {
        return Err(StoreError::Busy);
    }
    let mut pauses = 1;
    for _ in 0..LOOKS {
        (0..pauses).for_each(|_| spin_loop());
        // A look takes the line away from the owner, who writes to it: looks become rarer.
        pauses = (2 * pauses).min(PAUSES);
        if try_lock(word, me) {
            return Ok(Obtained::Clean);
        }
    }
    wait_long(word, me)
}

/// Gives the processor away: the owner may be waiting for it. Then sleeps.
fn wait_long(word: &AtomicU64, me: u64) -> Result<Obtained, StoreError> {
    let start = Instant::now();
    let patience = patience::patience(start);
    let (mut suspected, mut naps) = (start, 0);
    loop {
        naps += 1;
        if naps <= YIELDS {
            thread::yield_now()
        } else {
            thread::sleep(NAP)
        }
        if try_lock(word, me) {
            patience::waited(start, None);
            return Ok(Obtained::Clean);
        }
        let now = Instant::now();
        let is_over = now.duration_since(start) >= patience;
        let owner = word.load(Relaxed);
        if is_over || now.duration_since(suspected) >= SUSPICION {
            suspected = now;
            if owner != 0 && is_dead(owner) && word.compare_exchange(owner, me, SeqCst, Relaxed).is_ok() {
                return Ok(Obtained::FromTheDead);
            }
        }
        if is_over {
            patience::waited(start, Some(owner).filter(|owner| *owner != 0));
            return Err(StoreError::Busy);
        }
    }
}

fn try_lock(word: &AtomicU64, me: u64) -> bool {
    word.load(Relaxed) == 0 && word.compare_exchange(0, me, SeqCst, Relaxed).is_ok()
}

/// Whether the thread that a lock word names is certainly no more: gone, a zombie, or its number belongs to another.
pub fn is_dead(owner: u64) -> bool {
    let (tid, started) = ((owner >> 32) as u32, owner as u32);
    match thread_state(tid) {
        Some((state, start)) => matches!(state, 'Z' | 'X' | 'x') || (started != UNKNOWN && start as u32 != started),
        // No descriptor may be left, /proc may hide other users' processes or not be there: that tells nothing of the owner.
        None => is_gone(tid),
    }
}

/// Whether there is no thread of this number.
fn is_gone(tid: u32) -> bool {
    let Some(tid) = libc::pid_t::try_from(tid).ok().filter(|tid| *tid > 0) else { return true };
    // SAFETY: takes two numbers; signal 0 is none, and only asks.
    let result = unsafe { libc::kill(tid, 0) };
    result != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// The word of the calling thread.
pub fn this_thread() -> u64 {
    thread_local!(static ME: Cell<u64> = const { Cell::new(0) });
    // A forked child is another thread under the same memory: what its parent remembered isn't true of it.
    static FORGET: Once = Once::new();
    extern "C" fn forget() {
        ME.set(0);
    }
    let me = ME.get();
    if me != 0 {
        return me;
    }
    FORGET.call_once(|| {
        // SAFETY: `forget` only sets a thread-local word; it touches no lock and no allocator.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    });
    // SAFETY: takes nothing and gives a number.
    let tid = unsafe { libc::gettid() } as u32;
    let started = thread_state(tid).map_or(UNKNOWN, |(_, start)| start as u32);
    let me = u64::from(tid) << 32 | u64::from(started);
    ME.set(me);
    me
}

/// A thread's state letter and start time in clock ticks: fields 3 and 22 of proc(5)'s stat.
fn thread_state(tid: u32) -> Option<(char, u64)> {
    // One read: /proc gives all that it has, and what is asked for comes early.
    let mut stat = [0; 512];
    let read = File::open(format!("/proc/{tid}/stat")).and_then(|mut file| file.read(&mut stat)).ok()?;
    // The name, in parentheses, may hold anything: fields are counted from behind its end.
    let stat = String::from_utf8_lossy(stat.get(..read)?);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::patience::PATIENCE;

    #[test]
    fn a_thread_that_got_the_number_of_another_is_not_it() {
        let me = this_thread();
        assert!(!is_dead(me));
        // The number is ours, but it was given to a thread that started at another time.
        assert!(is_dead(me ^ 1));
        let gone = thread::spawn(this_thread).join().expect("a thread");
        // Who is joined has still to leave the kernel.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_dead(gone) {
            assert!(Instant::now() < deadline, "a thread that has ended is dead");
            thread::yield_now();
        }
    }

    #[test]
    fn who_can_not_look_into_proc_takes_nobody_for_dead() {
        let parent = this_thread();
        let gone = thread::spawn(this_thread).join().expect("a thread");
        let memory = crate::store::Region::anonymous(4096).expect("memory");
        let shared = memory.region();
        // SAFETY: the child touches shared memory and its own copy of this process, and ends without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: reads the structure that it is given.
            let limited = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) } == 0;
            let right = limited
                && thread_state((parent >> 32) as u32).is_none()
                && lock(&AtomicU64::new(parent)) == Err(StoreError::Busy)
                && is_dead(gone);
            shared.store64(0, this_thread(), SeqCst);
            shared.store64(8, 1 + u64::from(right), SeqCst);
            loop {
                thread::sleep(NAP);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while shared.load64(8, SeqCst) == 0 && Instant::now() < deadline {
            thread::yield_now();
        }
        let lives = !is_dead(shared.load64(0, SeqCst));
        // SAFETY: a child of ours that wasn't waited for yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
        while !is_dead(shared.load64(0, SeqCst)) && Instant::now() < deadline {
            thread::yield_now();
        }
        let dead = is_dead(shared.load64(0, SeqCst));
        // SAFETY: the same child.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!(shared.load64(8, SeqCst), 2, "the living is alive, and the gone is gone");
        assert!(lives, "who doesn't know its own start is alive");
        assert!(dead, "and dead when it is");
    }

    #[test]
    fn a_lock_of_the_dead_is_taken_and_that_of_the_living_is_not() {
        let word = AtomicU64::new(thread::spawn(this_thread).join().expect("a thread"));
        assert_eq!(lock(&word), Ok(Obtained::FromTheDead));
        let began = Instant::now();
        let other = thread::scope(|scope| scope.spawn(|| lock(&word)).join().expect("a thread"));
        assert_eq!(other, Err(StoreError::Busy));
        assert!(began.elapsed() >= PATIENCE);
        unlock(&word);
        assert_eq!(lock(&word), Ok(Obtained::Clean));
    }

    #[test]
    fn who_waits_for_a_lock_leaves_the_processor_to_others() {
        let word = AtomicU64::new(this_thread());
        let waited = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let before = processor_time();
                (lock(&word), processor_time() - before)
            });
            waiter.join().expect("a thread")
        });
        assert_eq!(waited.0, Err(StoreError::Busy));
        assert!(waited.1 < PATIENCE / 3, "{:?} of {PATIENCE:?}", waited.1);
    }

    #[test]
    fn only_the_owner_gives_a_lock_back() {
        let word = AtomicU64::new(0);
        assert_eq!(lock(&word), Ok(Obtained::Clean));
        thread::scope(|scope| scope.spawn(|| unlock(&word)).join().expect("a thread"));
        assert_eq!(word.load(SeqCst), this_thread());
        unlock(&word);
        assert_eq!(word.load(SeqCst), 0);
    }

    /// Of the calling thread.
    fn processor_time() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes to the structure that it is given, which is ours.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}
