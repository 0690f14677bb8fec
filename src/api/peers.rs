//! `/zonemesh/peers`: each peer of `zone_sync`, as the connections to it and from it show it.

use super::args::Fields;
use super::json::{self, Object};
use super::{ZoneSync, time};
use crate::record::{Identity, Millis};
use crate::store::{Drift, LinkFigures, Side, Traffic};

/// An array; `fields` is about each of them.
pub(super) fn list(sync: &ZoneSync, now: Millis, fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    json::array(&mut body, &sync.peers, |out, peer| one(out, sync, peer, now, fields));
    body
}

fn one(out: &mut Vec<u8>, sync: &ZoneSync, peer: &LinkFigures, now: Millis, fields: &Fields) {
    let mut object = Object::new(out, fields);
    object
        .string("server", &peer.server)
        .string("address", &peer.address)
        .string("state", peer.state.name())
        .string("since", &time::iso8601(peer.since));
    match peer.node {
        Some(node) => object.string("node", &node.to_string()),
        None => object.null("node"),
    };
    match &peer.certificate {
        Some(certificate) => object.object(b"certificate", |object| {
            object.string("name", &certificate.name);
            match certificate.ends {
                0 => object.null("expires"),
                ends => object.string("expires", &time::iso8601(ends)),
            };
        }),
        None => object.null("certificate"),
    };
    match &peer.error {
        Some((text, at)) => object.object(b"error", |object| {
            object.string("text", text).string("time", &time::iso8601(*at));
        }),
        None => object.null("error"),
    };
    traffic(&mut object, &peer.traffic);
    object.number("records_pending", peer.pending).number("lag", lag(peer, now));
    match &peer.pulse {
        Some(pulse) => object
            .member(b"round_trip", |out| json::thousandths(out, pulse.round_trip))
            .member(b"clock_offset", |out| out.extend_from_slice(pulse.ahead.to_string().as_bytes())),
        None => object.null("round_trip").null("clock_offset"),
    };
    match sync.heard.iter().find(|heard| Some(heard.node) == peer.node) {
        Some(heard) => object.object(b"inbound", |object| {
            object.string("heard", &time::iso8601(heard.at));
            traffic(object, &heard.traffic);
        }),
        None => object.null("inbound"),
    };
    object.member(b"refused", |out| {
        json::array(out, refused(&sync.drifts, peer.node), |out, drift| {
            let mut object = Object::new(out, &Fields::All);
            object.string("zone", &drift.zone).string("by", by(drift.side)).string("reason", &drift.reason);
            object.end();
        });
    });
    object.end();
}

fn traffic(object: &mut Object<'_>, traffic: &Traffic) {
    object
        .number("bytes_in", traffic.bytes_in)
        .number("bytes_out", traffic.bytes_out)
        .number("msgs_in", traffic.msgs_in)
        .number("msgs_out", traffic.msgs_out);
}

/// For how long the peer has lacked the oldest change that it lacks, milliseconds.
pub(super) fn lag(peer: &LinkFigures, now: Millis) -> u64 {
    peer.behind.map_or(0, |behind| now.saturating_sub(behind))
}

/// Zones that aren't shared with a node, as configurations differ.
pub(super) fn refused(drifts: &[Drift], node: Option<Identity>) -> impl Iterator<Item = &Drift> {
    drifts.iter().filter(move |drift| Some(drift.peer) == node)
}

/// Who refuses.
pub(super) fn by(side: Side) -> &'static str {
    match side {
        Side::Here => "this node",
        Side::There => "peer",
    }
}
