//! A conversation of version 2, in which what is compared of counters is told by counter. `3/` holds it.
//!
//! The dialer has what a node had set a counter to that is gone, and the dialled node what had been added before that.

use super::super::{NOW, limits, node, region};
use super::{answer, conversation, hear, record};
use crate::record::{Count, Identity, Kind, PartId, Record, Role, Stamp, Version};
use crate::store::{Applied, Life, Matching, Missing, Params, Zone};
use crate::sync::message::kind;
use crate::sync::{Node, Pull, Push, SyncZone};

const GONE: Identity = Identity([9; 16]);
const THIRD: Identity = Identity([8; 16]);
const LONG_AGO: u64 = NOW - 60_000;
/// When the comparing is over, and before anybody asks what others have of who is gone.
const END: u64 = NOW + 8_000;

/// A node whose zone hashes alike in every run, and counters that both have added to.
fn fixed(number: u8) -> (Node, Zone) {
    let params = Params { sync: true, matching: Matching::Counter, ..Params::new(Identity([number; 16])) };
    let zone = Zone::create_with(region(1 << 19), &params, [number; 16]).unwrap();
    zone.set_joined();
    (0..50).for_each(|n| _ = zone.count(format!("key {n}").as_bytes(), 1, FROM_ZERO, LONG_AGO).unwrap());
    (Node { zones: [SyncZone { name: "z".into(), zone }].into(), ..node(number, &[], limits()) }, zone)
}

const FROM_ZERO: Missing = Missing::Begin(0, Life::Default);

fn apply(zone: &Zone, role: Role, (stamp, origin): (u64, Identity), value: &[u8]) {
    let (key, version) = (role.of(b"set"), Version { stamp: Stamp::at(stamp), origin });
    let record =
        Record { kind: Kind::Counter, version, key: &key, value: Some(value), expires: None, shortened: false };
    assert_eq!(zone.apply(&record, NOW, 60_000), Ok(Applied::Newer));
}

fn dialer() -> Node {
    let (node, zone) = fixed(1);
    apply(&zone, Role::Base, (LONG_AGO + 5, GONE), b"9");
    // It has heard of what was added before, which is over by that.
    zone.advance(THIRD, Stamp::at(LONG_AGO + 1));
    zone.close(LONG_AGO + 10);
    node
}

fn dialled() -> (Node, Zone) {
    let (node, zone) = fixed(2);
    let part = Role::Part(PartId([7; 8]));
    apply(&zone, part, (LONG_AGO, THIRD), &Count { begun: Stamp::ZERO, amount: 5 }.encode());
    zone.close(LONG_AGO + 10);
    (node, zone)
}

fn recorded(who: &str) -> Vec<Vec<u8>> {
    super::recorded(&format!("3/{who}"))
}

#[test]
fn what_the_dialer_said_of_counters_is_understood() {
    record("3/", || conversation(dialer(), dialled().0, END));
    let (node, zone) = dialled();
    let now = hear(Pull::new(node, 1, NOW), recorded("dialer"));
    let value = |key: &str| {
        let mut value = Vec::new();
        zone.get(key.as_bytes(), now, &mut value).unwrap().map(|_| value)
    };
    assert_eq!(value("set").as_deref(), Some(b"9".as_slice()));
    (0..50).for_each(|n| assert_eq!(value(&format!("key {n}")).as_deref(), Some(b"2".as_slice())));
    let stats = zone.stats();
    assert_eq!((stats.mended, stats.retired, stats.comparisons.ended), (1, 0, 1), "what ended the part came first");
}

#[test]
fn what_the_dialled_node_said_of_counters_is_understood() {
    let mut push = Push::new(dialer(), 1, NOW);
    let said = answer(&mut push, recorded("dialled"));
    let answers = |frames: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        let is_answer = |frame: &Vec<u8>| matches!(frame[4], kind::DIGESTS | kind::VERSIONS | kind::SENT);
        frames.into_iter().filter(is_answer).collect()
    };
    let said = answers(said);
    assert_eq!(said, answers(recorded("dialer")), "to the same questions the same answers");
    assert_eq!(said.iter().map(|frame| frame[4]).collect::<Vec<_>>(), [kind::DIGESTS, kind::VERSIONS, kind::SENT]);
}
