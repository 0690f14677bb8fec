//! What a full mesh costs: meshes of real stores and sessions in virtual time, settled and without faults (those are
//! `sync_sim`'s), of which messages and bytes are counted. Small ones show that costs stay what docs/scaling.md says;
//!
//!     ZONEMESH_SCALE=255 cargo test --no-default-features --test sync_scale
//!
//! measures one of so many nodes, and prints the figures as JSON. `scripts/bench mesh` does.

#![allow(clippy::expect_used, reason = "what a simulation can't go on without ends it")]

mod measure;
mod mesh;
mod wire;

use measure::{Figures, RECORDS, measure};

/// Bytes of the zone: the smallest usual one.
const ZONE: usize = 1 << 20;

fn main() {
    // Asked for a list of tests by a tool: there is one.
    if std::env::args().any(|arg| arg == "--list") {
        println!("sync_scale: test");
        return;
    }
    if let Some(nodes) = std::env::var("ZONEMESH_SCALE").ok().and_then(|text| text.parse::<usize>().ok()) {
        println!("{}", measure(nodes.max(2), ZONE).to_json());
        return;
    }
    let all: Vec<Figures> = [2, 5, 10, 20].map(|nodes| measure(nodes, ZONE)).into();
    all.iter().for_each(costs_are_those_of_a_mesh);
    println!("sync_scale: meshes of 2, 5, 10 and 20 nodes cost what they should");
}

/// Counts, not times: what docs/scaling.md derives. What a change of the protocol makes dearer shows here.
fn costs_are_those_of_a_mesh(figures: &Figures) {
    let Figures { nodes, links, .. } = *figures;
    let peers = nodes - 1;
    assert_eq!(links, nodes * peers, "each dials each");
    for (kind, bytes) in [("records", 51), ("positions", 42), ("acknowledgements", 15)] {
        assert_eq!(figures.update.of(kind), (peers, peers * bytes), "{nodes} nodes: {kind} for one update");
    }
    assert_eq!(figures.visible, mesh::DELAY, "{nodes} nodes: an update goes straight to each");
    for kind in ["have", "records", "positions"] {
        assert_eq!(figures.idle.of(kind).0, 0, "{nodes} nodes: {kind} in a mesh at rest");
    }
    let signs = figures.idle.of("signs of life").1 as f64 / links as f64 / (measure::IDLE as f64 / 1000.0);
    assert!((20.0..22.0).contains(&signs), "{nodes} nodes: {signs} bytes of signs of life a second and connection");
    let comparing = figures.idle.of("comparing").1 / links;
    assert!(comparing < 1_000, "{nodes} nodes: {comparing} bytes for a comparison");
    let told = figures.busy.of("have").1 as f64 / links as f64 / (measure::BUSY as f64 / 1000.0);
    assert!(told < 70.0, "{nodes} nodes: {told} bytes a second and connection tell of others");
    // A record of 16 + 16 bytes is 44 to 46 on the wire.
    let (copy, joined) = (RECORDS as u64 * 46, figures.join.of("records").1);
    assert!(joined < copy * 11 / 10, "{nodes} nodes: {joined} bytes of records to join, where one copy has {copy}");
}
