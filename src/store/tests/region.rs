//! Memory itself: what is looked at by lines, and pieces of one mapping.

use std::sync::atomic::Ordering::SeqCst;

use crate::store::Region;

#[test]
fn lines_are_zero_up_to_the_first_that_has_a_byte() {
    const LINES: usize = 64;
    let memory = Region::anonymous(LINES * 64).expect("memory");
    let region = memory.region();
    assert_eq!(region.zero_lines(0, LINES), LINES);
    for byte in 0..LINES * 64 {
        assert!(region.write(byte, &[1 << (byte % 8)]));
        let line = byte / 64;
        assert_eq!(region.zero_lines(0, LINES), line, "byte {byte}");
        assert_eq!(region.zero_lines(0, line), line, "no further than is asked, byte {byte}");
        assert_eq!(region.zero_lines((line + 1) * 64, LINES - line - 1), LINES - line - 1, "after byte {byte}");
        assert!(region.write(byte, &[0]));
    }
    // What lies beyond reads as zero, as everywhere.
    assert_eq!(region.zero_lines((LINES - 1) * 64, 5), 5);
    assert_eq!(region.zero_lines(LINES * 64 * 2, 5), 5);
}

#[test]
fn pieces_of_a_mapping_are_apart_and_stay_until_the_last_is_dropped() {
    let mut whole = Region::anonymous(5 * 4096).expect("memory");
    let pieces = [4096, 100, 2 * 4096].map(|len| whole.split_off(len).expect("a piece"));
    assert!(whole.split_off(4097).is_none(), "one page is left");
    let regions = pieces.each_ref().map(|piece| piece.region());
    assert_eq!(regions.map(|region| region.len()), [4096, 96, 2 * 4096], "in whole words");
    drop(whole);
    for (n, region) in (1..).zip(regions) {
        (0..region.len()).step_by(8).for_each(|at| region.store64(at, n, SeqCst));
    }
    for (n, region) in (1..).zip(regions) {
        assert!((0..region.len()).step_by(8).all(|at| region.load64(at, SeqCst) == n), "piece {n}");
    }
}
