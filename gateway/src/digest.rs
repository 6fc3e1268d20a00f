//! Numbers that nobody can aim at: the first 64 bits of a SHA-256.

use sha2::{Digest, Sha256};

/// Of these parts, one after the other.
pub(crate) fn number(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A number in which each bit depends on each bit of another: the finalizer of `SplitMix64`. What
/// goes in comes out of a digest where nobody is to aim at what comes out.
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
