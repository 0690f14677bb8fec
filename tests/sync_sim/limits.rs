//! Limits of requests: what each memory has admitted is known to all, once, and stands in each bucket once.
//!
//! The rate is so low that nothing runs out, and so what all have admitted is what a bucket may hold.

use crate::check::{Live, Shown};
use crate::counts::Ledger;
use crate::node::SimNode;
use std::collections::BTreeMap;
use zonemesh::record::{Millis, Record, Role, Share};
use zonemesh::store::{ScanPlace, StoreError};

/// Thousandths of a request a second.
pub const RATE: u64 = 1;
const REQUEST: i64 = 1000;

/// All shares that a node holds, by the keys of their records. Buckets aren't looked at: they differ.
pub fn shares(node: &SimNode, zone: usize) -> Result<BTreeMap<Vec<u8>, Live>, StoreError> {
    let mut shares = BTreeMap::new();
    each_share(node, zone, |record, share| {
        let value = [share.begun.to_le_bytes(), share.admitted.to_le_bytes()].concat();
        shares.insert(record.key.to_vec(), Live { value, version: record.version, expires: record.expires });
    })?;
    Ok(shares)
}

fn each_share(node: &SimNode, zone: usize, mut each: impl FnMut(&Record<'_>, Share)) -> Result<(), StoreError> {
    let (zone, mut keys, mut place) = (node.zone(zone), Vec::new(), Some(ScanPlace::default()));
    while let Some(at) = place {
        place = zone.survey(at, &mut |record| keys.push(record.key.to_vec()))?;
    }
    for key in keys {
        zone.show(&key, &mut |record: &Record<'_>| {
            if let Some(share) = record.value.and_then(share) {
                each(record, share);
            }
        })?;
    }
    Ok(())
}

/// What stands before it lets its words lie as memory has words.
fn share(value: &[u8]) -> Option<Share> {
    Share::from_bytes(value.get(value.len().checked_sub(Share::LEN)?..)?)
}

/// How many requests of a key these shares tell of.
pub fn admitted(shares: &Shown, key: &[u8]) -> i64 {
    let of_key = shares.iter().filter(|(record, _)| Role::split(record).is_some_and(|(of, _)| of == key));
    of_key.filter_map(|(_, live)| live.value.last_chunk()).map(|count| i64::from(u32::from_le_bytes(*count))).sum()
}

/// Whether the buckets of a node hold all that it has admitted itself, or, `agreed`, what any memory has that lives; and no
/// request twice, but where the node knows that it took what others had mixed: then messages that were overtaken count again; and
/// where several clocks were ahead: of what a node has admitted, each of the `tellers` that stamped it anew may have told less, and
/// the node itself again.
pub fn check_buckets(
    ledger: &Ledger,
    (at, node): (usize, &SimNode),
    zone: usize,
    (agreed, tellers): (bool, i64),
    now: Millis,
) -> Result<(), String> {
    let identity = node.node.control.identity();
    // What it began to count with a bucket of which it knows what was in it.
    let mut sure = Vec::new();
    let note = |record: &Record<'_>, share: Share| {
        if record.version.origin == identity
            && !share.taken
            && let Some((key, _)) = Role::split(record.key)
        {
            sure.push(key.to_vec());
        }
    };
    each_share(node, zone, note).map_err(|error| error.to_string())?;
    for (key, [own, others, all]) in ledger.amounts(zone, at) {
        let least = if agreed { own.max(others) } else { own };
        // As of before the request that asks. Less than a request runs out in all the time that there is.
        let held = node.zone(zone).limited(key, RATE, now).map_err(|error| error.to_string())? as i64;
        let is_more = held > (1 + tellers) * all * REQUEST && own > 0 && sure.iter().any(|sure| sure == key);
        if is_more || held + REQUEST <= least * REQUEST {
            let key = String::from_utf8_lossy(key);
            return Err(format!("node {at}, \"{key}\": {held} thousandths of {least} to {all} requests in the bucket"));
        }
    }
    Ok(())
}
