//! What the peer answers, and what comes of it.

use super::super::SyncZone;
use super::super::digest::{Digest, Pass};
use super::super::incoming::Context;
use super::super::message::{DIGEST, Entry, LISTED, Listed, MAX_RANGE_BITS};
use super::super::positions::Positions;
use super::round::{Phase, Told};
use super::{Compare, MAX_LISTED};
use crate::record::Stamp;
use crate::store::Zone;

impl Compare {
    /// The peer's digests, from one part on. `None`: they don't fit the question.
    pub fn digests<'a>(
        &mut self,
        cx: &Context<'_>,
        number: u64,
        (first, floor): (u64, Stamp),
        digests: impl Iterator<Item = &'a [u8; DIGEST]>,
    ) -> Option<()> {
        let Some(round) = self.under_way.as_mut().filter(|_| number == self.round) else { return Some(()) };
        if !matches!(round.phase, Phase::Asked) || first != round.theirs.len() as u64 {
            return None;
        }
        let ranges = round.digests.terms.ranges();
        for digest in digests {
            let (count, sum) = digest.split_first_chunk::<4>()?;
            let sum = u64::from_le_bytes(sum.try_into().ok()?);
            round.theirs.push(Digest { count: u32::from_le_bytes(*count), sum });
            if round.theirs.len() > ranges {
                return None;
            }
        }
        if round.theirs.len() == ranges {
            round.digests.terms.floor = floor.max(round.digests.terms.floor);
            round.phase = Phase::Digesting;
            self.theirs = round.theirs.iter().map(|digest| u64::from(digest.count)).sum();
            self.at = cx.t;
        }
        Some(())
    }

    /// Versions of the peer. `None`: not what was asked for.
    pub fn versions<'a>(
        &mut self,
        cx: &Context<'_>,
        number: u64,
        versions: impl Iterator<Item = &'a [u8; LISTED]>,
    ) -> Option<()> {
        let Some(round) = self.under_way.as_mut().filter(|_| number == self.round) else { return Some(()) };
        if !matches!(round.phase, Phase::Listing) {
            return None;
        }
        for bytes in versions {
            let Listed { hash, version, tombstone } = Listed::decode(bytes)?;
            if !round.asked.get(round.digests.terms.range(hash)).is_some_and(|asked| *asked) {
                return None;
            }
            // Two keys of one hash: the newer one stands for both, which at worst leaves them for another comparison.
            let told = round.listed.entry(hash).or_insert(Told::new(version, tombstone));
            if version > told.version {
                *told = Told::new(version, tombstone);
            }
        }
        if round.listed.len() > MAX_LISTED {
            // Tombstones don't count in digests; so many of them want smaller questions, or smaller parts.
            let asked = round.asked();
            if asked <= 1 {
                self.finer = (round.digests.terms.bits() + 2).min(MAX_RANGE_BITS);
            }
            self.most = (asked / 2).max(1);
            self.rest(cx.t.saturating_add(cx.node.limits.timeout));
            return Some(());
        }
        self.wait(cx);
        Some(())
    }

    /// The peer has told all versions, and what it vouches for.
    pub fn listed(
        &mut self,
        cx: &Context<'_>,
        number: u64,
        more: bool,
        (trusted, evicted): (bool, Stamp),
        positions: impl Iterator<Item = Entry>,
    ) -> Option<()> {
        let Some(round) = self.under_way.as_mut().filter(|_| number == self.round) else { return Some(()) };
        if !matches!(round.phase, Phase::Listing) {
            return None;
        }
        let room = 8192usize.saturating_sub(round.positions.len());
        round.positions.extend(positions.take(room).map(|entry| (entry.identity, entry.stamp)));
        if !more {
            (round.trusted, round.evicted) = (trusted, evicted);
            if self.most > 0 {
                // As many as fill half of what is kept: few parts differ today, and all of them tomorrow.
                self.most = (round.asked() * (MAX_LISTED / 2) / round.listed.len().max(1)).max(1);
            }
            let theirs = Positions::new(std::mem::take(&mut round.positions).into_iter());
            if let Some(SyncZone { zone, .. }) = cx.node.zones.get(self.index) {
                round.ours = Positions::new(zone.claims().into_iter());
            }
            round.phase = Phase::Matching { pass: Pass::default(), theirs };
            self.at = cx.t;
        }
        Some(())
    }

    /// A record came and is news here: was it asked for?
    pub fn came(&mut self, cx: &Context<'_>, zone: &Zone, key: &[u8]) {
        let Some(round) = self.under_way.as_mut().filter(|round| matches!(round.phase, Phase::Fetching)) else {
            return;
        };
        if round.wanted.remove(&round.digests.terms.hash(key)) {
            round.brought += 1;
            zone.count_mended();
            self.wait(cx);
        }
    }

    /// A record came that found no room: was it asked for?
    pub fn refused(&mut self, key: &[u8]) {
        if let Some(round) = self.under_way.as_mut().filter(|round| matches!(round.phase, Phase::Fetching)) {
            round.refused += u64::from(round.wanted.contains(&round.digests.terms.hash(key)));
        }
    }

    /// All that was asked for has come, if the peer still had it.
    pub fn sent(&mut self, cx: &mut Context<'_>, number: u64) {
        let node = cx.node;
        let fetching = self.under_way.as_ref().is_some_and(|round| matches!(round.phase, Phase::Fetching));
        if number == self.round
            && fetching
            && let Some(zone) = node.zones.get(self.index)
        {
            self.complete(cx, zone);
        }
    }
}
