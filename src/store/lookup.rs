//! Looking keys up, without a lock.

use super::block::{Block, Fields};
use super::find::Place;
use super::matching::{Matching, Wanted};
use super::{MAX_KEY, StoreError, Zone};
use crate::record::{Identity, Millis, Stamp, Version};

/// What a look-up tells besides the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was written; [`Zone::version`] tells by whom.
    pub stamp: Stamp,
    /// When it ends; `None`: never.
    pub expires: Option<Millis>,
    origin: u16,
    /// Of what is several records: a number that changes with every one of them but the newest.
    others: u64,
}

impl Found {
    /// What several records are together.
    pub(super) const fn of_several(newest: &Fields, expires: Option<Millis>, others: u64) -> Found {
        Found { stamp: newest.stamp, expires, origin: newest.origin, others }
    }
}

/// Where a look-up puts the value.
pub trait Sink {
    /// Room for exactly `len` bytes, in place of what an earlier call gave; `None`: no memory, and the look-up fails.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;
}

impl Sink for Vec<u8> {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.clear();
        self.resize(len, 0);
        Some(self)
    }
}

/// How often a look-up without the lock is tried before it takes the lock.
pub(super) const UNLOCKED_TRIES: usize = 16;

impl Zone {
    /// Looks `key` up and puts its value into `sink`. Takes no lock, unless the shard keeps changing under its eyes.
    ///
    /// # Errors
    ///
    /// `NoMemory` if the sink has none; `Busy` if the lock was needed and stuck.
    pub fn get<S: Sink + ?Sized>(&self, key: &[u8], now: Millis, sink: &mut S) -> Result<Option<Found>, StoreError> {
        if self.matching.has_parts() { self.get_sum(key, now, sink) } else { self.get_record(key, now, sink) }
    }

    /// The same for what is one record.
    #[inline]
    fn get_record<S: Sink + ?Sized>(&self, key: &[u8], now: Millis, sink: &mut S) -> Result<Option<Found>, StoreError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(None);
        }
        self.probe(self.hash_of(key), Wanted::Key(key), now, sink)
    }

    /// Whether there is a record with exactly this key.
    pub fn has_record(&self, record_key: &[u8], now: Millis) -> bool {
        matches!(self.get_record(record_key, now, &mut Vec::new()), Ok(Some(_)))
    }

    /// Looks up what answers for `key`: in a zone of networks or prefixes, the longest that contains it.
    ///
    /// # Errors
    ///
    /// As [`Zone::get`].
    pub fn look_up<S: Sink + ?Sized>(
        &self,
        key: &[u8],
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        if self.matching == Matching::Exact {
            return self.get_record(key, now, sink);
        }
        if self.matching.has_parts() || key.is_empty() {
            return self.get(key, now, sink);
        }
        self.candidates(key, |hash, wanted| self.probe(hash, wanted, now, sink).transpose()).transpose()
    }

    /// The version of what was found.
    pub fn version(&self, found: &Found) -> Version {
        let mut origin = self.origin_identity(found.origin).unwrap_or(Identity([0; 16]));
        for (byte, other) in origin.0.iter_mut().zip(found.others.to_le_bytes()) {
            *byte ^= other;
        }
        Version { stamp: found.stamp, origin }
    }

    #[inline(always)]
    fn probe<S: Sink + ?Sized>(
        &self,
        hash: u64,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let shard = self.shard_unlocked(self.place_of_hash(hash).shard);
        let sequence = shard.sequence();
        let found = self.read(self.place_of_hash(hash), wanted, now, sink);
        if shard.is_unmoved(sequence) {
            return found;
        }
        self.probe_again(hash, wanted, now, sink)
    }

    #[cold]
    #[inline(never)]
    fn probe_again<S: Sink + ?Sized>(
        &self,
        hash: u64,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let shard = self.shard_unlocked(self.place_of_hash(hash).shard);
        for _ in 1..UNLOCKED_TRIES {
            let sequence = shard.sequence();
            let found = self.read(self.place_of_hash(hash), wanted, now, sink);
            if shard.is_unmoved(sequence) {
                return found;
            }
        }
        let _locked = self.shard(self.place_of_hash(hash).shard)?;
        self.read(self.place_of_hash(hash), wanted, now, sink)
    }

    #[inline(always)]
    fn read<S: Sink + ?Sized>(
        &self,
        place: Place,
        wanted: Wanted<'_>,
        now: Millis,
        sink: &mut S,
    ) -> Result<Option<Found>, StoreError> {
        let cleared = self.cleared();
        let Some(met) = self.find_wanted(place, wanted, |met| met.fields.is_live(now, cleared)) else {
            return Ok(None);
        };
        if self.evict {
            self.mark_used(place, &met);
        }
        let room = sink.room(met.fields.value_len).ok_or(StoreError::NoMemory)?;
        let block = Block { region: &self.region, at: met.at };
        // A failed copy means that the record was reused meanwhile, which the sequence tells the caller.
        block.read_value(&self.geometry, &met.fields, room);
        Ok(Some(self.found(&met.fields)))
    }

    #[inline]
    pub(super) fn found(&self, fields: &Fields) -> Found {
        Found::of_several(fields, fields.expires, 0)
    }
}
