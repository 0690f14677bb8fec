//! A state file that holds anything.

use std::fs;
use std::path::PathBuf;
use zonemesh::agent::state_file;
use zonemesh::record::Identity;
use zonemesh::store::{Mapping, Params, Region, Zone};

const NOW: u64 = 1_700_000_000_000;

/// Loads the bytes into new zones, of which one is shared and has little room.
pub fn run(data: &[u8]) {
    let path = scratch();
    fs::write(&path, data).expect("a file in the folder for temporary ones");
    for (size, sync) in [(256 * 1024, false), (32 * 1024, true)] {
        let memory: Mapping = Region::anonymous(size).expect("memory");
        let params = Params { sync, evict: sync, ..Params::new(Identity([1; 16])) };
        let zone = Zone::create_with(memory.region(), &params, [1; 16]).expect("a zone");
        match state_file::load(&path, &zone, NOW) {
            Ok(loaded) => {
                let loaded = loaded.expect("there is a file");
                assert!(loaded.records <= zone.stats().records, "{loaded:?} of {}", zone.stats().records);
            }
            Err(error) => assert!(error.to_string().len() < 400, "{error}"),
        }
    }
}

/// A file of this process, in memory where that is to be had.
fn scratch() -> PathBuf {
    let folder = PathBuf::from("/dev/shm");
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    folder.join(format!("zonemesh-fuzz-{}.json", std::process::id()))
}
