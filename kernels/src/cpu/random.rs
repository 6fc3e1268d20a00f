//! The randomness of draws: a hash of a counter, so that a draw needs no state and depends on
//! nothing but the seed and the position.

/// 64 random bits for a position. Both words pass through a full mixer, so neighbouring seeds and
/// positions have nothing in common.
#[must_use]
pub fn random_bits(seed: u64, position: u32) -> u64 {
    mix(mix(seed.wrapping_add(GOLDEN)) ^ mix(u64::from(position).wrapping_mul(GOLDEN)))
}

/// 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output
/// bit.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
