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
