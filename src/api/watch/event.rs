//! Server-sent events, as text.

use super::Position;
use crate::api::args::Fields;
use crate::api::condition;
use crate::api::json::Object;
use crate::api::shape::bytes;
use crate::record::{Millis, Stamp};
use crate::store::Change;

/// The first words: how soon a client that lost the connection is to come back, in milliseconds.
pub(super) const GREETING: &[u8] = b"retry: 1000\n\n";
/// A sign of life, and the beginning of the block that follows it.
pub(super) const HEARTBEAT: &[u8] = b":\n";
/// What follows is everything.
pub(super) const RESET: &[u8] = b"event: reset\ndata: {}\n\n";

/// A change of one key.
pub(super) fn change(out: &mut Vec<u8>, change: &Change<'_>, now: Millis) {
    let record = &change.record;
    let name = match (record.value, change.lapsed) {
        (Some(_), _) => "set",
        (None, None) => "delete",
        (None, Some(_)) => "expire",
    };
    event(out, name, |data| {
        data.member(b"key", |out| bytes(out, record.key));
        if let Some(value) = record.value {
            data.member(b"value", |out| bytes(out, value));
            if let Some(end) = record.expires {
                data.number("expire", end.saturating_sub(now));
            }
        }
        data.string("version", &condition::text(record.version));
    });
}

/// Everything written at or below a stamp is gone.
pub(super) fn clear(out: &mut Vec<u8>, stamp: Stamp) {
    event(out, "clear", |data| {
        data.string("version", &format!("{:016x}", stamp.0));
    });
}

/// How far the client is now.
pub(super) fn id(out: &mut Vec<u8>, position: &Position) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(&position.text());
    out.extend_from_slice(b"\n\n");
}

fn event(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let mut data = Object::new(out, &Fields::All);
    fill(&mut data);
    data.end();
    out.extend_from_slice(b"\n\n");
}
