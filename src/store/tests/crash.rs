//! A process killed in the middle of its writes: whoever comes next repairs, and nothing acknowledged is lost.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use super::check::check;
use super::*;
use crate::record::{Kind, Record, Stamp, Version};
use crate::store::failpoint::{ALL, Step, armed};
use crate::store::{Condition, Life, StoreError};

const KEYS: u64 = 64;
/// Children killed at random in a run of the tests.
const RANDOM_KILLS: u64 = 3000;

/// Memory in which a child notes what was acknowledged to it: for each key the last number written to it.
pub struct Ledger {
    region: Region,
    _mapping: Mapping,
}

impl Ledger {
    pub fn new() -> Ledger {
        let mapping = Region::anonymous(4096).expect("memory");
        Ledger { region: mapping.region(), _mapping: mapping }
    }

    pub fn noted(&self, key: u64) -> u64 {
        self.region.load64(key as usize * 8, SeqCst)
    }

    pub fn note(&self, key: u64, n: u64) {
        self.region.store64(key as usize * 8, n, SeqCst);
    }
}

fn value_of(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(3 + (n % 90) as usize)
}

/// One step of a child's work: everything that changes a zone comes up in it. Numbered values go to the keys that the
/// ledger follows; whatever is done besides is done to other keys.
fn work(zone: &Zone, ledger: &Ledger, n: u64) {
    let now = START + n;
    let key = n % KEYS;
    let aside = (key + 1000).to_be_bytes();
    match n % 13 {
        3 => drop(zone.delete(&aside, now)),
        5 => drop(zone.touch(&aside, Life::For(100), now)),
        7 => {
            let mut node = [n as u8; 16];
            node[1..9].copy_from_slice(&n.to_be_bytes());
            let version = Version { stamp: Stamp::at(now), origin: Identity(node) };
            let value = n.is_multiple_of(2).then_some(&b"theirs"[..]);
            let record =
                Record { kind: Kind::Register, version, key: &aside, value, expires: Some(now + 50), shortened: false };
            let _ = zone.apply(&record, now, 60_000);
        }
        9 => {
            let large = vec![n as u8; (n % 7) as usize * 3000];
            let _ = zone.set(&(key % 3 + 2000).to_be_bytes(), &large, Life::Default, Condition::Always, now);
        }
        _ => drop(zone.set(&aside, b"of no matter", Life::For(1 + n % 200), Condition::Always, now)),
    }
    if zone.set(&key.to_be_bytes(), &value_of(n), Life::For(10_000_000), Condition::Always, now).is_ok() {
        ledger.note(key, n);
    }
    zone.upkeep(now, 5);
    zone.find_idle_origins(START + n * 1000, 20);
    if n.is_multiple_of(19) {
        zone.made_up(&zone.lacks(), &[], &[]);
    }
    zone.take_dirty();
    walk_now_and_then(zone, n);
}

/// Each 17th step walks some of the feed of the first shard.
pub fn walk_now_and_then(zone: &Zone, n: u64) {
    if n.is_multiple_of(17)
        && let Some(mut cursor) = zone.feed_open(1)
    {
        let _ = zone.feed(&mut cursor, 0, &mut |_| true);
        zone.feed_close(cursor);
    }
}

/// Runs `child` in a process of its own.
pub fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child touches shared memory and its own copy of this process, and ends without unwinding.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        child();
        // SAFETY: ends the child at once, without what this process has to do at its end.
        unsafe { libc::_exit(0) };
    }
    pid
}

/// Sends a signal to a child and waits for its end; returns the signal that ended it, if one did.
pub fn end(pid: libc::pid_t, signal: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: a child of ours that wasn't waited for yet.
    unsafe {
        if signal != 0 {
            libc::kill(pid, signal);
        }
        libc::waitpid(pid, &mut status, 0);
    }
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// After a death: an ordinary call provokes the repair, and then everything must be there, and whole.
fn examine(zone: &Zone, ledger: &Ledger, what: &str) {
    zone.delete(b"absent", START).unwrap_or_else(|error| panic!("{what}: {error}"));
    // Nor does the next one that needs a page find the pool half done.
    zone.with_pool(|| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
    match zone.set(b"alive", b"yes", Life::Default, Condition::Always, START) {
        // The child may have left the zone rightly full; memory that were lost, the checker would miss.
        Ok(_) | Err(StoreError::NoMemory) => {}
        Err(error) => panic!("{what}: {error}"),
    }
    for key in 0..KEYS {
        let noted = ledger.noted(key);
        let Some(found) = value(zone, &key.to_be_bytes(), START) else {
            // Unless it was given up, and that is said.
            let evicted = zone.stats().evicted > 0 && zone.evicted() >= Stamp::at(START + noted);
            assert!(noted == 0 || evicted, "{what}: key {key} is lost");
            continue;
        };
        let n = u64::from_be_bytes(found[..8].try_into().expect("eight bytes"));
        assert!(n >= noted, "{what}: key {key} is older than acknowledged: {n} < {noted}");
        assert_eq!(found, value_of(n), "{what}: key {key} is torn");
    }
    check(zone);
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let zone = Fixture::new(256 << 10, None, true);
    let ledger = Ledger::new();
    let (mut with_lock, mut n) = (0, 1);
    for round in 0..RANDOM_KILLS {
        let child = fork(|| (n..u64::MAX).for_each(|n| work(&zone, &ledger, n)));
        let begun = Instant::now();
        let before = ledger.noted(n % KEYS);
        while ledger.noted(n % KEYS) == before {
            assert!(begun.elapsed() < Duration::from_secs(10), "the child writes");
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(round * 7 % 250));
        end(child, libc::SIGKILL);
        with_lock += u64::from(zone.region.load64(zone.geometry.shard(0), Relaxed) != 0);
        examine(&zone, &ledger, "a random kill");
        n = (0..KEYS).map(|key| ledger.noted(key)).max().unwrap_or(0) + 1;
    }
    println!("{RANDOM_KILLS} children killed, {with_lock} of them with the lock in hand; {n} rounds of work");
    assert!(with_lock > RANDOM_KILLS / 20, "too few died with the lock in hand for this to show something");
}

/// A zone so small that the pool runs dry and tombstones are made in place; for the steps of eviction, one that evicts.
fn zone_for(step: Step) -> Fixture {
    let evict = matches!(step, Step::GivenUp | Step::GivenUpSoon | Step::Shifted);
    Fixture::with(32 << 10, Params { evict, sync: true, ..Params::new(identity(1)) })
}

/// A child's work from its beginning to its end, in which every step comes.
fn live(zone: &Zone, ledger: &Ledger) {
    // As long as there is room for it for sure.
    let _ = zone.set(&2000_u64.to_be_bytes(), &[1; 3000], Life::Default, Condition::Always, START);
    for n in 1..6000 {
        work(zone, ledger, n);
        if n.is_multiple_of(1500) {
            // What the ledger follows goes with it, and is forgotten first.
            (0..KEYS).for_each(|key| ledger.note(key, 0));
            let _ = zone.clear(START + n);
        }
    }
    // More nodes than the table has entries for, when there are pages for them again.
    (0..KEYS).for_each(|key| ledger.note(key, 0));
    let _ = zone.clear(START + 6000);
    zone.upkeep(START + 6000, 100_000);
    (2..82).for_each(|n| _ = zone.advance(identity(n), Stamp(1)));
    // None of them has records: they give way.
    while zone.find_idle_origins(START + 100_000_000, 50) > 0 {}
    (82..90).for_each(|n| _ = zone.advance(identity(n), Stamp(2)));
}

#[test]
fn unwinding_out_of_any_step_loses_nothing() {
    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
    for &step in ALL {
        let (zone, ledger) = (zone_for(step), Ledger::new());
        let child = fork(|| {
            set_hook(Box::new(|_| {}));
            armed::arm(step, 1, armed::UNWIND);
            let unwound = catch_unwind(AssertUnwindSafe(|| live(&zone, &ledger))).is_err();
            // The process lives on, and others go on beside it.
            let goes_on = zone.delete(b"absent", START).is_ok() && zone.upkeep(START, 0) == 0;
            // SAFETY: ends this child.
            unsafe { libc::_exit(i32::from(!unwound) + 2 * i32::from(!goes_on)) };
        });
        let mut status = 0;
        // SAFETY: a child of ours.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "{step:?}: 256: it never came; 512: nothing went on");
        examine(&zone, &ledger, &format!("unwinding from {step:?}"));
    }
}

#[test]
fn a_death_after_any_step_loses_nothing() {
    let mut deaths = 0;
    for &step in ALL {
        for nth in [1, 2, 5, 40] {
            let zone = zone_for(step);
            let ledger = Ledger::new();
            let child = fork(|| {
                armed::arm(step, nth, libc::SIGKILL);
                live(&zone, &ledger);
            });
            let killed = end(child, 0);
            if killed.is_none() && nth > 2 {
                break;
            }
            assert_eq!(killed, Some(libc::SIGKILL), "nobody died after step {step:?}, time {nth}: it never came");
            examine(&zone, &ledger, &format!("{step:?}, time {nth}"));
            deaths += 1;
        }
    }
    println!("{deaths} deaths, after each of {} steps", ALL.len());
}

#[test]
fn a_look_up_in_what_the_dead_took_out_begins_anew() {
    for step in [Step::Published, Step::Removed] {
        let zone = Fixture::new(64 << 10, None, false);
        zone.set(b"k", b"of some bytes", Life::Default, Condition::Always, START).expect("room");
        let child = fork(|| {
            armed::arm(step, 1, libc::SIGKILL);
            match step {
                Step::Removed => drop(zone.delete(b"k", START)),
                _ => drop(zone.set(b"k", b"of more bytes", Life::Default, Condition::Always, START)),
            }
        });
        let sequence = zone.shard_unlocked(0).sequence();
        assert_eq!(end(child, 0), Some(libc::SIGKILL));
        // Another key, which frees nothing: it may be written to where the look-up reads.
        zone.set(b"l", b"of some bytes", Life::Default, Condition::Always, START).expect("room");
        assert!(!zone.shard_unlocked(0).is_unmoved(sequence), "after {step:?}");
    }
}

#[test]
fn what_ends_is_taken_away_although_a_sweep_was_killed() {
    let zone = Fixture::new(64 << 10, None, false);
    zone.set(b"k", b"v", Life::For(1_000), Condition::Always, START).expect("room");
    zone.set(b"l", b"v", Life::For(60_000), Condition::Always, START).expect("room");
    let child = fork(|| {
        armed::arm(Step::Sweeping, 1, libc::SIGKILL);
        zone.upkeep(START + 2_000, 100);
    });
    assert_eq!(end(child, 0), Some(libc::SIGKILL));
    assert!(!zone.is_quiet(START + 2_000));
    zone.upkeep(START + 2_000, 100);
    assert_eq!(zone.stats().records, 1);
    assert!(zone.is_quiet(START + 2_000) && !zone.is_quiet(START + 61_000));
    check(&zone);
}

#[test]
fn a_stopped_writer_costs_others_a_moment_and_readers_nothing() {
    let zone = Fixture::new(64 << 10, None, true);
    zone.set(b"k", b"v", Life::Default, Condition::Always, START).expect("room");
    let child = fork(|| {
        armed::arm(Step::Published, 1, libc::SIGSTOP);
        let _ = zone.set(b"other", b"v", Life::Default, Condition::Always, START);
    });
    let mut status = 0;
    // SAFETY: a child of ours; this returns when it has stopped.
    unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
    assert!(libc::WIFSTOPPED(status));
    for _ in 0..1000 {
        assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"v"[..]));
    }
    let begun = Instant::now();
    assert_eq!(zone.set(b"k", b"w", Life::Default, Condition::Always, START), Err(StoreError::Busy));
    let waited = begun.elapsed();
    assert!(
        waited >= crate::store::patience::PATIENCE && waited < crate::store::patience::PATIENCE * 20,
        "waited {waited:?}"
    );
    assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"v"[..]));
    // SAFETY: a child of ours goes on.
    unsafe { libc::kill(child, libc::SIGCONT) };
    assert_eq!(end(child, 0), None);
    zone.set(b"k", b"w", Life::Default, Condition::Always, START).expect("free again");
    check(&zone);
}

#[test]
fn a_process_stopped_with_the_pool_in_hand_costs_others_one_wait() {
    for step in [Step::PageOwned, Step::PageDisowned] {
        let zone = Fixture::new(8 << 20, None, true);
        let large = vec![1; 1 << 20];
        zone.set(b"k", &large, Life::Default, Condition::Always, START).expect("room");
        zone.set(b"l", &[1; 60_000], Life::Default, Condition::Always, START).expect("room");
        let child = fork(|| {
            armed::arm(step, 1, libc::SIGSTOP);
            let _ = zone.set(b"m", &[2; 3_000], Life::Default, Condition::Always, START);
            let _ = zone.delete(b"l", START);
        });
        let mut status = 0;
        // SAFETY: a child of ours; this returns when it has stopped.
        unsafe { libc::waitpid(child, &mut status, libc::WUNTRACED) };
        assert!(libc::WIFSTOPPED(status));
        let begun = Instant::now();
        let deleted = zone.delete(b"k", START);
        let waited = begun.elapsed();
        assert!(waited < crate::store::patience::PATIENCE * 20, "waited {waited:?}");
        assert!(deleted.is_ok() || deleted == Err(StoreError::Busy), "{deleted:?}");
        assert_eq!(value(&zone, b"k", START).is_none(), deleted.is_ok());
        let begun = Instant::now();
        zone.upkeep(START + 10_000_000, 4096);
        assert!(begun.elapsed() < crate::store::patience::PATIENCE * 20, "waited {:?}", begun.elapsed());
        // SAFETY: a child of ours goes on.
        unsafe { libc::kill(child, libc::SIGCONT) };
        assert_eq!(end(child, 0), None);
        zone.set(b"k", &large, Life::Default, Condition::Always, START).expect("free again");
        check(&zone);
    }
}

#[test]
fn unwinding_with_the_pool_in_hand_gives_it_back() {
    let zone = Fixture::new(64 << 10, None, true);
    let unwound = std::panic::catch_unwind(|| zone.with_pool(|| panic!("in the middle")));
    assert!(unwound.is_err());
    zone.set(b"k", b"v", Life::Default, Condition::Always, START).expect("free again");
    check(&zone);
}

#[test]
fn a_zombie_that_holds_a_lock_is_dead() {
    let zone = Fixture::new(64 << 10, None, true);
    let child = fork(|| {
        armed::arm(Step::Published, 1, libc::SIGKILL);
        let _ = zone.set(b"k", b"v", Life::Default, Condition::Always, START);
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    // Not waited for: it stays a zombie, to which kill(pid, 0) still succeeds.
    while std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "the child dies");
        std::thread::yield_now();
    }
    zone.set(b"l", b"v", Life::Default, Condition::Always, START).expect("taken from the dead");
    assert_eq!(value(&zone, b"k", START).as_deref(), Some(&b"v"[..]), "what was published stays");
    check(&zone);
    end(child, 0);
}
