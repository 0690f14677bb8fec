//! Reading a zone takes memory for the value alone, which the reader gives: a worker's requests cost the allocator nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use zonemesh::record::Identity;
use zonemesh::store::{Condition, Life, Matching, Params, Region, Sink, Zone};

const NOW: u64 = 1_800_000_000_000;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

/// Counts what each thread asks for.
struct Counting;

// SAFETY: everything is the system's allocator's; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; it came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Room for a value, and how much was asked for.
struct Room {
    bytes: Vec<u8>,
    asked: usize,
}

impl Sink for Room {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.asked = len;
        self.bytes.get_mut(..len)
    }
}

#[test]
fn a_look_up_allocates_nothing_and_asks_for_the_value_alone() {
    for (matching, keys, asked) in [
        (Matching::Exact, ["plain", "large"], "large"),
        (Matching::Ip, ["10.0.0.0/8", "2001:db8::/32"], "10.1.2.3"),
        (Matching::Prefix, ["/a", "/a/b"], "/a/b/c"),
    ] {
        let memory = Region::anonymous(1 << 20).expect("memory");
        let params = Params { matching, ..Params::new(Identity([1; 16])) };
        let zone = Zone::create(memory.region(), &params).expect("a zone");
        // One of several blocks, too.
        let value = vec![7; 20_000];
        for key in keys {
            zone.set(key.as_bytes(), &value, Life::Default, Condition::Always, NOW).expect("room");
        }
        let mut room = Room { bytes: vec![0; 1 << 20], asked: 0 };
        for (key, there) in [(asked, true), ("192.0.2.1", false)] {
            let before = ALLOCATIONS.get();
            let found = zone.look_up(key.as_bytes(), NOW, &mut room);
            assert_eq!(ALLOCATIONS.get() - before, 0, "{matching:?} {key}");
            assert_eq!(found.expect("not busy").is_some(), there, "{matching:?} {key}");
        }
        assert_eq!((room.asked, &room.bytes[..value.len()]), (value.len(), &value[..]), "{matching:?}");
    }
}
