//! One cluster, from a seed: operations, faults, quiet, and what must hold then.

use crate::check::{Act, History, agreed};
use crate::lies::Lie;
use crate::link::{Link, Moved};
use crate::node::{EPOCH, SimNode, ZONES};
use crate::rng::Rng;
use zonemesh::record::Millis;
use zonemesh::store::{Condition, Life, StoreError, Written};
use zonemesh::sync::{Limits, Pull, Push, SessionError};

/// Operations and faults that every seed has at least.
pub const OPERATIONS: u64 = 200;
pub const FAULTS: u64 = 3;
/// True time that a quiet cluster may take to agree.
const PATIENCE: Millis = 180_000;
const KEYS: u64 = 24;

/// Counts of one seed, or of all.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub acknowledged: u64,
    pub faults: [u64; FAULT_NAMES.len()],
    pub sessions: u64,
    pub bytes: u64,
    pub pieces: u64,
    /// Milliseconds from the last operation or fault until all agreed.
    pub settled: Millis,
}

/// What goes wrong, by the index in [`Counts::faults`].
pub const FAULT_NAMES: [&str; 10] = [
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
];

pub struct World {
    rng: Rng,
    now: Millis,
    nodes: Vec<SimNode>,
    links: Vec<Link>,
    /// By dialer and dialled: when to dial next.
    dial_at: Vec<Vec<Millis>>,
    limits: Limits,
    lie: Option<Lie>,
    history: History,
    counts: Counts,
    trace: bool,
}

impl World {
    /// Runs the cluster of a seed to its end.
    pub fn run(seed: u64, lie: Option<Lie>, trace: bool) -> Result<Counts, String> {
        let mut rng = Rng::new(seed);
        let size = if rng.one_in(3) { 5 } else { 3 };
        let limits = Limits {
            timeout: rng.between(1_000, 3_000),
            frame_size: rng.between(1_024, 4_096) as usize,
            window: 8 * 1024,
            recv_buffer: rng.between(4_096, 16_384) as usize,
            // In some seeds clocks disagree by more than what is taken at once.
            max_drift: if rng.one_in(5) { 2_000 } else { 60_000 },
        };
        let nodes = (0..size).map(|_| {
            let skew = rng.around(4_000);
            SimNode::new(&mut rng, skew, limits)
        });
        let mut world = World {
            nodes: nodes.collect(),
            now: EPOCH,
            links: Vec::new(),
            dial_at: vec![vec![EPOCH; size]; size],
            limits,
            lie,
            history: History::default(),
            counts: Counts::default(),
            trace,
            rng,
        };
        world.storm()?;
        world.quiet()?;
        Ok(world.counts)
    }

    /// Operations and faults, in a random order, with time between them.
    fn storm(&mut self) -> Result<(), String> {
        let mut faults = FAULTS + self.rng.below(8);
        let mut operations = OPERATIONS + self.rng.below(60);
        while faults + operations > 0 {
            if self.rng.below(faults + operations) < faults {
                faults -= u64::from(self.fault());
            } else {
                operations -= u64::from(self.operation());
            }
            let pause = match self.rng.below(10) {
                0..=4 => 0,
                5..=8 => self.rng.between(1, 60),
                _ => self.rng.between(100, 1_500),
            };
            self.pass(pause)?;
        }
        Ok(())
    }

    /// Everything heals; then all must agree within some time, and go on agreeing.
    fn quiet(&mut self) -> Result<(), String> {
        for link in &mut self.links {
            link.held_until = 0;
        }
        let begun = self.now;
        for node in &mut self.nodes {
            node.down_until = node.down_until.min(begun + 500);
            node.no_agent_until = node.no_agent_until.min(begun + 500);
        }
        let mut agreed_since: Option<Millis> = None;
        loop {
            self.pass(250)?;
            for node in &self.nodes {
                (0..ZONES.len()).for_each(|zone| _ = node.zone(zone).upkeep(node.clock(self.now), 100));
            }
            let clock = self.nodes.iter().map(|node| node.clock(self.now)).max().unwrap_or(self.now);
            match self.holds(clock) {
                Ok(()) => {
                    let since = *agreed_since.get_or_insert(self.now);
                    if self.now >= since + 2_000 {
                        self.counts.settled = since - begun;
                        return Ok(());
                    }
                }
                // After a while of agreement there is nothing left that could end it.
                Err(wrong) if self.now > begun + PATIENCE => return Err(wrong),
                Err(_) => agreed_since = None,
            }
        }
    }

    fn holds(&self, clock: Millis) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            for (zone, (name, _, _)) in ZONES.iter().enumerate() {
                if node.zone(zone).stats().incomplete > 0 {
                    return Err(format!(
                        "zone {name} of node {at} had no room for a record: the simulator's zones are too small"
                    ));
                }
            }
        }
        for (zone, live) in agreed(&self.nodes, clock)?.iter().enumerate() {
            self.history.check(zone, live, clock)?;
        }
        Ok(())
    }

    /// Lets `millis` of true time pass, from event to event.
    fn pass(&mut self, millis: Millis) -> Result<(), String> {
        let end = self.now + millis;
        loop {
            self.settle()?;
            let next = self.next_event();
            if next > end {
                self.now = end;
                return Ok(());
            }
            self.now = next;
        }
    }

    fn next_event(&self) -> Millis {
        let skew = |at: usize| self.nodes[at].skew;
        let links = self.links.iter().map(|link| link.next(self.now, (skew(link.from), skew(link.to))));
        let dials = self.dial_at.iter().flatten().copied().filter(|at| *at > self.now);
        links.chain(dials).min().unwrap_or(Millis::MAX)
    }

    /// Does all that is due now.
    fn settle(&mut self) -> Result<(), String> {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.dial(from, to);
            }
            self.announce_changes(from);
        }
        let mut moved = Moved::default();
        for link in &mut self.links {
            let clocks = (self.nodes[link.from].clock(self.now), self.nodes[link.to].clock(self.now));
            let result = link.step(&mut self.rng, self.now, clocks, self.lie, &mut moved);
            if let Err(SessionError::Protocol(text)) = result
                && self.lie.is_none()
            {
                return Err(format!(
                    "a session between nodes {} and {} broke the protocol: {text}",
                    link.from, link.to
                ));
            }
        }
        self.counts.bytes += moved.bytes;
        self.counts.pieces += moved.pieces;
        self.links.retain(|link| !link.dead());
        Ok(())
    }

    /// The agent's part: what has changed, to every session.
    fn announce_changes(&mut self, from: usize) {
        if !self.nodes[from].has_agent(self.now) {
            return;
        }
        for zone in 0..ZONES.len() {
            let mask = self.nodes[from].zone(zone).take_dirty();
            for push in self.links.iter_mut().filter(|link| link.from == from).filter_map(|link| link.push.as_mut()) {
                if mask != 0 {
                    push.mark(zone, mask);
                }
            }
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        if from == to || self.now < self.dial_at[from][to] {
            return;
        }
        self.dial_at[from][to] = self.now + self.rng.between(100, 400);
        if self.links.iter().any(|link| link.from == from && link.to == to && link.push.is_some()) {
            return;
        }
        if self.nodes[from].has_agent(self.now) && self.nodes[to].up(self.now) {
            self.connect(from, to);
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        let (here, there) = (self.nodes[from].clock(self.now), self.nodes[to].clock(self.now));
        let push = Push::new(self.nodes[from].node.clone(), self.nodes[from].owner, here);
        let token = self.nodes[to].token();
        let pull = Pull::new(self.nodes[to].node.clone(), token, there);
        let delay = if self.rng.one_in(4) { self.rng.between(1, 400) } else { self.rng.between(1, 15) };
        self.links.push(Link::new(from, to, push, pull, delay));
        self.counts.sessions += 1;
    }

    /// One operation on some node; `false`: the node is down.
    fn operation(&mut self) -> bool {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[at].up(self.now) {
            return false;
        }
        self.counts.operations += 1;
        let zone_at = self.rng.below(ZONES.len() as u64) as usize;
        let zone = self.nodes[at].zone(zone_at);
        let now = self.nodes[at].clock(self.now);
        let key = format!("key {}", self.rng.below(KEYS)).into_bytes();
        let life = match self.rng.below(6) {
            0 => Life::For(self.rng.between(50, 3_000)),
            1 => Life::For(self.rng.between(3_000, 3_600_000)),
            2 => Life::Keep,
            _ => Life::Default,
        };
        let what = self.rng.below(100);
        let written = match what {
            0..=1 => match zone.clear(now) {
                Ok(stamp) => {
                    self.history.cleared(at, zone_at, stamp);
                    self.trace(|| format!("node {at} empties zone {zone_at}: {stamp:?}"));
                    return true;
                }
                Err(error) => Err(error),
            },
            2..=19 => zone.delete(&key, now),
            20..=29 => zone.touch(&key, life, now),
            30..=33 => {
                zone.upkeep(now, 100);
                return true;
            }
            _ => {
                let value = self.value(zone_at);
                let condition = match self.rng.below(8) {
                    0 => Condition::Absent,
                    1 => Condition::Present,
                    _ => Condition::Always,
                };
                zone.set(&key, &value, life, condition, now)
            }
        };
        self.note(at, zone_at, &key, written, what < 20, now);
        true
    }

    /// Now and then one that is larger than a frame.
    fn value(&mut self, zone: usize) -> Vec<u8> {
        let length = match (zone, self.rng.below(20)) {
            (0, 0) => self.rng.between(4_000, 6_000),
            _ => self.rng.below(150),
        };
        (0..length).map(|_| self.rng.next() as u8).collect()
    }

    fn note(
        &mut self,
        at: usize,
        zone_at: usize,
        key: &[u8],
        written: Result<Written, StoreError>,
        deleted: bool,
        now: Millis,
    ) {
        let Ok(Written::Done(version)) = written else { return };
        let mut value = Vec::new();
        let found = self.nodes[at].zone(zone_at).get(key, now, &mut value);
        let act = match found {
            _ if deleted => Act::Delete,
            Ok(Some(found)) if self.nodes[at].zone(zone_at).version(&found) == version => {
                Act::Put { value, expires: found.expires }
            }
            found => panic!("node {at} acknowledged {version:?} for {key:?} and then found {found:?}"),
        };
        self.trace(|| {
            let what = match &act {
                Act::Delete => "delete".into(),
                Act::Put { value, expires } => format!("{} bytes until {expires:?}", value.len()),
            };
            format!("node {at} zone {zone_at} {}: {what} {version:?}", String::from_utf8_lossy(key))
        });
        self.counts.acknowledged += 1;
        self.history.act(at, zone_at, key, version, act);
    }

    /// One fault; `false`: there was nothing that it could hit.
    fn fault(&mut self) -> bool {
        let kind = self.rng.below(FAULT_NAMES.len() as u64) as usize;
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        let other = (at + self.rng.between(1, self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let long = self.rng.between(50, 3 * self.limits.timeout);
        let now = self.now;
        let hit = match kind {
            2 => self.nodes[at].has_agent(now) && self.nodes[other].up(now),
            5 | 7 | 8 => self.nodes[at].up(now),
            6 => self.links.iter().any(|link| link.to == at && link.pull.is_some()),
            9 => true,
            _ => self.links.iter().any(|link| link.from == at && link.to == other),
        };
        if !hit {
            return false;
        }
        self.counts.faults[kind] += 1;
        self.trace(|| format!("{} (nodes {at}, {other}; {long} ms)", FAULT_NAMES[kind]));
        match kind {
            2 => self.connect(at, other),
            5 => self.kill_agent(at, long),
            6 => self.links.iter_mut().filter(|link| link.to == at).for_each(|link| link.drop_pull(now, false)),
            7 => self.cut_off(at, long),
            8 => self.lose_memory(at, long),
            9 => self.nodes[at].skew += self.rng.around(2_000),
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
                        _ => link.black_hole = true,
                    }
                }
            }
        }
        true
    }

    fn kill_agent(&mut self, at: usize, long: Millis) {
        for link in self.links.iter_mut().filter(|link| link.from == at) {
            link.drop_push(self.now, false);
        }
        self.nodes[at].no_agent_until = self.now + long;
        self.nodes[at].next_agent();
    }

    /// Nothing reaches or leaves the node for a while; nobody is told.
    fn cut_off(&mut self, at: usize, long: Millis) {
        for link in self.links.iter_mut().filter(|link| link.from == at || link.to == at) {
            link.black_hole = true;
        }
        for other in 0..self.nodes.len() {
            self.dial_at[at][other] = self.now + long;
            self.dial_at[other][at] = self.now + long;
        }
    }

    /// The node's master dies, and another node begins in its place.
    fn lose_memory(&mut self, at: usize, long: Millis) {
        let now = self.now;
        for link in &mut self.links {
            if link.from == at {
                link.lose_forth(&mut self.rng);
                link.drop_push(now, false);
            }
            if link.to == at {
                link.drop_pull(now, false);
            }
        }
        let skew = self.nodes[at].skew;
        self.nodes[at] = SimNode::new(&mut self.rng, skew, self.limits);
        self.nodes[at].down_until = now + long;
        self.history.forget(at);
    }

    fn trace(&self, text: impl Fn() -> String) {
        if self.trace {
            println!("{:>8} {}", self.now - EPOCH, text());
        }
    }
}
