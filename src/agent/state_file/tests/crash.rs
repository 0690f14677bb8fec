//! A process killed after any step of writing state files: what is loaded then is what was there before or after that step,
//! whole; and whoever takes over the zone goes on from where it was.

use super::*;
use crate::store::failpoint::{OF_FILES, Step, armed};
use std::sync::atomic::Ordering::SeqCst;

const KEYS: u64 = 200;
/// Where the ledger has what it has.
const DONE: usize = 0;
const SAVED: usize = 8;
const PAUSE: usize = 16;
const PAUSED: usize = 24;

fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child touches shared memory, files and its own copy of this process, and ends without unwinding.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        child();
        // SAFETY: ends the child at once, without what this process has to do at its end.
        unsafe { libc::_exit(0) };
    }
    pid
}

/// Waits for a child's end; the signal that ended it, if one did.
fn wait(pid: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: a child of ours that wasn't waited for yet.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

fn key(n: u64) -> [u8; 8] {
    (n % KEYS).to_be_bytes()
}

/// Whether the change of this number takes its key away.
fn deletes(n: u64) -> bool {
    n / KEYS % 3 == 2
}

/// Changes one key after the other, as long as it isn't asked to pause.
fn change(zone: &Zone, ledger: &Region) {
    for n in 1.. {
        while ledger.load64(PAUSE, SeqCst) != 0 {
            ledger.store64(PAUSED, 1, SeqCst);
            std::thread::yield_now();
        }
        match deletes(n) {
            true => drop(zone.delete(&key(n), now())),
            false => drop(zone.set(&key(n), &n.to_be_bytes().repeat(5), Life::Default, Condition::Always, now())),
        }
        ledger.store64(DONE, n, SeqCst);
        if n % 64 == 0 {
            std::thread::yield_now();
        }
    }
}

/// Appends now and then, and writes all after a while; notes up to which change all is safe.
fn save(state: &StateFile, ledger: &Region) {
    let (licence, mut journal) = (licence(), Journal::default());
    for n in 0..60 {
        if n % 12 == 11 {
            // Nothing changes meanwhile.
            ledger.store64(PAUSED, 0, SeqCst);
            ledger.store64(PAUSE, 1, SeqCst);
            while ledger.load64(PAUSED, SeqCst) == 0 {
                std::thread::yield_now();
            }
        }
        if n % 12 == 11 {
            // And nothing is left to append.
            let _ = journal.append(state, &licence);
        }
        let done = ledger.load64(DONE, SeqCst);
        let all = match n % 4 {
            3 => crate::agent::state_file::write::write(state, &licence, &mut journal).is_ok(),
            _ => journal.append(state, &licence).is_ok_and(|round| {
                state.zone.state_covers(round.changes);
                round.all
            }),
        };
        if all {
            ledger.store64(SAVED, done, SeqCst);
        }
        ledger.store64(PAUSE, 0, SeqCst);
        // The next one must have something to do.
        while ledger.load64(DONE, SeqCst) < done + 5 {
            std::thread::yield_now();
        }
    }
}

/// Each key is as one of the changes left it that came after what is safe, or as the last of those did.
fn examine(there: &Contents, done: u64, saved: u64, what: &str) {
    for k in 0..KEYS {
        let last_safe = (1..=saved).rev().find(|n| n % KEYS == k);
        let later = (saved + 1..=done + 1).filter(|n| n % KEYS == k);
        let value = there.get(&key(k)[..]).and_then(|record| record.0.as_deref());
        let mut may_be = last_safe.into_iter().chain(later);
        let is_right = match value {
            None => last_safe.is_none() || may_be.any(deletes),
            Some(value) => may_be.any(|n| !deletes(n) && value == n.to_be_bytes().repeat(5)),
        };
        assert!(is_right, "{what}: key {k} is {value:?}; {saved} of {done} changes were safe");
    }
}

#[test]
fn a_death_after_any_step_leaves_the_state_before_or_after() {
    let mut deaths = 0;
    for sync in [false, true] {
        for &step in OF_FILES {
            for nth in [1, 2, 4] {
                deaths += u64::from(die(sync, step, nth));
            }
        }
    }
    println!("{deaths} deaths, after each of {} steps", OF_FILES.len());
}

/// `false`: the step doesn't come so often, which may be so only after the first time.
fn die(sync: bool, step: Step, nth: u32) -> bool {
    let (folder, what) = (Folder::new(), format!("{step:?}, time {nth}, sync {sync}"));
    let mapping = Region::anonymous(1 << 20).unwrap();
    let zone = Zone::create(mapping.region(), &Params { sync, ..Params::new(NODE) }).unwrap();
    let ledger = Region::anonymous(4096).unwrap();
    let path = folder.0.join("one.json");
    zone.keep_state(Some(number(&path)));
    let terms = Terms { slow: Duration::ZERO, rounds: Duration::ZERO, follow: 0, ..Terms::ORDINARY };
    let state = StateFile { terms, ..state_file(zone, &path) };
    write(&state, &licence()).unwrap();
    let writer = fork(|| change(&zone, &ledger.region()));
    let saver = fork(|| {
        armed::arm(step, nth, libc::SIGKILL);
        save(&state, &ledger.region());
    });
    let killed = wait(saver);
    // SAFETY: a child of ours that wasn't waited for yet.
    unsafe { libc::kill(writer, libc::SIGKILL) };
    wait(writer);
    if killed.is_none() {
        assert!(nth > 1, "{what}: nobody died, it never came");
        return false;
    }
    assert_eq!(killed, Some(libc::SIGKILL), "{what}");
    let (done, saved) = (ledger.region().load64(DONE, SeqCst), ledger.region().load64(SAVED, SeqCst));
    // Everything is gone: what is there is on the disk.
    let to = self::zone(sync);
    let told = load(&path, &to, now()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(told.is_some(), "{what}");
    examine(&contents(&to), done, saved, &what);
    // Or the zone is still there, and another agent takes over. A look provokes the repair that a killed writer may leave.
    zone.set(b"next", b"v", Life::Default, Condition::Always, now()).unwrap();
    zone.feed_sweep(0);
    let (licence, mut journal) = (licence(), Journal::default());
    match journal.append(&state, &licence) {
        Ok(round) => assert!(round.all, "{what}"),
        Err(WriteError::Lost) => drop(write(&state, &licence).unwrap()),
        Err(error) => panic!("{what}: {error}"),
    }
    let to = self::zone(sync);
    load(&path, &to, now()).unwrap_or_else(|error| panic!("{what}, taken over: {error}"));
    let values = |zone: &Zone| -> BTreeMap<_, _> {
        contents(zone).into_iter().filter_map(|(key, (value, ..))| Some((key, value?))).collect()
    };
    assert_eq!(values(&to), values(&zone), "{what}, taken over");
    write(&state, &licence).unwrap();
    assert_eq!(folder.names().iter().filter(|name| name.contains(".changes")).count(), 0, "{what}: nothing is left");
    true
}
