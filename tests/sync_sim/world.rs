//! One cluster, from a seed: operations, faults, quiet, and what must hold then.

use crate::Broken;
use crate::check::{Act, History, Live, agreed, contents};
use crate::due::Due;
use crate::faults::FAULT_NAMES;
use crate::lies::Lie;
use crate::limits::{self, check_buckets};
use crate::link::{Link, Moved};
use crate::node::{EPOCH, GIVES_UP, Numbers, SCARCE, SimNode, ZONES};
use crate::rng::Rng;
use zonemesh::record::{Identity, Millis, Stamp, Version};
use zonemesh::store::{Comparisons, Condition, Counted, Life, Limited, Missing, Rule, StoreError, Written, Zone};
use zonemesh::sync::{Limits, Pull, Push, SessionError};

/// Operations and faults that every seed has at least.
pub const OPERATIONS: u64 = 200;
pub const FAULTS: u64 = 3;
/// True time that a quiet cluster may take to agree.
const PATIENCE: Millis = 180_000;
/// One of so many seeds, this one of them, is hard: what is over is forgotten soon, and more goes wrong.
pub const HARD: (u64, u64) = (4, 3);
/// One of so many seeds, this one of them, has fifty nodes.
pub const LARGE: (u64, u64) = (100, 99);
/// In one of so many seeds, this one of them, a node may join fifty others.
const JOINS_LARGE: (u64, u64) = (500, 499);
/// In one of so many seeds, this one of them, zones note almost as many nodes as they can, which are long gone.
const CROWDED: (u64, u64) = (25, 7);
const MOST_CROWDED: u64 = 100;
/// Of so many seeds these two write most to the zone that gives up records for others, and to the one that refuses them.
const LEANING: u64 = 20;
const GIVES_UP_AT: u64 = 3;
const SCARCE_AT: u64 = 13;
const KEYS: u64 = 24;
const SCARCE_KEYS: u64 = 48;
const MOST_KEYS: u64 = 10 * KEYS;
/// No record is as long as this.
const LARGEST_RECORD: usize = 8 * 1024;
/// Bytes of frames of records that tell no record.
const JOIN_EXTRA: u64 = 200;

/// Counts of one seed, or of all.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub acknowledged: u64,
    pub faults: [u64; FAULT_NAMES.len()],
    pub sessions: u64,
    pub moved: Moved,
    /// Records that comparing brought or took away.
    pub mended: u64,
    /// How often room was made, for what had found none.
    pub recovered: u64,
    /// A copy of the data, and what a node that joined was sent; bytes.
    pub joined: (u64, u64),
    /// How often a node joined a settled cluster, and how often that was one of fifty.
    pub joins: (u64, u64),
    /// How often comparing was seen to find nothing where all is well.
    pub well: u64,
    /// How often a node stamped anew what it had written with a clock that was ahead.
    pub renewals: u64,
    /// How many of the nodes that were long gone gave way to others in tables of origins.
    pub given_up: u64,
    /// How many writes of nodes that lost their memory others had, who are bound to them since.
    pub inherited: u64,
    /// Milliseconds from the last operation or fault until all agreed.
    pub settled: Millis,
}

impl Counts {
    /// Adds those of another seed.
    pub fn add(&mut self, other: &Counts) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.faults.iter_mut().zip(other.faults).for_each(|(sum, count)| *sum += count);
        self.sessions += other.sessions;
        self.moved.add(&other.moved);
        self.mended += other.mended;
        self.recovered += other.recovered;
        self.joined = (self.joined.0 + other.joined.0, self.joined.1 + other.joined.1);
        self.joins = (self.joins.0 + other.joins.0, self.joins.1 + other.joins.1);
        self.well += other.well;
        self.renewals += other.renewals;
        self.given_up += other.given_up;
        self.inherited += other.inherited;
    }
}

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
    /// Whether there are counters or limits. Where they are, clocks aren't set by minutes: nodes that share such don't stamp anew
    /// what they wrote (an older copy of a part could win over the part itself), and so would agree only when clocks have caught up.
    pub numbers: Numbers,
    /// Whether only one clock is ever set by minutes, and whose that is.
    pub one_ahead: bool,
    pub ahead: Option<usize>,
    lie: Option<Lie>,
    /// Half of what is written goes to this zone, which has too little room.
    leans_to: Option<usize>,
    /// Nodes that there were, each life counted.
    pub identities: usize,
    /// Nodes that are long gone.
    crowd: u64,
    pub history: History,
    pub counts: Counts,
    /// What a session has to send.
    out: Vec<u8>,
    hard: bool,
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
            false => 3_600_000,
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
                seed.is_multiple_of(2) && 2 * reach.unsigned_abs() <= limits.max_drift,
            ),
            counts: Counts::default(),
            out: Vec::new(),
            identities: size,
            crowd: 0,
            hard,
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
        while faults + operations > 0 {
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

    /// Everything heals; then all must agree within some time, and go on agreeing.
    fn quiet(&mut self) -> Result<(), String> {
        self.links.iter_mut().for_each(|link| link.held_until = 0);
        self.mend_clocks();
        self.look_at_links(|_| true);
        let begun = self.now;
        for node in &mut self.nodes {
            node.down_until = node.down_until.min(begun + 500);
            node.no_agent_until = node.no_agent_until.min(begun + 500);
        }
        self.counts.settled = self.until(World::holds)? - begun;
        self.counts.mended = self.mended();
        (0..self.nodes.len()).try_for_each(|at| self.vouches(at))?;
        self.recovers()?;
        if self.is_well() {
            match self.rng.below(5) {
                // In large clusters both take as long as a hundred other seeds.
                0 if self.nodes.len() < 10 => self.stays_well()?,
                1 if self.nodes.len() < 10 || self.joins_large => self.joins()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until something has held for a while; returns since when.
    fn until(&mut self, holds: impl Fn(&World) -> Result<(), String>) -> Result<Millis, String> {
        let begun = self.now;
        let mut since: Option<Millis> = None;
        loop {
            self.pass(250)?;
            self.keep_up();
            match holds(self) {
                Ok(()) => {
                    let since = *since.get_or_insert(self.now);
                    if self.now >= since + 2_000 {
                        self.all_is_told()?;
                        return Ok(since);
                    }
                }
                // After a while of agreement there is nothing left that could end it.
                Err(wrong) if self.now > begun + PATIENCE.max(40 * self.limits.timeout) => return Err(wrong),
                Err(_) => since = None,
            }
        }
    }

    /// Whether agents have looked at all changes that there are.
    fn all_is_told(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            self.announce_changes(at);
            if (0..self.zones()).any(|zone| self.nodes[at].zone(zone).take_dirty() != 0) {
                return Err(format!("node {at} has changes that its agent wasn't told of"));
            }
        }
        Ok(())
    }

    /// Where something found no room, room is made. Then all must have all of it, and show nothing as missing.
    fn recovers(&mut self) -> Result<(), String> {
        let lacks = |node: &SimNode| node.zone(SCARCE).stats().incomplete > 0;
        if self.zones() <= SCARCE || !self.nodes.iter().any(lacks) {
            return Ok(());
        }
        self.trace(|| "room is made".into());
        self.counts.recovered += 1;
        for at in 0..self.nodes.len() {
            let now = self.nodes[at].clock(self.now);
            self.written[at] = true;
            for number in (0..SCARCE_KEYS).filter(|number| number % 8 != 0) {
                let key = format!("key {number}").into_bytes();
                let replaced = self.nodes[at].version(SCARCE, &key, now);
                let deleted = self.nodes[at].zone(SCARCE).delete(&key, now);
                self.note(at, SCARCE, &key, deleted, true, now, replaced);
            }
        }
        self.until(World::holds_all)?;
        Ok(())
    }

    /// A node that joins a settled cluster costs one copy of the data, and then has it.
    fn joins(&mut self) -> Result<(), String> {
        self.pass(self.limits.timeout * 3)?;
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        self.trace(|| format!("node {at} begins anew"));
        let copy: u64 =
            (0..SCARCE).map(|zone| self.nodes.iter().map(|node| node.size_of_state(zone)).max().unwrap_or(0)).sum();
        self.counts.moved.data_to = Some(at);
        self.replace(at, 0, false);
        self.until(|world| {
            let joins = (0..world.zones()).any(|zone| !world.nodes[at].zone(zone).joined());
            if joins { Err(format!("node {at} doesn't join")) } else { world.holds() }
        })?;
        // Long enough for all others to have offered what they know of the node that it replaces.
        self.pass(self.limits.timeout * 5)?;
        let moved = self.counts.moved.data;
        self.counts.joined = (copy, moved);
        self.counts.joins = (1, u64::from(self.nodes.len() >= 50));
        // What is to be said besides counts where there is little data. An origin that died while its clock was ahead left no position:
        // what it wrote is sent by each who relays something.
        if self.numbers.have_parts() && moved > copy * 6 / 5 + JOIN_EXTRA {
            return Err(format!("a node that joined was sent {moved} bytes of records, where {copy} are a copy"));
        }
        Ok(())
    }

    /// Whether clocks agree so well that nobody takes new writes for old ones.
    fn is_well(&self) -> bool {
        let skews = self.nodes.iter().map(|node| node.skew);
        let spread = skews.clone().max().unwrap_or(0).abs_diff(skews.min().unwrap_or(0));
        spread <= self.limits.timeout / 2
    }

    /// Where all is well, comparing finds nothing, also beside new writes and what ends.
    fn stays_well(&mut self) -> Result<(), String> {
        // What was begun before may still be on its way.
        self.pass(self.limits.timeout * 15)?;
        let (before, compared) = (self.mended(), self.compared());
        self.trace(|| "all is well now".into());
        let end = self.now + self.limits.timeout * 25;
        let lasting = self.lasting(end)?;
        while self.now < end {
            self.operation();
            let pause = self.rng.between(100, 2_000);
            self.pass(pause)?;
            self.keep_up();
        }
        self.counts.well += 1;
        let after = self.mended();
        if self.lie.is_none() && after != before {
            return Err(format!("comparing mended {} records where nothing was wrong", after - before));
        }
        // Who compares nothing mends nothing.
        let rounds = compared.iter().zip(self.compared()).enumerate();
        let idle = rounds.clone().find(|(_, (before, after))| after.ended <= before.ended);
        if let Some((place, _)) = idle.filter(|_| self.lie.is_none()) {
            let zones = self.zones().min(SCARCE);
            return Err(format!("node {} ended no comparison of zone {}", place / zones, place % zones));
        }
        // In some worlds nothing is left by then that lasts, or it is of a clock that was ahead.
        let kept = self.lasting(end)?;
        let is_about_none = rounds.clone().all(|(_, (before, after))| after.records == before.records);
        if self.lie.is_none() && is_about_none && lasting.iter().any(|record| kept.contains(record)) {
            return Err("comparisons were about no record".into());
        }
        Ok(())
    }

    /// Which records there are that every comparison until `end` is about, but for the first ones: no clock says that they are of
    /// the future, and they don't end, nor are they given up for others.
    fn lasting(&self, end: Millis) -> Result<Vec<(usize, Vec<u8>, Version)>, String> {
        let (node, mut lasting) = (&self.nodes[0], Vec::new());
        let (clock, end) = (node.clock(self.now), node.clock(end) + self.limits.timeout * 5);
        let is_plain = |zone: &usize| !(ZONES[*zone].evict || ZONES[*zone].counts && self.numbers.have_parts());
        for zone in (0..self.zones().min(SCARCE)).filter(is_plain) {
            let live = contents(node, zone, clock).map_err(|error| error.to_string())?;
            let lasts = |live: &Live| live.version.stamp.millis() <= clock && live.expires.is_none_or(|at| at > end);
            lasting.extend(
                live.iter().filter(|(_, live)| lasts(live)).map(|(key, live)| (zone, key.clone(), live.version)),
            );
        }
        Ok(lasting)
    }

    /// What each node has compared, in its zones that have room.
    fn compared(&self) -> Vec<Comparisons> {
        let zones = self.nodes.iter().flat_map(|node| node.node.zones.iter().take(SCARCE));
        zones.map(|zone| zone.zone.stats().comparisons).collect()
    }

    /// Of zones that have room.
    fn mended(&self) -> u64 {
        let stats =
            self.nodes.iter().flat_map(|node| node.node.zones.iter().take(SCARCE).map(|zone| zone.zone.stats()));
        stats.map(|stats| stats.mended + stats.retired).sum()
    }

    /// Looks whether what a node shows is true, whatever state the cluster is in.
    fn look_at_one(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        let clock = self.nodes[at].clock(self.now);
        self.is_bounded(at)?;
        self.vouches(at)?;
        self.history.note_given_up(at, &self.nodes[at]);
        for zone in 0..self.zones() {
            let live = contents(&self.nodes[at], zone, clock).map_err(|error| error.to_string())?;
            self.history.check_now(at, zone, &live, clock)?;
            if self.nodes[at].limits(zone) {
                check_buckets(&self.history.ledger, (at, &self.nodes[at]), zone, false, clock)?;
            }
            self.history.learn(at, zone, &self.nodes[at], clock);
        }
        if self.rng.one_in(4) {
            self.nodes[at].save();
        }
        Ok(())
    }

    /// Whether a node that evicts promises no more than it has had. Others show by what they lack in the end; of what is evicted
    /// nobody misses anything. Nor is that known where clocks are set by minutes.
    fn vouches(&self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        for zone in (0..self.zones()).filter(|zone| ZONES[*zone].evict && self.numbers.have_parts()) {
            let live = contents(node, zone, node.clock(self.now)).map_err(|error| error.to_string())?;
            self.history.check_vouched(at, node, zone, &live, self.now)?;
        }
        Ok(())
    }

    /// Whether nodes agree; on a zone that is too small, those that show nothing as missing.
    fn holds(&self) -> Result<(), String> {
        self.agrees(|node| node.zone(SCARCE).stats().incomplete == 0)
    }

    /// Whether all nodes agree on everything.
    fn holds_all(&self) -> Result<(), String> {
        self.agrees(|_| true)
    }

    fn agrees(&self, scarce: impl Fn(&SimNode) -> bool) -> Result<(), String> {
        let clock = self.nodes.iter().map(|node| node.clock(self.now)).max().unwrap_or(self.now);
        for (zone, kind) in ZONES.iter().enumerate().take(self.zones()).filter(|(_, kind)| !kind.evict) {
            let all = self.nodes.iter().enumerate();
            let nodes: Vec<_> = all.filter(|(_, node)| zone != SCARCE || scarce(node)).collect();
            if let Some((at, _)) = nodes.iter().find(|(_, node)| node.zone(zone).stats().incomplete > 0) {
                let lacks = self.nodes[*at].zone(zone).lacks();
                return Err(format!("zone {} of node {at} shows records as missing: {lacks:?}", kind.name));
            }
            if let Some(live) = agreed(&nodes, zone, clock)? {
                self.history.check(zone, &live, clock)?;
            }
            for (at, node) in nodes.into_iter().filter(|(_, node)| node.limits(zone)) {
                check_buckets(&self.history.ledger, (at, node), zone, true, node.clock(self.now))?;
            }
        }
        Ok(())
    }

    /// Whether what sessions of a node hold is bounded by what there is to know, however long they live.
    fn is_bounded(&self, at: usize) -> Result<(), String> {
        let (zones, origins) = (self.zones(), self.identities);
        let mut walkers = 0;
        for link in &self.links {
            let push = link.push.as_ref().filter(|_| link.from == at).map(Push::held);
            let pull = link.pull.as_ref().filter(|_| link.to == at).map(Pull::held);
            walkers += push.map_or(0, |held| held.walkers);
            for held in [push, pull].into_iter().flatten() {
                let input = self.limits.recv_buffer + 4 + LARGEST_RECORD;
                let compared = zones * 2 * (MOST_KEYS as usize + 64);
                if held.bytes > input || held.origins > (3 * zones + 1) * origins || held.compared > compared {
                    let (from, to) = (link.from, link.to);
                    return Err(format!("node {at} holds too much for the session from {from} to {to}: {held:?}"));
                }
            }
        }
        let taken: usize = (0..zones).map(|zone| self.nodes[at].zone(zone).walkers()).sum();
        if taken != walkers {
            return Err(format!("{taken} walkers are in zones of node {at}, of which sessions have {walkers}"));
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
            self.announce_changes(from);
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

    /// One operation on some node; `false`: the node is down.
    fn operation(&mut self) -> bool {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[at].up(self.now) {
            return false;
        }
        self.counts.operations += 1;
        self.written[at] = true;
        let zone_at = self.rng.below(self.zones() as u64) as usize;
        let zone_at = self.leans_to.filter(|_| self.rng.one_in(2)).unwrap_or(zone_at);
        let zone = self.nodes[at].zone(zone_at);
        let now = self.nodes[at].clock(self.now);
        if self.numbers.have_parts() && ZONES[zone_at].counts {
            match self.numbers {
                Numbers::Limits => self.admit(at, zone_at, now),
                _ => self.add(at, zone_at, now),
            }
            return true;
        }
        // More keys than the zone that evicts has room for.
        let keys = match zone_at {
            SCARCE => SCARCE_KEYS,
            _ if ZONES[zone_at].evict => MOST_KEYS,
            _ => KEYS,
        };
        let key = format!("key {}", self.rng.below(keys)).into_bytes();
        let life = match self.rng.below(6) {
            0 => Life::For(self.rng.between(50, 3_000)),
            1 => Life::For(self.rng.between(3_000, 3_600_000)),
            2 => Life::Keep,
            _ => Life::Default,
        };
        let replaced = self.nodes[at].version(zone_at, &key, now);
        let what = self.rng.below(100);
        let written = match what {
            0..=1 => match zone.clear(now) {
                Ok(stamp) => {
                    self.history.cleared(at, &self.nodes[at], zone_at, stamp);
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
        self.note(at, zone_at, &key, written, what < 20, now, replaced);
        true
    }

    /// One operation on a counter. Some are only added to, and their sums are known; others are set and deleted as well, and
    /// all nodes must agree on them.
    fn add(&mut self, at: usize, zone_at: usize, now: Millis) {
        let zone = self.nodes[at].zone(zone_at);
        let amount = self.rng.between(1, 9) as i64;
        let missing = Missing::Begin(0, Life::Default);
        if self.rng.one_in(3) {
            let key = format!("mixed {}", self.rng.below(4)).into_bytes();
            let done = match self.rng.below(6) {
                0 => zone.delete(&key, now).map(drop),
                1 => zone.set(&key, amount.to_string().as_bytes(), Life::Default, Condition::Always, now).map(drop),
                2 => zone.count(&key, -amount, Missing::Begin(50, Life::Default), now).map(drop),
                _ => zone.count(&key, amount, missing, now).map(drop),
            };
            self.trace(|| format!("node {at} zone {zone_at} {}: {done:?}", String::from_utf8_lossy(&key)));
            return;
        }
        let key = format!("count {}", self.rng.below(8)).into_bytes();
        let counted = zone.count(&key, amount, missing, now);
        self.trace(|| format!("node {at} zone {zone_at} {} + {amount}: {counted:?}", String::from_utf8_lossy(&key)));
        if let Ok(Counted::Done { .. }) = counted {
            self.counts.acknowledged += 1;
            self.history.ledger.add(at, zone_at, &key, amount);
        }
    }

    /// One request that is limited, or some at once.
    fn admit(&mut self, at: usize, zone_at: usize, now: Millis) {
        let key = format!("limit {}", self.rng.below(6)).into_bytes();
        let burst = self.rng.one_in(4).then(|| self.rng.between(1_000, 20_000));
        for _ in 0..self.rng.between(1, 3) {
            let asked = self.nodes[at].zone(zone_at).admit(&key, limits::RATE, burst, now);
            self.trace(|| format!("node {at} zone {zone_at} {} + 1: {asked:?}", String::from_utf8_lossy(&key)));
            if let Ok(Limited::Within(_)) = asked {
                self.counts.acknowledged += 1;
                self.history.ledger.add(at, zone_at, &key, 1);
            }
        }
    }

    /// Now and then one that is larger than a frame.
    fn value(&mut self, zone: usize) -> Vec<u8> {
        let length = match (zone, self.rng.below(20)) {
            (0, _) => self.rng.between(100, 400),
            (SCARCE, _) => self.rng.between(600, 1_400),
            (1, 0) => self.rng.between(4_000, 6_000),
            _ => self.rng.below(150),
        };
        (0..length).map(|_| self.rng.next() as u8).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing to note")]
    fn note(
        &mut self,
        at: usize,
        zone_at: usize,
        key: &[u8],
        written: Result<Written, StoreError>,
        deleted: bool,
        now: Millis,
        replaced: Option<Version>,
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
        self.trace(|| format!("node {at} zone {zone_at} {}: {act:?} {version:?}", String::from_utf8_lossy(key)));
        self.counts.acknowledged += 1;
        self.history.act(at, &self.nodes[at], zone_at, key, version, act, now, replaced);
    }

    pub fn trace(&self, text: impl Fn() -> String) {
        if self.trace {
            println!("{:>8} {}", self.now - EPOCH, text());
        }
    }
}

/// A node that is long gone.
fn gone(n: u64) -> Identity {
    Identity(u128::from(n).to_be_bytes())
}
