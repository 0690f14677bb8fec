//! Flat shared memory by offsets: the only place in the store that touches raw memory.
//!
//! Every access is atomic, and so sound whatever other threads and processes do meanwhile; what it means is up to the
//! layers above. Every access is checked against the bounds: reading outside gives zeros and writing outside does
//! nothing, so that a damaged offset costs a wrong answer, never a crash or somebody else's memory.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// Shared memory from a base address on; a copy is the same memory.
#[derive(Clone, Copy)]
pub struct Region {
    base: NonNull<u8>,
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
        assert!(base.addr().is_multiple_of(16));
        // Whole words only, so that the word of a byte within bounds is within bounds. Nothing begins at null.
        match NonNull::new(base) {
            Some(base) => Region { base, len: len & !7 },
            None => Region { base: NonNull::dangling(), len: 0 },
        }
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
        Ok(Mapping::of(MmapOptions::new().len(len).map_raw(&file)?))
    }

    /// Anonymous memory of this process alone, zeroed, in large pages if the system has some: cheaper to make and to use. For the
    /// simulator.
    ///
    /// # Errors
    ///
    /// What the system says when it has no memory left.
    pub fn private(len: usize) -> io::Result<Mapping> {
        let map = MmapRaw::from(MmapOptions::new().len(len).map_anon()?);
        // It does without.
        let _ = map.advise(Advice::HugePage);
        Ok(Mapping::of(map))
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
    #[inline]
    pub fn load32(&self, offset: usize, order: Ordering) -> u32 {
        self.word32(offset).map_or(0, |word| word.load(order))
    }

    /// Writes 4 bytes.
    #[inline]
    pub fn store32(&self, offset: usize, value: u32, order: Ordering) {
        if let Some(word) = self.word32(offset) {
            word.store(value, order);
        }
    }

    /// Reads 8 bytes.
    #[inline]
    pub fn load64(&self, offset: usize, order: Ordering) -> u64 {
        self.word64(offset).map_or(0, |word| word.load(order))
    }

    /// Writes 8 bytes.
    #[inline]
    pub fn store64(&self, offset: usize, value: u64, order: Ordering) {
        if let Some(word) = self.word64(offset) {
            word.store(value, order);
        }
    }

    /// The aligned 4-byte word that `offset` falls in; `None` outside of the bounds.
    #[inline]
    pub fn word32(&self, offset: usize) -> Option<&AtomicU32> {
        let offset = offset & !3;
        if offset >= self.len {
            return None;
        }
        // SAFETY: aligned by the mask; in bounds by the check, as the length is a multiple of 8; mapped and only used
        // through regions by the contract of `new`. An atomic may be shared, and lives as long as `self` is used.
        Some(unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() })
    }

    /// The aligned 8-byte word that `offset` falls in; `None` outside of the bounds.
    #[inline]
    pub fn word64(&self, offset: usize) -> Option<&AtomicU64> {
        let offset = offset & !7;
        if offset >= self.len {
            return None;
        }
        // SAFETY: as for `word32`.
        Some(unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() })
    }

    /// Which of the 16 words of the 64 bytes at `offset`, a multiple of 64, are `value` in the bits of `mask`: a bit for each.
    #[inline]
    pub fn matches(&self, offset: usize, value: u32, mask: u32) -> u32 {
        if offset >= self.len || self.len - offset < 64 {
            return 0;
        }
        // SAFETY: all 64 bytes are in bounds by the check; the rest as for `word32`.
        unsafe { matches(self.base.add(offset).as_ptr(), value, mask) }
    }

    /// Says that these bytes are about to be used. Changes nothing.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if offset < self.len {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: in bounds by the check; the instruction neither faults nor changes memory.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.base.add(offset).as_ptr().cast());
            }
        }
    }

    /// Says that these bytes are about to be written: their cache line comes without other processors keeping it. Changes
    /// nothing.
    #[inline]
    pub fn prefetch_to_write(&self, offset: usize) {
        if offset < self.len {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: in bounds by the check; the instruction neither faults nor changes memory, and processors that don't
            // know it pass it by.
            unsafe {
                std::arch::asm!(
                    "prefetchw byte ptr [{}]",
                    in(reg) self.base.add(offset).as_ptr(),
                    options(nostack, readonly, preserves_flags),
                );
            }
        }
    }

    /// The `N` words at `offset`, a multiple of 8; `None` if they aren't wholly within bounds. Words that are used often are
    /// so checked once.
    #[inline]
    pub fn words<const N: usize>(&self, offset: usize) -> Option<&[AtomicU64; N]> {
        let offset = offset & !7;
        if !self.holds(offset, N * 8) {
            return None;
        }
        // SAFETY: aligned by the mask, in bounds by the check; the rest as for `word32`.
        Some(unsafe { self.base.add(offset).cast::<[AtomicU64; N]>().as_ref() })
    }

    /// How many of so many lines of 64 bytes from `offset` on, a multiple of 64, are all zero, up to the first that isn't.
    pub fn zero_lines(&self, offset: usize, lines: usize) -> usize {
        let (offset, within) = (offset & !63, self.len.saturating_sub(offset & !63) / 64);
        let is_used = |line: &usize| {
            // SAFETY: within bounds, as `within` has counted, and aligned to 16, as the base is by the contract of `new`.
            !unsafe { is_zero(self.base.as_ptr().add(offset + line * 64)) }
        };
        (0..lines.min(within)).find(is_used).unwrap_or(lines)
    }

    /// Copies bytes out, word by word. `false`: not wholly within bounds, and nothing was copied.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        if !self.holds(offset, to.len()) {
            return false;
        }
        let (shift, mut at) = (8 * (offset as u32 & 7), offset & !7);
        if shift == 0 && to.len().is_multiple_of(8) {
            for to in to.as_chunks_mut::<8>().0 {
                // SAFETY: a multiple of 8 within the range that `holds` has checked; the rest as for `word32`.
                let word = unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() };
                *to = word.load(Relaxed).to_le_bytes();
                at += 8;
            }
            return true;
        }
        // What is left of the word at `at` stands at the low end of `word`; the next one is joined to it.
        let mut word = self.load64(at, Relaxed) >> shift;
        let (words, tail) = to.as_chunks_mut::<8>();
        for to in words {
            at += 8;
            let next = self.load64(at, Relaxed);
            *to = (word | (next << 1) << (63 - shift)).to_le_bytes();
            word = next >> shift;
        }
        if !tail.is_empty() {
            if tail.len() > 8 - shift as usize / 8 {
                word |= self.load64(at + 8, Relaxed) << 1 << (63 - shift);
            }
            tail.copy_from_slice(&word.to_le_bytes()[..tail.len()]);
        }
        true
    }

    /// Whether the bytes at `offset`, which is a multiple of 8, are those of `other`.
    #[inline]
    pub fn equals(&self, offset: usize, other: &[u8]) -> bool {
        assert!(!cfg!(for_tests) || offset.is_multiple_of(8));
        let mut at = offset & !7;
        if !self.holds(at, other.len()) {
            return false;
        }
        let (words, tail) = other.as_chunks::<8>();
        for word in words {
            // SAFETY: a multiple of 8 within the range that `holds` has checked; the rest as for `word32`.
            let own = unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() };
            if own.load(Relaxed) != u64::from_le_bytes(*word) {
                return false;
            }
            at += 8;
        }
        if tail.is_empty() {
            return true;
        }
        let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
        self.load64(at, Relaxed) << (64 - 8 * tail.len() as u32) == last << (64 - 8 * tail.len() as u32)
    }

    /// Copies bytes in, word by word. `false`: not wholly within bounds, and nothing was copied.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        if !self.holds(offset, from.len()) {
            return false;
        }
        let (head, at) = from.split_at((offset.next_multiple_of(8) - offset).min(from.len()));
        self.write_bytes(offset, head);
        let mut offset = offset + head.len();
        let (words, tail) = at.as_chunks::<8>();
        for word in words {
            // SAFETY: a multiple of 8 within the range that `holds` has checked; the rest as for `word32`.
            let own = unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() };
            own.store(u64::from_le_bytes(*word), Relaxed);
            offset += 8;
        }
        self.write_bytes(offset, tail);
        true
    }

    /// Gives the memory back to the system; what is read from now on is zero. `false`: it isn't memory that can be.
    pub fn discard(&self) -> bool {
        const PAGE: usize = 4096;
        let skip = self.base.addr().get().next_multiple_of(PAGE) - self.base.addr().get();
        let len = self.len.saturating_sub(skip) & !(PAGE - 1);
        // SAFETY: whole pages within the region, which stay mapped; that their content goes is what a write of zeros
        // would do as well, and all access is atomic.
        len > 0 && unsafe { libc::madvise(self.base.add(skip).as_ptr().cast(), len, libc::MADV_REMOVE) } == 0
    }

    /// Sets bytes to zero.
    pub fn zero(&self, offset: usize, len: usize) {
        const WORDS: usize = 8;
        let (mut at, end) = (offset, offset.saturating_add(len).min(self.len));
        let head = at.next_multiple_of(8).min(end);
        (at..head).for_each(|at| _ = self.write(at, &[0]));
        at = head;
        while at + WORDS * 8 <= end
            && let Some(words) = self.words::<WORDS>(at)
        {
            words.iter().for_each(|word| word.store(0, Relaxed));
            at += WORDS * 8;
        }
        self.write(at, &[0; WORDS * 8][..end.saturating_sub(at).min(WORDS * 8)]);
    }

    #[inline]
    fn holds(&self, offset: usize, len: usize) -> bool {
        offset <= self.len && len <= self.len - offset
    }

    fn write_bytes(&self, offset: usize, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            assert!(!cfg!(for_tests) || offset + i < self.len);
            // SAFETY: `write` has checked that the whole range is within bounds; the rest as for `word32`.
            unsafe { self.base.add(offset + i).cast::<AtomicU8>().as_ref() }.store(*byte, Relaxed);
        }
    }
}

/// Which of 16 words are `value` in the bits of `mask`.
///
/// # Safety
///
/// `line` is readable for 64 bytes, which other threads may be writing to, and aligned to 16.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn matches(line: *const u8, value: u32, mask: u32) -> u32 {
    use std::arch::{asm, x86_64::*};
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: reads the 64 bytes that the caller promises. Reading shared memory by assembly is no data race: each of the
    // processor's loads gives whole words, as relaxed atomic ones would. The rest works on values; SSE2 is always there.
    unsafe {
        asm!(
            "movdqa {a}, [{line}]",
            "movdqa {b}, [{line} + 16]",
            "movdqa {c}, [{line} + 32]",
            "movdqa {d}, [{line} + 48]",
            line = in(reg) line, a = out(xmm_reg) a, b = out(xmm_reg) b, c = out(xmm_reg) c, d = out(xmm_reg) d,
            options(nostack, readonly, preserves_flags, pure),
        );
        let (value, mask) = (_mm_set1_epi32(value as i32), _mm_set1_epi32(mask as i32));
        let same = |words| _mm_cmpeq_epi32(_mm_and_si128(_mm_xor_si128(words, value), mask), _mm_setzero_si128());
        let bytes = _mm_packs_epi16(_mm_packs_epi32(same(a), same(b)), _mm_packs_epi32(same(c), same(d)));
        _mm_movemask_epi8(bytes) as u32
    }
}

/// Whether 64 bytes are all zero.
///
/// # Safety
///
/// As for `matches`.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn is_zero(line: *const u8) -> bool {
    use std::arch::{asm, x86_64::*};
    let any: __m128i;
    // SAFETY: as in `matches`.
    unsafe {
        asm!(
            "movdqa {any}, [{line}]",
            "por {any}, [{line} + 16]",
            "por {any}, [{line} + 32]",
            "por {any}, [{line} + 48]",
            line = in(reg) line, any = out(xmm_reg) any,
            options(nostack, readonly, preserves_flags, pure),
        );
        _mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) == 0xffff
    }
}

/// As above, for other processors.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn is_zero(line: *const u8) -> bool {
    // SAFETY: the caller's promise; atomics may be shared.
    let words = unsafe { &*line.cast::<[AtomicU64; 8]>() };
    words.iter().fold(0, |any, word| any | word.load(Relaxed)) == 0
}

/// As `matches`, for other processors.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn matches(line: *const u8, value: u32, mask: u32) -> u32 {
    // SAFETY: the caller's promise; atomics may be shared.
    let words = unsafe { &*line.cast::<[AtomicU32; 16]>() };
    words.iter().rev().fold(0, |found, word| found << 1 | u32::from((word.load(Relaxed) ^ value) & mask == 0))
}

/// Anonymous memory that is unmapped when this and what was split off it is dropped: keep it as long as its regions are used.
pub struct Mapping {
    map: Arc<MmapRaw>,
    begin: usize,
    len: usize,
}

impl Mapping {
    fn of(map: MmapRaw) -> Mapping {
        let (begin, len) = (0, map.len());
        Mapping { map: Arc::new(map), begin, len }
    }

    /// Takes so many bytes off its end, in whole pages. `None`: it has less.
    pub fn split_off(&mut self, len: usize) -> Option<Mapping> {
        self.len = self.len.checked_sub(len.next_multiple_of(4096))?;
        Some(Mapping { map: self.map.clone(), begin: self.begin + self.len, len })
    }

    /// The mapped memory. Must not be used after `self` is dropped.
    pub fn region(&self) -> Region {
        // SAFETY: mapped readable and writable, page-aligned, handed out only as regions. That it outlives its regions
        // is the promise asked of whoever holds a mapping, which only tests, benchmarks and the simulator do. What is split off
        // lies within, and begins with a page.
        unsafe { Region::new(self.map.as_mut_ptr().add(self.begin), self.len) }
    }
}
