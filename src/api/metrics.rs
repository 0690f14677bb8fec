//! Figures in the text format of Prometheus: `/zonemesh/metrics`.
//!
//! Names follow its conventions: base units, `_total` for what only grows. Look-ups aren't counted: readers write nowhere.

use super::{NamedZone, ZoneSync};
use crate::store::{LinkFigures, StateFigures, Stats};
use std::fmt::Write;

/// The type of the body.
pub(super) const TEXT: &str = "text/plain; version=0.0.4";

/// What a zone shows, as of one moment.
struct Row<'a> {
    name: &'a str,
    stats: Stats,
    state: Option<StateFigures>,
}

impl Row<'_> {
    fn used(&self) -> u64 {
        self.stats.pages_used.saturating_mul(self.stats.page_size)
    }

    fn capacity(&self) -> u64 {
        self.used().saturating_add(self.stats.pages_free.saturating_mul(self.stats.page_size))
    }
}

/// One metric: name, kind, help, value.
type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);
/// One kind of change: its name, and how many there were.
type Operation = (&'static str, fn(&Stats) -> u64);

const OF_ZONES: [Metric<Stats>; 10] = [
    ("records", "gauge", "Records in the zone, without tombstones.", |stats| stats.records),
    ("tombstones", "gauge", "Deletes and ends that are remembered.", |stats| stats.tombstones),
    ("pending_records", "gauge", "Records not yet sent to some connected node.", |stats| stats.pending),
    ("evictions_total", "counter", "Records given up for others in a full zone.", |stats| stats.evicted),
    ("refusals_total", "counter", "Writes refused because the zone was full.", |stats| stats.refused),
    ("expired_total", "counter", "Records whose time was over.", |stats| stats.expired),
    ("incomplete_total", "counter", "Records of other nodes that did not fit.", |stats| stats.incomplete),
    ("future_total", "counter", "Records refused because they came from too far in the future.", |stats| stats.future),
    ("mended_total", "counter", "Records that comparing with other nodes brought.", |stats| stats.mended),
    ("retired_total", "counter", "Records that comparing with other nodes took away.", |stats| stats.retired),
];

const OPERATIONS: [Operation; 4] = [
    ("set", |stats| stats.writes),
    ("delete", |stats| stats.deletes),
    ("clear", |stats| stats.clears),
    ("merge", |stats| stats.merged),
];

/// The whole text.
pub(super) fn text<'a>(zones: impl Iterator<Item = &'a NamedZone>, sync: Option<&ZoneSync>) -> Vec<u8> {
    let row =
        |zone: &'a NamedZone| Row { name: &zone.name, stats: zone.zone.stats(), state: zone.zone.state_figures() };
    let mut rows: Vec<Row<'_>> = zones.map(row).collect();
    rows.sort_unstable_by_key(|row| row.name);
    let mut text = Text(String::new());
    text.family("zonemesh_build_info", "gauge", "The version that runs.");
    text.sample("zonemesh_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    if !rows.is_empty() {
        of_zones(&mut text, &rows);
    }
    if rows.iter().any(|row| row.state.is_some()) {
        of_state_files(&mut text, &rows);
    }
    if let Some(sync) = sync {
        of_sync(&mut text, sync);
    }
    text.0.into_bytes()
}

fn of_zones(text: &mut Text, rows: &[Row<'_>]) {
    for (name, kind, help, value) in OF_ZONES {
        let name = format!("zonemesh_zone_{name}");
        text.family(&name, kind, help);
        rows.iter().for_each(|row| text.sample(&name, &[("zone", row.name)], value(&row.stats)));
    }
    let name = "zonemesh_zone_operations_total";
    text.family(name, "counter", "Changes by kind: those made here, and those merged from other nodes or a file.");
    for row in rows {
        for (kind, value) in OPERATIONS {
            text.sample(name, &[("zone", row.name), ("operation", kind)], value(&row.stats));
        }
    }
    let name = "zonemesh_zone_capacity_bytes";
    text.family(name, "gauge", "Memory for records.");
    rows.iter().for_each(|row| text.sample(name, &[("zone", row.name)], row.capacity()));
    let name = "zonemesh_zone_used_bytes";
    text.family(name, "gauge", "Memory in use, in whole pages.");
    rows.iter().for_each(|row| text.sample(name, &[("zone", row.name)], row.used()));
    let name = "zonemesh_zone_fill_ratio";
    text.family(name, "gauge", "Memory in use, as a part of all.");
    for row in rows {
        text.sample(name, &[("zone", row.name)], row.used() as f64 / row.capacity().max(1) as f64);
    }
}

fn of_state_files(text: &mut Text, rows: &[Row<'_>]) {
    let states = || rows.iter().filter_map(|row| Some((row.name, row.state?)));
    let name = "zonemesh_state_written_timestamp_seconds";
    text.family(name, "gauge", "When the state file was last written; 0: never.");
    for (zone, state) in states() {
        text.sample(name, &[("zone", zone)], state.written as f64 / 1000.0);
    }
    let figures: [Metric<StateFigures>; 4] = [
        ("size_bytes", "gauge", "Size of the state file.", |state| state.bytes),
        ("writes_total", "counter", "How often the state file was written.", |state| state.writes),
        ("errors_total", "counter", "How often writing the state file failed.", |state| state.errors),
        ("pending", "gauge", "Whether the zone has changed since the state file was written.", |state| {
            state.pending.into()
        }),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_state_{name}");
        text.family(&name, kind, help);
        states().for_each(|(zone, state)| text.sample(&name, &[("zone", zone)], value(&state)));
    }
}

fn of_sync(text: &mut Text, sync: &ZoneSync) {
    let figures = [
        ("nodes_online", "gauge", "Nodes that this one is connected to.", sync.nodes_online),
        ("received_bytes_total", "counter", "Bytes received from other nodes.", sync.bytes_in),
        ("sent_bytes_total", "counter", "Bytes sent to other nodes.", sync.bytes_out),
        ("received_messages_total", "counter", "Messages received from other nodes.", sync.msgs_in),
        ("sent_messages_total", "counter", "Messages sent to other nodes.", sync.msgs_out),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_sync_{name}");
        text.family(&name, kind, help);
        text.sample(&name, &[], value);
    }
    if !sync.peers.is_empty() {
        of_peers(text, &sync.peers);
    }
    if !sync.heard.is_empty() {
        let name = "zonemesh_sync_peer_heard_timestamp_seconds";
        text.family(name, "gauge", "When a message of another node last came in, by the node's identity.");
        for (node, heard) in &sync.heard {
            text.sample(name, &[("node", &node.to_string())], *heard as f64 / 1000.0);
        }
    }
}

/// What this node sends to each peer that it dials.
fn of_peers(text: &mut Text, peers: &[LinkFigures]) {
    let figures: [Metric<LinkFigures>; 4] = [
        ("connected", "gauge", "Whether this node is connected to the peer.", |peer| peer.node.is_some().into()),
        ("sent_bytes_total", "counter", "Bytes sent to the peer.", |peer| peer.sent),
        ("received_bytes_total", "counter", "Bytes that the peer answered.", |peer| peer.received),
        ("pending_records", "gauge", "Records that wait for the peer.", |peer| peer.pending),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_sync_peer_{name}");
        text.family(&name, kind, help);
        peers.iter().for_each(|peer| text.sample(&name, &[("peer", &peer.label)], value(peer)));
    }
    let name = "zonemesh_sync_peer_since_timestamp_seconds";
    text.family(name, "gauge", "Since when the peer is connected, or is not.");
    peers.iter().for_each(|peer| text.sample(name, &[("peer", &peer.label)], peer.since as f64 / 1000.0));
}

/// The text in the making. Writing to a string can't fail.
struct Text(String);

impl Text {
    /// What stands before the samples of one name.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if n == 0 { '{' } else { ',' });
            escaped(&mut self.0, value);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A label's value, with the escapes that the format demands.
fn escaped(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(letter),
        }
    }
}
