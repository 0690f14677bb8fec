//! What is measured of a mesh of some size.

use crate::mesh::{LIMITS, Mesh};
use crate::wire::{KINDS, Passed};
use serde_json::{Value, json};
use std::time::Instant;
use zonemesh::record::Millis;

/// Records that all nodes together write before anything is measured: 16 bytes of key and of value each.
pub const RECORDS: usize = 1_000;
/// Updates whose time is measured.
const UPDATES: u64 = 200;
/// For how long a mesh is watched that has nothing to do, milliseconds of virtual time: a round of comparing.
pub const IDLE: Millis = 10 * LIMITS.timeout;
/// And for how long one in which each node writes once a second.
pub const BUSY: Millis = 2 * LIMITS.timeout;
const SECOND: Millis = 1_000;

/// Where times are, they are milliseconds of virtual time.
pub struct Figures {
    pub nodes: u64,
    /// All connections.
    pub links: u64,
    /// An update on one node: all that was sent for it, and until all have it.
    pub update: Passed,
    pub visible: Millis,
    /// Of all nodes, in [`IDLE`] and [`BUSY`].
    pub idle: Passed,
    pub busy: Passed,
    /// Until every node has told each other what it has of all, after the last of them has joined.
    pub told: Millis,
    /// An empty node joins: all that passed between it and the others until one timeout later, and until it had all.
    pub join: Passed,
    pub joined: Millis,
    /// Bytes of private memory for each connection: both sessions and what is under way.
    pub session: u64,
    /// Nanoseconds that an update takes of the sender for each peer, and of a receiver.
    pub send: u64,
    pub receive: u64,
}

/// All of a mesh of so many nodes, at least two, with zones of so many bytes.
pub fn measure(nodes: usize, zone: usize) -> Figures {
    let before = private_memory();
    let mut mesh = Mesh::new(nodes - 1, zone);
    mesh.until(10 * LIMITS.timeout, all_joined);
    for n in 0..RECORDS {
        mesh.write(n % (nodes - 1), &key(n), &value(n));
        mesh.pass(5);
    }
    mesh.pass(LIMITS.timeout);
    let (join, joined) = join(&mut mesh);
    let told = settle(&mut mesh);
    let idle = watch(&mut mesh, IDLE, |_| false);
    let (update, visible) = update(&mut mesh);
    let (send, receive) = processor_time(&mut mesh);
    mesh.pass(LIMITS.timeout);
    let busy = watch(&mut mesh, BUSY, |_| true);
    let links = mesh.links() as u64;
    let session = private_memory().saturating_sub(before) / links;
    Figures { nodes: nodes as u64, links, update, visible, idle, busy, told, join, joined, session, send, receive }
}

impl Figures {
    /// For the program that makes a table of them.
    pub fn to_json(&self) -> Value {
        let passed = |passed: &Passed| {
            let kinds = KINDS.iter().map(|kind| (kind.to_string(), json!(passed.of(kind))));
            Value::Object(kinds.chain([("all".into(), json!(passed.all()))]).collect())
        };
        json!({
            "nodes": self.nodes, "links": self.links, "records": RECORDS,
            "update": passed(&self.update), "visible_ms": self.visible,
            "idle": passed(&self.idle), "idle_ms": IDLE, "busy": passed(&self.busy), "busy_ms": BUSY,
            "told_ms": self.told, "join": passed(&self.join), "joined_ms": self.joined,
            "session_bytes": self.session, "send_ns": self.send, "receive_ns": self.receive,
        })
    }
}

fn key(n: usize) -> String {
    format!("key {n:012}")
}

fn value(n: usize) -> String {
    format!("value {n:010}")
}

/// One alone has nobody to join.
fn all_joined(mesh: &Mesh) -> bool {
    mesh.nodes.len() == 1 || mesh.nodes.iter().all(|node| node.zone.joined())
}

/// Lets time pass until all have joined, and nobody has told anything new for two timeouts; returns how long it took until
/// the last did.
fn settle(mesh: &mut Mesh) -> Millis {
    let (began, mut quiet) = (mesh.now, 0);
    while quiet < 2 * LIMITS.timeout {
        let before = mesh.counts.all;
        mesh.pass(LIMITS.timeout / 10);
        let since = mesh.counts.all - before;
        let is_quiet = ["have", "records", "positions"].iter().all(|kind| since.of(kind).0 == 0);
        quiet = if is_quiet && all_joined(mesh) { quiet + LIMITS.timeout / 10 } else { 0 };
        assert!(mesh.now < began + 100 * LIMITS.timeout, "the mesh doesn't come to rest");
    }
    mesh.now - began - quiet
}

fn join(mesh: &mut Mesh) -> (Passed, Millis) {
    let new = mesh.nodes.len();
    mesh.counts.one = new;
    let before = mesh.counts.with_one;
    mesh.add();
    let has_all = |mesh: &Mesh| {
        let zone = mesh.nodes[new].zone;
        zone.joined() && zone.stats().records == RECORDS as u64
    };
    let joined = mesh.until(10 * LIMITS.timeout, has_all);
    mesh.pass(LIMITS.timeout);
    (mesh.counts.with_one - before, joined)
}

/// What is sent in some time, in which each node writes once a second or nobody does.
fn watch(mesh: &mut Mesh, millis: Millis, writes: impl Fn(usize) -> bool) -> Passed {
    let (before, end) = (mesh.counts.all, mesh.now + millis);
    let nodes = mesh.nodes.len();
    while mesh.now < end {
        let until = mesh.now + SECOND;
        for node in (0..nodes).filter(|node| writes(*node)) {
            mesh.write(node, &key(node), &value(mesh.now as usize % 10_000));
            mesh.pass(SECOND / nodes as u64);
        }
        mesh.pass(until.saturating_sub(mesh.now));
    }
    mesh.counts.all - before
}

fn update(mesh: &mut Mesh) -> (Passed, Millis) {
    let before = mesh.counts.all;
    mesh.write(0, &key(0), "another value 16");
    let visible = mesh.until(SECOND, |mesh| mesh.all_have(0, &key(0)));
    mesh.pass(20);
    (mesh.counts.all - before, visible)
}

/// What an update takes of the sender for each peer, and of a receiver, with what the simulator itself takes for that: nanoseconds
/// in half of the updates, so that what else the machine did counts in none.
fn processor_time(mesh: &mut Mesh) -> (u64, u64) {
    let peers = mesh.nodes.len() as u64 - 1;
    let (mut send, mut receive): (Vec<u64>, Vec<u64>) = (0..UPDATES)
        .map(|n| {
            let began = Instant::now();
            mesh.write(0, &key(0), &value(n as usize));
            let sent = Instant::now();
            mesh.pass(crate::mesh::DELAY);
            let received = sent.elapsed();
            mesh.pass(20);
            ((sent - began).as_nanos() as u64 / peers, received.as_nanos() as u64 / peers)
        })
        .unzip();
    [&mut send, &mut receive].into_iter().for_each(|times| times.sort_unstable());
    (send[send.len() / 2], receive[receive.len() / 2])
}

/// Bytes of this process but for what nodes share among their processes.
fn private_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
