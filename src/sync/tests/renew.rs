//! A node from the future whose clock is mended.

use super::super::{Pull, Push, SessionError};
use super::pair::Pair;
use super::*;
use crate::record::Stamp;
use crate::store::Renewal;

const HOUR: Millis = 3_600_000;

fn renew(node: &Node, identity: Identity, now: Millis) {
    let identity = node.control.begin_renewal(identity);
    for zone in node.zones.iter() {
        let latest = Renewal::latest(now, node.limits.max_drift);
        let mut renewal = Renewal::new(zone.zone, identity, node.control.last_identity(), latest);
        while renewal.step(now).unwrap().is_none() {}
    }
    node.control.end_renewal();
}

#[test]
fn what_peers_refused_as_from_the_future_reaches_them_when_the_clock_is_mended() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (here, there) = (a.zones[0].zone, b.zones[0].zone);
    [here, there].iter().for_each(Zone::set_joined);
    set(&here, "before", b"1", NOW);
    let (mut forth, mut back) = (Pair::new(&a, &b, NOW), Pair::new(&b, &a, NOW));
    forth.run(NOW);
    set(&here, "ahead", b"2", NOW + HOUR);
    set(&here, "both", b"a", NOW + HOUR);
    // Written later, where the clock is right; its stamp is the earlier one all the same.
    set(&there, "both", b"b", NOW + 2_000);
    super::pair::mark(&mut forth.push, &a);
    forth.run(NOW + 1_000);
    super::pair::mark(&mut back.push, &b);
    back.run(NOW + 2_000);
    assert_eq!(contents(&there, NOW).len(), 2);
    assert!(there.stats().future >= 2);
    assert!(contents(&here, NOW).contains(&(b"both".to_vec(), b"a".to_vec())));

    let mended = NOW + 4_000;
    here.close(mended);
    set(&here, "last", b"3", NOW + HOUR + 4_000);
    renew(&a, Identity([9; 16]), mended);
    assert!(matches!(forth.push.tick(mended), Err(SessionError::Renewed)));
    assert!(matches!(back.pull.tick(&mut Vec::new(), mended), Err(SessionError::Renewed)));
    let (mut forth, mut back) = (Pair::new(&a, &b, mended), Pair::new(&b, &a, mended));
    forth.run(mended);
    back.run(mended);
    let wanted: Vec<(Vec<u8>, Vec<u8>)> = [("ahead", "2"), ("before", "1"), ("both", "a"), ("last", "3")]
        .iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    assert_eq!(contents(&there, mended), wanted);
    assert_eq!(contents(&here, mended), wanted);
    assert_eq!(forth.push.peer(), Some(Identity([2; 16])));
    assert_eq!(back.push.peer(), Some(Identity([9; 16])));
    // And so does what comes after.
    set(&here, "next", b"4", mended + 1);
    super::pair::mark(&mut forth.push, &a);
    forth.run(mended + 1);
    assert_eq!(contents(&there, mended).len(), 5);
}

#[test]
fn what_a_node_had_not_sent_yet_under_its_old_identity_reaches_the_others_too() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (here, there) = (a.zones[0].zone, b.zones[0].zone);
    [here, there].iter().for_each(Zone::set_joined);
    set(&here, "unsent", b"1", NOW);
    set(&here, "ahead", b"2", NOW + HOUR);
    renew(&a, Identity([9; 16]), NOW + 1);
    let mut pair = Pair::new(&a, &b, NOW + 1);
    for at in (NOW + 1..NOW + 60_000).step_by(100) {
        pair.run(at);
    }
    assert_eq!(contents(&there, NOW).len(), 2);
    assert_eq!(there.position(Identity([1; 16])).max(Stamp::at(NOW)), there.position(Identity([1; 16])));
}

#[test]
fn while_a_node_becomes_another_one_there_are_no_sessions() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    a.control.begin_renewal(Identity([9; 16]));
    let mut out = Vec::new();
    assert!(matches!(Push::new(a.clone(), 1, NOW).fill(&mut out, 1000, NOW), Err(SessionError::Renewed)));
    let mut push = Push::new(b, 1, NOW);
    push.fill(&mut out, 1000, NOW).unwrap();
    let mut answer = Vec::new();
    assert!(matches!(Pull::new(a, 1, NOW).handle(&out, &mut answer, NOW), Err(SessionError::Renewed)));
    assert!(matches!(push.handle(&answer, NOW), Err(SessionError::Bye(_))), "the peer is told why");
}
