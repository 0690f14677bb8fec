//! The last-writer-wins register: of two records of one key, which one stays.

use super::Record;

/// Whether `new` replaces `old`. The order is total, so every node decides alike, whatever the order of arrival:
/// version, then a value before a tombstone, then the bytes of the value, then the later end.
pub fn beats(new: &Record<'_>, old: &Record<'_>) -> bool {
    // `None` (a tombstone) sorts below every value; for an end, `None` is never and sorts above.
    let end = |record: &Record<'_>| record.expires.unwrap_or(u64::MAX);
    (new.version, new.value, end(new)) > (old.version, old.value, end(old))
}
