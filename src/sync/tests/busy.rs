//! Sessions of zones in which a lock doesn't come free: its holder is stopped, or gets no processor time.

use super::super::incoming::{Context, Incoming};
use super::super::message::{Entry, kind};
use super::super::session::Notes;
use super::super::{Node, NoteLevel, Pull};
use super::pair::{Pair, mark};
use super::{NOW, contents, limits, node, set};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::{Applied, Life, StoreError, Traffic, Zone};
use std::cell::OnceCell;
use std::time::{Duration, Instant};

/// The shard that doesn't come free.
const STUCK: u32 = 0;
/// Keys, of which each shard has some; all of them are less than a session keeps while it waits.
const KEYS: usize = 1_000;
/// So many that a walk over them takes several steps.
const MANY: u32 = 4_000;

/// Writes these keys, of which those in that shard are refused; how many went in.
fn write(zone: &Zone, keys: impl Iterator<Item = u32>, now: Millis) -> usize {
    let wanted = keys.map(|key| format!("key {key}")).filter(|key| zone.shard_of(key.as_bytes()) != STUCK);
    wanted.map(|key| set(zone, &key, b"v", now)).count()
}

fn key_in_stuck(zone: &Zone) -> String {
    (0..).map(|n| format!("stuck {n}")).find(|key| zone.shard_of(key.as_bytes()) == STUCK).unwrap()
}

fn nodes() -> (Node, Node) {
    (node(1, &["z"], limits()), node(2, &["z"], limits()))
}

#[test]
fn a_shard_that_is_busy_holds_up_nothing_but_its_own_records() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let key = key_in_stuck(&from);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let before = to.position(Identity([1; 16]));

    // Written, and not yet sent when the lock is taken for good.
    set(&from, &key, b"v", NOW + 10);
    from.stop_in(STUCK);
    let refused = from.set(key.as_bytes(), b"w", Life::Default, crate::store::Condition::Always, NOW + 10);
    assert_eq!(refused, Err(StoreError::Busy));
    let mut written = write(&from, 0..100, NOW + 10);
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert_eq!(contents(&to, NOW + 10).len(), written, "the others are there");

    // What comes later, too, again and again.
    for n in 1..5 {
        let now = NOW + 10 + u64::from(n) * 400;
        written += write(&from, 100 * n..100 * n + 50, now);
        mark(&mut pair.push, &a);
        pair.run(now);
        assert_eq!(contents(&to, now).len(), written, "after {n} more");
    }
    assert!(!pair.push.flushed() && pair.push.pending(0) > 0);
    assert_eq!(to.position(Identity([1; 16])), before, "nothing is promised that wasn't walked");
    let notes = pair.push.notes();
    let busy = notes.iter().filter(|note| note.level == NoteLevel::Warn && note.text.contains("is busy"));
    assert_eq!(busy.count(), 1, "{notes:?}");

    from.go_on_in(STUCK);
    let now = NOW + 3_000;
    pair.run(now);
    assert_eq!(contents(&to, now).len(), written + 1);
    assert!(to.position(Identity([1; 16])) >= Stamp::at(NOW + 1_610));
    pair.run(now + 10);
    assert!(pair.push.flushed());
}

#[test]
fn a_session_that_begins_meanwhile_gets_the_others_too() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    set(&from, &key_in_stuck(&from), b"v", NOW);
    let written = write(&from, 0..100, NOW);
    from.stop_in(STUCK);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    assert_eq!(contents(&to, NOW).len(), written);
    from.go_on_in(STUCK);
    pair.run(NOW + 200);
    assert_eq!(contents(&to, NOW + 200).len(), written + 1);
    pair.run(NOW + 210);
    assert!(pair.push.flushed());
}

#[test]
fn records_for_a_shard_that_is_busy_are_left_out_together_and_come_again() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    let before = to.position(Identity([1; 16]));
    to.stop_in(STUCK);
    all_keys().for_each(|key| set(&from, &key, b"v", NOW + 10));
    let stuck = all_keys().filter(|key| to.shard_of(key.as_bytes()) == STUCK).count();
    assert!(stuck > 20, "{stuck} of {KEYS}");
    mark(&mut pair.push, &a);
    let began = Instant::now();
    pair.run(NOW + 10);
    assert!(pair.pull.is_waiting() && contents_but(&to, STUCK) < KEYS - stuck, "it may go on soon");
    (1..=20).for_each(|n| pair.run(NOW + 10 + 5 * n));
    // Each would have waited for a tenth of a second.
    assert!(began.elapsed() < Duration::from_secs(stuck as u64 / 20), "{stuck} took {:?}", began.elapsed());
    assert_eq!(contents_but(&to, STUCK), KEYS - stuck, "the others are there");
    assert_eq!(to.position(Identity([1; 16])), before);
    to.go_on_in(STUCK);
    for n in 2..40 {
        pair.run(NOW + n * 100);
    }
    assert_eq!(contents(&to, NOW + 4_000).len(), KEYS);
    assert!(to.position(Identity([1; 16])) >= Stamp::at(NOW + 10));
}

#[test]
fn records_for_a_shard_that_is_soon_free_cost_nothing_but_that() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    pair.pull.notes();
    let stuck = key_in_stuck(&to);
    for round in 0..20 {
        let now = NOW + 10 + 200 * round;
        // Others before them, and behind; one so large that it comes in parts.
        (0..30).for_each(|n| set(&from, &format!("key {n}"), b"v", now + round));
        set(&from, &stuck, &[1; 20_000], now + round);
        mark(&mut pair.push, &a);
        // Now this, and now the table of origins, which positions need.
        let is_shard = round % 2 == 0;
        if is_shard {
            to.stop_in(STUCK)
        } else {
            to.stop_in_origins()
        }
        (0..5).for_each(|n| pair.run(now + 10 * n));
        assert!(pair.pull.is_waiting() && pair.pull.held().bytes > 0);
        assert_eq!(to.has_record(stuck.as_bytes(), now), round > 0);
        if is_shard {
            to.go_on_in(STUCK)
        } else {
            to.go_on_in_origins()
        }
        pair.run(now + 60);
        assert!(!pair.pull.is_waiting());
        assert_eq!(contents(&to, now), contents(&from, now));
        assert!(to.position(Identity([1; 16])) >= Stamp::at(now));
    }
    assert_eq!((pair.records, pair.count(kind::POSITION)), (600, 21), "nothing came twice");
    assert!(pair.pull.notes().is_empty());
}

#[test]
fn an_emptying_waits_for_the_table_of_origins() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    write(&from, 0..10, NOW);
    pair.run(NOW);
    from.clear(NOW + 10).unwrap();
    to.stop_in_origins();
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert!(pair.pull.is_waiting() && !contents(&to, NOW + 10).is_empty());
    to.go_on_in_origins();
    pair.run(NOW + 20);
    assert_eq!(contents(&to, NOW + 20), []);
    // And comes again if it has to wait for longer than that.
    write(&from, 0..10, NOW + 30);
    mark(&mut pair.push, &a);
    pair.run(NOW + 30);
    from.clear(NOW + 40).unwrap();
    to.stop_in_origins();
    mark(&mut pair.push, &a);
    (0..40).for_each(|n| pair.run(NOW + 40 + 5 * n));
    assert!(!pair.pull.is_waiting() && !contents(&to, NOW + 240).is_empty());
    to.go_on_in_origins();
    (0..40).for_each(|n| pair.run(NOW + 300 + 50 * n));
    assert_eq!(contents(&to, NOW + 2_300), []);
}

#[test]
fn what_was_taken_of_a_position_that_is_tried_again_is_not_counted_twice() {
    let (_, b) = nodes();
    let to = b.zones[0].zone;
    let entry = |n: u16, stamp| {
        let mut identity = [9; 16];
        identity[..2].copy_from_slice(&n.to_le_bytes());
        Entry { identity: Identity(identity), stamp: Stamp::at(stamp), gone: false, anew: false }
    };
    let is_noted = |n: &u16| to.advance(entry(*n, 0).identity, Stamp::at(NOW - 1));
    let full = (1..).take_while(is_noted).count() as u16 + 1;
    let (mut incoming, mut notes) = (Incoming::new(0, 1, true), Notes::default());
    let mut take = |t, entries: [Entry; 2]| {
        let mut cx = Context {
            node: &b,
            own: Identity([2; 16]),
            peer: Identity([1; 16]),
            token: 1,
            version: 1,
            bound: 4_096,
            now: NOW + t,
            t,
            leapt: false,
            may_wait: true,
            notes: &mut notes,
            heard_mark: OnceCell::new(),
        };
        let taken = incoming.position(&mut cx, 0, false, entries.into_iter(), Stamp::ZERO);
        (
            taken,
            notes
                .take()
                .iter()
                .filter_map(|note| note.text.split(" more origins").next()?.split(' ').next_back()?.parse().ok())
                .collect::<Vec<u64>>(),
        )
    };
    to.stop_in_origins();
    let entries = [entry(full, NOW), entry(1, NOW)];
    assert_eq!(take(0, entries), (false, vec![1]), "there is no room for the first, and the second has to wait");
    (1..5).for_each(|n| assert_eq!(take(5 * n, entries), (false, vec![])));
    to.go_on_in_origins();
    assert_eq!(take(30, entries), (true, vec![]));
    assert_eq!(to.position(entry(1, NOW).identity), Stamp::at(NOW));
    assert_eq!(take(20_000, entries), (true, vec![1]), "since then it was that one");
}

#[test]
fn what_is_deleted_there_is_taken_away_but_where_a_shard_is_busy() {
    let (a, b) = (node(1, &["z"], limits()), node(2, &["z"], limits()));
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    [from, to].into_iter().for_each(|zone| zone.set_joined());
    // As of a state file, and over where their writer's position tells so: so many that it takes several steps.
    let key = |n: u32| format!("key {n}");
    for n in 0..MANY {
        let version = Version { stamp: Stamp::at(NOW - 60_000), origin: GONE };
        let (key, value) = (key(n), Some(b"v".as_slice()));
        let key = key.as_bytes();
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        assert_eq!(to.apply(&record, NOW, 60_000), Ok(Applied::Newer));
    }
    from.advance(GONE, Stamp::at(NOW - 60_000));
    let mut pair = Pair::new(&a, &b, NOW);
    let mut run = |at: Millis| {
        [&a, &b].into_iter().for_each(|node| node.control.heard(GONE, at, &Traffic::default()));
        pair.run(at);
        pair.count(kind::LISTED)
    };
    let left = |stuck: Option<u32>| {
        let others = (0..MANY).map(key).filter(|key| stuck.is_none_or(|stuck| to.shard_of(key.as_bytes()) != stuck));
        others.filter(|key| to.has_record(key.as_bytes(), NOW)).count()
    };
    let listed = (NOW..NOW + PERIOD).step_by(10).find(|at| run(*at) > 0).expect("they are compared");
    assert!(left(None) > MANY as usize / 2, "it has only begun");
    // The last, so that a step meets records of others before it.
    let last = to.shard_count() - 1;
    to.stop_in(last);
    (1..100).for_each(|n| _ = run(listed + 20 * n));
    assert_eq!(left(Some(last)), 0);
    assert!(left(None) > 0);
    to.go_on_in(last);
    assert_eq!((100..110).map(|n| run(listed + 20 * n)).max(), Some(1), "all in one comparison");
    assert_eq!(left(None), 0);
}

#[test]
fn who_sends_much_meanwhile_is_not_waited_for() {
    let (a, b) = nodes();
    let (from, to) = (a.zones[0].zone, b.zones[0].zone);
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    to.stop_in(STUCK);
    all_keys().for_each(|key| set(&from, &key, b"v", NOW + 10));
    (0..4).for_each(|n| set(&from, &format!("large {n}"), &[1; 20_000], NOW + 10));
    mark(&mut pair.push, &a);
    pair.run(NOW + 10);
    assert!(!pair.pull.is_waiting());
    assert_eq!(contents_but(&to, STUCK), all_keys().filter(|key| to.shard_of(key.as_bytes()) != STUCK).count());
}

fn all_keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("key {n}"))
}

/// How many of these keys are in other shards.
fn contents_but(zone: &Zone, stuck: u32) -> usize {
    let keys = all_keys().filter(|key| zone.shard_of(key.as_bytes()) != stuck);
    keys.filter(|key| zone.has_record(key.as_bytes(), NOW)).count()
}

#[test]
fn who_joins_asks_another_when_a_donor_with_a_busy_shard_has_nothing_more_than_what_is_written() {
    let all = ["z"];
    let (a, b, c) = (node(1, &all, limits()), node(2, &all, limits()), node(3, &all, limits()));
    let [from, other, to] = [&a, &b, &c].map(|node| node.zones[0].zone);
    [from, other].into_iter().for_each(|zone| zone.set_joined());
    set(&from, &key_in_stuck(&from), b"v", NOW);
    let mut written = write(&from, 0..100, NOW);
    Pair::new(&a, &b, NOW).run(NOW);
    from.stop_in(STUCK);

    let mut pairs = [Pair::new(&a, &c, NOW + 10), Pair::new(&b, &c, NOW + 10)];
    pairs[1].pull = Pull::new(c.clone(), 2, NOW + 10);
    let (mut at, mut n) = (NOW + 10, 100);
    while !to.joined() {
        assert!(at < NOW + 6 * limits().timeout, "it still joins");
        written += write(&from, n..n + 10, at);
        n += 10;
        mark(&mut pairs[0].push, &a);
        for now in (at..at + 1_000).step_by(100) {
            pairs.iter_mut().for_each(|pair| pair.run(now));
        }
        at += 1_000;
    }
    assert_eq!(contents(&to, at).len(), written + 1, "the one has what is written, the other had what waits");
}

/// Two nodes with these zones, in which both have the same, and then the first has more of a node that isn't told of any more.
fn unlike(names: &[&str]) -> (Node, Node, Pair) {
    let (a, b) = (node(1, names, limits()), node(2, names, limits()));
    for zone in a.zones.iter().chain(b.zones.iter()) {
        zone.zone.set_joined();
    }
    for zone in a.zones.iter() {
        write(&zone.zone, 0..100, NOW);
    }
    let mut pair = Pair::new(&a, &b, NOW);
    pair.run(NOW);
    for zone in a.zones.iter() {
        let version = Version { stamp: Stamp::at(NOW - 60_000), origin: GONE };
        let (key, value) = (b"missing".as_slice(), Some(b"v".as_slice()));
        let record = Record { kind: Kind::Register, version, key, value, expires: None, shortened: false };
        assert_eq!(zone.zone.apply(&record, NOW, 60_000), Ok(Applied::Newer));
    }
    (a, b, pair)
}

const GONE: Identity = Identity([9; 16]);

/// Whether the missing record comes to this zone within a period of comparing, from then on.
fn is_mended(zone: usize, from: Millis, (a, b, pair): &mut (Node, Node, Pair)) -> bool {
    (from..from + PERIOD).step_by(50).any(|at| {
        [&*a, &*b].into_iter().for_each(|node| node.control.heard(GONE, at, &Traffic::default()));
        pair.run(at);
        b.zones[zone].zone.has_record(b"missing", at)
    })
}

/// Longer than zones that are alike aren't compared for, and shorter than an answer is waited for.
const PERIOD: Millis = 60_000;

#[test]
fn zones_that_are_busy_here_keep_no_other_from_being_compared() {
    let mut nodes = unlike(&["a", "b", "c"]);
    (0..2).for_each(|zone| nodes.1.zones[zone].zone.stop_in(STUCK));
    assert!(is_mended(2, NOW + 10, &mut nodes));
    // And are compared themselves when they aren't any more.
    (0..2).for_each(|zone| nodes.1.zones[zone].zone.go_on_in(STUCK));
    assert!(is_mended(0, NOW + PERIOD, &mut nodes) && is_mended(1, NOW + 2 * PERIOD, &mut nodes));
}

#[test]
fn a_zone_that_is_busy_there_keeps_no_other_from_being_answered() {
    let mut nodes = unlike(&["a", "b"]);
    nodes.0.zones[0].zone.stop_in(STUCK);
    assert!(is_mended(1, NOW + 10, &mut nodes));
    nodes.0.zones[0].zone.go_on_in(STUCK);
    assert!(is_mended(0, NOW + PERIOD, &mut nodes));
}
