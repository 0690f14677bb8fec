//! One pair of sessions, wired to each other.

use super::super::frame::Input;
use super::super::message::{self, Message, kind};
use super::super::session::Heard;
use super::super::{Limits, Node, NoteLevel, Pull, Push, SessionError, SyncZone};
use super::{NOW, contents, limits, node, region, set};
use crate::record::{Identity, Millis, Stamp};
use crate::store::{Lacks, Life, Matching, Missing, Params, Traffic, Zone};

/// After so many milliseconds at most what was received is acknowledged.
const ACKNOWLEDGED: Millis = 5;

/// A dialer and a dialled node, with nothing between them.
pub struct Pair {
    pub push: Push,
    pub pull: Pull,
    /// Types of the frames that the dialer sent.
    sent: Vec<u8>,
    /// Records that it sent, but for those in parts.
    pub records: usize,
    /// The last turn moved nothing, either way.
    quiet: bool,
}

impl Pair {
    pub fn new(dialer: &Node, dialled: &Node, now: Millis) -> Pair {
        Pair {
            push: Push::new(dialer.clone(), 1, now),
            pull: Pull::new(dialled.clone(), 1, now),
            sent: Vec::new(),
            records: 0,
            quiet: false,
        }
    }

    /// One turn: what the dialer has to send, at most `budget`, and the answer. Returns the bytes sent.
    fn turn(&mut self, budget: usize, now: Millis) -> usize {
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        if self.push.deadline() <= now {
            self.push.tick(now).unwrap();
        }
        self.push.fill(&mut forth, budget, now).unwrap();
        self.sent.extend(types(&forth));
        self.records += records(&forth);
        self.pull.handle(&forth, &mut back, now).unwrap();
        if self.pull.deadline() <= now {
            self.pull.tick(&mut back, now).unwrap();
        }
        self.push.handle(&back, now).unwrap();
        self.quiet = forth.is_empty() && back.is_empty();
        forth.len()
    }

    /// Turns until nothing is left to send.
    pub fn run(&mut self, now: Millis) {
        for _ in 0..100_000 {
            self.turn(64 * 1024, now);
            if self.quiet && self.push.deadline() > now && self.pull.deadline() > now {
                return;
            }
        }
        panic!("the dialer goes on sending");
    }

    pub fn count(&self, kind: u8) -> usize {
        self.sent.iter().filter(|sent| **sent == kind).count()
    }
}

/// Frames without those of one type.
pub fn without(mut frames: &[u8], left_out: u8) -> Vec<u8> {
    let mut input = Input::new(usize::MAX);
    let mut kept = Vec::new();
    while let Some((kind, body)) = input.next(&mut frames).unwrap() {
        if kind != left_out {
            super::super::frame::frame(&mut kept, kind, |out| out.extend_from_slice(body));
        }
    }
    kept
}

fn types(mut frames: &[u8]) -> Vec<u8> {
    let mut input = Input::new(usize::MAX);
    let mut types = Vec::new();
    while let Some((kind, _)) = input.next(&mut frames).unwrap() {
        types.push(kind);
    }
    types
}

fn records(mut frames: &[u8]) -> usize {
    let mut input = Input::new(usize::MAX);
    let mut count = 0;
    while let Some((kind, body)) = input.next(&mut frames).unwrap() {
        let Message::Records { mut records, .. } = message::decode(kind, body).unwrap() else { continue };
        while !records.is_empty() {
            message::decode_record(&mut records, Identity([1; 16]), |_| Some(Identity([1; 16]))).unwrap();
            count += 1;
        }
    }
    count
}

pub fn mark(push: &mut Push, node: &Node) {
    for (at, zone) in node.zones.iter().enumerate() {
        push.mark(at, zone.zone.take_dirty());
    }
}

#[test]
fn writes_deletes_and_emptyings_arrive_and_are_acknowledged() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    set(&from, "before", b"1", NOW);
    let mut pair = Pair::new(&a, &b, NOW);
    assert!(!pair.push.flushed());
    pair.run(NOW);
    assert_eq!(contents(&to, NOW), [(b"before".to_vec(), b"1".to_vec())]);
    assert!(!pair.push.flushed(), "the acknowledgement waits for more");
    pair.run(NOW + ACKNOWLEDGED);
    assert!(pair.push.flushed());

    let now = NOW + 100;
    set(&from, "after", b"2", now);
    from.delete(b"before", now).unwrap();
    mark(&mut pair.push, &a);
    assert!(!pair.push.flushed());
    assert_eq!(pair.push.pending(0), 2);
    pair.run(now);
    assert_eq!(contents(&to, now), [(b"after".to_vec(), b"2".to_vec())]);
    pair.run(now + ACKNOWLEDGED);
    assert!(pair.push.flushed());
    assert_eq!(pair.push.pending(0), 0);

    let now = NOW + 200;
    from.clear(now).unwrap();
    mark(&mut pair.push, &a);
    assert!(!pair.push.flushed());
    pair.run(now);
    assert_eq!(contents(&to, now), []);
    pair.run(now + ACKNOWLEDGED);
    assert!(pair.push.flushed());
}

#[test]
fn a_reconnect_costs_what_was_missed() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let from = a.zones[0].zone;
    (0..500).for_each(|n| set(&from, &format!("key {n}"), &[7; 100], NOW));
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert!(pair.count(kind::RECORDS) > 10);
    pair.push.close(&mut Vec::new(), "");
    set(&from, "missed", b"1", NOW + 1);
    let mut pair = Pair::new(&a, &b, NOW + 1);
    pair.run(NOW + 1);
    assert_eq!(pair.count(kind::RECORDS), 1);
    assert_eq!(contents(&b.zones[0].zone, NOW).len(), 501);
}

#[test]
fn a_hot_key_is_sent_at_the_pace_of_the_connection() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let before = a.control.counter(crate::store::control::Counter::MsgsOut);
    (0..1_000).for_each(|n: u32| set(&a.zones[0].zone, "hot", &n.to_le_bytes(), NOW));
    mark(&mut pair.push, &a);
    let sent = pair.turn(64 * 1024, NOW);
    assert!(sent < 300, "{sent} bytes for one key");
    pair.run(NOW);
    assert_eq!(contents(&b.zones[0].zone, NOW), [(b"hot".to_vec(), 999u32.to_le_bytes().to_vec())]);
    assert!(a.control.counter(crate::store::control::Counter::MsgsOut) - before <= 4);
}

#[test]
fn budget_frame_and_window_bound_what_is_sent_at_once() {
    let small = Limits { frame_size: 2_048, window: 8_192, ..limits() };
    let (a, b) = (node(1, &["z"], small), node(2, &["z"], limits()));
    (0..1_000).for_each(|n| set(&a.zones[0].zone, &format!("key {n}"), &[7; 150], NOW));
    let mut pair = Pair::new(&a, &b, NOW);
    while pair.count(kind::POSITION) == 0 {
        let budget = 5_000;
        let mut out = Vec::new();
        pair.push.fill(&mut out, budget, NOW).unwrap();
        assert!(out.len() <= budget + 2_048 + 64, "{} bytes for {budget}", out.len());
        assert!(pair.turn(1 << 20, NOW) <= 8_192 + 2_048 + 64);
        let mut back = Vec::new();
        pair.pull.handle(&out, &mut back, NOW).unwrap_or(());
        pair.push.handle(&back, NOW).unwrap_or(());
        pair.sent.extend(types(&out));
    }
    // What the peer accepts bounds frames too.
    let narrow = Limits { recv_buffer: 1_500, ..limits() };
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], narrow));
    set(&a.zones[0].zone, "large", &vec![9; 100_000], NOW);
    (0..100).for_each(|n| set(&a.zones[0].zone, &format!("key {n}"), &[7; 150], NOW));
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert!(pair.count(kind::CHUNK) > 60);
    assert_eq!(contents(&b.zones[0].zone, NOW), contents(&a.zones[0].zone, NOW));
}

#[test]
fn each_zone_gets_its_turn() {
    let names = ["a", "b", "c"];
    let (a, b) = (node(1, &names, limits()), node(2, &names, limits()));
    for zone in a.zones.iter() {
        (0..1_000).for_each(|n| set(&zone.zone, &format!("key {n}"), &[7; 100], NOW));
    }
    let mut pair = Pair::new(&a, &b, NOW);
    pair.turn(1 << 20, NOW);
    pair.turn(1 << 20, NOW);
    pair.turn(16 * 1024, NOW);
    for zone in b.zones.iter() {
        assert!(contents(&zone.zone, NOW).len() > 20, "zone {} got nothing", zone.name);
    }
    pair.run(NOW);
    for (here, there) in a.zones.iter().zip(b.zones.iter()) {
        assert_eq!(contents(&here.zone, NOW), contents(&there.zone, NOW));
    }
}

#[test]
fn a_zone_that_the_peer_lacks_is_one_line_on_both_sides() {
    let (a, b) = (node(1, &["both", "only here"], limits()), node(2, &["both"], limits()));
    set(&a.zones[0].zone, "k", b"v", NOW);
    set(&a.zones[1].zone, "k", b"v", NOW);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert_eq!(contents(&b.zones[0].zone, NOW).len(), 1);
    pair.run(NOW + ACKNOWLEDGED);
    assert!(pair.push.flushed());
    for notes in [pair.push.notes(), pair.pull.notes()] {
        let lines: Vec<_> = notes.iter().filter(|note| note.text.contains("\"only here\"")).collect();
        assert_eq!(lines.len(), 1, "{notes:?}");
    }
}

#[test]
fn who_joins_takes_one_full_state_and_only_the_rest_from_others() {
    let lims = limits();
    let (old, other, new) = (node(1, &["z"], lims), node(2, &["z"], lims), node(3, &["z"], lims));
    old.zones[0].zone.set_joined();
    other.zones[0].zone.set_joined();
    (0..300).for_each(|n| set(&other.zones[0].zone, &format!("key {n}"), &[7; 100], NOW));
    Pair::new(&other, &old, NOW).run(NOW);
    let mut from_old = Pair::new(&old, &new, NOW);
    let mut from_other = Pair { pull: Pull::new(new.clone(), 2, NOW), ..Pair::new(&other, &new, NOW) };
    // Both have announced; the first has the claim, the second waits.
    for _ in 0..3 {
        from_old.turn(200, NOW);
        from_other.turn(200, NOW);
    }
    assert!(!new.zones[0].zone.joined());
    assert_eq!(from_other.count(kind::RECORDS), 0);
    from_old.run(NOW);
    assert!(new.zones[0].zone.joined());
    let later = NOW + 250;
    from_other.run(later);
    assert_eq!(from_other.count(kind::RECORDS), 0, "the first has given it all");
    assert_eq!(from_other.count(kind::POSITION), 1);
    assert_eq!(contents(&new.zones[0].zone, NOW).len(), 300);
}

#[test]
fn in_a_young_cluster_too_who_joins_takes_one_copy() {
    let lims = limits();
    let (writer, other, new) = (node(1, &["z"], lims), node(2, &["z"], lims), node(3, &["z"], lims));
    (0..300).for_each(|n| set(&writer.zones[0].zone, &format!("key {n}"), &[7; 100], NOW));
    Pair::new(&writer, &other, NOW).run(NOW);
    let mut from_writer = Pair::new(&writer, &new, NOW);
    let mut from_other = Pair { pull: Pull::new(new.clone(), 2, NOW), ..Pair::new(&other, &new, NOW) };
    // Nobody has joined, so each is asked for what it wrote itself.
    for _ in 0..6 {
        from_writer.turn(200, NOW);
        from_other.turn(200, NOW);
    }
    assert!(from_writer.count(kind::RECORDS) > 0 && from_writer.count(kind::POSITION) == 0, "in the midst of it");
    // Now others have, and say so.
    for node in [&writer, &other] {
        node.zones[0].zone.set_joined();
    }
    for at in (NOW..NOW + 15_000).step_by(100) {
        // The writer is slow: a frame now and then.
        if at % 500 == 0 {
            from_writer.turn(1, at);
        }
        from_other.turn(4_096, at);
    }
    assert!(new.zones[0].zone.joined());
    assert_eq!(contents(&new.zones[0].zone, NOW).len(), 300);
    let sent = from_writer.records + from_other.records;
    assert!(sent < 330, "{sent} records were sent, where 300 are a copy");
}

#[test]
fn who_joins_for_long_says_each_ten_seconds_how_far_it_is() {
    let (old, new) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    old.zones[0].zone.set_joined();
    (0..2_000).for_each(|n| set(&old.zones[0].zone, &format!("key {n}"), &[7; 100], NOW));
    let mut pair = Pair::new(&old, &new, NOW);
    let (mut at, mut told) = (NOW, Vec::new());
    while !new.zones[0].zone.joined() {
        // A frame at a time.
        pair.turn(1, at);
        told.extend(pair.pull.notes().into_iter().map(|note| (at, note)));
        at += 500;
    }
    assert!(at < NOW + 60_000, "it took {} ms", at - NOW);
    let texts: Vec<_> = told.iter().map(|(_, note)| note.text.as_str()).collect();
    let peer = Identity([1; 16]);
    assert_eq!(texts[0], format!("zone \"z\" joins: it takes the full state of node {peer}"));
    assert!(texts[texts.len() - 1].starts_with("zone \"z\" has joined: "), "{texts:?}");
    let progress = &told[1..told.len() - 1];
    assert!(progress.len() > 1, "{texts:?}");
    let mut before = (NOW, 0);
    for (at, note) in progress {
        let rest = format!(" of about 2000 records of the full state of node {peer} are here");
        let taken = note.text.strip_prefix("zone \"z\" joins: ").and_then(|text| text.strip_suffix(&rest));
        let taken: u64 = taken.and_then(|taken| taken.parse().ok()).unwrap_or_else(|| panic!("{note:?}"));
        assert!(note.level == NoteLevel::Notice && taken > before.1 && taken < 2_000, "{note:?}");
        assert!((10_000..15_000).contains(&(at - before.0)), "told at {at}, and before at {}", before.0);
        before = (*at, taken);
    }
}

#[test]
fn a_record_from_the_future_is_offered_again() {
    let strict = Limits { max_drift: 1_000, ..limits() };
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], strict));
    b.zones[0].zone.set_joined();
    set(&a.zones[0].zone, "k", b"v", NOW + 3_000);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert_eq!(contents(&b.zones[0].zone, NOW), []);
    assert_eq!(b.zones[0].zone.position(a.control.identity()).0, 0, "the position is held back");
    assert!(!pair.push.flushed());
    for step in 1..80 {
        pair.run(NOW + step * 100);
    }
    assert_eq!(contents(&b.zones[0].zone, NOW + 8_000).len(), 1);
    assert!(pair.push.flushed());
}

#[test]
fn what_goes_on_from_a_position_that_was_taken_back_promises_nothing() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (here, there, origin) = (a.zones[0].zone, b.zones[0].zone, Identity([1; 16]));
    here.set_joined();
    set(&here, "old", b"1", NOW);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert!(there.position(origin) >= Stamp::at(NOW));
    // As if it had found no room, and nobody could tell.
    there.made_up(&Lacks::default(), &[], &[origin]);
    set(&here, "new", b"2", NOW + 10);
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert_eq!(contents(&there, NOW).len(), 2, "records are true all the same");
    assert_eq!(there.position(origin), Stamp::ZERO);
    // All of it is asked for again.
    for at in (NOW + 100..NOW + 3_000).step_by(100) {
        pair.run(at);
    }
    assert!(there.position(origin) >= Stamp::at(NOW + 10));
}

#[test]
fn a_silent_peer_ends_the_session_and_signs_of_life_keep_it() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let mut pair = Pair::new(&a, &b, NOW);
    for step in 0..100 {
        let now = NOW + step * 1_000;
        pair.turn(1 << 16, now);
    }
    assert!(pair.count(kind::PING) > 10);
    let now = NOW + 99_000;
    let (at, error) = ticked(now, Push::is_due, Push::tick, &mut pair.push);
    assert!(matches!(error, SessionError::Silent(5_000)) && at == now + 5_001, "{error} at {at}");
    let (at, error) = ticked(now, Pull::is_due, |pull, at| pull.tick(&mut Vec::new(), at), &mut pair.pull);
    assert!(matches!(error, SessionError::Silent(5_000)) && at == now + 5_001, "{error} at {at}");
}

/// Ticks whenever that is due, each millisecond from `now` on, as long as it goes well: when it didn't, and why.
fn ticked<T>(
    now: Millis,
    is_due: impl Fn(&T, Millis) -> bool,
    tick: impl Fn(&mut T, Millis) -> Result<(), SessionError>,
    session: &mut T,
) -> (Millis, SessionError) {
    let mut ended = (now..now + 60_000).filter_map(|at| match is_due(session, at) {
        true => tick(session, at).err().map(|error| (at, error)),
        false => None,
    });
    ended.next().expect("silence ends a session")
}

#[test]
fn a_clock_that_is_set_ends_no_session_and_keeps_no_silent_one() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    for jump in [-3_600_000, 3_600_000] {
        let mut pair = Pair::new(&a, &b, NOW);
        pair.run(NOW);
        let then = NOW.saturating_add_signed(jump);
        pair.run(then);
        let (push, pull) = (&mut pair.push, &mut pair.pull);
        // Once more, and then nothing is heard.
        let set = then.saturating_add_signed(jump);
        let (at, error) = ticked(set, Push::is_due, Push::tick, push);
        assert!(
            matches!(error, SessionError::Silent(5_000)) && (set + 2_000..set + 5_002).contains(&at),
            "{error} at {at}"
        );
        let (at, error) = ticked(set, Pull::is_due, |pull, at| pull.tick(&mut Vec::new(), at), pull);
        assert!(
            matches!(error, SessionError::Silent(5_000)) && (set + 2_000..set + 5_002).contains(&at),
            "{error} at {at}"
        );
    }
}

#[test]
fn a_stuck_output_is_not_asked_for_again_and_again() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let now = pair.push.deadline();
    assert!(now > NOW);
    pair.push.tick(now).unwrap();
    assert!(pair.push.deadline() > now, "nothing was sent, and nothing could be");
    pair.turn(1 << 16, now);
    assert!(pair.count(kind::PING) == 2 && pair.push.deadline() > now);
}

#[test]
fn what_merging_makes_for_others_is_told_them_at_once() {
    let node_of = |number: u8, matching| {
        let identity = Identity([number; 16]);
        let params = Params { sync: true, matching, rate: 1_000, ..Params::new(identity) };
        let zone = Zone::create_with(region(512 * 1024), &params, [number; 16]).unwrap();
        Node { zones: [SyncZone { name: "z".into(), zone }].into(), ..node(number, &[], limits()) }
    };
    type Act = fn(&Node);
    let count: Act = |node| {
        node.zones[0].zone.count(b"key", 1, Missing::Begin(0, Life::Default), NOW).unwrap();
    };
    let admit: Act = |node| {
        (0..50).for_each(|_| _ = node.zones[0].zone.admit(b"key", 1_000, None, NOW).unwrap());
    };
    // Both have a part. Then one sets the counter, which ends the other's part; or as many requests come there as have come here.
    let cases: [(Matching, Act, Act); 2] = [
        (Matching::Counter, count, |near| set(&near.zones[0].zone, "key", b"7", NOW + 10)),
        (Matching::Limit, admit, |_| ()),
    ];
    for (matching, write, after) in cases {
        let (near, far) = (node_of(1, matching), node_of(2, matching));
        let mut pair = Pair::new(&near, &far, NOW);
        pair.run(NOW + 1);
        far.control.sleeping();
        far.zones[0].zone.take_dirty();
        pair.run(NOW + 2);
        assert!(!far.must_tell(), "{matching:?}");
        write(&far);
        write(&near);
        far.zones[0].zone.take_dirty();
        after(&near);
        mark(&mut pair.push, &near);
        pair.run(NOW + 20);
        assert!(far.must_tell(), "{matching:?}");
        far.control.awake();
        assert!(!far.must_tell(), "who is awake looks before it sleeps");
    }
}

#[test]
fn an_emptying_of_another_node_is_passed_on_at_once() {
    let [near, far, third] = [1, 2, 3].map(|number| node(number, &["z"], limits()));
    set(&far.zones[0].zone, "k", b"v", NOW);
    let (mut pair, mut onwards) = (Pair::new(&near, &far, NOW), Pair::new(&far, &third, NOW));
    pair.run(NOW + 1);
    onwards.run(NOW + 1);
    onwards.run(NOW + 1 + ACKNOWLEDGED);
    assert!(onwards.push.flushed() && !contents(&third.zones[0].zone, NOW).is_empty());
    far.zones[0].zone.take_dirty();
    far.control.sleeping();
    let now = NOW + 100;
    near.zones[0].zone.clear(now).unwrap();
    mark(&mut pair.push, &near);
    pair.run(now);
    assert!(far.must_tell() && !onwards.push.flushed());
    mark(&mut onwards.push, &far);
    onwards.run(now);
    assert_eq!(contents(&third.zones[0].zone, now), []);
    onwards.run(now + ACKNOWLEDGED);
    assert!(onwards.push.flushed() && onwards.push.pending(0) == 0);
}

#[test]
fn the_mark_of_who_was_heard_of_stands_for_who_is_gone_also_to_a_clock_that_was_ahead() {
    let (node, nobody) = (node(1, &[], limits()), node(2, &[], limits()));
    let origin = Identity([9; 16]);
    // Within the drift that is allowed, and far beyond the time for which somebody counts as heard of.
    node.control.heard(origin, NOW + 40_000, &Traffic::default());
    for (now, is_gone) in [(NOW, true), (NOW + 30_000, false), (NOW + 50_000, false), (NOW + 50_001, true)] {
        assert_eq!(Heard::new(&node, now).gone(origin), is_gone);
        assert_eq!(Heard::mark(&node, now) == Heard::mark(&nobody, now), is_gone);
    }
}
