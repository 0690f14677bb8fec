#![no_main]

use libfuzzer_sys::fuzz_target;
use zonemesh_fuzz::drive;

fuzz_target!(|data: &[u8]| drive::state::run(data));
