//! Flat shared memory, by offsets.
/// x
#[derive(Clone, Copy)]
pub struct Region { base: *const u8, len: usize }
unsafe impl Send for Region {}
unsafe impl Sync for Region {}
impl Region {
    /// # Safety
    /// `base..base+len` stays mapped, and is touched only through regions, as long as any copy of this lives.
    pub unsafe fn new(base: *mut u8, len: usize) -> Region { Region { base, len } }
    /// Length in bytes.
    pub fn len(&self) -> usize { self.len }
    /// A region of anonymous memory shared with children that are forked later; mapped until the process ends or the
    /// returned `Mapping` is dropped. For tests, benchmarks and the simulator.
    pub fn anonymous(_len: usize) -> std::io::Result<Mapping> { todo!() }
}
/// x
pub struct Mapping { _x: () }
impl Mapping {
    /// x
    pub fn region(&self) -> Region { todo!() }
}
