//! Watchers of a zone in real shared memory, without sockets: their bodies are asked for as the event loop would.

use super::*;
use crate::api::{NamedZone, Produce, Produced};
use crate::record::{Identity, Record, Stamp};
use crate::store::{Condition, Life, Mapping, Params, Region, Renewal, Zone};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const START: Millis = 1_800_000_000_000;
const LIMIT: Duration = Duration::from_secs(10);

struct World {
    hub: Hub,
    zone: NamedZone,
    now: Millis,
    _mapping: Mapping,
}

/// One client: what it was sent.
struct Client {
    body: Box<dyn Produce>,
    poked: Rc<Cell<bool>>,
    text: Vec<u8>,
}

impl World {
    fn new(size: usize, params: &Params) -> World {
        let mapping = Region::anonymous(size).unwrap();
        let zone = Zone::create(mapping.region(), params).unwrap();
        let zone = NamedZone { name: "one".to_owned(), zone, timeout: true };
        World { hub: Hub::new(|| ()), zone, now: START, _mapping: mapping }
    }

    fn plain() -> World {
        World::new(1 << 20, &Params { timeout: Some(3_600_000), ..Params::new(Identity([1; 16])) })
    }

    fn join(&mut self, query: &str, id: Option<&str>) -> Client {
        let order = Order::parse(query, id).expect("an order");
        let mut body = self.hub.join(&self.zone, order, self.now).expect("a walker");
        let poked = Rc::new(Cell::new(true));
        let flag = poked.clone();
        body.poke_by(Box::new(move || flag.set(true)));
        let mut client = Client { body, poked, text: Vec::new() };
        self.settle(&mut [&mut client]);
        client
    }

    /// Time passes, and everything that is to be done is done.
    fn settle(&mut self, clients: &mut [&mut Client]) {
        for _ in 0..20 {
            self.now += 10;
            self.hub.work(self.now, LIMIT);
            for client in &mut *clients {
                client.read(self.now);
            }
        }
    }

    /// So much time that who had to wait for a walker tries again.
    fn wait(&mut self, clients: &mut [Client]) {
        for _ in 0..5 {
            clients.iter().for_each(|client| client.poked.set(true));
            self.settle(&mut clients.iter_mut().collect::<Vec<_>>());
        }
    }

    fn set(&self, key: &str, value: &[u8]) {
        self.zone.zone.set(key.as_bytes(), value, Life::Default, Condition::Always, self.now).unwrap();
    }

    fn delete(&self, key: &str) {
        self.zone.zone.delete(key.as_bytes(), self.now).unwrap();
    }
}

impl Client {
    /// As the event loop does: nothing unless it was poked.
    fn read(&mut self, now: Millis) {
        for asked in 0.. {
            assert!(asked < 100_000, "it comes to an end");
            if !self.poked.get() {
                return;
            }
            match self.body.produce(&mut self.text, now) {
                Produced::More => {}
                Produced::Wait(_) => self.poked.set(false),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What came since the last time, without what it means to itself: name and key, and the data.
    fn events(&mut self) -> Vec<(String, Value)> {
        let text = String::from_utf8(std::mem::take(&mut self.text)).expect("UTF-8");
        blocks(&text).into_iter().filter_map(|block| block.event).collect()
    }

    /// The same in short: `set a`.
    fn brief(&mut self) -> Vec<String> {
        let short =
            |(name, data): (String, Value)| format!("{name} {}", data["key"].as_str().unwrap_or("")).trim().to_owned();
        self.events().into_iter().map(short).collect()
    }

    fn last_id(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        blocks(&text).into_iter().filter_map(|block| block.id).next_back().expect("an id")
    }
}

struct Block {
    event: Option<(String, Value)>,
    id: Option<String>,
}

/// As clients read them.
fn blocks(text: &str) -> Vec<Block> {
    assert!(text.is_empty() || text.ends_with("\n\n"), "whole blocks");
    let block = |text: &str| {
        let (mut name, mut data, mut id) = (None, None, None);
        for line in text.lines().filter(|line| !line.starts_with(':')) {
            match line.split_once(": ").expect("a field") {
                ("event", value) => name = Some(value.to_owned()),
                ("data", value) => data = Some(serde_json::from_str(value).expect("JSON")),
                ("id", value) => id = Some(value.to_owned()),
                ("retry", value) => assert!(value.parse::<u32>().is_ok()),
                other => panic!("{other:?}"),
            }
        }
        Block { event: name.zip(data), id }
    };
    text.split_terminator("\n\n").map(block).collect()
}

#[test]
fn changes_come_as_they_happen_and_only_those_asked_for() {
    let mut world = World::plain();
    world.set("user:old", b"1");
    let (mut all, mut users) = (world.join("", None), world.join("prefix=user%3A", None));
    all.last_id();
    assert_eq!((all.brief(), users.brief()), (vec![], vec![]), "what was there before is no change");
    world.set("user:a", b"x");
    world.set("other", b"\xff\x00");
    world.settle(&mut [&mut all, &mut users]);
    world.delete("user:a");
    world.settle(&mut [&mut all, &mut users]);
    world.zone.zone.set(b"user:b", b"y", Life::For(500), Condition::Always, world.now).unwrap();
    world.settle(&mut [&mut all, &mut users]);
    world.now += 1000;
    world.zone.zone.upkeep(world.now, 100);
    world.settle(&mut [&mut all, &mut users]);
    assert_eq!(users.brief(), ["set user:a", "delete user:a", "set user:b", "expire user:b"]);
    let events = all.events();
    let other = &events.iter().find(|(_, data)| data["key"] == "other").expect("told").1;
    assert_eq!(other["value"], json!({"base64": "/wA="}));
    assert_eq!(other["expire"], json!(3_600_000 - 10));
    assert_eq!(other["version"].as_str().map(str::len), Some(49));
    assert_eq!(events.len(), 5);
}

#[test]
fn emptying_is_told_before_what_comes_after_it() {
    let mut world = World::plain();
    let mut client = world.join("", None);
    world.set("a", b"1");
    world.settle(&mut [&mut client]);
    let id = client.last_id();
    assert_eq!(client.brief(), ["set a"]);
    world.zone.zone.clear(world.now).unwrap();
    world.set("b", b"2");
    world.settle(&mut [&mut client]);
    let mut again = world.join("", Some(&id));
    for client in [&mut client, &mut again] {
        assert_eq!(client.brief(), ["clear", "set b"]);
    }
}

#[test]
fn after_a_clock_was_mended_it_begins_anew_and_emptying_is_told_again() {
    const HOUR: Millis = 3_600_000;
    let mut world = World::new(1 << 20, &Params { sync: true, ..Params::new(Identity([1; 16])) });
    let mut client = world.join("", None);
    world.now += HOUR;
    world.zone.zone.clear(world.now).unwrap();
    world.set("a", b"1");
    world.settle(&mut [&mut client]);
    client.text.clear();
    world.now -= HOUR - 60_000;
    let latest = Renewal::latest(world.now, 60_000);
    let mut renewal = Renewal::new(world.zone.zone, Identity([2; 16]), Identity([1; 16]), latest);
    while renewal.step(world.now).unwrap().is_none() {}
    world.now += 1_000;
    world.set("b", b"2");
    world.settle(&mut [&mut client]);
    let events = client.brief();
    assert_eq!(events[0], "reset");
    assert!(events.contains(&"set a".into()) && events.contains(&"set b".into()), "{events:?}");
    world.zone.zone.clear(world.now).unwrap();
    world.set("c", b"3");
    world.settle(&mut [&mut client]);
    assert_eq!(client.brief(), ["clear", "set c"]);
}

#[test]
fn who_comes_back_misses_nothing_and_gets_little_twice() {
    let mut world = World::plain();
    for n in 0..500 {
        world.set(&format!("old {n}"), b"v");
    }
    let mut client = world.join("", None);
    let id = client.last_id();
    drop(client);
    assert!(world.hub.is_empty());
    world.set("old 7", b"new");
    world.delete("old 8");
    world.zone.zone.set(b"short", b"v", Life::For(100), Condition::Always, world.now).unwrap();
    world.now += 1000;
    world.zone.zone.upkeep(world.now, 100);
    client = world.join("", Some(&id));
    let mut told = client.brief();
    told.sort();
    assert_eq!(told, ["delete old 8", "expire short", "set old 7"]);
    world.set("after", b"v");
    world.settle(&mut [&mut client]);
    assert_eq!(client.brief(), ["set after"]);

    let id = {
        world.set("more", b"v");
        world.settle(&mut [&mut client]);
        client.last_id()
    };
    drop(client);
    world.delete("old 9");
    world.now += world.zone.zone.remembered() + 60_000;
    world.zone.zone.upkeep(world.now, 1000);
    client = world.join("", Some(&id));
    let told = client.brief();
    assert_eq!((told[0].as_str(), told.len()), ("reset", 1 + 500 - 2 + 2), "what went is forgotten by now");
}

#[test]
fn what_is_no_position_of_this_zone_brings_everything() {
    let mut world = World::plain();
    (0..100).for_each(|n| world.set(&format!("{n:03}"), b"v"));
    world.delete("007");
    let mut other = World::plain();
    let foreign = other.join("", None).last_id();
    for (query, id) in [("position=0", None), ("", Some("what?")), ("", Some(foreign.as_str()))] {
        let mut client = world.join(query, id);
        let mut told = client.brief();
        assert_eq!(told.remove(0), "reset");
        told.sort();
        assert_eq!(told.len(), 99);
        assert_eq!(told[7], "set 008");
    }
    assert_eq!(Order::parse("position=what", None), None);
    let mut client = world.join("position=0&prefix=01", None);
    assert_eq!(client.brief().len(), 1 + 10);
}

#[test]
fn who_does_not_read_holds_up_nobody_and_gets_everything_in_the_end() {
    let mut world = World::new(8 << 20, &Params { ..Params::new(Identity([1; 16])) });
    let (mut slow, mut quick) = (world.join("", None), world.join("", None));
    slow.text.clear();
    quick.text.clear();
    for round in 0..20u8 {
        (0..500).for_each(|n| world.set(&format!("key {n}"), &[b'a' + round; 100]));
        world.settle(&mut [&mut quick]);
    }
    world.delete("key 0");
    world.settle(&mut [&mut quick]);
    assert_eq!(quick.brief().len(), 20 * 500 + 1);
    assert!(slow.text.is_empty());
    world.settle(&mut [&mut slow]);
    let told = slow.events();
    // One buffer of what came first, then each key as it is now.
    assert!((500..1500).contains(&told.len()), "{}", told.len());
    let last = |key: &str| told.iter().rfind(|(_, data)| data["key"] == key).expect("told");
    assert_eq!(last("key 0").0, "delete");
    (1..500).for_each(|n| assert_eq!(last(&format!("key {n}")).1["value"], "t".repeat(100)));
    slow.text.clear();
    world.set("later", b"v");
    world.settle(&mut [&mut slow, &mut quick]);
    assert_eq!((slow.brief(), quick.brief()), (vec!["set later".to_owned()], vec!["set later".to_owned()]));
}

#[test]
fn more_clients_fall_behind_than_there_are_walkers_for() {
    let mut world = World::new(64 << 10, &Params::new(Identity([1; 16])));
    let mut clients: Vec<Client> = (0..100).map(|_| world.join("", None)).collect();
    for round in 0..400u32 {
        world.set("hot", format!("{round}{}", "v".repeat(300)).as_bytes());
        world.now += 10;
        world.hub.work(world.now, LIMIT);
    }
    world.set("last", b"v");
    let free = std::iter::from_fn(|| world.zone.zone.feed_open(1)).collect::<Vec<_>>();
    assert!(free.len() >= 48, "three quarters of 64 are left to peers: {}", free.len());
    free.into_iter().for_each(|cursor| world.zone.zone.feed_close(cursor));
    world.wait(&mut clients);
    for client in &mut clients {
        let told = client.brief();
        assert_eq!(told.iter().filter(|event| *event == "set last").count(), 1);
        assert!(!told.contains(&"reset".to_owned()));
    }
    drop(clients);
    assert!(world.hub.is_empty());
    assert_eq!(std::iter::from_fn(|| world.zone.zone.feed_open(1)).count(), 64, "all walkers are given back");
}

#[test]
fn a_shard_that_is_busy_holds_up_nothing_but_its_own_changes() {
    let mut world = World::plain();
    let mut clients = vec![world.join("", None)];
    let id = clients[0].last_id();
    clients[0].text.clear();
    let zone = world.zone.zone;
    let stuck = zone.shard_of(b"stuck");
    let other = (0..).map(|n| format!("key {n}")).find(|key| zone.shard_of(key.as_bytes()) != stuck).expect("a key");
    world.set("stuck", b"1");
    // Of the last one a client that comes back is told on its own.
    zone.stop_in(stuck);
    for value in ["1", "2"] {
        world.set(&other, value.as_bytes());
        world.settle(&mut [&mut clients[0]]);
        assert_eq!(clients[0].brief(), [format!("set {other}")]);
    }
    clients.push(world.join("", Some(&id)));
    world.wait(&mut clients);
    assert_eq!(clients[1].brief(), [format!("set {other}")]);
    zone.go_on_in(stuck);
    world.wait(&mut clients);
    for client in &mut clients {
        assert_eq!(client.brief(), ["set stuck"]);
    }
}

#[test]
fn signs_of_life_come_while_a_shard_is_stuck() {
    let mut world = World::plain();
    let mut client = world.join("", None);
    world.hub.tick(world.now);
    world.settle(&mut [&mut client]);
    let zone = world.zone.zone;
    let stuck = zone.shard_of(b"stuck");
    let other = (0..).map(|n| format!("key {n}")).find(|key| zone.shard_of(key.as_bytes()) != stuck).expect("a key");
    world.set("stuck", b"1");
    zone.stop_in(stuck);
    for _ in 0..3 {
        client.text.clear();
        world.now += HEARTBEAT;
        world.hub.tick(world.now);
        world.settle(&mut [&mut client]);
        assert_eq!(String::from_utf8_lossy(&client.text), ":\n", "one, and no position");
    }
    world.set(&other, b"1");
    world.settle(&mut [&mut client]);
    zone.go_on_in(stuck);
    world.settle(&mut [&mut client]);
    assert_eq!(client.brief(), [format!("set {other}"), "set stuck".to_owned()]);
    world.now += HEARTBEAT;
    world.hub.tick(world.now);
    world.settle(&mut [&mut client]);
    assert!(client.text.starts_with(b":\nid: "), "{}", String::from_utf8_lossy(&client.text));
}

#[test]
fn a_missed_delete_in_a_full_zone_is_a_reset() {
    let mut world = World::new(32 << 10, &Params::new(Identity([1; 16])));
    let mut client = world.join("", None);
    (0..50).for_each(|n| world.set(&format!("key {n}"), b"v"));
    world.settle(&mut [&mut client]);
    client.text.clear();
    (0..50).for_each(|n| world.delete(&format!("key {n}")));
    let filled = (0..1000)
        .take_while(|n| {
            world
                .zone
                .zone
                .set(format!("fill {n}").as_bytes(), b"v", Life::Default, Condition::Always, world.now)
                .is_ok()
        })
        .count();
    world.settle(&mut [&mut client]);
    let told = client.brief();
    assert_eq!(told[0], "reset");
    assert_eq!(told.iter().filter(|event| event.starts_with("set fill")).count(), filled);
}

#[test]
fn another_node_goes_on_where_this_one_was_left() {
    let params = |node: u8| Params { sync: true, ..Params::new(Identity([node; 16])) };
    let (mut one, mut two) = (World::new(1 << 20, &params(1)), World::new(1 << 20, &params(2)));
    let copy = |from: &World, to: &World| {
        let mut cursor = from.zone.zone.feed_open(1).unwrap();
        let (closed, _) = from.zone.zone.close(from.now);
        for shard in 0..from.zone.zone.all_shards().count_ones() {
            let mut each = |record: &Record<'_>| {
                to.zone.zone.apply(record, to.now, 1000).unwrap();
                true
            };
            while from.zone.zone.feed(&mut cursor, shard, &mut each).unwrap() != crate::store::FeedEnd::Drained {}
        }
        to.zone.zone.advance(from.zone.zone.params().node, closed);
        from.zone.zone.feed_close(cursor);
    };
    (0..50).for_each(|n| one.set(&format!("key {n}"), b"v"));
    two.set("of two", b"v");
    copy(&one, &two);
    copy(&two, &one);
    let id = one.join("", None).last_id();
    one.set("key 1", b"new");
    one.delete("key 2");
    copy(&one, &two);
    two.set("of two", b"new");
    let mut client = two.join("", Some(&id));
    let mut told = client.brief();
    told.sort();
    assert_eq!(told, ["delete key 2", "set key 1", "set of two"]);
}

#[test]
fn quiet_clients_get_signs_of_life_with_positions_of_now() {
    let mut world = World::plain();
    let mut client = world.join("", None);
    world.hub.tick(world.now);
    world.settle(&mut [&mut client]);
    let first = client.last_id();
    client.text.clear();
    world.settle(&mut [&mut client]);
    assert!(client.text.is_empty(), "nothing happens, nothing is sent");
    world.now += HEARTBEAT;
    world.hub.tick(world.now);
    world.settle(&mut [&mut client]);
    assert!(client.text.starts_with(b":\nid: "), "{}", String::from_utf8_lossy(&client.text));
    assert_ne!(client.last_id(), first);
}

#[test]
fn the_end_of_a_worker_ends_its_streams() {
    let mut world = World::plain();
    let mut client = world.join("", None);
    world.hub.end();
    assert!(client.poked.get());
    assert_eq!(client.body.produce(&mut client.text, world.now), Produced::End);
    assert!(world.hub.is_empty());
}

#[test]
fn positions_are_what_they_were_and_nothing_else_is_one() {
    let zone = World::plain();
    zone.zone.zone.advance(Identity([9; 16]), Stamp(77));
    let position = Position::of(&zone.zone.zone, Stamp(55), START);
    let text = position.text();
    assert_eq!(Position::parse(&text), Some(position));
    let cut = (0..text.len()).filter(|len| Position::parse(&text[..*len]).is_some()).count();
    assert_eq!(cut, 2, "without one of the two origins, or both: their changes are sent again");
    for at in 0..text.len() {
        let mut text = text.clone();
        text[at] = b'!';
        assert_eq!(Position::parse(&text), None);
    }
}

#[test]
fn a_counter_is_told_as_its_sum() {
    use crate::store::{Batch, DumpPlace, Matching, Missing};
    let params = |node| {
        let params =
            Params { matching: Matching::Counter, timeout: Some(3_600_000), ..Params::new(Identity([node; 16])) };
        Params { sync: true, ..params }
    };
    let (mut here, there) = (World::new(1 << 20, &params(1)), World::new(1 << 20, &params(2)));
    let mut client = here.join("prefix=k", None);
    let add = |world: &World, key: &[u8], by| {
        world.zone.zone.count(key, by, Missing::Begin(0, Life::Default), world.now).unwrap();
    };
    let mut told = |here: &mut World| {
        here.settle(&mut [&mut client]);
        let mut told: Vec<(String, Value)> =
            client.events().into_iter().map(|(name, data)| (name, data["value"].clone())).collect();
        // Each of a counter's records may tell of the same.
        told.dedup();
        told
    };
    add(&here, b"k", 2);
    add(&here, b"other", 2);
    assert_eq!(told(&mut here), [("set".to_owned(), json!("2"))]);
    add(&there, b"k", 40);
    let (mut place, mut batch) = (DumpPlace::default(), Batch::default());
    while there.zone.zone.dump(&mut place, &mut batch).unwrap() {
        batch.records().for_each(|dumped| _ = here.zone.zone.apply(&dumped.record, here.now, 60_000).unwrap());
    }
    assert_eq!(told(&mut here), [("set".to_owned(), json!("42"))], "what another node added");
    here.set("k", b"7");
    assert_eq!(told(&mut here), [("set".to_owned(), json!("7"))]);
    here.delete("k");
    assert_eq!(told(&mut here), [("delete".to_owned(), json!(null))]);
    add(&here, b"k", 1);
    assert_eq!(told(&mut here), [("set".to_owned(), json!("1"))]);
    let mut late = here.join("position=0&prefix=k", None);
    here.settle(&mut [&mut late]);
    let mut all = late.brief();
    all.dedup();
    assert!(all.ends_with(&["set k".to_owned()]), "{all:?}");
}
