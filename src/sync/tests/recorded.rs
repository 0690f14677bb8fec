//! A conversation as version 1 of the protocol had it when comparing was new: what later versions must still understand.
//!
//! `recorded/dialer.hex` and `recorded/dialled.hex` hold what each side said, a frame a line. They are never written anew:
//! a version that says things differently gets a recording of its own, beside these. (`ZONEMESH_RECORD=folder` has these tests
//! write what both say today.) `2/` is the one that `kinds` replays, and `3/`, of version 2, that of `counters`.

mod counters;
mod kinds;

use super::super::message::kind;
use super::super::{Node, Pull, Push, SyncZone};
use super::{NOW, contents, limits, node, region};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::{Params, Zone};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sync/tests/recorded");
/// When the comparing was over.
const END: Millis = NOW + 20_000;

/// A node whose zone hashes alike in every run.
fn fixed(number: u8) -> Node {
    let params = Params { sync: true, ..Params::new(Identity([number; 16])) };
    let zone = Zone::create_with(region(512 * 1024), &params, [number; 16]).unwrap();
    zone.set_joined();
    Node { zones: [SyncZone { name: "z".into(), zone }].into(), ..node(number, &[], limits()) }
}

/// What the dialer has: own records and those of others, of each form, and a large one.
fn fill(node: &Node) {
    let large = vec![5; 9_000];
    let at =
        |millis: u64, origin: u8| Version { stamp: Stamp::at(NOW - 60_000 + millis), origin: Identity([origin; 16]) };
    let record = |key, version, value, expires, shortened| {
        let record = Record { kind: Kind::Register, version, key, value, expires, shortened };
        node.zones[0].zone.apply(&record, NOW, 60_000).unwrap();
    };
    record(b"own".as_slice(), at(1, 1), Some(b"1".as_slice()), None, false);
    record(b"with an end", at(2, 1), Some(b"2"), Some(NOW + 3_600_000), true);
    record(b"deleted", at(3, 1), None, None, false);
    record(b"large", at(4, 1), Some(&large), None, false);
    record(b"of another\0", at(5, 9), Some(b"\xff\x00"), None, false);
}

fn recorded(who: &str) -> Vec<Vec<u8>> {
    frames(&std::fs::read_to_string(format!("{FOLDER}/{who}.hex")).unwrap())
}

fn frames(hex: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn hex(frames: &[u8]) -> String {
    let mut lines = String::new();
    let mut rest = frames;
    while let Some((prefix, _)) = rest.split_first_chunk::<4>() {
        let (frame, after) = rest.split_at(4 + u32::from_le_bytes(*prefix) as usize);
        frame.iter().for_each(|byte| lines.push_str(&format!("{byte:02x}")));
        lines.push('\n');
        rest = after;
    }
    lines
}

/// What both sides say today.
fn today() -> (Node, Vec<u8>, Vec<u8>) {
    let (dialer, dialled) = (fixed(1), fixed(2));
    fill(&dialer);
    dialer.zones[0].zone.close(NOW);
    let (said, answered) = conversation(dialer, dialled.clone(), END);
    (dialled, said, answered)
}

/// What two nodes say to each other until then.
fn conversation(dialer: Node, dialled: Node, until: Millis) -> (Vec<u8>, Vec<u8>) {
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    let (mut push, mut pull) = (Push::new(dialer, 1, NOW), Pull::new(dialled, 1, NOW));
    for now in (NOW..until).step_by(10) {
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        if push.deadline() <= now {
            push.tick(now).unwrap();
        }
        push.fill(&mut forth, 1 << 16, now).unwrap();
        pull.handle(&forth, &mut back, now).unwrap();
        if pull.deadline() <= now {
            pull.tick(&mut back, now).unwrap();
        }
        push.handle(&back, now).unwrap();
        said.extend(forth);
        answered.extend(back);
    }
    (said, answered)
}

/// If somebody wants a recording of today, writes what the dialer and the dialled node say.
fn record(prefix: &str, conversation: impl FnOnce() -> (Vec<u8>, Vec<u8>)) {
    let Ok(folder) = std::env::var("ZONEMESH_RECORD") else { return };
    let (said, answered) = conversation();
    std::fs::create_dir_all(format!("{folder}/{prefix}")).unwrap();
    std::fs::write(format!("{folder}/{prefix}dialer.hex"), hex(&said)).unwrap();
    std::fs::write(format!("{folder}/{prefix}dialled.hex"), hex(&answered)).unwrap();
}

/// Has a node hear what a dialer said then: answers when it has asked for them. When all was said.
fn hear(mut pull: Pull, said: Vec<Vec<u8>>) -> Millis {
    let (mut out, mut now) = (Vec::new(), NOW);
    // What a frame of comparing begins with: its type, and of which zone's which comparison it is. The numbers are small.
    let round = |frame: &[u8]| (frame[4], [frame[5], frame[6]]);
    for bytes in said {
        let (kind, of) = round(&bytes);
        let question = match kind {
            kind::DIGESTS => Some(kind::COMPARE),
            kind::VERSIONS | kind::LISTED => Some(kind::LIST),
            kind::SENT => Some(kind::WANT),
            _ => None,
        };
        let is_asked = |out: &[u8]| frames(&hex(out)).iter().any(|asked| round(asked) == (question.unwrap_or(0), of));
        // Others come when some time has passed.
        let until = now + if question.is_some() { 60_000 } else { 20 };
        while now < until && !(question.is_some() && is_asked(&out)) {
            now += 10;
            pull.tick(&mut out, now).unwrap();
        }
        assert!(question.is_none() || is_asked(&out), "nobody asked for {:02x?}", &bytes[4..7]);
        pull.handle(&bytes, &mut out, now).unwrap();
    }
    (0..50).for_each(|step| pull.tick(&mut out, now + step * 10).unwrap());
    now
}

/// Has a dialer hear what a dialled node said then; what it says to that.
fn answer(push: &mut Push, answered: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut out, mut now) = (Vec::new(), NOW);
    for bytes in answered {
        push.handle(&bytes, now).unwrap();
        // Long enough for each answer to be complete.
        for _ in 0..20 {
            now += 10;
            push.fill(&mut out, 1 << 16, now).unwrap();
        }
    }
    frames(&hex(&out))
}

#[test]
fn what_the_dialer_said_then_is_understood() {
    let (heard_today, said, answered) = today();
    record("", || (said, answered));
    let dialled = fixed(2);
    let mut pull = Pull::new(dialled.clone(), 1, NOW);
    let (mut out, mut now) = (Vec::new(), NOW);
    // All but the answers to questions that were asked under another seed, or that are no longer asked: then a node took the
    // full state again, in a second epoch, to see what an origin had left that is gone.
    let is_unasked = |frame: &[u8]| match frame[4] {
        0x81..0x90 => true,
        9 | 10 | 12 => frame[6] == 2,
        _ => false,
    };
    for bytes in recorded("dialer").iter().filter(|frame| !is_unasked(frame)) {
        // Slowly, as time passes between what a peer says.
        for _ in 0..200 {
            now += 10;
            if pull.is_due(now) {
                pull.tick(&mut out, now).unwrap();
            }
        }
        pull.handle(bytes, &mut out, now).unwrap();
    }
    assert_eq!(contents(&dialled.zones[0].zone, NOW), contents(&heard_today.zones[0].zone, NOW));
}

#[test]
fn what_the_dialled_node_said_then_is_understood() {
    let dialer = fixed(1);
    fill(&dialer);
    let said = answer(&mut Push::new(dialer, 1, NOW), recorded("dialled"));
    let kinds: Vec<u8> = said.iter().map(|frame| frame[4]).collect();
    for kind in [1, 5, 9, 10, 12, 0x82, 0x84, 0x85, 0x87] {
        assert!(kinds.contains(&kind), "no frame of type {kind}: {kinds:?}");
    }
}
