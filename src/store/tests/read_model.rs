//! The protocol of reading without the lock, reduced to what matters and run through every order of steps that memory
//! allows: a link, two blocks that are used in turn, and the sequence.

use std::panic::catch_unwind;

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicUsize, fence};
use loom::thread;

struct Memory {
    sequence: AtomicUsize,
    link: AtomicUsize,
    /// A record's two words are always written alike, so that a torn one shows.
    blocks: [[AtomicUsize; 2]; 2],
}

/// One writer replaces the record twice, so that the second time it reuses the block that was freed the first time; a
/// reader must see a whole record whenever it finds the sequence unmoved.
fn model(moves_sequence: bool, reader_checks: bool) {
    loom::model(move || {
        let word = |n| AtomicUsize::new(n);
        let memory =
            Arc::new(Memory { sequence: word(0), link: word(0), blocks: [[word(1), word(1)], [word(0), word(0)]] });
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || {
                for n in [2, 3] {
                    let free = 1 - memory.link.load(Relaxed);
                    memory.blocks[free].iter().for_each(|word| word.store(n, Relaxed));
                    memory.link.store(free, Release);
                    // The other block is free now: the sequence moves before it can be written again.
                    if moves_sequence {
                        memory.sequence.store(memory.sequence.load(Relaxed) + 1, Release);
                        fence(Release);
                    }
                }
            })
        };
        let sequence = memory.sequence.load(Acquire);
        let block = &memory.blocks[memory.link.load(Acquire)];
        let (first, second) = (block[0].load(Relaxed), block[1].load(Relaxed));
        fence(Acquire);
        if !reader_checks || memory.sequence.load(Relaxed) == sequence {
            assert_eq!(first, second, "a torn record");
            assert!(first > 0, "a block that nobody wrote");
        }
        writer.join().expect("the writer");
    });
}

#[test]
fn a_reader_that_finds_the_sequence_unmoved_has_a_whole_record() {
    model(true, true);
}

#[test]
fn the_model_sees_what_it_is_there_to_see() {
    assert!(catch_unwind(|| model(false, true)).is_err(), "without moving the sequence");
    assert!(catch_unwind(|| model(true, false)).is_err(), "without looking at it");
}
