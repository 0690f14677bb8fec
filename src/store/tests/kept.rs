//! Copies of records, which tests have another zone merge as if a peer had sent them, or a state file had them.

use crate::record::{Kind, Millis, Record, Version};
use crate::store::{Applied, Batch, DumpPlace, Zone};

/// A record of its own.
#[derive(Clone, Debug)]
pub struct Kept {
    pub kind: Kind,
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub version: Version,
    pub expires: Option<Millis>,
    pub shortened: bool,
}

impl Kept {
    pub fn of(record: &Record<'_>) -> Kept {
        let Record { kind, key, value, version, expires, shortened } = *record;
        Kept { kind, key: key.to_vec(), value: value.map(<[u8]>::to_vec), version, expires, shortened }
    }

    pub fn record(&self) -> Record<'_> {
        let Kept { kind, version, expires, shortened, .. } = *self;
        Record { kind, version, key: &self.key, value: self.value.as_deref(), expires, shortened }
    }

    /// The same, later or by somebody else.
    pub fn under(&self, version: Version) -> Kept {
        Kept { version, ..self.clone() }
    }
}

/// All records of a zone, tombstones too.
pub fn all_of(zone: &Zone) -> Vec<Kept> {
    let (mut all, mut place, mut batch) = (Vec::new(), DumpPlace::default(), Batch::default());
    while zone.dump(&mut place, &mut batch).expect("the lock") {
        all.extend(batch.records().map(|dumped| Kept::of(&dumped.record)));
    }
    all
}

/// Those that aren't tombstones.
pub fn live_of(zone: &Zone) -> Vec<Kept> {
    all_of(zone).into_iter().filter(|kept| kept.value.is_some()).collect()
}

/// Has a zone merge it, however far ahead it is.
pub fn give(kept: &Kept, to: &Zone, now: Millis) -> Applied {
    to.apply(&kept.record(), now, Millis::MAX).expect("merged")
}

pub fn give_all<'a>(all: impl IntoIterator<Item = &'a Kept>, to: &Zone, now: Millis) {
    all.into_iter().for_each(|kept| _ = give(kept, to, now));
}
