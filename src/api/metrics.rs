//! Figures in the text format of Prometheus: `/zonemesh/metrics`.
//!
//! Names follow its conventions: base units, `_total` for what only grows. Look-ups aren't counted: readers write nowhere.

use super::{NamedZone, ZoneSync, peers};
use crate::record::Millis;
use crate::store::{HeardNode, LinkFigures, LinkState, Outcome, StateFigures, Stats};
use std::fmt::Write;

/// The type of the body.
pub(super) const TEXT: &str = "text/plain; version=0.0.4";

/// What a zone shows, as of one moment.
struct Row<'a> {
    name: &'a str,
    stats: Stats,
    state: Option<StateFigures>,
    /// Of shared zones.
    joined: Option<bool>,
}

impl Row<'_> {
    fn of(NamedZone { name, zone, .. }: &NamedZone) -> Row<'_> {
        Row {
            name,
            stats: zone.stats(),
            state: zone.state_figures(),
            joined: zone.params().sync.then(|| zone.joined()),
        }
    }

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

const OF_ZONES: [Metric<Stats>; 16] = [
    ("records", "gauge", "Records in the zone, without tombstones.", |stats| stats.records),
    ("tombstones", "gauge", "Deletes and ends that are remembered.", |stats| stats.tombstones),
    ("pending_records", "gauge", "Records not yet sent to some connected node.", |stats| stats.pending),
    ("evictions_total", "counter", "Records given up for others in a full zone.", |stats| stats.evicted),
    ("refusals_total", "counter", "Writes refused because the zone was full.", |stats| stats.refused),
    ("expired_total", "counter", "Records whose time was over.", |stats| stats.expired),
    ("incomplete_total", "counter", "Records of other nodes that did not fit.", |stats| stats.left_out),
    ("origins", "gauge", "Nodes known to have written, each start of nginx another.", |stats| stats.origins),
    ("origins_room", "gauge", "How many more can be noted.", |stats| stats.origins_room),
    ("future_total", "counter", "Records refused because they came from too far in the future.", |stats| stats.future),
    ("comparisons_begun_total", "counter", "Comparisons with other nodes that this node began.", |stats| {
        stats.comparisons.begun
    }),
    ("comparisons_ended_total", "counter", "Those of them that came to an end.", |stats| stats.comparisons.ended),
    ("compared_total", "counter", "Records here that those were about.", |stats| stats.comparisons.records),
    ("mended_total", "counter", "Records that comparing with other nodes brought.", |stats| stats.mended),
    ("busy_total", "counter", "Locks that were not had in time, as their owner did not go on.", |stats| stats.busy),
    ("retired_total", "counter", "Records that comparing with other nodes took away.", |stats| stats.retired),
];

const OPERATIONS: [Operation; 4] = [
    ("set", |stats| stats.writes),
    ("delete", |stats| stats.deletes),
    ("clear", |stats| stats.clears),
    ("merge", |stats| stats.merged),
];

/// The whole text. `zones`: all, sorted by name; `limits`: those of request limits among them.
pub(super) fn text(zones: &[&NamedZone], limits: &[NamedZone], sync: Option<&ZoneSync>, now: Millis) -> Vec<u8> {
    let rows: Vec<Row<'_>> = zones.iter().map(|zone| Row::of(zone)).collect();
    let mut text = Text(String::new());
    text.family("zonemesh_build_info", "gauge", "The version that runs.");
    text.sample("zonemesh_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    if !rows.is_empty() {
        of_zones(&mut text, &rows);
    }
    if rows.iter().any(|row| row.state.is_some()) {
        of_state_files(&mut text, &rows);
    }
    if !limits.is_empty() {
        of_limits(&mut text, limits);
    }
    if let Some(sync) = sync {
        of_sync(&mut text, sync, now);
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
    if rows.iter().any(|row| row.joined.is_some()) {
        let name = "zonemesh_zone_joined";
        text.family(name, "gauge", "Whether the shared zone has taken the full state of another node.");
        let known = rows.iter().filter_map(|row| Some((row.name, row.joined?)));
        known.for_each(|(zone, joined)| text.sample(name, &[("zone", zone)], u8::from(joined)));
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
    let name = "zonemesh_state_appended_timestamp_seconds";
    text.family(name, "gauge", "When changes were last appended beside the state file; 0: never.");
    for (zone, state) in states() {
        text.sample(name, &[("zone", zone)], state.changes.appended as f64 / 1000.0);
    }
    let figures: [Metric<StateFigures>; 7] = [
        ("size_bytes", "gauge", "Size of the state file.", |state| state.bytes),
        ("writes_total", "counter", "How often the state file was written.", |state| state.writes),
        ("errors_total", "counter", "How often writing the state file failed.", |state| state.errors),
        (
            "pending",
            "gauge",
            "Whether the zone has changes that neither the state file nor those beside it have.",
            |state| state.pending.into(),
        ),
        ("appends_total", "counter", "How often changes were appended beside the state file.", |state| {
            state.changes.appends
        }),
        ("changes_files", "gauge", "Files of changes that follow the state file.", |state| state.changes.files),
        ("changes_bytes", "gauge", "Size of the files of changes.", |state| state.changes.bytes),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_state_{name}");
        text.family(&name, kind, help);
        states().for_each(|(zone, state)| text.sample(&name, &[("zone", zone)], value(&state)));
    }
}

fn of_limits(text: &mut Text, limits: &[NamedZone]) {
    let name = "zonemesh_limit_req_requests_total";
    text.family(name, "counter", "Requests under limit_req, by what became of them.");
    for NamedZone { name: zone, zone: store, .. } in limits {
        for outcome in Outcome::ALL {
            let labels = [("zone", zone.as_str()), ("outcome", outcome.name())];
            text.sample(name, &labels, store.limited_total(outcome));
        }
    }
}

fn of_sync(text: &mut Text, sync: &ZoneSync, now: Millis) {
    let figures = [
        ("nodes_online", "gauge", "Nodes that this one is connected to.", sync.nodes_online),
        ("received_bytes_total", "counter", "Bytes received from other nodes.", sync.bytes_in),
        ("sent_bytes_total", "counter", "Bytes sent to other nodes.", sync.bytes_out),
        ("received_messages_total", "counter", "Messages received from other nodes.", sync.msgs_in),
        ("sent_messages_total", "counter", "Messages sent to other nodes.", sync.msgs_out),
        ("sessions_waited_total", "counter", "New sessions that had to wait for their turn.", sync.sessions_waited),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_sync_{name}");
        text.family(&name, kind, help);
        text.sample(&name, &[], value);
    }
    if !sync.peers.is_empty() {
        of_peers(text, sync, now);
    }
    if !sync.heard.is_empty() {
        of_heard(text, sync);
    }
}

/// What this node sends to each peer that it dials, and how it stands with it.
fn of_peers(text: &mut Text, sync: &ZoneSync, now: Millis) {
    let peers: Vec<(String, &LinkFigures)> = sync.peers.iter().map(|peer| (peer.label(), peer)).collect();
    let name = "zonemesh_sync_peer_info";
    text.family(name, "gauge", "Who the peer is, as far as known: its node, the name in its certificate.");
    for (label, peer) in &peers {
        let node = peer.node.map(|node| node.to_string()).unwrap_or_default();
        let certificate = peer.certificate.as_ref().map_or("", |certificate| &certificate.name);
        text.sample(name, &[("peer", label), ("node", &node), ("certificate", certificate)], 1);
    }
    let name = "zonemesh_sync_peer_state";
    text.family(name, "gauge", "How this node stands with the peer: 1 for the state that it is in.");
    for (label, peer) in &peers {
        for state in [LinkState::Connecting, LinkState::Connected, LinkState::Unreachable, LinkState::Itself] {
            let is = u8::from(peer.state == state);
            text.sample(name, &[("peer", label), ("state", state.name())], is);
        }
    }
    let figures: [Metric<LinkFigures>; 6] = [
        ("connected", "gauge", "Whether this node is connected to the peer.", |peer| peer.node.is_some().into()),
        ("sent_bytes_total", "counter", "Bytes sent to the peer.", |peer| peer.traffic.bytes_out),
        ("received_bytes_total", "counter", "Bytes that the peer answered.", |peer| peer.traffic.bytes_in),
        ("sent_messages_total", "counter", "Messages sent to the peer.", |peer| peer.traffic.msgs_out),
        ("received_messages_total", "counter", "Messages that the peer answered.", |peer| peer.traffic.msgs_in),
        ("pending_records", "gauge", "Records that wait for the peer.", |peer| peer.pending),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_sync_peer_{name}");
        text.family(&name, kind, help);
        peers.iter().for_each(|(label, peer)| text.sample(&name, &[("peer", label)], value(peer)));
    }
    let seconds: [(&str, &str, Reading<'_>); 6] = [
        ("since_timestamp_seconds", "Since when state and node are what they are.", &|peer| {
            Some(peer.since as f64 / 1e3)
        }),
        ("lag_seconds", "For how long the peer has lacked the oldest change that it lacks.", &|peer| {
            Some(peers::lag(peer, now) as f64 / 1e3)
        }),
        ("round_trip_seconds", "From the last ping to its answer.", &|peer| Some(peer.pulse?.round_trip as f64 / 1e6)),
        ("clock_offset_seconds", "How far the peer's clock is ahead of this node's.", &|peer| {
            Some(peer.pulse?.ahead as f64 / 1e3)
        }),
        ("certificate_expiry_timestamp_seconds", "When the certificate ends that the peer showed.", &|peer| {
            Some(peer.certificate.as_ref()?.ends).filter(|ends| *ends > 0).map(|ends| ends as f64 / 1e3)
        }),
        ("error_timestamp_seconds", "When something last went wrong with the peer.", &|peer| {
            Some(peer.error.as_ref()?.1 as f64 / 1e3)
        }),
    ];
    for (name, help, value) in seconds {
        if peers.iter().any(|(_, peer)| value(peer).is_some()) {
            let name = format!("zonemesh_sync_peer_{name}");
            text.family(&name, "gauge", help);
            let known = peers.iter().filter_map(|(label, peer)| Some((label, value(peer)?)));
            known.for_each(|(label, value)| text.sample(&name, &[("peer", label)], value));
        }
    }
    let refused = || {
        let of = |peer: &LinkFigures| peers::refused(&sync.drifts, peer.node);
        peers.iter().flat_map(move |(label, peer)| of(peer).map(move |drift| (label, drift)))
    };
    if refused().next().is_some() {
        let name = "zonemesh_sync_zone_refused";
        text.family(name, "gauge", "Zones that one side does not share with the other, as configurations differ.");
        for (label, drift) in refused() {
            text.sample(name, &[("peer", label), ("zone", &drift.zone), ("by", peers::by(drift.side))], 1);
        }
    }
}

/// Something of a peer that may not be known.
type Reading<'f> = &'f dyn Fn(&LinkFigures) -> Option<f64>;

/// What came from each node that dials this one.
fn of_heard(text: &mut Text, sync: &ZoneSync) {
    let name = "zonemesh_sync_peer_heard_timestamp_seconds";
    text.family(name, "gauge", "When a message of another node last came in, by the node's identity.");
    for heard in &sync.heard {
        text.sample(name, &[("node", &heard.node.to_string())], heard.at as f64 / 1e3);
    }
    let figures: [Metric<HeardNode>; 4] = [
        ("received_bytes_total", "counter", "Bytes that the node pushed to this one.", |heard| heard.traffic.bytes_in),
        ("sent_bytes_total", "counter", "Bytes that this node answered.", |heard| heard.traffic.bytes_out),
        ("received_messages_total", "counter", "Messages that the node pushed.", |heard| heard.traffic.msgs_in),
        ("sent_messages_total", "counter", "Messages that this node answered.", |heard| heard.traffic.msgs_out),
    ];
    for (name, kind, help, value) in figures {
        let name = format!("zonemesh_sync_node_{name}");
        text.family(&name, kind, help);
        sync.heard.iter().for_each(|heard| text.sample(&name, &[("node", &heard.node.to_string())], value(heard)));
    }
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
