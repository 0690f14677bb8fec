//! Whatever arrives: an error or nothing, no panic, bounded memory, and no change of a zone.

use super::super::frame::{self, frame};
use super::super::message::{self, Hello, Mode, kind};
use super::super::{Node, Pull, Push, SessionError, write};
use super::{NOW, contents, limits, node, set};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::Matching;
use proptest::prelude::*;

const PEER: Identity = Identity([9; 16]);

fn hello() -> Hello {
    Hello { lowest: 1, highest: 1, identity: PEER, now: NOW, bound: 32_768 }
}

fn greeting() -> Vec<u8> {
    let mut bytes = Vec::new();
    write::hello(&mut bytes, &hello());
    bytes
}

/// A hello and a zone, after which records are expected.
fn opening() -> Vec<u8> {
    let mut bytes = greeting();
    write::zone(&mut bytes, 0, Matching::Exact, false, "z");
    bytes
}

fn records(zone: u64, epoch: u64, origin: Option<u64>, key: &[u8], stamp: u64) -> Vec<u8> {
    let version = Version { stamp: Stamp(stamp), origin: PEER };
    let record = Record { kind: Kind::Register, version, key, value: Some(b"v"), expires: None, shortened: false };
    let mut bytes = Vec::new();
    frame(&mut bytes, kind::RECORDS, |out| {
        write::put_records_head(out, zone, epoch);
        write::put_record(out, &record, origin);
    });
    bytes
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, kind, |out| out.extend_from_slice(body));
    bytes
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

/// The stamp of a record that was written now.
const STAMP: u64 = NOW << 16;

/// In the worst order, as each goes before all that are there. What a session keeps of a zone is what a zone can hold,
/// so this is milliseconds, and not seconds of a worker's time.
#[test]
fn a_flood_of_origins_costs_little() {
    let (_, mut pull) = open();
    let entry =
        |n: u128| message::Entry { identity: Identity(n.to_be_bytes()), stamp: Stamp(1), gone: true, anew: false };
    let entries: Vec<_> = (1..=65_536).rev().map(entry).collect();
    let flood = written(|out| write::have(out, 32_768, 0, &entries));
    let began = std::time::Instant::now();
    pull.handle(&flood, &mut Vec::new(), NOW).unwrap();
    assert!(began.elapsed().as_millis() < 300, "{:?}", began.elapsed());
}

#[test]
fn the_opening_that_the_other_tests_spoil_is_a_good_one() {
    let node = node(1, &["z"], limits());
    let mut pull = Pull::new(node.clone(), 1, NOW);
    let mut out = Vec::new();
    pull.handle(&joined(&[&opening(), &[]]), &mut out, NOW).unwrap();
    pull.handle(&records(0, 1, None, b"k", STAMP), &mut out, NOW).unwrap();
    assert_eq!(contents(&node.zones[0].zone, NOW).len(), 1);
}

#[test]
fn what_is_out_of_place_ends_the_session_and_changes_nothing() {
    let future = |bytes: &mut Vec<u8>| write::hello(bytes, &Hello { lowest: 7, highest: 9, ..hello() });
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("not a hello", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("an empty frame", vec![0; 8]),
        ("a huge frame", vec![0xff, 0xff, 0xff, 0x7f, 1]),
        ("another magic", raw(kind::HELLO, &[b'x'; 40])),
        ("a short hello", raw(kind::HELLO, b"zonemesh\x01\x00")),
        ("a later version", written(future)),
        ("a bound of nothing", written(|out| write::hello(out, &Hello { bound: 10, ..hello() }))),
        ("an identity of zeros", written(|out| write::hello(out, &Hello { identity: Identity([0; 16]), ..hello() }))),
        ("records before the hello", records(0, 1, None, b"k", STAMP)),
        ("a ping before the hello", written(|out| write::ping(out, 1))),
        ("two hellos", joined(&[&greeting(), &greeting()])),
        ("an unknown type", joined(&[&greeting(), &raw(0x20, b"")])),
        ("a frame above the announced bound", joined(&[&greeting(), &40_000u32.to_le_bytes()])),
        ("records of no zone", joined(&[&greeting(), &records(0, 1, None, b"k", STAMP)])),
        ("records of another zone", joined(&[&opening(), &records(5, 1, None, b"k", STAMP)])),
        ("records of a later epoch", joined(&[&opening(), &records(0, 2, None, b"k", STAMP)])),
        ("records of epoch zero", joined(&[&opening(), &records(0, 0, None, b"k", STAMP)])),
        ("records in the call of the zone", joined(&[&opening(), &records(0, 1, None, b"k", STAMP)])),
        ("an origin that was not defined", joined(&[&opening(), &records(0, 1, Some(3), b"k", STAMP)])),
        ("an empty key", joined(&[&opening(), &records(0, 1, None, b"", STAMP)])),
        ("no stamp", joined(&[&opening(), &records(0, 1, None, b"k", 0)])),
        ("a record cut short", joined(&[&opening(), &raw(kind::RECORDS, &[0, 1, 1, 4, 0])])),
        ("an origin's number", joined(&[&opening(), &written(|out| write::origin(out, 1 << 40, PEER))])),
        (
            "a zone's number",
            joined(&[&greeting(), &written(|out| write::zone(out, 1 << 40, Matching::Exact, false, "z"))]),
        ),
        (
            "two numbers for a zone",
            joined(&[&opening(), &written(|out| write::zone(out, 1, Matching::Exact, false, "z"))]),
        ),
        (
            "two zones for a number",
            joined(&[&opening(), &written(|out| write::zone(out, 0, Matching::Exact, false, "y"))]),
        ),
        ("a part that was not begun", {
            joined(&[&opening(), &written(|out| write::chunk(out, 0, 1, false, false, 9, b"x"))])
        }),
        ("a part of too much", {
            joined(&[&opening(), &written(|out| write::chunk(out, 0, 1, true, false, 1 << 40, b"x"))])
        }),
        ("parts that don't add up", {
            joined(&[&opening(), &written(|out| write::chunk(out, 0, 1, true, true, 9, b"x"))])
        }),
        ("a part of another record", {
            let first = written(|out| write::chunk(out, 0, 1, true, false, 9, b"x"));
            joined(&[&opening(), &first, &written(|out| write::chunk(out, 0, 1, false, false, 8, b"x"))])
        }),
        ("a position of a later epoch", {
            joined(&[&opening(), &written(|out| write::position(out, 1024, 0, 3, true, &[], Stamp::ZERO))])
        }),
        ("an emptying of no zone", joined(&[&greeting(), &written(|out| write::clear(out, 0, Stamp(STAMP)))])),
        ("what one has of no zone", joined(&[&greeting(), &written(|out| write::have(out, 1024, 0, &[]))])),
        ("a subscription", {
            let empty = |out: &mut Vec<u8>| write::subscribe(out, 1024, 0, 1, Mode::Full, Stamp::ZERO, &[]);
            joined(&[&opening(), &written(empty)])
        }),
        ("an acknowledgement", joined(&[&opening(), &written(|out| write::ack(out, 0, 1, Stamp(1), false))])),
        ("a refusal", joined(&[&opening(), &written(|out| write::refuse(out, 0, "no"))])),
    ];
    let node = node(1, &["y", "z"], limits());
    for (name, bytes) in &bad {
        for piece in [1, 7, bytes.len()] {
            let mut pull = Pull::new(node.clone(), 1, NOW);
            let mut out = Vec::new();
            let error = bytes.chunks(piece).find_map(|part| pull.handle(part, &mut out, NOW).err());
            // In pieces the zone's subscription is on its way before the record comes: a matter of time, not of order.
            if *name == "records in the call of the zone" && error.is_none() {
                node.zones[1].zone.clear(NOW).unwrap();
                continue;
            }
            assert!(matches!(error, Some(SessionError::Protocol(_))), "{name}: {error:?}");
            assert!(pull.handle(b"more", &mut out, NOW).is_err(), "{name}: the session is over");
            pull.close(&mut out, "");
            assert!(out.len() < 1_000, "{name}");
        }
        for zone in node.zones.iter() {
            assert_eq!(contents(&zone.zone, NOW), [], "{name}");
        }
    }
}

#[test]
fn a_dialler_ends_the_session_too() {
    let subscribe =
        |zone, epoch| move |out: &mut Vec<u8>| write::subscribe(out, 1024, zone, epoch, Mode::Own, Stamp::ZERO, &[]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("not a hello", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
        ("a subscription before the hello", written(subscribe(0, 1))),
        ("a subscription of no zone", joined(&[&greeting(), &written(subscribe(7, 1))])),
        ("an epoch that doesn't rise", joined(&[&greeting(), &written(subscribe(0, 1)), &written(subscribe(0, 1))])),
        ("an unknown mode", joined(&[&greeting(), &raw(kind::SUBSCRIBE, &[0, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])])),
        (
            "an acknowledgement too early",
            joined(&[&greeting(), &written(|out| write::ack(out, 0, 5, Stamp(9), false))]),
        ),
        ("records", joined(&[&greeting(), &records(0, 1, None, b"k", STAMP)])),
        (
            "a huge list",
            joined(&[&greeting(), &raw(kind::SUBSCRIBE, &[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x7f])]),
        ),
    ];
    for (name, bytes) in &bad {
        let node = node(1, &["z"], limits());
        let mut push = Push::new(node.clone(), 1, NOW);
        let mut out = Vec::new();
        let mut error = None;
        // The hello first, so that the zone is announced before the rest comes.
        let (first, rest) = bytes.split_at(bytes.len().min(greeting().len()));
        for part in [first, rest] {
            error = error.or(push.handle(part, NOW).err());
            if error.is_none() {
                push.fill(&mut out, 1 << 16, NOW).unwrap();
            }
        }
        assert!(matches!(error, Some(SessionError::Protocol(_))), "{name}: {error:?}");
        push.close(&mut out, "");
        assert!(push.fill(&mut out, 1 << 16, NOW).is_err());
    }
}

#[test]
fn a_node_recognises_itself() {
    let node = node(1, &["z"], limits());
    let mut push = Push::new(node.clone(), 1, NOW);
    let mut pull = Pull::new(node.clone(), 1, NOW);
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    push.fill(&mut forth, 1 << 16, NOW).unwrap();
    assert!(matches!(pull.handle(&forth, &mut back, NOW), Err(SessionError::Itself)));
    assert!(matches!(push.handle(&back, NOW), Err(SessionError::Itself)));
}

#[test]
fn a_later_version_with_more_fields_and_messages_is_talked_to() {
    let node = node(1, &["z"], limits());
    let mut pull = Pull::new(node.clone(), 1, NOW);
    let mut first = written(|out| write::hello(out, &Hello { highest: 40, ..hello() }));
    first.extend_from_slice(b"fields of later");
    frame::end(&mut first, 0);
    let mut bytes = joined(&[&first, &raw(0x91, b"a message of later")]);
    write::zone(&mut bytes, 0, Matching::Exact, false, "z");
    let mut out = Vec::new();
    pull.handle(&bytes, &mut out, NOW).unwrap();
    assert!(pull.established());
    pull.handle(&records(0, 1, None, b"k", STAMP), &mut out, NOW).unwrap();
    assert_eq!(contents(&node.zones[0].zone, NOW).len(), 1);
}

#[test]
fn who_says_nothing_or_only_drips_is_closed_in_time() {
    let node = node(1, &["z"], limits());
    let mut pull = Pull::new(node, 1, NOW);
    let mut out = Vec::new();
    for (at, byte) in greeting().iter().enumerate() {
        if let Err(error) = pull.handle(&[*byte], &mut out, NOW + at as u64 * 1_000) {
            panic!("{error}");
        }
        let ticked = pull.tick(&mut out, NOW + at as u64 * 1_000);
        if at > 5 {
            assert!(matches!(ticked, Err(SessionError::Silent(5_000))));
            assert_eq!(out, b"", "nothing is told to who said nothing");
            return;
        }
    }
    panic!("it was let in");
}

/// A node and a session on which a peer has said hello and whose zone is subscribed.
fn open() -> (Node, Pull) {
    let node = node(1, &["z"], limits());
    let mut pull = Pull::new(node.clone(), 1, NOW);
    pull.handle(&opening(), &mut Vec::new(), NOW).unwrap();
    (node, pull)
}

/// It would cover all that the origin writes from now on: nobody would send it any more, and comparing would take it for
/// deleted.
#[test]
fn a_position_from_the_future_is_believed_up_to_the_allowed_drift() {
    let (node, mut pull) = open();
    let third = Identity([7; 16]);
    let entry = |identity, millis| message::Entry { identity, stamp: Stamp::at(millis), gone: false, anew: false };
    let latest = NOW + limits().max_drift;
    let told = [entry(PEER, NOW * 2), entry(third, latest + 1)];
    pull.handle(&written(|out| write::position(out, 1024, 0, 1, false, &told, Stamp(u64::MAX))), &mut Vec::new(), NOW)
        .unwrap();
    for identity in [PEER, third] {
        assert_eq!(node.zones[0].zone.position(identity), Stamp::at(latest));
    }
    assert_eq!(node.zones[0].zone.doubted(), Stamp::at(latest), "nor is more of it in doubt");
}

/// Of an origin that makes way for another all is forgotten, so peers push out few in a minute, and not thousands.
#[test]
fn origins_that_are_made_up_push_out_few_that_are_there() {
    for anew in [false, true] {
        made_up_origins(anew);
    }
}

/// `anew`: the peer says of each that its memory was made anew.
fn made_up_origins(anew: bool) {
    let (node, mut pull) = open();
    let zone = &node.zones[0].zone;
    let entry = |n: u128| message::Entry {
        identity: Identity((n + 1).to_be_bytes()),
        stamp: Stamp(STAMP + n as u64),
        gone: false,
        anew,
    };
    let flood = |from, to| {
        let entries: Vec<_> = (from..to).map(entry).collect();
        written(|out| write::position(out, 32_768, 0, 1, false, &entries, Stamp::ZERO))
    };
    pull.handle(&flood(0, 5_000), &mut Vec::new(), NOW).unwrap();
    let known = zone.positions().len() as u128;
    assert!((30..5_000).contains(&known), "{known}");
    let there = |n| zone.position(entry(n).identity) > Stamp::ZERO;
    let first = || (0..known).filter(|n| there(*n)).count() as u128;
    assert!(first() + 1 >= known, "{} of the first {known} origins are left", first());
    while zone.find_idle_origins(NOW, 1_000) > 0 {}
    pull.handle(&flood(5_000, 10_000), &mut Vec::new(), NOW).unwrap();
    let most = known / 16 + 1;
    assert!(first() + 1 + most >= known && !there(0), "{} of the first {known} origins are left", first());
    // What is further behind than all that may go is itself what would go next.
    let later = NOW + 60_000;
    pull.handle(&flood(0, 1), &mut Vec::new(), later).unwrap();
    assert!(!there(0));
    pull.handle(&flood(90_000, 90_001), &mut Vec::new(), later).unwrap();
    assert!(there(90_000), "a minute later there is room for another one");
}

/// Neither who stopped in the middle nor who lies may keep a node from joining.
#[test]
fn a_donor_that_sends_nothing_loses_the_claim() {
    let node = node(1, &["z"], limits());
    let joined = |identity| {
        let mut bytes = written(|out| write::hello(out, &Hello { identity, ..hello() }));
        write::zone(&mut bytes, 0, Matching::Exact, true, "z");
        bytes
    };
    let mut pulls = [Pull::new(node.clone(), 1, NOW), Pull::new(node.clone(), 2, NOW)];
    let mut outs = [Vec::new(), Vec::new()];
    pulls[0].handle(&joined(PEER), &mut outs[0], NOW).unwrap();
    pulls[1].handle(&joined(Identity([8; 16])), &mut outs[1], NOW).unwrap();
    let asks_for_all = |out: &[u8]| modes(out).contains(&(Mode::Full as u8));
    assert!(asks_for_all(&outs[0]) && !asks_for_all(&outs[1]));
    for now in (NOW..NOW + 12_000).step_by(100) {
        for (pull, out) in pulls.iter_mut().zip(&mut outs) {
            pull.handle(&written(|out| write::ping(out, now)), out, now).unwrap();
            pull.tick(out, now).unwrap();
        }
    }
    assert!(asks_for_all(&outs[1]), "the other one was never asked");
}

/// The modes of all subscriptions in these frames, whose numbers are below 128.
fn modes(mut frames: &[u8]) -> Vec<u8> {
    let mut modes = Vec::new();
    while let Some((prefix, rest)) = frames.split_first_chunk::<4>() {
        if rest[0] == kind::SUBSCRIBE {
            modes.push(rest[3]);
        }
        frames = &rest[u32::from_le_bytes(*prefix) as usize..];
    }
    modes
}

fn question(zone: u64) -> write::Question {
    write::Question { zone, round: 1, seed: [1; 16], bits: 16, until: Stamp(STAMP), ends: NOW, evicted: Stamp::ZERO }
}

/// A question of fifty bytes makes an answer of a megabyte: of many zones they are made one after the other.
#[test]
fn many_questions_at_once_are_answered_one_by_one() {
    let node = node(1, &["x", "y", "z"], limits());
    let mut push = Push::new(node, 1, NOW);
    let mut out = Vec::new();
    push.handle(&greeting(), NOW).unwrap();
    push.fill(&mut out, 1 << 20, NOW).unwrap();
    for zone in 0..3 {
        let asked = written(|out| {
            write::subscribe(out, 1024, zone, 1, Mode::Own, Stamp::ZERO, &[]);
            write::compare(out, &question(zone));
        });
        push.handle(&asked, NOW).unwrap();
    }
    let mut answered = Vec::new();
    for now in (NOW..NOW + 4_000).step_by(10) {
        if push.deadline() <= now {
            push.tick(now).unwrap();
        }
        loop {
            out.clear();
            push.fill(&mut out, 1 << 14, now).unwrap();
            if out.is_empty() {
                break;
            }
            answered.extend(kinds_and_firsts(&out));
        }
    }
    answered.retain(|(kind, _)| *kind == kind::DIGESTS);
    answered.dedup();
    assert_eq!(answered, [0, 1, 2].map(|zone| (kind::DIGESTS, zone)), "in turn, and each to its end");
    let list = |more| move |out: &mut Vec<u8>| frame(out, kind::LIST, |out| out.extend([0, 1, more, 1, 7, 0]));
    let twice = (0..70_000).flat_map(|_| written(list(1))).collect::<Vec<u8>>();
    assert!(push.handle(&twice, NOW + 4_000).is_err(), "a part is asked for again and again");
}

#[test]
fn a_zone_that_changes_all_the_time_keeps_no_other_from_being_answered() {
    let node = node(1, &["x", "y"], limits());
    let mut push = Push::new(node.clone(), 1, NOW);
    push.handle(&greeting(), NOW).unwrap();
    push.fill(&mut Vec::new(), 1 << 20, NOW).unwrap();
    for zone in 0..2 {
        let asked = written(|out| write::subscribe(out, 1024, zone, 1, Mode::Own, Stamp::ZERO, &[]));
        push.handle(&asked, NOW).unwrap();
    }
    let mut answered = |asked: Option<u64>, at: Millis, changes: bool| {
        if let Some(zone) = asked {
            push.handle(&written(|out| write::compare(out, &question(zone))), at).unwrap();
        }
        if changes {
            (0..50).for_each(|n| set(&node.zones[0].zone, &format!("key {n}"), &[1; 500], at));
            push.mark(0, node.zones[0].zone.take_dirty());
        }
        if push.deadline() <= at {
            push.tick(at).unwrap();
        }
        let mut out = Vec::new();
        push.fill(&mut out, 1 << 14, at).unwrap();
        let digests = kinds_and_firsts(&out).into_iter().filter(|(kind, _)| *kind == kind::DIGESTS);
        digests.map(|(_, zone)| zone).collect::<Vec<u8>>()
    };
    answered(None, NOW, false);
    answered(Some(0), NOW + 10, false);
    assert!((2..10).any(|n| answered(None, NOW + 10 * n, false).contains(&0)), "its answer is under way");
    answered(Some(1), NOW + 100, true);
    assert!((11..100).any(|n| answered(None, NOW + 10 * n, true).contains(&1)));
    assert!((100..400).any(|n| answered(None, NOW + 10 * n, false).contains(&0)), "and goes on later");
}

/// The type of each frame, and the first byte of its body.
fn kinds_and_firsts(mut frames: &[u8]) -> Vec<(u8, u8)> {
    let mut kinds = Vec::new();
    while let Some((prefix, rest)) = frames.split_first_chunk::<4>() {
        kinds.push((rest[0], rest[1]));
        frames = &rest[u32::from_le_bytes(*prefix) as usize..];
    }
    kinds
}

#[test]
fn a_peer_cannot_fill_the_memory() {
    // Zones that aren't there: each is refused, a few are logged, and there is an end.
    let (node, mut pull) = open();
    let mut out = Vec::new();
    for number in 1..message::MAX_ZONES {
        let name = format!("nothing of this name {number}");
        let zone = written(|out| write::zone(out, number, Matching::Exact, false, &name));
        pull.handle(&zone, &mut out, NOW).unwrap();
    }
    assert!(pull.notes().len() < 80);
    assert!(node.control.drifts().len() <= 64);
    let zone = written(|out| write::zone(out, message::MAX_ZONES, Matching::Exact, false, "one more"));
    assert!(pull.handle(&zone, &mut out, NOW).is_err());

    // Parts of a record that never ends.
    let (node, mut pull) = open();
    let first = written(|out| write::chunk(out, 0, 1, true, false, message::MAX_RECORD, &[0; 30_000]));
    let next = written(|out| write::chunk(out, 0, 1, false, false, message::MAX_RECORD, &[0; 30_000]));
    pull.handle(&first, &mut out, NOW).unwrap();
    let parts = (0..1_000).take_while(|_| pull.handle(&next, &mut out, NOW).is_ok()).count();
    assert!(parts * 30_000 < message::MAX_RECORD);
    assert_eq!(contents(&node.zones[0].zone, NOW), []);

    // Questions about ever more zones: those about the first are forgotten.
    let names: Vec<String> = (0..40).map(|zone| format!("z{zone}")).collect();
    let node = super::node(1, &names.iter().map(String::as_str).collect::<Vec<_>>(), limits());
    let mut push = Push::new(node, 1, NOW);
    push.handle(&greeting(), NOW).unwrap();
    push.fill(&mut Vec::new(), 1 << 20, NOW).unwrap();
    let hashes: Vec<u64> = (0..message::MAX_WANTED as u64).collect();
    for zone in 0..40 {
        let asked = written(|out| {
            write::subscribe(out, 1024, zone, 1, Mode::Own, Stamp::ZERO, &[]);
            write::compare(out, &question(zone));
            write::want(out, 1024, zone, 1, &hashes);
        });
        push.handle(&asked, NOW).unwrap();
        assert!(push.held().compared <= 2 * hashes.len(), "{} after {zone}", push.held().compared);
    }
    assert_eq!(push.held().compared, 2 * hashes.len(), "what is asked for at once is kept");

    // Pings without reading the answers: one answer a call, not one a ping.
    let (_, mut pull) = open();
    out.clear();
    let pings: Vec<u8> = (0..1_000).flat_map(|n| written(|out| write::ping(out, n))).collect();
    pull.handle(&pings, &mut out, NOW).unwrap();
    assert!(out.len() < 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600), greeted: bool) {
        let node = node(1, &["z"], limits());
        let mut bytes = bytes;
        if greeted {
            bytes.splice(0..0, greeting());
        }
        let mut pull = Pull::new(node.clone(), 1, NOW);
        let mut push = Push::new(node.clone(), 1, NOW);
        let mut out = Vec::new();
        push.fill(&mut out, 1 << 16, NOW).unwrap();
        for part in bytes.chunks(50) {
            let _ = pull.handle(part, &mut out, NOW);
            let _ = push.handle(part, NOW);
            let _ = push.fill(&mut out, 1 << 16, NOW);
        }
        prop_assert_eq!(contents(&node.zones[0].zone, NOW), []);
        prop_assert!(out.len() < 4_096);
    }

    /// A good conversation with bytes changed, left out or doubled: taken or refused, never a panic.
    #[test]
    fn a_spoilt_conversation_ends_or_goes_on(
        at in any::<proptest::sample::Index>(),
        byte: u8,
        how in 0u8..3,
        cut in any::<proptest::sample::Index>(),
    ) {
        let large = vec![b'x'; 5_000];
        let mut talk = written(|out| write::origin(out, 0, PEER));
        talk.extend(records(0, 1, None, b"a", STAMP));
        talk.extend(records(0, 1, Some(0), b"b", STAMP + 1));
        talk.extend(written(|out| write::chunk(out, 0, 1, true, false, 7_000, &large)));
        talk.extend(written(|out| write::clear(out, 0, Stamp(STAMP - 9))));
        talk.extend(written(|out| {
            let entry = message::Entry { identity: PEER, stamp: Stamp(STAMP + 1), gone: true, anew: false };
            write::position(out, 1024, 0, 1, true, &[entry], Stamp(STAMP));
            write::have(out, 1024, 0, &[entry]);
        }));
        let at = at.index(talk.len());
        match how {
            0 => talk[at] = byte,
            1 => _ = talk.remove(at),
            _ => talk.insert(at, byte),
        }
        let (_, mut pull) = open();
        let mut out = Vec::new();
        let (first, rest) = talk.split_at(cut.index(talk.len()));
        let _ = pull.handle(first, &mut out, NOW);
        let _ = pull.handle(rest, &mut out, NOW);
        let _ = pull.tick(&mut out, NOW + 20_000);
        pull.close(&mut out, "");
    }
}
