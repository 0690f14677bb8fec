//! What a node makes of its clock, beside those of its peers.

use super::super::clock::{Clocks, Verdict};
use super::*;

const HOUR: i64 = 3_600_000;
/// Clocks may be apart by so much (see `limits`); stamps may be ahead by a second more.
const DRIFT: i64 = 60_000;

/// What a node thinks whose clock shows `NOW` and whose last stamp is `stamp` milliseconds later, with peers whose clocks are
/// apart from its own by these.
fn judge(stamp: i64, peers: &[i64]) -> Verdict {
    let node = node(1, &["a", "b"], limits());
    // In one zone of several: what is stamped anew are all.
    set(&node.zones[0].zone, "key", b"of now", NOW);
    set(&node.zones[1].zone, "key", b"of then", NOW.saturating_add_signed(stamp));
    let peers: Vec<Millis> = peers.iter().map(|apart| NOW.saturating_add_signed(*apart)).collect();
    let clocks = Clocks { own: NOW, peers: &peers, max_drift: node.limits.max_drift };
    assert_eq!(clocks.behind(&node.zones), stamp as Millis);
    clocks.judge(&node.zones)
}

#[test]
fn stamps_that_peers_take_are_fine() {
    assert_eq!(judge(0, &[0, 0]), Verdict::Fine);
    assert_eq!(judge(DRIFT + 1_000, &[0, 0]), Verdict::Fine);
    assert_eq!(judge(DRIFT + 1_001, &[0, 0]), Verdict::Mended);
    // By a clock that may be right, and is ahead of this one.
    assert_eq!(judge(DRIFT + 1_001, &[0, 1]), Verdict::Fine);
    assert_eq!(judge(2 * DRIFT + 1_000, &[0, DRIFT]), Verdict::Fine);
    assert_eq!(judge(2 * DRIFT + 1_001, &[0, DRIFT]), Verdict::Mended);
    // Not by one that isn't.
    assert_eq!(judge(2 * DRIFT, &[0, DRIFT + 1]), Verdict::Mended);
}

#[test]
fn a_clock_that_peers_agree_with_was_mended() {
    assert_eq!(judge(HOUR, &[0]), Verdict::Mended);
    assert_eq!(judge(HOUR, &[DRIFT]), Verdict::Mended);
    assert_eq!(
        judge(HOUR, &[-HOUR]),
        Verdict::Mended,
        "a clock that is behind doesn't hold with stamps that are ahead"
    );
    assert_eq!(judge(HOUR, &[0, 20, -30, DRIFT]), Verdict::Mended);
}

#[test]
fn a_clock_that_most_peers_are_ahead_of_is_wrong() {
    assert_eq!(judge(HOUR, &[HOUR]), Verdict::Wrong(1));
    assert_eq!(judge(HOUR, &[DRIFT + 1]), Verdict::Wrong(1), "even if it is behind the stamps as well");
    assert_eq!(judge(HOUR, &[2 * HOUR, HOUR]), Verdict::Wrong(2));
    // One peer of four is wrong as this node is.
    assert_eq!(judge(HOUR, &[0, HOUR, HOUR, HOUR]), Verdict::Wrong(3));
}

#[test]
fn most_clocks_are_right_with_the_nodes_own_among_them() {
    assert_eq!(judge(HOUR, &[0, HOUR]), Verdict::Mended);
    assert_eq!(judge(HOUR, &[0, HOUR, HOUR]), Verdict::Wrong(2), "two against two: nothing is done");
    assert_eq!(judge(HOUR, &[0, 0, HOUR, HOUR]), Verdict::Mended);
    assert_eq!(judge(HOUR, &[0, 0, HOUR, HOUR, HOUR]), Verdict::Wrong(3));
}

#[test]
fn nobody_is_there_to_ask() {
    assert_eq!(judge(HOUR, &[]), Verdict::Alone);
    assert_eq!(judge(0, &[]), Verdict::Fine);
}

#[test]
fn the_latest_clock_is_one_that_may_be_right() {
    let latest = |peers: &[Millis]| Clocks { own: NOW, peers, max_drift: 60_000 }.latest();
    assert_eq!(latest(&[]), NOW);
    assert_eq!(latest(&[NOW - 1_000_000]), NOW);
    assert_eq!(latest(&[NOW + 60_000, NOW + 500, NOW + 60_001, u64::MAX]), NOW + 60_000);
}
