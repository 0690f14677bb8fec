//! Agents that lose the lease while they run, or while they hang.

use super::super::state_file::{self, StateFile};
use super::*;
use crate::record::{Record, Stamp};
use crate::store::control::Counter;
use crate::store::{Cursor, FeedEnd, LINKS, LinkFigures};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

#[test]
fn without_the_lease_it_ends() {
    let near = TestNode::new();
    let mut agent = near.start(&[]);
    near.node.control.release(&near.node.control.lease().unwrap());
    let other = near.node.control.try_lease(near.node.control.generation(), now()).unwrap();
    assert!(agent.agent.join(PATIENCE));
    assert!(near.node.control.holds(&other), "another's lease is left alone");
}

/// What an agent writes to after each line that it says: while it is shut, the agent hangs where it says something.
struct Gate {
    inside: UnixStream,
    outside: UnixStream,
}

impl Gate {
    fn new() -> Gate {
        let (inside, outside) = UnixStream::pair().unwrap();
        Gate { inside, outside }
    }

    fn shut(&self) {
        self.outside.set_nonblocking(true).unwrap();
        while (&self.outside).write(&[0]).is_ok() {}
        self.outside.set_nonblocking(false).unwrap();
    }

    /// For good.
    fn open(mut self) {
        std::thread::spawn(move || while self.inside.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
    }
}

/// The keys that a walker comes to, up to the end.
fn walk(zone: &Zone, walker: &mut Cursor) -> Vec<String> {
    let mut keys = Vec::new();
    for shard in 0..zone.all_shards().count_ones() {
        let mut keep = |record: &Record<'_>| {
            keys.push(String::from_utf8_lossy(record.key).into_owned());
            true
        };
        let ends = (0..100).any(|_| zone.feed(walker, shard, &mut keep).unwrap() == FeedEnd::Drained);
        assert!(ends, "the walker isn't in the feed any more");
    }
    keys
}

/// The thread of an agent hangs, its lease moves, and another agent begins to act for the node; then the first goes on. It must
/// do nothing any more.
fn goes_on_without_its_lease(near: &TestNode, file: &Path, agent: &mut Started, gate: Gate) {
    let (control, zone) = (near.node.control, near.zone());
    control.release(&control.lease().unwrap());
    let other = control.try_lease(control.generation(), now()).unwrap();
    // The other one takes the places of its walkers, and shows its own links.
    zone.feed_sweep(other.number);
    let mut walkers: Vec<Cursor> = (0..4).map(|_| zone.feed_open(other.number).unwrap()).collect();
    walkers.iter_mut().for_each(|walker| assert_eq!(walk(&zone, walker), ["early"]));
    let figures = LinkFigures { server: "of the other".into(), ..LinkFigures::default() };
    (0..LINKS).for_each(|slot| control.hide_link(slot));
    control.show_link(0, &figures);
    control.set_nodes_online(7);
    let shown = || (control.links(), control.nodes_online(), control.lease(), zone.stats().pending);
    zone.set_pending(9);
    let before = shown();
    near.set("late", "2");
    near.eventfd.signal();
    gate.open();
    assert!(agent.agent.join(PATIENCE));
    assert_eq!(shown(), before, "what the other one shows and holds");
    walkers.iter_mut().for_each(|walker| assert_eq!(walk(&zone, walker), ["late"]));
    assert!(
        !std::fs::read_to_string(file).is_ok_and(|text| text.contains("late")),
        "the state file is the other's to write"
    );
}

/// With a state file, and a folder for it.
fn node_with_file(name: &str) -> (TestNode, PathBuf) {
    let mut near = TestNode::new();
    let folder = std::env::temp_dir().join(format!("zonemesh-agent-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("z.json");
    near.zone().keep_state(Some(state_file::number(&file)));
    near.states = vec![StateFile::new("z".into(), near.zone(), file.clone())];
    (near, file)
}

#[test]
fn a_thread_that_wakes_without_the_lease_in_the_midst_of_a_session_sends_nothing() {
    let (near, file) = node_with_file("session");
    let far = TestNode::new();
    let acceptor = Acceptor::new(&far.node, 0);
    near.set("early", "1");
    let gate = Gate::new();
    gate.shut();
    let mut agent = near.start_with(40, &[acceptor.port], gate.outside.as_raw_fd());
    agent.says("connected to node");
    goes_on_without_its_lease(&near, &file, &mut agent, gate);
    acceptor.has_ended(1);
    assert_eq!(far.node.control.counter(Counter::MsgsIn), 1, "nothing came after its hello");
    assert_eq!(far.zone().stats().records, 0);
    assert_eq!(far.zone().position(near.node.control.identity()), Stamp::ZERO);
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn a_thread_that_wakes_without_the_lease_outside_of_sessions_does_nothing_with_them() {
    let (near, file) = node_with_file("main");
    let far = TestNode::new();
    let acceptor = Acceptor::new(&far.node, 0);
    near.set("early", "1");
    let gate = Gate::new();
    let mut agent = near.start_with(40, &[acceptor.port], gate.outside.as_raw_fd());
    wait("the state file", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("early")));
    wait("what was there before", || far.value("early").is_some());
    wait("the position of it", || far.zone().position(near.node.control.identity()) > Stamp::ZERO);
    let position = far.zone().position(near.node.control.identity());
    gate.shut();
    // Nobody listens there.
    let nobody = Acceptor::new(&far.node, 0).port;
    agent.agent.meet(vec![peer(nobody)]);
    agent.says("can't be reached");
    goes_on_without_its_lease(&near, &file, &mut agent, gate);
    acceptor.has_ended(1);
    assert_eq!(far.value("late"), None);
    assert_eq!(far.zone().position(near.node.control.identity()), position);
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}
