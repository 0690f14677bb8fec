//! The corpus of the fuzz targets (`fuzz/`), run as tests: what was found interesting once stays without a panic.
//!
//! `ZONEMESH_FUZZ_SEEDS=folder` has these tests write the scripts with which a search begins.

#![allow(clippy::expect_used, reason = "what a target can't go on without ends it")]

#[path = "../fuzz/src/drive/mod.rs"]
mod drive;

use std::fs;
use std::path::Path;

/// Runs `target` over its corpus.
fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut runs = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a file").path();
        // Shown only if it fails.
        println!("{}", path.display());
        target(&fs::read(&path).expect("a file"));
        runs += 1;
    }
    assert!(runs > 10, "{runs} inputs in {}", folder.display());
}

#[test]
fn the_dialled_side_takes_its_corpus() {
    replay("pull", |data| _ = drive::pull::run(data));
}

#[test]
fn the_dialling_side_takes_its_corpus() {
    replay("push", |data| _ = drive::push::run(data));
}

#[test]
fn the_api_takes_its_corpus() {
    replay("api", drive::api::run);
}

#[test]
fn state_files_of_the_corpus_load_or_are_refused() {
    replay("state", drive::state::run);
}

/// Otherwise the search could stop at the hello without anybody seeing it.
#[test]
fn a_conversation_of_today_goes_through_as_a_script() {
    let (said, answered, dialer) = drive::talk::conversation();
    if let Ok(folder) = std::env::var("ZONEMESH_FUZZ_SEEDS") {
        for (name, script) in [("pull", &said), ("push", &answered)] {
            fs::create_dir_all(format!("{folder}/{name}")).expect("a folder");
            fs::write(format!("{folder}/{name}/conversation"), script).expect("a file");
        }
    }
    let dialled = drive::pull::run(&said);
    let (_, sent) = drive::push::run(&answered);
    assert!(dialled.contents().iter().any(|(_, key, _)| key == b"found"), "comparing brought nothing");
    for record in dialer.contents().iter().filter(|(_, key, _)| key != b"own writes") {
        assert!(dialled.contents().contains(record), "{:?} is missing", String::from_utf8_lossy(&record.1));
    }
    assert!(!sent.is_empty());
}
