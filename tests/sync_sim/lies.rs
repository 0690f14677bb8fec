//! Broken rules: what a dialer with a mistake in it would send. The simulator has to notice each of them.

use crate::rng::Rng;

/// A mistake in the sender, made by changing the frames that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Positions are sent although some of the records that they cover were not.
    PositionBeforeRecords,
    /// A position is promised that was not closed: two seconds ahead.
    PositionAhead,
    /// Nobody says what it has of other origins, so nobody relays for who is gone.
    NoRelay,
    /// An emptying is not sent.
    NoClear,
    /// A part of a large record is left out, together with the rest of it.
    NoLargeRecords,
    /// The full state never ends: no position says that it is complete.
    NeverComplete,
    /// Nobody answers who compares.
    NoDigests,
    /// Some of the versions in parts that differ are left out.
    VersionsLeftOut,
    /// What a node lacks it vouches for, whether it ever had it or not.
    VouchedForAll,
    /// Versions are told of origins that nobody knows, so that no position covers them.
    StrangeOrigins,
}

impl Lie {
    pub const ALL: [Lie; 10] = [
        Lie::PositionBeforeRecords,
        Lie::PositionAhead,
        Lie::NoRelay,
        Lie::NoClear,
        Lie::NoLargeRecords,
        Lie::NeverComplete,
        Lie::NoDigests,
        Lie::VersionsLeftOut,
        Lie::VouchedForAll,
        Lie::StrangeOrigins,
    ];

    /// Changes what a call of `fill` has appended: whole frames.
    pub fn tell(self, rng: &mut Rng, mut frames: Vec<u8>) -> Vec<u8> {
        let mut told = Vec::new();
        let mut rest = frames.as_mut_slice();
        while let Some((prefix, _)) = rest.split_first_chunk::<4>() {
            let length = 4 + u32::from_le_bytes(*prefix) as usize;
            let (frame, after) = rest.split_at_mut(length);
            rest = after;
            if self.keeps(rng, frame) {
                told.extend_from_slice(frame);
            }
        }
        told
    }

    /// Whether this frame is sent; it may be changed.
    fn keeps(self, rng: &mut Rng, frame: &mut [u8]) -> bool {
        const RECORDS: u8 = 9;
        const CHUNK: u8 = 10;
        const CLEAR: u8 = 11;
        const POSITION: u8 = 12;
        const HAVE: u8 = 14;
        const DIGESTS: u8 = 0x82;
        const VERSIONS: u8 = 0x84;
        const LISTED: u8 = 0x85;
        match (self, frame[4]) {
            (Lie::PositionBeforeRecords, RECORDS) => !rng.one_in(20),
            (Lie::NoRelay, HAVE) | (Lie::NoClear, CLEAR) | (Lie::NoLargeRecords, CHUNK) => false,
            (Lie::PositionAhead, POSITION) => {
                // Zone and epoch are one byte each here, and so is the count of the list; the first stamp is our own.
                let at = 5 + 1 + 1 + 1 + 1 + 16;
                if let Some(stamp) = frame.get_mut(at..at + 8) {
                    let value = u64::from_le_bytes(stamp.try_into().expect("eight bytes"));
                    stamp.copy_from_slice(&(value + (2_000 << 16)).to_le_bytes());
                }
                true
            }
            (Lie::NeverComplete, POSITION) => frame[7] & 1 == 0,
            // Comparing would make up for these.
            (Lie::NoDigests | Lie::NoRelay | Lie::NoClear, DIGESTS) => false,
            (Lie::VersionsLeftOut, VERSIONS) => !rng.one_in(3),
            (Lie::VouchedForAll, LISTED) => {
                let at = skip_varint(frame, skip_varint(frame, 5));
                frame[at] |= 2;
                let list = skip_varint(frame, at + 1 + 8);
                for entry in frame[list..].chunks_exact_mut(25) {
                    entry[16..24].fill(0xff);
                }
                true
            }
            (Lie::StrangeOrigins, VERSIONS) => {
                let list = skip_varint(frame, skip_varint(frame, skip_varint(frame, 5)));
                frame[list..].chunks_exact_mut(33).for_each(|entry| entry[16] ^= 0xff);
                true
            }
            _ => true,
        }
    }
}

/// Where what follows a varint begins.
fn skip_varint(frame: &[u8], at: usize) -> usize {
    at + frame[at..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1
}
