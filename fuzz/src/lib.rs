//! What the fuzz targets do, and how their input is changed. `drive` uses the crate's public face alone, so that
//! `tests/fuzz_corpus.rs` can run the same over the corpus.

pub mod drive;
pub mod mutate;
