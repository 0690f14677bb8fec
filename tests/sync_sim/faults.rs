//! What goes wrong.

use crate::node::SimNode;
use crate::world::World;
use zonemesh::record::Millis;

/// By the index in the counts.
pub const FAULT_NAMES: [&str; 16] = [
    "connection lost",
    "connection lost at one end",
    "second connection",
    "connection held up",
    "black hole",
    "agent killed",
    "worker killed",
    "node cut off",
    "memory lost",
    "clock jumped",
    "partition",
    "one-way partition",
    "slow peer",
    "memory lost but for files",
    "memory of a zone made anew",
    "clock set by minutes",
];

/// A partition that outlasts tombstones.
pub struct Apart {
    sides: u64,
    until: Millis,
    /// Whether one side has written while it lasts, and the other.
    written: [bool; 2],
}

impl World {
    /// One fault; `false`: there was nothing that it could hit.
    pub fn fault(&mut self) -> bool {
        // The last isn't for all worlds.
        let kinds = FAULT_NAMES.len() - usize::from(!self.sets_clocks);
        let kind = self.rng.below(kinds as u64) as usize;
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        let other = (at + self.rng.between(1, self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let long = self.rng.between(50, 3 * self.limits.timeout);
        let now = self.now;
        let hit = match kind {
            2 => self.nodes[at].has_agent(now) && self.nodes[other].up(now),
            5 | 7 | 8 | 13 | 14 => self.nodes[at].up(now),
            6 => self.links.iter().any(|link| link.to == at && link.pull.is_some()),
            9..=12 | 15 => true,
            _ => self.links.iter().any(|link| link.from == at && link.to == other),
        };
        if !hit {
            return false;
        }
        self.counts.faults[kind] += 1;
        self.trace(|| format!("{} (nodes {at}, {other}; {long} ms)", FAULT_NAMES[kind]));
        match kind {
            2 => {
                // The old one may be stuck, and come to life again when what it carries is long over.
                if self.rng.one_in(2) {
                    let old = self.links.iter_mut().filter(|link| link.from == at && link.to == other);
                    old.for_each(|link| link.held_until = now + long);
                }
                self.connect(at, other);
            }
            5 => self.kill_agent(at, long),
            6 => self.links.iter_mut().filter(|link| link.to == at).for_each(|link| link.drop_pull(now, false)),
            7 => self.part(|node| node == at, long, true),
            8 => self.lose_memory(at, long, false),
            9 => {
                self.history.clock_ran_to(at, self.nodes[at].clock(now));
                self.nodes[at].skew += self.rng.around(self.reach / 2);
            }
            10 | 11 => {
                // Some outlast the tombstones of what is deleted meanwhile.
                let long = long.max(self.rng.below(3 * self.retention.min(10_000)));
                let sides = self.rng.next();
                self.part_in_two(sides, long, kind == 10);
            }
            12 => self.links.iter_mut().filter(|link| link.to == at).for_each(|link| link.slow_until = now + long),
            13 => self.lose_memory(at, long, true),
            14 => self.make_anew(at),
            15 => self.set_clock(at),
            _ => {
                for link in self.links.iter_mut().filter(|link| link.from == at && link.to == other) {
                    match kind {
                        0 => {
                            link.lose_forth(&mut self.rng);
                            link.drop_push(now, true);
                            link.drop_pull(now, true);
                        }
                        1 => link.drop_push(now, true),
                        3 => link.held_until = now + long,
                        _ => link.black_forth = true,
                    }
                }
            }
        }
        // Of a second node that is meant only the connection is hit that the first has to it.
        self.look_at_links(|node| node == at);
        self.lost = true;
        true
    }

    fn kill_agent(&mut self, at: usize, long: Millis) {
        for link in self.links.iter_mut().filter(|link| link.from == at) {
            link.drop_push(self.now, false);
        }
        self.nodes[at].no_agent_until = self.now + long;
        self.nodes[at].next_agent();
    }

    /// A partition that outlasts the tombstones of what is deleted while it lasts, and some of what is remembered of that.
    pub fn part_for_long(&mut self) {
        let first = self.rng.below(self.nodes.len() as u64);
        // Whoever else is where, these two are apart.
        let second = (first + self.rng.between(1, self.nodes.len() as u64 - 1)) % self.nodes.len() as u64;
        let sides = self.rng.next() & !(1 << (first % 64)) | 1 << (second % 64);
        let long = self.retention + self.rng.between(2_000, 3 * self.retention);
        self.trace(|| format!("partition that outlasts tombstones ({long} ms)"));
        self.part_in_two(sides, long, true);
        self.look_at_links(|_| true);
        self.lost = true;
    }

    /// `sides`: a bit for each node.
    fn part_in_two(&mut self, sides: u64, long: Millis, both_ways: bool) {
        self.part(|node| sides >> (node % 64) & 1 == 0, long, both_ways);
        if both_ways && long > self.retention {
            self.apart.push(Apart { sides, until: self.now + long, written: [false; 2] });
        }
    }

    /// A node has written: does a partition last in which both sides have?
    pub fn note_apart(&mut self, at: usize) {
        let now = self.now;
        for apart in self.apart.iter_mut().filter(|apart| now < apart.until && apart.written != [true; 2]) {
            apart.written[(apart.sides >> (at % 64) & 1) as usize] = true;
            self.counts.outlasted += u64::from(apart.written == [true; 2]);
        }
    }

    /// Nothing goes from one side to the other for a while, or back; nobody is told.
    fn part(&mut self, side: impl Fn(usize) -> bool, long: Millis, both_ways: bool) {
        let until = self.now + long;
        let lost = |from: usize, to: usize| side(from) != side(to) && (both_ways || side(from));
        for link in &mut self.links {
            link.black_forth |= lost(link.from, link.to);
            link.black_back |= lost(link.to, link.from);
        }
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| lost(from, *to) || lost(*to, from)) {
                self.no_dial_until[from][to] = self.no_dial_until[from][to].max(until);
            }
        }
    }

    /// The node's master dies, and another node begins in its place, from state files or with nothing.
    fn lose_memory(&mut self, at: usize, long: Millis, files: bool) {
        self.replace(at, long, files);
        self.history.forget(at, None, &self.nodes);
    }

    /// Another node is in the place of one.
    pub fn replace(&mut self, at: usize, long: Millis, files: bool) {
        self.leave(at, false);
        let now = self.now;
        let skew = self.nodes[at].skew;
        let saved = std::mem::take(&mut self.nodes[at].saved);
        self.nodes[at] = SimNode::new(&mut self.rng, skew, self.limits, self.retention, self.nodes.len(), self.numbers);
        self.identities += 1;
        if files {
            let clock = self.nodes[at].clock(now);
            self.nodes[at].load(saved, clock);
        }
        self.nodes[at].down_until = now + long;
        self.look_at_links(|node| node == at);
        self.lost = true;
    }

    /// A reload without some zone, and one with it: the same node has other memory for it.
    fn make_anew(&mut self, at: usize) {
        self.leave(at, true);
        let zone = self.rng.below(self.zones() as u64) as usize;
        let clock = self.nodes[at].clock(self.now);
        self.nodes[at].make_anew(zone, clock);
        if self.rng.one_in(2) {
            self.nodes[at].load_zone(zone, clock);
        }
        self.history.forget(at, Some(zone), &self.nodes);
        self.history.made_anew(zone, self.nodes[at].node.control.identity());
    }

    /// All sessions of a node end.
    fn leave(&mut self, at: usize, tidy: bool) {
        self.history.note_given_up(at, &self.nodes[at]);
        let now = self.now;
        for link in &mut self.links {
            if link.from == at {
                link.lose_forth(&mut self.rng);
                link.drop_push(now, tidy);
            }
            if link.to == at {
                link.drop_pull(now, tidy);
            }
        }
    }
}
