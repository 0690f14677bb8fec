//! One cluster, from a seed: operations, faults, quiet, and what must hold then.

mod look;
mod operations;
mod quiet;

use crate::Broken;
use crate::check::{History, LASTING};
use crate::due::Due;
use crate::faults::Apart;
use crate::lies::Lie;
use crate::link::Link;
use crate::node::{EPOCH, GIVES_UP, Numbers, SCARCE, SimNode, ZONES};
use crate::rng::Rng;
use crate::total::Counts;
use zonemesh::record::{Identity, Millis, Stamp};
use zonemesh::store::{Rule, Zone};
use zonemesh::sync::{Limits, Pull, Push, SessionError};

/// Operations and faults that every seed has at least.
pub const OPERATIONS: u64 = 200;
pub const FAULTS: u64 = 3;
/// One of so many seeds, this one of them, is hard: what is over is forgotten soon, and more goes wrong.
pub const HARD: (u64, u64) = (4, 3);
/// One of so many seeds, this one of them, has a partition that outlasts tombstones, whatever else goes wrong. It is a hard one.
const APART: (u64, u64) = (8, 3);
/// One of so many seeds, this one of them, has fifty nodes.
pub const LARGE: (u64, u64) = (100, 99);
/// In one of so many seeds, this one of them, a node joins fifty others, if their clocks agree.
const JOINS_LARGE: (u64, u64) = (1_000, 999);
/// In one of so many seeds, this one of them, zones note almost as many nodes as they can, which are long gone.
const CROWDED: (u64, u64) = (25, 7);
const MOST_CROWDED: u64 = 100;
/// Of so many seeds these two write most to the zone that gives up records for others, and to the one that refuses them.
const LEANING: u64 = 20;
const GIVES_UP_AT: u64 = 3;
const SCARCE_AT: u64 = 13;

pub struct World {
    pub rng: Rng,
    pub now: Millis,
    pub nodes: Vec<SimNode>,
    #[expect(clippy::vec_box, reason = "those that have ended are taken out from between the others, which move up")]
    pub links: Vec<Box<Link>>,
    /// By link: when something happens next.
    due: Due,
    /// By dialer and dialled, all of one dialer after those of another: when to dial next; `Millis::MAX` while they are connected.
    dial_at: Due,
    /// Nobody dials before then, whatever is lost.
    pub no_dial_until: Vec<Vec<Millis>>,
    /// Dialers may have lost connections.
    pub lost: bool,
    /// By node: it has written since its agent last looked.
    written: Vec<bool>,
    pub limits: Limits,
    /// How long tombstones are kept.
    pub retention: Millis,
    /// How wrong clocks are.
    pub reach: i64,
    /// Whether there are counters or limits.
    pub numbers: Numbers,
    /// Whether clocks are set by minutes. Where they aren't, more is known of what nodes vouch for.
    pub sets_clocks: bool,
    /// Whether only one clock is ever set by minutes, and whose that is.
    pub one_ahead: bool,
    pub ahead: Option<usize>,
    lie: Option<Lie>,
    /// Half of what is written goes to this zone, which has too little room.
    leans_to: Option<usize>,
    /// Partitions that outlast tombstones.
    pub apart: Vec<Apart>,
    /// Nodes that there were, each life counted.
    pub identities: usize,
    /// Nodes that are long gone.
    crowd: u64,
    pub history: History,
    pub counts: Counts,
    /// What a session has to send.
    out: Vec<u8>,
    hard: bool,
    parts_for_long: bool,
    joins_large: bool,
    trace: bool,
}

impl World {
    /// Runs the cluster of a seed to its end.
    pub fn run(seed: u64, broken: Option<Broken>, trace: bool) -> Result<Counts, String> {
        let (lie, rule) = match broken {
            Some(Broken::Wire(lie)) => (Some(lie), None),
            Some(Broken::Rule(rule)) => (None, Some(rule)),
            None => (None, None),
        };
        Rule::break_only(rule);
        let mut world = World::new(seed, lie, trace);
        if rule == Some(Rule::GivenUp) {
            world.leans_to = Some(GIVES_UP);
        }
        let result = world.live();
        Rule::break_only(None);
        result
    }

    fn new(seed: u64, lie: Option<Lie>, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        // A quarter have five nodes or more, one in a hundred fifty.
        let size = match rng.below(40) {
            _ if seed % LARGE.0 == LARGE.1 => 50,
            0 => rng.between(10, 14),
            1..10 => rng.between(5, 9),
            _ => rng.between(2, 4),
        } as usize;
        let hard = seed % HARD.0 == HARD.1;
        let retention = match hard {
            true => rng.between(1_000, 3_000),
            false if rng.one_in(3) => rng.between(2_000, 10_000),
            false => LASTING,
        };
        let limits = Limits {
            // Signs of life in proportion to how many there are to give them.
            timeout: rng.between(1_000, 3_000) * (size as u64).div_ceil(10),
            frame_size: rng.between(1_024, 4_096) as usize,
            window: 8 * 1024,
            recv_buffer: rng.between(4_096, 16_384) as usize,
            // In some seeds clocks disagree by more than what is taken at once.
            max_drift: if rng.one_in(5) { 2_000 } else { 60_000 },
        };
        // How wrong clocks are, milliseconds.
        let reach = if rng.one_in(2) { 4_000 } else { 200 };
        let numbers = Numbers::of_seed(seed);
        let nodes = (0..size).map(|_| {
            let skew = rng.around(reach);
            SimNode::new(&mut rng, skew, limits, retention, size, numbers)
        });
        let mut world = World {
            nodes: nodes.collect(),
            now: EPOCH,
            links: Vec::new(),
            due: Due::default(),
            no_dial_until: vec![vec![0; size]; size],
            lost: false,
            written: vec![false; size],
            dial_at: Due::new(
                (0..size * size).map(|at| if at / size == at % size { Millis::MAX } else { EPOCH }).collect(),
            ),
            limits,
            retention,
            reach,
            numbers,
            sets_clocks: sets_clocks(seed),
            one_ahead: seed.is_multiple_of(2),
            ahead: None,
            lie,
            leans_to: match seed % LEANING {
                GIVES_UP_AT => Some(GIVES_UP),
                SCARCE_AT if size <= ZONES[SCARCE].most_nodes => Some(SCARCE),
                _ => None,
            },
            // Where other clocks are further apart than is allowed, more than one is wrong.
            history: History::new(
                retention,
                numbers,
                sets_clocks(seed),
                seed.is_multiple_of(2) && 2 * reach.unsigned_abs() <= limits.max_drift,
            ),
            counts: Counts::default(),
            out: Vec::new(),
            apart: Vec::new(),
            identities: size,
            crowd: 0,
            hard,
            parts_for_long: seed % APART.0 == APART.1,
            joins_large: seed % JOINS_LARGE.0 == JOINS_LARGE.1,
            trace,
            rng,
        };
        if seed % CROWDED.0 == CROWDED.1 && size < 10 {
            world.crowd();
        }
        world
    }

    /// The cluster had many nodes before, of which nothing is left but how far they were. Nodes that begin anew hear of them.
    fn crowd(&mut self) {
        let room = self.nodes.len() as u64;
        for node in &self.nodes {
            // Larger zones note so many that a seed would take for ever.
            let small = |zone: &Zone| zone.stats().origins_room < MOST_CROWDED;
            for zone in node.node.zones.iter().map(|sync| sync.zone).filter(small) {
                let gone = (1..).take_while(|n| zone.stats().origins_room > room && zone.advance(gone(*n), Stamp(*n)));
                self.crowd = self.crowd.max(gone.count() as u64);
            }
        }
        self.identities += self.crowd as usize;
    }

    fn given_up(&self) -> u64 {
        let zones = self.nodes.iter().flat_map(|node| node.node.zones.iter());
        let full = zones.map(|sync| sync.zone).filter(|zone| zone.stats().origins_room == 0);
        let known = full.map(|zone| {
            let positions = zone.positions();
            let is_known = |n: &u64| positions.iter().any(|(origin, _)| *origin == gone(*n));
            (1..=self.crowd).take_while(|n| !is_known(n)).count() as u64
        });
        known.sum()
    }

    fn live(mut self) -> Result<Counts, String> {
        self.storm()?;
        self.quiet()?;
        self.counts.given_up = self.given_up();
        self.counts.inherited = self.history.inherited;
        Ok(self.counts)
    }

    /// How many zones each node has.
    pub fn zones(&self) -> usize {
        self.nodes[0].node.zones.len()
    }

    /// Operations and faults, in a random order, with time between them.
    fn storm(&mut self) -> Result<(), String> {
        let mut faults = FAULTS + self.rng.below(8) + if self.hard { 15 } else { 0 };
        let mut operations = OPERATIONS + self.rng.below(60);
        let parts_at = self.rng.between(OPERATIONS / 4, OPERATIONS / 2);
        let mut has_parted = !self.parts_for_long;
        while faults + operations > 0 {
            if operations <= parts_at && !has_parted {
                has_parted = true;
                self.part_for_long();
            }
            if self.rng.below(faults + operations) < faults {
                faults -= u64::from(self.fault());
            } else {
                operations -= u64::from(self.operation());
            }
            if self.rng.one_in(8) {
                self.look_at_one()?;
            }
            let pause = match self.rng.below(10) {
                0..=4 => 0,
                5..=8 => self.rng.between(1, 60),
                _ => self.rng.between(100, 1_500),
            };
            self.pass(pause)?;
            self.keep_up();
        }
        Ok(())
    }

    /// The agents' part: what is over goes, and what is from the future gets other stamps.
    fn keep_up(&mut self) {
        self.renew();
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.has_agent(self.now)) {
            for zone in node.node.zones.iter().map(|sync| sync.zone) {
                zone.upkeep(node.clock(self.now), 100);
                zone.find_idle_origins(node.clock(self.now), 10);
            }
            self.history.note_given_up(at, node);
        }
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
        self.due.next().min(self.dial_at.next()).max(self.now + 1)
    }

    /// After a fault those of the nodes that it hit may have something to do.
    pub fn look_at_links(&mut self, is_hit: impl Fn(usize) -> bool) {
        for (at, link) in self.links.iter_mut().enumerate().filter(|(_, link)| is_hit(link.from) || is_hit(link.to)) {
            link.may_send = true;
            self.due.set(at, self.now);
        }
    }

    /// Does all that is due now.
    fn settle(&mut self) -> Result<(), String> {
        self.dial_all();
        for from in 0..self.nodes.len() {
            if self.written[from] && self.nodes[from].has_agent(self.now) {
                self.announce_changes(from);
            }
        }
        let (mut dead, mut from) = (false, 0);
        while let Some(at) = self.due.first(from, self.now) {
            from = at + 1;
            let link = &mut self.links[at];
            let pushes = link.push.is_some();
            let clocks = (self.nodes[link.from].clock(self.now), self.nodes[link.to].clock(self.now));
            let moved = &mut self.counts.moved;
            let pieces = moved.pieces;
            let result = link.step(&mut self.rng, self.now, clocks, self.lie, moved, &mut self.out);
            if let Err(SessionError::Protocol(text)) = result
                && self.lie.is_none()
            {
                return Err(format!(
                    "a session between nodes {} and {} broke the protocol: {text}",
                    link.from, link.to
                ));
            }
            // Merging what others wrote makes a node write, too.
            self.written[link.to] |= moved.pieces > pieces;
            self.due.set(at, link.next(self.now, (self.nodes[link.from].skew, self.nodes[link.to].skew)));
            self.lost |= pushes && link.push.is_none();
            dead |= link.dead();
        }
        for (at, text) in std::mem::take(&mut self.counts.moved.notes) {
            self.trace(|| format!("node {at} logs: {text}"));
        }
        // A frame is begun while there is room, and what goes with it follows.
        let most = self.limits.frame_size + 200 + 60 * self.identities;
        let beyond = std::mem::take(&mut self.counts.moved.beyond);
        if beyond > most {
            return Err(format!("a session made {beyond} bytes more at once than it was asked for"));
        }
        if dead {
            self.due.retain(|at| !self.links[at].dead());
            self.links.retain(|link| !link.dead());
        }
        Ok(())
    }

    /// The agent's part: what has changed, to every session.
    fn announce_changes(&mut self, from: usize) {
        if !self.written[from] || !self.nodes[from].has_agent(self.now) {
            return;
        }
        self.written[from] = false;
        for zone in 0..self.zones() {
            let mask = self.nodes[from].zone(zone).take_dirty();
            if mask == 0 {
                continue;
            }
            for (at, link) in self.links.iter_mut().enumerate().filter(|(_, link)| link.from == from) {
                if let Some(push) = link.push.as_mut() {
                    push.mark(zone, mask);
                    link.may_send = true;
                    self.due.set(at, self.now);
                }
            }
        }
    }

    /// Every node dials all others that it isn't connected to.
    fn dial_all(&mut self) {
        if std::mem::take(&mut self.lost) {
            let mut connected = vec![vec![false; self.nodes.len()]; self.nodes.len()];
            for link in self.links.iter().filter(|link| link.push.is_some()) {
                connected[link.from][link.to] = true;
            }
            for (from, connected) in connected.iter().enumerate() {
                for (to, connected) in connected.iter().enumerate() {
                    let at = from * self.nodes.len() + to;
                    if from != to && !connected && self.dial_at.get(at) == Millis::MAX {
                        self.dial_later(at);
                    }
                }
            }
        }
        let mut next = 0;
        while let Some(at) = self.dial_at.first(next, self.now) {
            next = at + 1;
            let (from, to) = self.pair(at);
            let may_dial = self.now >= self.no_dial_until[from][to];
            if may_dial && self.nodes[from].has_agent(self.now) && self.nodes[to].up(self.now) {
                self.dial_at.set(at, Millis::MAX);
                self.connect(from, to);
            } else {
                self.dial_later(at);
            }
        }
    }

    /// Dialer and dialled.
    fn pair(&self, at: usize) -> (usize, usize) {
        (at / self.nodes.len(), at % self.nodes.len())
    }

    fn dial_later(&mut self, at: usize) {
        let (from, to) = self.pair(at);
        let time = self.no_dial_until[from][to].max(self.now + self.rng.between(100, 400));
        self.dial_at.set(at, time);
    }

    pub fn connect(&mut self, from: usize, to: usize) {
        let (here, there) = (self.nodes[from].clock(self.now), self.nodes[to].clock(self.now));
        let push = Push::new(self.nodes[from].node.clone(), self.nodes[from].owner, here);
        let token = self.nodes[to].token();
        let pull = Pull::new(self.nodes[to].node.clone(), token, there);
        let delay = if self.rng.one_in(4) { self.rng.between(1, 400) } else { self.rng.between(1, 15) };
        self.links.push(Box::new(Link::new(from, to, push, pull, delay)));
        self.due.push(self.now);
        self.counts.sessions += 1;
    }

    pub fn trace(&self, text: impl Fn() -> String) {
        if self.trace {
            println!("{:>8} {}", self.now - EPOCH, text());
        }
    }
}

/// Whether the clocks of a seed's world are set by minutes: not in half of those that have counters or limits.
fn sets_clocks(seed: u64) -> bool {
    !Numbers::of_seed(seed).have_parts() || (seed / 12).is_multiple_of(2)
}

/// A node that is long gone.
fn gone(n: u64) -> Identity {
    Identity(u128::from(n).to_be_bytes())
}
