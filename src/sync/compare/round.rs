//! One comparison of a zone with a peer: what was asked and told so far, and what follows from it for each key.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::super::digest::{Digest, Digests, Pass, Terms};
use super::super::incoming::Context;
use super::super::positions::Positions;
use super::HOLDS;
use crate::record::{Identity, Millis, Role, Stamp, Version};
use crate::store::{Lacks, Rule, StoreError, Zone};

/// Records that are looked at again in the next comparison.
const MAX_SUSPECTS: usize = 1_024;
/// Records taken away in one step, and of counters: each walks what lies in its bucket, all parts of a counter.
const RETIRED_A_STEP: (usize, usize) = (1_024, 64);

/// A comparison.
pub(super) struct Round {
    pub(super) zone: u64,
    pub(super) digests: Digests,
    pub(super) theirs: Vec<Digest>,
    pub(super) phase: Phase,
    pub(super) asked: Vec<bool>,
    /// Parts that differ were left for another comparison.
    pub(super) left: bool,
    /// What this node lacked for want of room when it began.
    pub(super) lacks: Lacks,
    /// Nothing was left out since the last comparison with this peer began, and in that time others were compared with.
    pub(super) steady: bool,
    /// What had been left out wasn't asked for: there is no room for it.
    pub(super) crowded: bool,
    /// Records that were asked for and found none.
    pub(super) refused: u64,
    pub(super) listed: HashMap<u64, Told>,
    pub(super) positions: Vec<(Identity, Stamp)>,
    /// What this node had before it looks at what it has.
    pub(super) ours: Positions,
    /// The peer vouches for what it lacks.
    pub(super) trusted: bool,
    pub(super) evicted: Stamp,
    pub(super) wanted: HashSet<u64>,
    /// What has set or deleted counters there, and until when parts are kept here.
    pub(super) awaited: HashSet<u64>,
    /// For the next comparison.
    pub(super) suspects: HashSet<Vec<u8>>,
    /// What the peer knows to be deleted and a lock kept from being taken away.
    pub(super) gone: Vec<(Vec<u8>, Version)>,
    pub(super) brought: u64,
    pub(super) retired: u64,
    /// Records here that the digests are of.
    pub(super) compared: u64,
    /// Since when a shard of this node's zone has been busy.
    pub(super) busy: Option<u64>,
}

/// How far it is.
pub(super) enum Phase {
    /// Waits for the peer's digests.
    Asked,
    /// Makes its own.
    Digesting,
    /// Waits for versions.
    Listing,
    /// Looks what is unlike.
    Matching { pass: Pass, theirs: Positions },
    /// Waits for records.
    Fetching,
}

/// What the peer told of a key.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) version: Version,
    pub(super) tombstone: bool,
    /// This node has a record of that hash.
    pub(super) met: bool,
    /// In that version, or in a later one.
    pub(super) is_here: bool,
    /// It is the base of a counter, of which there is something here.
    pub(super) may_end_something: bool,
}

impl Told {
    pub(super) const fn new(version: Version, tombstone: bool) -> Told {
        Told { version, tombstone, met: false, is_here: false, may_end_something: false }
    }
}

impl Round {
    /// How many parts it asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.iter().filter(|asked| **asked).count()
    }

    /// Looks at some of this node's records, and takes away what is deleted there; `true`: that was all.
    pub(super) fn match_some(
        &mut self,
        zone: &Zone,
        suspects: &HashSet<Vec<u8>>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let Phase::Matching { pass, theirs } = &mut self.phase else { return Ok(true) };
        let (terms, asked, listed, wanted) = (&self.digests.terms, &self.asked, &mut self.listed, &mut self.wanted);
        let (next, gone) = (&mut self.suspects, &mut self.gone);
        let (trusted, evicted, evicts) = (self.trusted, self.evicted, zone.params().evict);
        let mut bases = HashSet::new();
        let walked = pass.walk(zone, HOLDS, |record| {
            let hash = terms.hash(record.key);
            if !asked.get(terms.range(hash)).is_some_and(|asked| *asked) {
                return;
            }
            if !record.tombstone {
                bases.extend(base_of(terms, record.key));
            }
            if let Some(told) = listed.get_mut(&hash) {
                told.met = true;
                told.is_here |= record.version >= told.version;
                if told.version > record.version {
                    if told.version.stamp <= terms.until {
                        wanted.insert(hash);
                    }
                    return;
                }
                // In a zone that evicts, the writer may have given its newer record up before it was sent to the peer.
                if evicts && !told.tombstone {
                    return;
                }
                if told.version == record.version {
                    // It is over for the peer, by something that this node hasn't heard of. What will tell it may be on its way; of
                    // counters the peer has told it, if it remembers.
                    if told.tombstone
                        && trusted
                        && terms.settled(record)
                        && (terms.by_counter || is_found_again(suspects, next, record.key))
                    {
                        gone.push((record.key.to_vec(), record.version));
                    }
                    return;
                }
            }
            // The peer has nothing of this key, or something older.
            let version = record.version;
            if trusted
                && terms.settled(record)
                && version.stamp > evicted
                && version.stamp <= theirs.get(version.origin)
            {
                gone.push((record.key.to_vec(), version));
            }
        });
        for base in bases {
            if let Some(told) = listed.get_mut(&base) {
                told.may_end_something = true;
            }
        }
        // Also what was met before a lock was in the way, and each of it whatever becomes of another.
        let is_busy = !self.retire_some(zone, now);
        match walked? {
            true if is_busy => Err(StoreError::Busy),
            complete => Ok(complete && self.gone.is_empty()),
        }
    }

    /// Takes away some of what is over; `false`: a lock is in the way of what is left.
    fn retire_some(&mut self, zone: &Zone, now: Millis) -> bool {
        if self.gone.is_empty() {
            return true;
        }
        let known = Known::of(zone, &self.digests.terms);
        let most = if self.digests.terms.by_counter { RETIRED_A_STEP.1 } else { RETIRED_A_STEP.0 };
        let mut kept = Vec::new();
        for (key, version) in self.gone.split_off(self.gone.len().saturating_sub(most)) {
            // A part stays until there is what ended it: meanwhile the counter would be gone, or lack a part of its sum.
            let base = base_of(&self.digests.terms, &key).and_then(|hash| Some((hash, *self.listed.get(&hash)?)));
            let to_come = base.filter(|(_, base)| {
                !base.is_here
                    && (base.met || known.is_news(&mut self.ours, base.version))
                    && zone.would_admit(base.version.origin, base.version.stamp, now)
            });
            match to_come {
                Some((base, _)) => _ = self.awaited.insert(base),
                None => match zone.retire(&key, version, now) {
                    Ok(is_retired) => self.retired += u64::from(is_retired),
                    Err(_) => kept.push((key, version)),
                },
            }
        }
        let others = !self.gone.is_empty();
        // After them.
        let is_busy = !kept.is_empty();
        self.gone.splice(0..0, kept);
        others || !is_busy
    }

    /// What this node, which wants nothing more of the peer, lacked and lacks no more: of these origins the peer has all that
    /// this node may have left out, or knows that it is over. An origin itself does, if nobody else. Nobody vouches for what this
    /// node wrote to other memory, for what is left of an origin that is gone and of which the peer lacks something, too, or for
    /// origins that find no room here: then it takes that no peer had something that was left out, as long as it takes to compare
    /// with all. Of who is gone, the third list, nothing is promised any more then: whatever comes of it is news.
    ///
    /// What was left out whoever wrote it is so narrowed down to those origins, the second list, that aren't sure yet: of each
    /// another peer has the most.
    pub(super) fn made_up(&mut self, cx: &Context<'_>, zone: &Zone) -> (Lacks, Vec<Identity>, Vec<Identity>) {
        let Phase::Matching { theirs, .. } = &mut self.phase else { return Default::default() };
        let asked_all = !self.left && !self.crowded && self.trusted && self.evicted == Stamp::ZERO;
        if !Rule::MadeUp.holds() {
            return (self.lacks.clone(), Vec::new(), Vec::new());
        }
        let (until, cleared, heard) = (self.digests.terms.until, zone.cleared(), cx.heard());
        let may_tell = cx.may_tell_who_is_gone();
        let mut lost = Vec::new();
        let mut is_here = |origin, lacked: Stamp| {
            let is_told = origin == cx.peer || (origin != cx.own && theirs.get(origin) >= lacked);
            let is_lost = !is_told && (origin == cx.own || (may_tell && heard.gone(origin)));
            let is_here = lacked <= cleared || (asked_all && lacked <= until && (is_told || (is_lost && self.steady)));
            if is_here && is_lost {
                lost.push(origin);
            }
            is_here
        };
        let of = self.lacks.of.iter().copied().filter(|(origin, lacked)| is_here(*origin, *lacked)).collect();
        let any = self.lacks.any;
        // Where the peer lacks something itself, whoever wrote it, that leaves all origins; each of them that lives tells then
        // that this node has all of its own.
        let asked = !self.left && !self.crowded && self.trusted;
        let is_narrow = any <= cleared || (asked && self.steady && any <= until);
        let unsure = |(origin, stamp): &(Identity, Stamp)| *origin != cx.own && !is_here(*origin, any.min(*stamp));
        let unsure =
            if is_narrow { self.ours.all().filter(unsure).map(|(origin, _)| origin).collect() } else { Vec::new() };
        (Lacks { of, any: if is_narrow { any } else { Stamp::ZERO }, count: self.lacks.count }, unsure, lost)
    }

    /// Of what the peer has and this node lacks, what was not deleted here.
    pub(super) fn want_missing(&mut self, zone: &Zone, now: Millis) {
        let Known { early, doubted, lacks } = Known::of(zone, &self.digests.terms);
        self.crowded = !lacks.is_empty() && (zone.is_crowded() || zone.asks_in_vain(now));
        let (until, floor) = (self.digests.terms.until, zone.evicted().max(zone.cleared()));
        for (hash, told) in &self.listed {
            let Version { stamp, origin } = told.version;
            let awaited = self.awaited.contains(hash);
            let tells = !told.tombstone || told.may_end_something;
            let news = !told.met && tells && stamp <= until && stamp > floor;
            let (had, lacked) = (self.ours.get(origin), lacks.of(origin));
            // Those that found no room were of an origin of which that is known, or of one of which nothing is held here.
            let is_known = had > Stamp::ZERO;
            // Where a part waits for what ended it, that finds the part's room.
            let crowded = self.crowded && !awaited;
            let in_vain = crowded && stamp <= if is_known { lacks.of_itself(origin) } else { lacked };
            let again = if crowded { doubted } else { doubted.max(lacked) };
            if news && !in_vain && (early || stamp <= again || stamp > had) {
                self.wanted.insert(*hash);
            }
        }
    }
}

/// What tells whether this node is yet to hear of a version.
struct Known {
    /// A clock that was ahead may have let something go, which only its end tells.
    early: bool,
    doubted: Stamp,
    /// Something was left out for want of room: asked for again when there is some. All else is, whatever room there is.
    lacks: Lacks,
}

impl Known {
    fn of(zone: &Zone, terms: &Terms) -> Known {
        Known { early: zone.expired_to() > terms.ends, doubted: zone.doubted(), lacks: zone.lacks() }
    }

    fn is_news(&self, ours: &mut Positions, Version { stamp, origin }: Version) -> bool {
        self.early || stamp <= self.doubted.max(self.lacks.of(origin)) || stamp > ours.get(origin)
    }
}

/// The hash of the base of the counter that a record is of, if they are compared by counter.
fn base_of(terms: &Terms, record_key: &[u8]) -> Option<u64> {
    let (counter, _) = Role::split(record_key).filter(|_| terms.by_counter)?;
    Some(terms.hash(&Role::Base.of(counter)))
}

/// Whether the last comparison met this record, too; if not, the next one looks.
fn is_found_again(last: &HashSet<Vec<u8>>, next: &mut HashSet<Vec<u8>>, key: &[u8]) -> bool {
    next.len() < MAX_SUSPECTS && next.insert(key.to_vec()) && last.contains(key)
}

impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").field("zone", &self.zone).finish_non_exhaustive()
    }
}
