//! Numbers that no one can guess from the last one: names of answers and seeds where a caller
//! gave none. Not for secrets. A counter through SipHash under the process's random key.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fresh number.
pub(super) fn random() -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    KEY.get_or_init(RandomState::new).hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// `prefix` and 24 hexadecimal digits.
pub(super) fn named(prefix: &str) -> String {
    let (long, short) = (random().to_be_bytes(), random().to_be_bytes());
    let mut name = String::with_capacity(prefix.len() + 24);
    name.push_str(prefix);
    for byte in long.iter().chain(&short[..4]) {
        for half in [byte >> 4, byte & 15] {
            name.push(char::from(b"0123456789abcdef"[usize::from(half)]));
        }
    }
    name
}
