//! A full mesh of nodes with the real store and the real protocol, in virtual time, where nothing goes wrong: every way takes
//! as long as the others, and a node takes no time.

use crate::wire::Counts;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use zonemesh::record::{Identity, Millis};
use zonemesh::store::control::CONTROL_SIZE;
use zonemesh::store::{Condition, Control, Life, Mapping, Params, Region, ShardMask, Zone};
use zonemesh::sync::{Limits, Node, Pull, Push, SyncZone};

/// The true time at which a simulation begins.
const EPOCH: Millis = 1_700_000_000_000;
/// How long bytes are under way.
pub const DELAY: Millis = 1;
/// What the directives have as defaults.
pub const LIMITS: Limits =
    Limits { timeout: 5_000, frame_size: 4_096, window: 8 * 4_096, recv_buffer: 8 * 4_096, max_drift: 60_000 };
/// Bytes of frames that are made at once, as by the agent.
const FILL: usize = 64 * 1024;

pub struct SimNode {
    pub node: Node,
    pub zone: Zone,
    // Unmapped after the handles above are gone.
    _memory: [Mapping; 2],
}

/// A connection from the dialer `from` to the node `to`, and the sessions at its ends.
struct Link {
    from: usize,
    to: usize,
    push: Push,
    pull: Pull,
    forth: VecDeque<(Millis, Vec<u8>)>,
    back: VecDeque<(Millis, Vec<u8>)>,
    /// When something happens here next.
    due: Millis,
}

pub struct Mesh {
    pub now: Millis,
    pub nodes: Vec<SimNode>,
    /// What was sent, by everybody and ever.
    pub counts: Counts,
    size: usize,
    links: Vec<Link>,
    /// By dialer, the indexes of its links.
    dialled: Vec<Vec<usize>>,
    queue: BinaryHeap<Reverse<(Millis, usize)>>,
}

impl Mesh {
    /// Of so many nodes, which have a zone of `size` bytes and dial each other at once.
    pub fn new(nodes: usize, size: usize) -> Mesh {
        let mut mesh = Mesh {
            now: EPOCH,
            nodes: Vec::new(),
            counts: Counts::default(),
            size,
            links: Vec::new(),
            dialled: Vec::new(),
            queue: BinaryHeap::new(),
        };
        (0..nodes).for_each(|_| mesh.add());
        mesh
    }

    /// Another node, empty. It dials the others, and they dial it.
    pub fn add(&mut self) {
        let at = self.nodes.len();
        self.nodes.push(SimNode::new(at, self.size));
        self.dialled.push(Vec::new());
        for other in 0..at {
            self.connect(at, other);
            self.connect(other, at);
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        let index = self.links.len();
        self.links.push(Link {
            from,
            to,
            push: Push::new(self.nodes[from].node.clone(), 1, self.now),
            pull: Pull::new(self.nodes[to].node.clone(), index as u64 + 1, self.now),
            forth: VecDeque::new(),
            back: VecDeque::new(),
            due: Millis::MAX,
        });
        self.dialled[from].push(index);
        self.schedule(index, self.now);
    }

    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Writes a record on a node, and makes what it has to send for that.
    pub fn write(&mut self, at: usize, key: &str, value: &str) {
        let zone = self.nodes[at].zone;
        zone.set(key.as_bytes(), value.as_bytes(), Life::Default, Condition::Always, self.now).expect("room");
        self.announce(at, zone.take_dirty());
    }

    fn announce(&mut self, at: usize, shards: ShardMask) {
        for n in 0..self.dialled[at].len() {
            let index = self.dialled[at][n];
            self.links[index].push.mark(0, shards);
            self.send(index);
            self.plan(index);
        }
    }

    /// Lets time pass, from event to event.
    pub fn pass(&mut self, millis: Millis) {
        let end = self.now + millis;
        while let Some(Reverse((at, index))) = self.queue.peek().copied()
            && at <= end
        {
            self.queue.pop();
            if self.links[index].due == at {
                self.now = self.now.max(at);
                self.step(index);
            }
        }
        self.now = end;
    }

    /// Milliseconds until a condition holds.
    pub fn until(&mut self, limit: Millis, holds: impl Fn(&Mesh) -> bool) -> Millis {
        let began = self.now;
        while !holds(self) {
            assert!(self.now < began + limit, "what was waited for didn't come within {limit} ms");
            self.pass(1);
        }
        self.now - began
    }

    /// Whether all nodes have what this one has of a key.
    pub fn all_have(&self, at: usize, key: &str) -> bool {
        let read = |node: &SimNode| {
            let mut value = Vec::new();
            node.zone.get(key.as_bytes(), self.now, &mut value).expect("the lock").map(|_| value)
        };
        let first = read(&self.nodes[at]);
        self.nodes.iter().all(|node| read(node) == first)
    }

    fn step(&mut self, index: usize) {
        let now = self.now;
        let link = &mut self.links[index];
        let mut out = Vec::new();
        while let Some(bytes) = arrived(&mut link.forth, now) {
            link.pull.handle(&bytes, &mut out, now).expect("a session that nothing ends");
        }
        if link.pull.deadline() <= now {
            link.pull.tick(&mut out, now).expect("a session that nothing ends");
        }
        self.counts.add(link.to, link.from, &out);
        if !out.is_empty() {
            link.back.push_back((now + DELAY, out));
        }
        while let Some(bytes) = arrived(&mut link.back, now) {
            link.push.handle(&bytes, now).expect("a session that nothing ends");
        }
        if link.push.deadline() <= now {
            link.push.tick(now).expect("a session that nothing ends");
        }
        self.send(index);
        self.plan(index);
    }

    fn send(&mut self, index: usize) {
        let link = &mut self.links[index];
        loop {
            let mut out = Vec::new();
            link.push.fill(&mut out, FILL, self.now).expect("a session that nothing ends");
            if out.is_empty() {
                return;
            }
            self.counts.add(link.from, link.to, &out);
            link.forth.push_back((self.now + DELAY, out));
        }
    }

    fn plan(&mut self, index: usize) {
        let link = &self.links[index];
        let first = |pipe: &VecDeque<(Millis, Vec<u8>)>| pipe.front().map_or(Millis::MAX, |(at, _)| *at);
        let next = link.push.deadline().min(link.pull.deadline()).min(first(&link.forth)).min(first(&link.back));
        self.schedule(index, next.max(self.now + 1));
    }

    fn schedule(&mut self, index: usize, at: Millis) {
        if self.links[index].due != at {
            self.links[index].due = at;
            self.queue.push(Reverse((at, index)));
        }
    }
}

fn arrived(pipe: &mut VecDeque<(Millis, Vec<u8>)>, now: Millis) -> Option<Vec<u8>> {
    pipe.front().filter(|(at, _)| *at <= now)?;
    pipe.pop_front().map(|(_, bytes)| bytes)
}

impl SimNode {
    fn new(at: usize, size: usize) -> SimNode {
        let identity = identity(at);
        let memory = [CONTROL_SIZE, size].map(|size| Region::anonymous(size).expect("memory for a simulated node"));
        let control = Control::create_with(memory[0].region(), identity).expect("a control region");
        let params = Params { sync: true, ..Params::new(identity) };
        let zone = Zone::create_with(memory[1].region(), &params, identity.0).expect("a zone");
        let zones = Arc::from([SyncZone { name: "one".into(), zone }]);
        SimNode { node: Node { control, zones, limits: LIMITS }, zone, _memory: memory }
    }
}

/// As random as that of a real node, and the same in each run.
pub fn identity(at: usize) -> Identity {
    let half = |n: u64| {
        let bits = (at as u64 * 2 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        u128::from(bits ^ bits >> 27)
    };
    Identity((half(0) << 64 | half(1)).to_be_bytes())
}
