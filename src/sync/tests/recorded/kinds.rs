//! A later conversation of version 1, as all kinds of zones had it when it was recorded: counters, limits, sessions, a zone that
//! evicts, one that is full at the dialled node, and one whose memory was made anew at the dialer. `2/` holds it.
//!
//! Everything in it was written long before, so that what is compared doesn't depend on when that is asked for.

use super::super::{NOW, limits, node, region};
use super::{answer, conversation, hear, record};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::{Applied, Condition, FeedEnd, Life, Matching, Missing, Params, Zone};
use crate::sync::message::kind;
use crate::sync::{Node, Pull, Push, SyncZone};

const DIALER: u8 = 1;
const DIALLED: u8 = 2;
const THIRD: u8 = 3;
/// Who is gone, and has left something on one side only.
const GONE: Identity = Identity([9; 16]);
const FORGOTTEN: Identity = Identity([8; 16]);
const LONG_AGO: Millis = NOW - 60_000;
const RATE: u64 = 1;
const FILLER: &[u8] = &[7; 100];
/// Before anybody asks what others have of who is gone.
const END: Millis = NOW + 8_000;

/// The zones, in their order.
const COUNTS: usize = 0;
const EVICTS: usize = 1;
const FULL: usize = 2;
const LIMITS: usize = 3;
const PLAIN: usize = 4;
const SESSIONS: usize = 5;

/// A node whose zones hash alike in every run.
fn fixed(number: u8) -> Node {
    let ordinary = || Params { sync: true, ..Params::new(Identity([number; 16])) };
    let is_dialer = number == DIALER;
    let zones = [
        ("counts", 1 << 19, Params { matching: Matching::Counter, ..ordinary() }),
        ("evicts", if is_dialer { 1 << 15 } else { 1 << 19 }, Params { evict: true, ..ordinary() }),
        ("full", if is_dialer { 1 << 19 } else { 1 << 15 }, ordinary()),
        ("limits", 1 << 19, Params { matching: Matching::Limit, rate: RATE, ..ordinary() }),
        ("plain", 1 << 19, Params { born: is_dialer.then_some(LONG_AGO - 1_000), ..ordinary() }),
        ("sessions", 1 << 19, Params { matching: Matching::Session, ..ordinary() }),
    ];
    let zone = |(name, size, params): (&str, usize, Params)| {
        let zone = Zone::create_with(region(size), &params, [number; 16]).unwrap();
        zone.set_joined();
        SyncZone { name: name.into(), zone }
    };
    Node { zones: zones.map(zone).into(), ..node(number, &[], limits()) }
}

fn apply(zone: &Zone, key: &[u8], origin: Identity) {
    let version = Version { stamp: Stamp::at(LONG_AGO), origin };
    let record = Record { kind: Kind::Register, version, key, value: Some(b"v"), expires: None, shortened: false };
    zone.apply(&record, NOW, 60_000).unwrap();
}

fn dialer() -> Node {
    let node = fixed(DIALER);
    let zone = |at: usize| node.zones[at].zone;
    let set = |at: usize, key: &str, value: &[u8]| {
        zone(at).set(key.as_bytes(), value, Life::Default, Condition::Always, LONG_AGO).unwrap();
    };
    zone(COUNTS).count(b"hits", 5, Missing::Begin(0, Life::Default), LONG_AGO).unwrap();
    // It gives some up, and then has nothing but tombstones, which are short.
    (0..20).for_each(|n| set(EVICTS, &format!("key {n}"), &[7; 2_000]));
    for n in 0..20 {
        zone(EVICTS).delete(format!("key {n}").as_bytes(), LONG_AGO).unwrap();
    }
    assert!(zone(EVICTS).stats().evicted > 0);
    (0..5).for_each(|n| set(FULL, &format!("key {n}"), FILLER));
    for _ in 0..3 {
        zone(LIMITS).admit(b"client", RATE, None, LONG_AGO).unwrap();
    }
    set(PLAIN, "own", b"1");
    // Only comparing brings what this node holds of who is gone, and takes away what it knows to be deleted.
    apply(&zone(PLAIN), b"of the gone", GONE);
    zone(PLAIN).advance(FORGOTTEN, Stamp::at(LONG_AGO + 1));
    set(SESSIONS, "client", b"server");
    for sync in node.zones.iter() {
        sync.zone.close(LONG_AGO + 2);
    }
    node
}

fn dialled() -> Node {
    let node = fixed(DIALLED);
    let zone = |at: usize| node.zones[at].zone;
    zone(COUNTS).count(b"hits", 2, Missing::Begin(0, Life::Default), LONG_AGO).unwrap();
    // With a share of its own it would tell that anew when it has heard of the dialer's, and there would be less to ask for.
    hear_of_third(&zone(LIMITS));
    let fill = |n: u32| zone(FULL).set(&n.to_le_bytes(), FILLER, Life::Default, Condition::Always, LONG_AGO);
    assert!((0..1_000).any(|n| fill(n).is_err()), "it is full");
    apply(&zone(PLAIN), b"deleted at the dialer", FORGOTTEN);
    for sync in node.zones.iter() {
        sync.zone.close(LONG_AGO + 2);
    }
    node
}

/// A third node has admitted a request.
fn hear_of_third(limits: &Zone) {
    let third = fixed(THIRD).zones[LIMITS].zone;
    third.admit(b"client", RATE, None, LONG_AGO).unwrap();
    let mut cursor = third.feed_open(1).unwrap();
    let mut heard = 0;
    for shard in 0..third.all_shards().count_ones() {
        let mut hear = |record: &Record<'_>| {
            heard += u32::from(limits.apply(record, NOW, 60_000) == Ok(Applied::Newer));
            true
        };
        while third.feed(&mut cursor, shard, &mut hear).unwrap() != FeedEnd::Drained {}
    }
    assert_eq!(heard, 1);
}

fn recorded(who: &str) -> Vec<Vec<u8>> {
    super::recorded(&format!("2/{who}"))
}

#[test]
fn what_the_dialer_said_of_all_kinds_is_understood() {
    record("2/", || conversation(dialer(), dialled(), END));
    let node = dialled();
    let zone = |at: usize| node.zones[at].zone;
    let now = hear(Pull::new(node.clone(), 1, NOW), recorded("dialer"));

    let value = |at: usize, key: &[u8]| {
        let mut value = Vec::new();
        zone(at).get(key, now, &mut value).unwrap().map(|_| value)
    };
    assert_eq!(value(COUNTS, b"hits").as_deref(), Some(b"7".as_slice()));
    assert!(zone(EVICTS).doubted() > Stamp::ZERO, "the dialer evicts");
    assert!(zone(FULL).is_lacking() && zone(FULL).stats().incomplete > 0, "no room");
    let held = zone(LIMITS).limited(b"client", RATE, now).unwrap();
    assert!((2_001..=3_000).contains(&held), "one after the three of the dialer, of which few have run out: {held}");
    assert_eq!(value(PLAIN, b"own").as_deref(), Some(b"1".as_slice()));
    assert!(!zone(PLAIN).is_whole(Identity([DIALER; 16])), "the dialer's memory was made anew");
    assert_eq!(value(SESSIONS, b"client").as_deref(), Some(b"server".as_slice()));
    // Comparing.
    assert_eq!(value(PLAIN, b"of the gone").as_deref(), Some(b"v".as_slice()));
    assert_eq!(value(PLAIN, b"deleted at the dialer"), None);
    assert_eq!((zone(PLAIN).stats().mended, zone(PLAIN).stats().retired), (1, 1));
    for (at, sync) in node.zones.iter().enumerate() {
        assert_eq!((at, sync.zone.stats().comparisons.ended), (at, 1), "{}", sync.name);
    }
}

/// The same without comparing, where there is an own share to add it to.
#[test]
fn what_the_dialer_had_admitted_counts_with_what_this_node_has() {
    let node = dialled();
    let limits = node.zones[LIMITS].zone;
    limits.admit(b"client", RATE, None, LONG_AGO).unwrap();
    let (mut pull, mut out, mut now) = (Pull::new(node, 1, NOW), Vec::new(), NOW);
    let is_compared = |bytes: &[u8]| matches!(bytes[4], kind::DIGESTS | kind::VERSIONS | kind::LISTED | kind::SENT);
    for bytes in recorded("dialer").into_iter().filter(|bytes| !is_compared(bytes)) {
        now += 20;
        pull.tick(&mut out, now).unwrap();
        pull.handle(&bytes, &mut out, now).unwrap();
    }
    let held = limits.limited(b"client", RATE, now).unwrap();
    assert!((4_001..=5_000).contains(&held), "five requests of three nodes: {held}");
}

#[test]
fn what_the_dialled_node_said_of_all_kinds_is_understood() {
    let mut push = Push::new(dialer(), 1, NOW);
    let said = answer(&mut push, recorded("dialled"));
    assert_eq!(push.left_out().collect::<Vec<_>>(), [FULL], "the peer has no room");
    // To the same questions the same answers: who compares with a node of that time finds what differs, and nothing else.
    let answers = |frames: Vec<Vec<u8>>| {
        let is_answer = |frame: &Vec<u8>| matches!(frame[4], kind::DIGESTS | kind::VERSIONS | kind::SENT);
        let mut answers: Vec<_> = frames.into_iter().filter(is_answer).collect();
        answers.sort_unstable();
        answers
    };
    assert_eq!(answers(said), answers(recorded("dialer")));
}
