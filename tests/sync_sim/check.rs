//! What must hold: at every moment, no node shows what nobody wrote, or what it knows to be over. In the end, all nodes have
//! the same live records, and nothing acknowledged is lost.

mod acts;
mod shown;

pub use acts::Act;
pub use shown::{Live, Seen, Shown, agreed, contents};

use crate::clocks::{Versions, versions};
use crate::counts::Ledger;
use crate::limits;
use crate::mixed::Mixed;
use crate::node::{NUMBERS, Numbers, SCARCE, SimNode, ZONES};
use acts::{Acknowledged, CLOCKS_APART, Emptied, NOBODY, Past};
use std::collections::BTreeMap;
use std::rc::Rc;
use zonemesh::record::{Identity, Millis, Stamp, Version};

/// All that was acknowledged in a simulation.
pub struct History {
    /// By zone and key.
    acts: [BTreeMap<Vec<u8>, Vec<Acknowledged>>; ZONES.len()],
    clears: Vec<Emptied>,
    /// By zone.
    past: [Past; ZONES.len()],
    /// How long tombstones live.
    retention: Millis,
    /// The latest time that any clock has shown while some were minutes apart: what one let go is gone.
    latest: Millis,
    /// By node: the latest time that its clock has shown before it was set. What it let go by that tells of nothing.
    ran_to: BTreeMap<usize, Millis>,
    pub count: u64,
    /// How often an act of a node that has lost its memory came to bind another one that had it.
    pub inherited: u64,
    numbers: Numbers,
    /// Whether clocks are set by minutes.
    sets_clocks: bool,
    /// Whether at most one clock was ever off by minutes.
    one_ahead: bool,
    /// What was added in zones of counters, or admitted in those of limits.
    pub ledger: Ledger,
    /// What was done to counters that are set and deleted as well, where more than agreement is known of those.
    pub mixed: Option<Mixed>,
}

/// Tombstones that live so long outlast a simulation, milliseconds.
pub const LASTING: Millis = 3_600_000;

impl History {
    pub fn new(retention: Millis, numbers: Numbers, sets_clocks: bool, one_ahead: bool) -> History {
        History {
            acts: Default::default(),
            clears: Vec::new(),
            past: Default::default(),
            retention,
            latest: 0,
            ran_to: BTreeMap::new(),
            count: 0,
            inherited: 0,
            numbers,
            sets_clocks,
            one_ahead,
            ledger: Ledger::default(),
            mixed: (numbers == Numbers::Counters && retention >= LASTING).then(|| Mixed::new(NUMBERS)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing to remember")]
    pub fn act(
        &mut self,
        by: usize,
        node: &SimNode,
        zone: usize,
        key: &[u8],
        version: Version,
        act: Act,
        at: Millis,
        replaced: Option<Version>,
    ) {
        let positions = node.zone(zone).positions().into();
        let number = self.count;
        let (was, copied, author) = (None, false, by);
        let acknowledged = Acknowledged { version, number, was, copied, by, author, act, at, positions, replaced };
        self.acts[zone].entry(key.to_vec()).or_default().push(acknowledged);
        self.count += 1;
    }

    pub fn cleared(&mut self, by: usize, node: &SimNode, zone: usize, stamp: Stamp) {
        let positions = node.zone(zone).positions().into();
        let (number, author) = (self.count, by);
        let emptied =
            Emptied { zone, stamp, number, by, author, positions, mended: false, taken: false, spread: false };
        self.clears.push(emptied);
        self.count += 1;
    }

    /// What a node that lost its memory had acknowledged, or was bound to by one that lost it before, binds another one that has
    /// it now. If there is none it binds nobody, but may still be around. `zone`: only that of this zone.
    pub fn forget(&mut self, node: usize, zone: Option<usize>, nodes: &[SimNode]) {
        if zone.is_none() {
            self.ran_to.remove(&node);
        }
        // What was counted in other zones is still there.
        if zone.is_none_or(|zone| ZONES[zone].counts) {
            self.inherited += self.ledger.forget(node, nodes);
            if let Some(mixed) = &mut self.mixed {
                mixed.forget(node, nodes);
            }
        }
        let others = || nodes.iter().enumerate().filter(|(at, _)| *at != node);
        for lost in (0..nodes[node].node.zones.len()).filter(|at| zone.is_none_or(|zone| zone == *at)) {
            // Who gave it up for others has it no more, and needn't.
            let held: Vec<_> = match ZONES[lost].evict {
                true => Vec::new(),
                false => others().map(|(at, other)| (at, versions(other, lost))).collect(),
            };
            for (key, acts) in &mut self.acts[lost] {
                for act in acts.iter_mut().filter(|act| act.by == node) {
                    let heir = held.iter().find(|(_, versions)| versions.get(key) == Some(&act.version));
                    act.by = heir.map_or(NOBODY, |(at, _)| *at);
                    if let Some((at, _)) = heir {
                        act.positions = nodes[*at].zone(lost).positions().into();
                        act.replaced = None;
                        self.inherited += 1;
                    }
                }
            }
            let bound = self.clears.iter_mut().filter(|emptied| emptied.zone == lost && emptied.by == node);
            for emptied in bound {
                // Clocks that are set by minutes make emptyings take back what they said.
                let mut heirs = others().filter(|_| !self.sets_clocks);
                let heir = heirs.find(|(_, other)| other.zone(lost).cleared() >= emptied.stamp);
                emptied.by = heir.map_or(NOBODY, |(at, _)| at);
            }
        }
    }

    /// A node's memory of a zone was made anew: of what it wrote before, tombstones alone tell that it is over.
    pub fn made_anew(&mut self, zone: usize, node: Identity) {
        self.past[zone].anew.push(node);
    }

    /// A node's clock has shown this time, and is set now.
    pub fn clock_ran_to(&mut self, node: usize, clock: Millis) {
        let ran_to = self.ran_to.entry(node).or_default();
        *ran_to = clock.max(*ran_to);
    }

    /// Some clocks are minutes apart, and the one that is ahead of all shows this time.
    pub fn far_clocks_ran_to(&mut self, latest: Millis) {
        self.latest = self.latest.max(latest);
    }

    /// A node has stamped anew what was later than `latest`, its own and what it had of others: versions before and after. What
    /// it wrote itself and isn't there any more had made way for something later. The same of emptyings, up to which stamp.
    pub fn renewed(
        &mut self,
        node: usize,
        zone: usize,
        latest: Stamp,
        (before, after): (&Versions, &Versions),
        (emptied, cleared): (Stamp, Stamp),
    ) {
        // Sums depend on which stamp came first.
        self.mixed = None;
        self.ledger.renewed();
        for (key, acts) in &mut self.acts[zone] {
            let (old, new) = (before.get(key), after.get(key));
            let known =
                old.filter(|old| old.stamp > latest).and_then(|old| acts.iter().find(|act| act.version == *old));
            let again = known.zip(new).map(|(act, version)| Acknowledged {
                version: *version,
                was: Some(act.version),
                copied: act.by != node,
                by: if act.by == node { node } else { NOBODY },
                ..act.clone()
            });
            acts.iter_mut().filter(|act| act.by == node && act.version.stamp > latest).for_each(|act| act.by = NOBODY);
            acts.extend(again);
        }
        if emptied <= latest {
            return;
        }
        // A zone knows of its last emptying only: that stands for those before it, too, of which some weren't quite so far ahead.
        let mut mended = Vec::new();
        for one in self.clears.iter_mut().filter(|one| one.zone == zone && one.stamp > cleared && one.stamp <= emptied)
        {
            if one.by == node {
                one.mended = true;
                mended.push(Emptied {
                    stamp: cleared,
                    mended: false,
                    spread: false,
                    positions: one.positions.clone(),
                    ..*one
                });
                one.by = NOBODY;
            } else {
                one.taken = true;
            }
        }
        // What was told of others after the last one may have come to nothing, and is not held for over any more.
        let last = self.clears.iter().find(|one| one.zone == zone && one.stamp == emptied && one.author == node);
        let known: Rc<[(Identity, Stamp)]> = match last {
            Some(one) => one.positions.clone(),
            None => Rc::new([]),
        };
        for act in self.acts[zone].values_mut().flatten() {
            if act.by == node {
                act.forget_but(&known);
            }
        }
        self.clears.extend(mended);
    }

    /// Whether what `node` shows now can be true.
    pub fn check_now(&self, node: usize, zone: usize, live: &Shown, now: Millis) -> Result<(), String> {
        if self.numbers.have_parts() && ZONES[zone].counts {
            self.ledger.check_now(node, zone, |key| self.shown(live, key))?;
            return self.mixed.as_ref().map_or(Ok(()), |mixed| mixed.check_now(node, |key| self.shown(live, key)));
        }
        self.check_true(zone, live)?;
        for (key, record) in live.iter() {
            let own = |by: &usize| *by == node;
            let emptied = self
                .clears
                .iter()
                .any(|emptied| emptied.zone == zone && own(&emptied.by) && emptied.stamp >= record.version.stamp);
            let acts = self.acts[zone].get(key).map_or(&[][..], Vec::as_slice);
            let last =
                acts.iter().filter(|act| own(&act.by) && act.version > record.version).map(|act| act.version).max();
            if emptied || last.is_some_and(|last| !self.forgotten(zone, acts, last, record.version, now)) {
                return Err(format!("node {node} shows {record:?} for key {key:?} again, which was over for it"));
            }
        }
        if ZONES[zone].evict { Ok(()) } else { self.check_kept(node, zone, live, now) }
    }

    /// Whether `node` still has what it has acknowledged, or something later, as long as that isn't over.
    fn check_kept(&self, node: usize, zone: usize, live: &Shown, now: Millis) -> Result<(), String> {
        // Its clock, or another one, may have gone so far, and back.
        let now = now.max(self.ran_to.get(&node).copied().unwrap_or(0)) + CLOCKS_APART;
        for (key, acts) in &self.acts[zone] {
            let last = acts.iter().filter(|act| act.by == node).max_by_key(|act| act.version);
            // Where what came after it found no room, others tell that it is over.
            let made_way = |last: &Acknowledged| zone == SCARCE && acts.iter().any(|act| act.version > last.version);
            if let Some(last) = last.filter(|last| live.get(key).is_none() && !made_way(last))
                && !self.explained(zone, acts, last.version, now)
            {
                return Err(format!("node {node} has acknowledged {last:?} for key {key:?}, and has lost it"));
            }
        }
        Ok(())
    }

    /// Whether a node vouches for more than it has had: its positions cover a record that is over nowhere and isn't there, and it
    /// doesn't say that this may have been given up for others.
    pub fn check_vouched(
        &self,
        at: usize,
        node: &SimNode,
        zone: usize,
        live: &Shown,
        now: Millis,
    ) -> Result<(), String> {
        let (claims, lacks, given_up) = (node.zone(zone).claims(), node.zone(zone).lacks(), node.zone(zone).may_lack());
        let known = |version: Version| {
            let covers = |(origin, stamp): &(Identity, Stamp)| *origin == version.origin && *stamp >= version.stamp;
            claims.iter().any(covers) && version.stamp > lacks.of(version.origin) && version.stamp > given_up
        };
        for (key, acts) in &self.acts[zone] {
            let Some(last) = acts.iter().max_by_key(|act| act.version).filter(|act| known(act.version)) else {
                continue;
            };
            let is_there = live.get(key).is_some_and(|record| record.version >= last.version);
            // Some clock may have gone so far, and back.
            if !is_there && !self.explained(zone, acts, last.version, now + CLOCKS_APART) {
                return Err(format!(
                    "node {at} vouches for {last:?} of key {key:?}, which isn't there and never was over"
                ));
            }
        }
        Ok(())
    }

    /// Whether `live`, which all nodes hold, keeps every promise.
    pub fn check(&self, zone: usize, live: &Shown, now: Millis) -> Result<(), String> {
        if self.numbers.have_parts() && ZONES[zone].counts {
            self.ledger.check(zone, |key| self.shown(live, key))?;
            return self.mixed.as_ref().map_or(Ok(()), |mixed| mixed.check(|key| self.shown(live, key)));
        }
        self.check_true(zone, live)?;
        for (key, record) in live.iter() {
            let older = |emptied: &&Emptied| emptied.by != NOBODY && emptied.stamp >= record.version.stamp;
            if let Some(emptied) = self.clears_of(zone).find(older) {
                return Err(format!("key {key:?} holds {record:?}, older than an emptying: {emptied:?}"));
            }
        }
        for (key, acts) in &self.acts[zone] {
            let Some(last) = acts.iter().filter(|act| act.by != NOBODY).max_by_key(|act| act.version) else { continue };
            match live.get(key) {
                Some(record) if record.version >= last.version => {
                    let held = acts.iter().find(|act| act.version == record.version);
                    let binds = |act: &&Acknowledged| act.by != NOBODY && act.over_since(now).is_none();
                    let lost = |held: &Acknowledged| acts.iter().filter(binds).find(|act| act.was_after(held));
                    if let Some(act) = held.and_then(lost).filter(|_| self.one_ahead) {
                        return Err(format!("key {key:?}: {act:?} was acknowledged after {record:?}, which is there"));
                    }
                }
                Some(record) if self.forgotten(zone, acts, last.version, record.version, now) => {}
                Some(record) => {
                    return Err(format!("key {key:?}: {last:?} was acknowledged, and {record:?} is there"));
                }
                None if self.explained(zone, acts, last.version, now) => {}
                None => return Err(format!("key {key:?}: {last:?} was acknowledged, and it is gone")),
            }
        }
        Ok(())
    }

    /// What a counter stands at, or how many were admitted of what is limited. `None`: that is no number.
    fn shown(&self, live: &Shown, key: &[u8]) -> Option<i64> {
        if self.numbers == Numbers::Limits {
            return Some(limits::admitted(live, key));
        }
        live.get(key).map_or(Some(0), |live| std::str::from_utf8(&live.value).ok()?.parse().ok())
    }

    /// Whether all of it was written by somebody.
    fn check_true(&self, zone: usize, live: &Shown) -> Result<(), String> {
        for (key, record) in live.iter() {
            let acts = self.acts[zone].get(key).into_iter().flatten();
            match acts.map(|act| (act.version, &act.act)).find(|(version, _)| *version == record.version) {
                Some((_, Act::Put { value, expires })) if *value == record.value && *expires == record.expires => {}
                found => return Err(format!("key {key:?} holds {record:?}, which nobody wrote ({found:?})")),
            }
        }
        Ok(())
    }

    /// Whether what was done at `last` has to make way for something older: it, or what came after it, is over for longer
    /// than that is remembered, and nothing else tells that the older is over, too.
    ///
    /// Tombstones tell of it for a while, and positions for ever. So it may be back where the node that acted had not been told
    /// of it as long as it had the tombstone: then it is news to that node. Four things make positions void, as the protocol
    /// says: the node's memory was lost; the older one's writer has had other memory since; the zone gave up, or left out,
    /// something of that age for want of room, and then its writer alone can tell; the older one ends no later than the node's
    /// clock once said, which was ahead and may have let it go. What made room itself leaves nothing but positions.
    fn forgotten(&self, zone: usize, acts: &[Acknowledged], last: Version, older: Version, now: Millis) -> bool {
        let now = now.max(self.latest);
        let past = &self.past[zone];
        let nobody_tells = past.anew.contains(&older.origin)
            || older.stamp <= past.left_out
            || (older.stamp <= past.evicted && !self.author_lives(acts, older));
        let held = acts.iter().find(|act| act.version == older);
        // What an emptying of the future took along tells of nothing any more, and the emptying only of what was known then.
        let went_along = |act: &Acknowledged| {
            self.clears_of(zone).any(|emptied| {
                let knew = held.is_some_and(|held| emptied.covers(held) && !held.copied) && !emptied.taken;
                (emptied.mended || emptied.taken) && emptied.covers(act) && !knew
            })
        };
        let let_go = |by: usize| held.is_some_and(|held| self.ran_to.get(&by).is_some_and(|at| held.ends_by(*at)));
        // Where another node's copy of the same may be there, that wins over the copy.
        let mut copies = acts.iter().filter(|act| act.copied && act.was == Some(older));
        let has_copy = copies.any(|copy| self.forgotten(zone, acts, last, copy.version, now));
        has_copy
            || acts.iter().filter(|act| act.version >= last).any(|act| {
                let evicted = act.version.stamp <= past.evicted;
                let over = evicted || self.forgotten_at(zone, act, now).is_some_and(|at| at <= now);
                let made_room = act.version.stamp <= past.made_room();
                let knew = if made_room { act.covers(older) } else { act.knew(older) };
                over && (nobody_tells || !knew || act.by == NOBODY || let_go(act.by)) || went_along(act)
            })
    }

    /// When nothing but positions tells of an act any more, if it is over.
    fn forgotten_at(&self, zone: usize, act: &Acknowledged, now: Millis) -> Option<Millis> {
        let remembered = match act.act {
            // Its tombstone made room.
            _ if act.version.stamp <= self.past[zone].given_up => 0,
            Act::Delete => self.retention,
            Act::Put { .. } => self.retention.min(60_000),
        };
        // An end is met up to a tick late, and its tombstone lives from then on; so it may also go a tick early.
        act.over_since(now).map(|since| (since + remembered).saturating_sub(100))
    }

    /// Notes what a node knows at its time `now`. What it is told of while it remembers an act can't come back later.
    pub fn learn(&mut self, node: usize, zone: usize, of: &SimNode, now: Millis) {
        let positions: Rc<[_]> = of.zone(zone).positions().into();
        // What a clock that was off let go isn't remembered.
        let now = now.max(self.latest);
        let (retention, past) = (self.retention, self.past[zone].made_room());
        for act in self.acts[zone].values_mut().flatten() {
            let remembered = act.over_since(now).is_none_or(|since| now + 100 < since + retention.min(60_000));
            if act.by == node && remembered && act.version.stamp > past {
                act.positions = positions.clone();
            }
        }
    }

    /// Notes which emptyings a node has, and what its zones gave up for want of room.
    pub fn note_given_up(&mut self, at: usize, node: &SimNode) {
        for emptied in self.clears.iter_mut().filter(|emptied| emptied.author != at) {
            emptied.spread |= node.zone(emptied.zone).cleared() >= emptied.stamp;
        }
        for (past, zone) in self.past.iter_mut().zip(node.node.zones.iter().map(|zone| zone.zone)) {
            past.given_up = past.given_up.max(zone.purge_floor());
            past.evicted = past.evicted.max(zone.may_lack());
            // Asked after every step of the agents, of every zone.
            if zone.has_left_out() {
                let lacks = zone.lacks();
                let left_out = lacks.of.iter().map(|(_, stamp)| *stamp).chain([lacks.any]).max();
                past.left_out = past.left_out.max(left_out.unwrap_or_default());
            }
        }
    }

    fn author_lives(&self, acts: &[Acknowledged], version: Version) -> bool {
        acts.iter().any(|act| act.version == version && act.binds_author())
    }

    /// Whether something at or after `version` says that the record is gone.
    fn explained(&self, zone: usize, acts: &[Acknowledged], version: Version, now: Millis) -> bool {
        let now = now.max(self.latest);
        acts.iter().any(|act| act.version >= version && act.over_since(now).is_some())
            || acts.iter().any(|act| act.version == version && self.clears_of(zone).any(|emptied| emptied.covers(act)))
    }

    fn clears_of(&self, zone: usize) -> impl Iterator<Item = &Emptied> {
        self.clears.iter().filter(move |emptied| emptied.zone == zone)
    }
}
