//! The hash of keys: SipHash-1-3, after Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, with the one and
//! three rounds that hash tables do with. Who doesn't know the seed can't choose keys that meet in one bucket.
//!
//! Written out for one run of bytes that is there as a whole, which takes two thirds of the steps of a general one.

/// The state after the seed, from which every hash begins.
#[derive(Clone, Copy)]
pub struct Hasher([u64; 4]);

impl Hasher {
    /// With the zone's seed.
    pub fn new(seed: &[u8; 16]) -> Hasher {
        let seed = u128::from_le_bytes(*seed);
        let (k0, k1) = (seed as u64, (seed >> 64) as u64);
        Hasher([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut state = self.0;
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            take(&mut state, u64::from_le_bytes(*word));
        }
        let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
        take(&mut state, last | (bytes.len() as u64) << 56);
        state[2] ^= 0xff;
        (0..3).for_each(|_| round(&mut state));
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[inline]
fn take(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

#[inline]
fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    *state = [a, b, c.rotate_left(32), d];
}

/// Bits that look as if they were drawn (the last step of SplitMix64).
pub const fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use siphasher::sip::SipHasher13;

    use super::*;

    #[test]
    fn it_is_siphash_1_3() {
        let seed: [u8; 16] = std::array::from_fn(|i| i as u8 * 7 + 1);
        let bytes: Vec<u8> = (0..100).map(|i| i as u8 ^ 0x5a).collect();
        for len in 0..bytes.len() {
            let other = SipHasher13::new_with_key(&seed).hash(&bytes[..len]);
            assert_eq!(Hasher::new(&seed).hash(&bytes[..len]), other, "of {len} bytes");
        }
    }
}
