//! How many records of 16 + 16 bytes a zone holds.

use serde_json::json;
use zonemesh::record::Identity;
use zonemesh::store::{Condition, Life, Params, Region, Zone};

use crate::TIMEOUT;
use crate::worker::{START, key, value};

/// Writes until a write is refused.
pub fn fill(bytes: usize) {
    let params = Params { timeout: Some(TIMEOUT), sync: true, ..Params::new(Identity([1; 16])) };
    let Ok(memory) = Region::anonymous(bytes) else { return eprintln!("no memory for {bytes} bytes") };
    let Ok(zone) = Zone::create(memory.region(), &params) else { return eprintln!("no zone of {bytes} bytes") };
    let fits = |i: &u64| zone.set(&key(*i, true), &value(*i), Life::Default, Condition::Always, START).is_ok();
    let records = (0..).take_while(fits).count();
    println!("{}", json!({"part": "space", "keys": bytes, "name": "records", "samples": [records]}));
}
