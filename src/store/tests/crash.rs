//! A process killed in the middle of its writes: whoever comes next repairs, and nothing acknowledged is lost.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use super::check::check;
use super::*;
use crate::store::{Condition, Life};

const KEYS: u64 = 64;
const ROUNDS: u64 = 200;

/// The child writes a counter to each key in turn and then notes it in `acknowledged`; the value is the counter, three
/// times over, so that a torn one shows.
fn write_for_ever(zone: &Zone, acknowledged: &Region) -> ! {
    for n in 1u64.. {
        let key = n % KEYS;
        if n % 11 == 3 {
            let _ = zone.delete(&(key + 1000).to_be_bytes(), START);
        } else {
            let _ = zone.set(
                &(key + 1000).to_be_bytes(),
                b"of no matter",
                Life::For(1 + n % 200),
                Condition::Always,
                START,
            );
        }
        let value = n.to_be_bytes().repeat(3 + (n % 90) as usize);
        if zone.set(&key.to_be_bytes(), &value, Life::Default, Condition::Always, START).is_ok() {
            acknowledged.store64(key as usize * 8, n, SeqCst);
        }
        zone.upkeep(START + n % 300, 5);
    }
    unreachable!("numbers end")
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let zone = Fixture::new(256 << 10, None, true);
    let mapping = Region::anonymous(4096).expect("memory");
    let acknowledged = mapping.region();
    let mut repairs = 0;
    for round in 0..ROUNDS {
        // SAFETY: the child only touches shared memory, and ends by being killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            write_for_ever(&zone, &acknowledged);
        }
        assert!(child > 0, "fork");
        let deadline = Instant::now() + Duration::from_secs(10);
        let before = acknowledged.load64(0, Relaxed);
        while acknowledged.load64(0, Relaxed) == before {
            assert!(Instant::now() < deadline, "the child writes");
            std::thread::sleep(Duration::from_micros(100 + round % 7 * 50));
        }
        // SAFETY: a child of ours, not waited for yet.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        let held = zone.region.load64(zone.geometry.shard(0), Relaxed);
        repairs += u64::from(held != 0);
        for key in 0..KEYS {
            let noted = acknowledged.load64(key as usize * 8, SeqCst);
            let found = value(&zone, &key.to_be_bytes(), START);
            let Some(found) = found else {
                assert_eq!(noted, 0, "key {key} is lost");
                continue;
            };
            let n = u64::from_be_bytes(found[..8].try_into().expect("eight bytes"));
            assert!(n >= noted, "key {key} is older than acknowledged: {n} < {noted}");
            assert_eq!(found, n.to_be_bytes().repeat(3 + (n % 90) as usize), "key {key} is torn");
        }
        // An ordinary call of this process provokes the repair.
        zone.set(b"alive", b"yes", Life::Default, Condition::Always, START).expect("the zone goes on");
        check(&zone);
    }
    assert!(repairs > 0, "no child died with the lock: the test shows nothing");
}
