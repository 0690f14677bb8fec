//! Sessions: made only when asked for, led elsewhere at once, and written seldom however often they are used.

use super::*;
use crate::store::{Keeping, Matching, StoreError, Told, Use};

const TIMEOUT: Millis = 80_000;
const BEGIN: Millis = START;

fn keeping(salt: u64) -> Keeping {
    Keeping { timeout: TIMEOUT, salt }
}

fn sessions() -> Fixture {
    let params = Params::new(identity(1));
    Fixture::with(256 << 10, Params { matching: Matching::Session, evict: true, sync: true, ..params })
}

/// A request that was sent where its session led ends.
fn served(zone: &Zone, key: &[u8], by: &[u8], create: bool, salt: u64, now: Millis) -> Result<bool, StoreError> {
    let bound = value(zone, key, now);
    ends(zone, key, by, create, Told::Server(bound.as_deref()), salt, now)
}

/// A request ends that was told this of its session.
fn ends(
    zone: &Zone,
    key: &[u8],
    server: &[u8],
    create: bool,
    told: Told<'_>,
    salt: u64,
    now: Millis,
) -> Result<bool, StoreError> {
    zone.use_session(key, Use { server, create, told }, keeping(salt), now)
}

fn server(zone: &Zone, now: Millis) -> Option<Vec<u8>> {
    value(zone, b"key", now)
}

#[test]
fn a_session_is_made_only_when_asked_for() {
    let zone = sessions();
    assert_eq!(served(&zone, b"key", b"a", false, 1, BEGIN), Ok(false));
    assert_eq!(server(&zone, BEGIN), None);
    assert_eq!(served(&zone, b"key", b"a", true, 1, BEGIN), Ok(true));
    assert_eq!(server(&zone, BEGIN).as_deref(), Some(&b"a"[..]));
    assert_eq!(served(&zone, b"key", b"b", false, 1, BEGIN + 1), Ok(true), "one that is there is led elsewhere");
    assert_eq!(server(&zone, BEGIN + 1).as_deref(), Some(&b"b"[..]));
}

#[test]
fn a_session_in_use_is_written_once_in_a_quarter_to_three_eighths_of_its_time() {
    for salt in 0..50 {
        let zone = sessions();
        assert_eq!(served(&zone, b"key", b"a", true, salt, BEGIN), Ok(true));
        let mut last = BEGIN;
        for now in (BEGIN..BEGIN + 5 * TIMEOUT).step_by(100) {
            if served(&zone, b"key", b"a", false, salt, now) == Ok(true) {
                let passed = now - last;
                assert!((TIMEOUT / 4..=TIMEOUT * 3 / 8 + 100).contains(&passed), "after {passed} ms");
                last = now;
            }
            // Whenever it was used last, it lives as long as was promised.
            assert!(server(&zone, now + TIMEOUT - 1).is_some(), "at {now}");
        }
        assert!(last > BEGIN + 4 * TIMEOUT);
        assert_eq!(server(&zone, last + TIMEOUT * 11 / 8), None, "and not for ever");
    }
}

#[test]
fn a_full_zone_forgets_the_oldest() {
    let zone = sessions();
    for n in 0..20_000u64 {
        let key = n.to_le_bytes();
        let used = served(&zone, &key, &[b'x'; 32], true, 1, BEGIN + n);
        assert_eq!(used, Ok(true), "{n}: {:?}", zone.stats());
        assert!(value(&zone, &key, BEGIN + n).is_some());
    }
    let stats = zone.stats();
    assert!(stats.evicted > 10_000 && stats.refused == 0, "{stats:?}");
    let lives = |n: u64| value(&zone, &n.to_le_bytes(), BEGIN + 20_000).is_some();
    let old = (0..15_000).filter(|n| lives(*n)).count();
    assert!(old < 150, "{old} of the oldest are left");
}

#[test]
fn a_request_that_ends_late_moves_nothing_that_has_moved_meanwhile() {
    let zone = sessions();
    served(&zone, b"key", b"a", true, 1, BEGIN).expect("room");
    // It was sent to a. Others find that a can't serve, and lead the session to b.
    assert_eq!(served(&zone, b"key", b"b", false, 1, BEGIN + 1), Ok(true));
    for create in [false, true] {
        assert_eq!(ends(&zone, b"key", b"a", create, Told::Server(Some(b"a")), 1, BEGIN + 2), Ok(false));
        assert_eq!(ends(&zone, b"key", b"c", create, Told::Server(Some(b"a")), 1, BEGIN + 2), Ok(false));
        // Nor does one that came when there was no session.
        assert_eq!(ends(&zone, b"key", b"a", create, Told::Server(None), 1, BEGIN + 2), Ok(false));
        assert_eq!(server(&zone, BEGIN + 2).as_deref(), Some(&b"b"[..]));
    }
    // Nor does it keep alive what isn't its own.
    let now = BEGIN + 1 + TIMEOUT * 11 / 8;
    assert_eq!(ends(&zone, b"key", b"a", false, Told::Server(Some(b"a")), 1, now - TIMEOUT), Ok(false));
    assert_eq!(server(&zone, now), None);
    // One that was asked for under no name, or another one, is where the answer says that it begins.
    for server_now in [b"a", b"b"] {
        assert_eq!(ends(&zone, b"key", server_now, true, Told::Nothing, 1, now), Ok(true));
        assert_eq!(server(&zone, now).as_deref(), Some(&server_now[..]));
    }
}
