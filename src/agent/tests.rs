//! Whole agents against accepting sides that run here, over loopback; nodes of one process, each with its own zones.

mod lease;

use super::hub::Hub;
use super::log::Log;
use super::rest::Rest;
use super::state_file::StateFile;
use super::sys::{EventFd, test_eventfd};
use super::*;
use crate::store::{Condition, Life, LinkState, Mapping, Params, Region};
use crate::sync::{Limits, Pull, SyncZone};
use crossbeam_channel::Receiver;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// Memory that lives until the test process ends, as detached threads may still look at it.
fn memory(len: usize) -> Region {
    let mapping: &'static Mapping = Box::leak(Box::new(Region::anonymous(len).unwrap()));
    mapping.region()
}

struct TestNode {
    node: Node,
    eventfd: EventFd,
    handovers: Vec<Handover>,
    states: Vec<StateFile>,
}

impl TestNode {
    fn new() -> TestNode {
        let control = Control::create(memory(crate::store::control::CONTROL_SIZE)).unwrap();
        let eventfd = test_eventfd();
        control.set_eventfd(eventfd.as_raw_fd());
        control.next_generation();
        let params = Params { timeout: None, sync: true, ..Params::new(control.identity()) };
        let zone = Zone::create(memory(1 << 20), &params).unwrap();
        zone.set_joined();
        let limits = Limits { timeout: 2000, frame_size: 8192, window: 65536, recv_buffer: 65536, max_drift: 60_000 };
        let zones = Arc::from([SyncZone { name: "z".into(), zone }]);
        TestNode { node: Node { control, zones, limits }, eventfd, handovers: Vec::new(), states: Vec::new() }
    }

    fn zone(&self) -> Zone {
        self.node.zones[0].zone
    }

    /// As a worker does it: store, then wake.
    fn set(&self, key: &str, value: &str) {
        self.zone().set(key.as_bytes(), value.as_bytes(), Life::Default, Condition::Always, now()).unwrap();
        if self.node.control.must_wake() {
            self.eventfd.signal();
        }
    }

    fn value(&self, key: &str) -> Option<String> {
        let mut value = Vec::new();
        self.zone().get(key.as_bytes(), now(), &mut value).unwrap()?;
        Some(String::from_utf8(value).unwrap())
    }

    fn start(&self, ports: &[u16]) -> Started {
        self.start_trying_every(40, ports)
    }

    fn start_trying_every(&self, retry_interval: u64, ports: &[u16]) -> Started {
        self.start_with(retry_interval, ports, test_eventfd().as_raw_fd())
    }

    /// `log_ready` is written after each line that it says.
    fn start_with(&self, retry_interval: u64, ports: &[u16], log_ready: RawFd) -> Started {
        let lease = self.node.control.try_lease(self.node.control.generation(), now()).unwrap();
        let peers = ports.iter().map(|port| peer(*port));
        let cluster = Cluster {
            node: self.node.clone(),
            peers: peers.collect(),
            connect_timeout: 2000,
            retry_interval,
            interval: None,
            tls: None,
        };
        let config = Config {
            control: self.node.control,
            lease,
            zones: vec![self.zone()],
            handovers: self.handovers.clone(),
            pid_files: None,
            states: self.states.clone(),
            cluster: Some(cluster),
        };
        let (agent, lines) = Agent::start(config, log_ready).unwrap();
        Started { agent, lines, said: Vec::new() }
    }
}

/// The node that listens on this port of loopback.
fn peer(port: u16) -> Peer {
    let target = Target::Tcp { host: "127.0.0.1".into(), address: ([127, 0, 0, 1], port).into() };
    Peer { text: format!("127.0.0.1:{port}"), target }
}

struct Started {
    agent: Agent,
    lines: Receiver<LogLine>,
    said: Vec<String>,
}

impl Started {
    /// Waits for a line that holds `text`.
    fn says(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.said.iter().any(|line| line.contains(text)) {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            self.said.push(line.unwrap_or_else(|_| panic!("no line says {text:?}: {:?}", self.said)).text);
        }
    }

    fn all(&mut self) -> &[String] {
        self.said.extend(self.lines.try_iter().map(|line| line.text));
        &self.said
    }
}

/// The accepting side of a node: a thread a session.
struct Acceptor {
    port: u16,
    /// How many sessions have ended.
    ended: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    fn new(node: &Node, port: u16) -> Acceptor {
        // A port that was free before may be that of somebody's connection just now.
        let (begun, mut bound) = (Instant::now(), TcpListener::bind(("127.0.0.1", port)));
        while bound.is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
            bound = TcpListener::bind(("127.0.0.1", port));
        }
        let listener = bound.unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, node) = (listener.local_addr().unwrap().port(), node.clone());
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, over) = (stop.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            let mut sessions = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (node, stopped, over) = (node.clone(), stopped.clone(), over.clone());
                        sessions.push(std::thread::spawn(move || {
                            accepted(stream, node, &stopped);
                            over.fetch_add(1, Ordering::Relaxed);
                        }));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            sessions.into_iter().for_each(|session| session.join().unwrap());
        });
        Acceptor { port, ended, stop, thread: Some(thread) }
    }

    /// Waits until so many sessions have taken all that was sent to them and ended.
    fn has_ended(&self, sessions: u64) {
        wait("the ends of sessions", || self.ended.load(Ordering::Relaxed) == sessions);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accepted(mut stream: TcpStream, node: Node, stop: &AtomicBool) {
    static TOKEN: AtomicU64 = AtomicU64::new(1);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut pull = Pull::new(node, TOKEN.fetch_add(1, Ordering::Relaxed), now());
    let (mut input, mut out) = ([0; 4096], Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let result = match stream.read(&mut input) {
            Ok(0) => break,
            Ok(n) => pull.handle(&input[..n], &mut out, now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                pull.tick(&mut out, now())
            }
            Err(_) => break,
        };
        let written = stream.write_all(&out);
        out.clear();
        if result.is_err() || written.is_err() {
            break;
        }
    }
    pull.close(&mut out, "test over");
    let _ = stream.write_all(&out);
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_change_travels_and_this_node_itself_is_left_out() {
    let (near, far) = (TestNode::new(), TestNode::new());
    let (own, other) = (Acceptor::new(&near.node, 0), Acceptor::new(&far.node, 0));
    near.set("before", "1");
    let mut agent = near.start(&[own.port, other.port]);
    wait("what was there before", || far.value("before").as_deref() == Some("1"));
    agent.says(&format!("127.0.0.1:{} is this node itself", own.port));
    agent.says("connected to node");
    for round in 0..100 {
        let value = round.to_string();
        near.set("key", &value);
        wait("the change", || far.value("key").as_ref() == Some(&value));
    }
    wait("one node online", || near.node.control.nodes_online() == 1);
    wait("nothing pending", || near.zone().stats().pending == 0);
    let shown =
        |port: u16| near.node.control.links().into_iter().find(|link| link.server == format!("127.0.0.1:{port}"));
    wait("the bytes that were sent are shown", || {
        shown(other.port).is_some_and(|link| link.traffic.bytes_out > 1000 && link.traffic.msgs_out > 100)
    });
    let link = shown(other.port).unwrap();
    assert_eq!((link.node, link.pending), (Some(far.node.control.identity()), 0));
    assert!(link.since > 0 && link.traffic.bytes_in > 0 && link.traffic.msgs_in > 0, "{link:?}");
    assert!(link.certificate.is_none() && link.error.is_none(), "{link:?}");
    wait("an answer to a ping", || shown(other.port).is_some_and(|link| link.pulse.is_some()));
    let pulse = shown(other.port).and_then(|link| link.pulse).unwrap();
    assert!(pulse.round_trip < 5_000_000 && pulse.ahead.abs() < 5_000, "{pulse:?}");
    wait("the peer has confirmed all", || shown(other.port).is_some_and(|link| link.behind.is_none()));
    let itself = shown(own.port).unwrap();
    assert_eq!(
        (itself.node, itself.state, itself.behind),
        (None, LinkState::Itself, None),
        "this node itself is no peer"
    );
    assert_eq!(link.state, LinkState::Connected);
    wait("what came is shown on the other side", || {
        let heard = far.node.control.heard_nodes();
        let [heard] = heard.as_slice() else { return false };
        heard.node == near.node.control.identity() && heard.traffic.msgs_in > 100 && heard.traffic.bytes_out > 0
    });
    assert!(near.node.control.counter(crate::store::control::Counter::BytesOut) > 1000);
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
    assert!(agent.agent.ended() && near.node.control.lease().is_none(), "the lease is given back");
    assert_eq!(near.node.control.nodes_online(), 0);
    assert!(near.node.control.links().iter().all(|link| link.node.is_none()));
}

#[test]
fn a_change_is_sent_though_its_writer_died_before_it_woke_the_agent() {
    let (near, far) = (TestNode::new(), TestNode::new());
    let acceptor = Acceptor::new(&far.node, 0);
    let mut agent = near.start(&[acceptor.port]);
    agent.says("connected");
    near.set("key", "0");
    wait("a change", || far.value("key").as_deref() == Some("0"));
    for value in ["1", "2"] {
        near.zone().set(b"key", value.as_bytes(), Life::Default, Condition::Always, now()).unwrap();
        // It had taken it upon itself to.
        wait("the agent sleeps", || near.node.control.must_wake());
        wait("the change that nobody told of", || far.value("key").as_deref() == Some(value));
    }
}

#[test]
fn a_peer_that_is_not_there_is_dialled_until_it_is_and_told_of_once() {
    let (near, far) = (TestNode::new(), TestNode::new());
    let port = Acceptor::new(&far.node, 0).port;
    let mut agent = near.start(&[port]);
    agent.says("can't be reached");
    let shown = || near.node.control.links().into_iter().next().unwrap();
    wait("the state and the reason", || shown().state == LinkState::Unreachable && shown().error.is_some());
    assert!(shown().error.is_some_and(|(text, _)| text.starts_with("can't be reached: ")), "{:?}", shown());
    let behind = shown().behind.expect("nobody knows what it has");
    near.set("key", "1");
    let acceptor = Acceptor::new(&far.node, port);
    wait("the change", || far.value("key").is_some());
    agent.says("connected");
    wait("all confirmed", || shown().behind.is_none());
    drop(acceptor);
    agent.says("lost");
    near.set("key", "2");
    wait("the peer is behind again", || shown().behind.is_some_and(|since| since > behind));
    let _acceptor = Acceptor::new(&far.node, port);
    wait("the second change", || far.value("key").as_deref() == Some("2"));
    // About 25 tries a second went on meanwhile.
    let refusals = agent.all().iter().filter(|line| line.contains("can't be reached")).count();
    assert!(refusals <= 2, "{:?}", agent.said);
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
}

#[test]
fn a_peer_that_says_hello_is_dialled_at_once() {
    let (near, far) = (TestNode::new(), TestNode::new());
    let port = Acceptor::new(&far.node, 0).port;
    near.set("key", "1");
    let mut agent = near.start_trying_every(600_000, &[port]);
    agent.says("can't be reached");
    let _acceptor = Acceptor::new(&far.node, port);
    // As a session does that it begins here.
    near.node.control.heard(far.node.control.identity(), now(), &crate::store::Traffic::default());
    near.eventfd.signal();
    wait("what waited for it", || far.value("key").is_some());
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
}

#[test]
fn peers_that_names_lead_to_come_and_go() {
    let (near, far, further) = (TestNode::new(), TestNode::new(), TestNode::new());
    let acceptors = [Acceptor::new(&far.node, 0), Acceptor::new(&further.node, 0)];
    let [first, second] = [peer(acceptors[0].port), peer(acceptors[1].port)];
    let mut agent = near.start(&[]);
    near.set("key", "1");
    agent.agent.meet(vec![first.clone()]);
    wait("the first", || far.value("key").as_deref() == Some("1"));
    agent.agent.meet(vec![first.clone(), second.clone()]);
    wait("the second", || further.value("key").as_deref() == Some("1"));
    wait("two nodes online", || near.node.control.nodes_online() == 2);
    // The other name for the same place is no reason to connect again.
    agent.agent.meet(vec![second.clone(), Peer { text: "another name".into(), ..second }]);
    wait("one node online", || near.node.control.nodes_online() == 1);
    near.set("key", "2");
    wait("the change", || further.value("key").as_deref() == Some("2"));
    assert_eq!(far.value("key").as_deref(), Some("1"), "who isn't a peer any more is told nothing");
    assert_eq!(agent.all().iter().filter(|line| line.contains("connected to node")).count(), 2, "{:?}", agent.said);
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
}

#[test]
fn a_zone_shows_how_many_records_wait_for_the_peer_that_lacks_most() {
    let node = TestNode::new();
    let params = Params { sync: true, ..Params::new(node.node.control.identity()) };
    let other = SyncZone { name: "zz".into(), zone: Zone::create(memory(64 << 10), &params).unwrap() };
    let zones: Arc<[SyncZone]> = [node.node.zones[0].clone(), other].into();
    zones.iter().for_each(|sync| sync.zone.set_pending(99));
    let lease = node.node.control.try_lease(node.node.control.generation(), now()).unwrap();
    let log = Rc::new(Log::new(test_eventfd()).0);
    let hub = Hub::new(node.node.control, lease, zones.clone(), log, Rest::new());
    let add = |n: usize| (hub.add_link(&peer(1_000 + n as u16), None), [0; 2]);
    let mut links: Vec<_> = (0..5).map(add).collect();
    let mut drawn = 1u64;
    let mut draw = |below: u64| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) % below
    };
    for round in 0..10_000 {
        let at = draw(5) as usize;
        match draw(20) {
            // Its session ends, or it isn't one of the cluster any more, and another one is.
            0 => links[at].1 = [0; 2],
            1 => {
                hub.remove_link(&links[at].0);
                links[at] = add(round);
            }
            _ => links[at].1 = [draw(4), draw(4)],
        }
        hub.set_waiting(&links[at].0, |zone| links[at].1[zone]);
        for (zone, sync) in zones.iter().enumerate() {
            let most = links.iter().map(|(_, waiting)| waiting[zone]).max().unwrap();
            assert_eq!(sync.zone.stats().pending, most, "round {round}, zone {zone}");
        }
    }
}

#[test]
fn finishing_sends_all_that_was_accepted() {
    let (near, far) = (TestNode::new(), TestNode::new());
    let acceptor = Acceptor::new(&far.node, 0);
    let mut agent = near.start(&[acceptor.port]);
    for number in 0..3000 {
        near.set(&format!("key {number}"), "value");
    }
    agent.agent.finish(PATIENCE, Duration::ZERO);
    assert!(agent.agent.join(PATIENCE));
    assert_eq!(far.zone().stats().records, 3000);
    assert!(near.node.control.lease().is_none());
}

#[test]
fn finishing_does_not_wait_for_a_peer_that_is_not_there() {
    let near = TestNode::new();
    let port = Acceptor::new(&near.node, 0).port;
    let mut agent = near.start(&[port]);
    agent.says("can't be reached");
    near.set("key", "1");
    let began = Instant::now();
    agent.agent.finish(PATIENCE, Duration::ZERO);
    assert!(agent.agent.join(PATIENCE));
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn who_is_told_to_finish_while_it_rests_from_a_failure_starts_once_more() {
    for mended in [true, false] {
        let (near, far) = (TestNode::new(), TestNode::new());
        let acceptor = Acceptor::new(&far.node, 0);
        near.node.control.set_eventfd(-1);
        near.set("key", "1");
        let mut agent = near.start(&[acceptor.port]);
        agent.says("starts again in 800 ms");
        if mended {
            near.node.control.set_eventfd(near.eventfd.as_raw_fd());
        }
        agent.agent.finish(PATIENCE, Duration::ZERO);
        assert!(agent.agent.join(PATIENCE));
        let control = near.node.control;
        assert_eq!(far.value("key").is_some(), mended);
        assert_eq!(control.is_finished(control.generation(), [near.zone()].iter()), mended);
        assert!(control.lease().is_none());
        if !mended {
            agent.says("while nginx ends");
        }
    }
}

#[test]
fn finishing_sends_what_old_workers_wrote_last_to_the_memory_that_a_zone_had() {
    let (mut near, far) = (TestNode::new(), TestNode::new());
    let acceptor = Acceptor::new(&far.node, 0);
    let control = near.node.control;
    let params = Params { timeout: None, sync: true, ..Params::new(control.identity()) };
    let old = Zone::create(memory(1 << 20), &params).unwrap();
    let (source, copied) = old.hand_over(&near.zone(), &mut [], control.next_generation(), now());
    assert_eq!(copied.unwrap().lost, 0);
    near.handovers = vec![Handover { new: near.zone(), sources: vec![source] }];
    // It is told to finish before it has looked at the old memory.
    control.set_eventfd(-1);
    let mut agent = near.start(&[acceptor.port]);
    agent.says("starts again in 800 ms");
    old.set(b"late", b"1", Life::Default, Condition::Always, now()).unwrap();
    control.set_eventfd(near.eventfd.as_raw_fd());
    agent.agent.finish(PATIENCE, Duration::ZERO);
    assert!(agent.agent.join(PATIENCE));
    assert_eq!(far.value("late").as_deref(), Some("1"), "{:?}", agent.all());
    assert!(control.is_finished(control.generation(), [near.zone()].iter()));
}

#[test]
fn what_is_written_after_the_end_is_not_taken_for_finished() {
    let near = TestNode::new();
    let (control, zone) = (near.node.control, near.zone());
    near.set("key", "1");
    let mut agent = near.start(&[]);
    assert!(!control.has_finished(control.generation()));
    agent.agent.finish(PATIENCE, Duration::ZERO);
    assert!(agent.agent.join(PATIENCE));
    let is_finished = || control.is_finished(control.generation(), [zone].iter());
    assert!(is_finished());
    near.set("key", "2");
    assert!(!is_finished() && control.has_finished(control.generation()));
    let mut agent = near.start(&[]);
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
    assert!(!is_finished(), "who was only stopped has finished nothing");
    control.next_generation();
    assert!(!control.has_finished(control.generation()));
}

#[test]
fn it_says_so_if_another_still_acts() {
    let near = TestNode::new();
    let control = near.node.control;
    // A thread of another worker hangs, and its lease was taken from it all the same.
    let lease = control.try_lease(control.generation(), now()).unwrap();
    let (begin, begun) = crossbeam_channel::bounded::<()>(0);
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let hanging = std::thread::spawn(move || {
        let acting = control.acting();
        assert!(acting.begin());
        drop(begin);
        ended.recv().unwrap_err();
    });
    begun.recv().unwrap_err();
    control.release(&lease);
    let mut agent = near.start(&[]);
    agent.says("another helper thread of this node still acts");
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
    drop(end);
    hanging.join().unwrap();
    let mut agent = near.start(&[]);
    agent.agent.stop();
    assert!(agent.agent.join(PATIENCE));
    assert_eq!(agent.all(), &[] as &[String], "now there is no other");
}
