//! Flat shared memory by offsets: the only place in the store that touches raw memory.
//!
//! Every access is atomic, and so sound whatever other threads and processes do meanwhile; what it means is up to the
//! layers above. Every access is checked against the bounds: reading outside gives zeros and writing outside does
//! nothing, so that a damaged offset costs a wrong answer, never a crash or somebody else's memory.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// Shared memory from a base address on; a copy is the same memory.
#[derive(Clone, Copy)]
pub struct Region {
    base: *mut u8,
    len: usize,
}

// SAFETY: a region is an address and a length whose memory outlives it (the contract of `Region::new`), and every
// access through it is atomic, from whatever thread.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` allows nothing that a copy doesn't.
unsafe impl Sync for Region {}

impl Region {
    /// The memory `base..base + len`.
    ///
    /// # Safety
    ///
    /// The memory is readable and writable, stays mapped as long as any copy of the region is used, and is touched by
    /// this program only through regions. `base` is aligned to 16 bytes.
    pub unsafe fn new(base: *mut u8, len: usize) -> Region {
        debug_assert!(base.addr().is_multiple_of(16));
        Region { base, len }
    }

    /// Anonymous memory, zeroed, shared with processes that are forked later. For tests, benchmarks and the simulator.
    ///
    /// # Errors
    ///
    /// What the system says when it has no memory or no descriptor left.
    pub fn anonymous(len: usize) -> io::Result<Mapping> {
        // SAFETY: the name is a C string, and the call takes nothing else of ours.
        let fd = unsafe { libc::memfd_create(c"zonemesh".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, open, and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64)?;
        Ok(Mapping { map: MmapOptions::new().len(len).map_raw(&file)? })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads 4 bytes.
    pub fn load32(&self, offset: usize, order: Ordering) -> u32 {
        self.word32(offset).map_or(0, |word| word.load(order))
    }

    /// Writes 4 bytes.
    pub fn store32(&self, offset: usize, value: u32, order: Ordering) {
        if let Some(word) = self.word32(offset) {
            word.store(value, order);
        }
    }

    /// Reads 8 bytes.
    pub fn load64(&self, offset: usize, order: Ordering) -> u64 {
        self.word64(offset).map_or(0, |word| word.load(order))
    }

    /// Writes 8 bytes.
    pub fn store64(&self, offset: usize, value: u64, order: Ordering) {
        if let Some(word) = self.word64(offset) {
            word.store(value, order);
        }
    }

    /// An aligned 4-byte word; `None` outside of the bounds.
    pub fn word32(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4).is_none_or(|end| end > self.len) {
            return None;
        }
        // SAFETY: in bounds and aligned by the check, mapped and only used through regions by the contract of `new`;
        // an atomic may be shared, and its lifetime is that of `self`, whose memory stays mapped.
        Some(unsafe { &*self.base.add(offset).cast::<AtomicU32>() })
    }

    /// An aligned 8-byte word; `None` outside of the bounds.
    pub fn word64(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8).is_none_or(|end| end > self.len) {
            return None;
        }
        // SAFETY: as for `word32`.
        Some(unsafe { &*self.base.add(offset).cast::<AtomicU64>() })
    }

    /// Copies bytes out, word by word. `false`: not wholly within bounds, and nothing was copied.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        if offset.checked_add(to.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let (head, at) = to.split_at_mut(head_len(offset, to.len()));
        for (i, byte) in head.iter_mut().enumerate() {
            *byte = self.byte(offset + i).load(Ordering::Relaxed);
        }
        let offset = offset + head.len();
        let mut words = at.chunks_exact_mut(8);
        let mut done = 0;
        for word in &mut words {
            word.copy_from_slice(&self.load64(offset + done, Ordering::Relaxed).to_ne_bytes());
            done += 8;
        }
        for (i, byte) in words.into_remainder().iter_mut().enumerate() {
            *byte = self.byte(offset + done + i).load(Ordering::Relaxed);
        }
        true
    }

    /// Copies bytes in, word by word. `false`: not wholly within bounds, and nothing was copied.
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        if offset.checked_add(from.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let (head, at) = from.split_at(head_len(offset, from.len()));
        for (i, byte) in head.iter().enumerate() {
            self.byte(offset + i).store(*byte, Ordering::Relaxed);
        }
        let offset = offset + head.len();
        let mut done = 0;
        let (words, tail) = at.as_chunks::<8>();
        for word in words {
            self.store64(offset + done, u64::from_ne_bytes(*word), Ordering::Relaxed);
            done += 8;
        }
        for (i, byte) in tail.iter().enumerate() {
            self.byte(offset + done + i).store(*byte, Ordering::Relaxed);
        }
        true
    }

    /// Whether the bytes at `offset` are those of `other`.
    pub fn equals(&self, offset: usize, other: &[u8]) -> bool {
        if offset.checked_add(other.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let (head, at) = other.split_at(head_len(offset, other.len()));
        if !head.iter().enumerate().all(|(i, byte)| self.byte(offset + i).load(Ordering::Relaxed) == *byte) {
            return false;
        }
        let offset = offset + head.len();
        let (words, tail) = at.as_chunks::<8>();
        let tail_at = offset + words.len() * 8;
        words
            .iter()
            .enumerate()
            .all(|(i, word)| self.load64(offset + i * 8, Ordering::Relaxed) == u64::from_ne_bytes(*word))
            && tail.iter().enumerate().all(|(i, byte)| self.byte(tail_at + i).load(Ordering::Relaxed) == *byte)
    }

    /// Sets bytes to zero.
    pub fn zero(&self, offset: usize, len: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        for start in (0..len).step_by(ZEROS.len()) {
            self.write(offset + start, &ZEROS[..ZEROS.len().min(len - start)]);
        }
    }

    /// The caller has checked that `offset` is within bounds.
    fn byte(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < self.len);
        // SAFETY: the callers, `read`, `write` and `equals`, check the whole range first; the rest as for `word32`.
        unsafe { &*self.base.add(offset).cast::<AtomicU8>() }
    }
}

/// How many of `len` bytes at `offset` come before the first aligned word.
fn head_len(offset: usize, len: usize) -> usize {
    (offset.next_multiple_of(8) - offset).min(len)
}

/// Anonymous shared memory that is unmapped when this is dropped: keep it as long as its regions are used.
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// The mapped memory. Must not be used after `self` is dropped.
    pub fn region(&self) -> Region {
        // SAFETY: mapped readable and writable, page-aligned, handed out only as regions. That it outlives its regions
        // is the promise asked of whoever holds a mapping, which only tests, benchmarks and the simulator do.
        unsafe { Region::new(self.map.as_mut_ptr(), self.map.len()) }
    }
}
