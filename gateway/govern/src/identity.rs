//! Who somebody is: keys, tokens, sessions, passwords, one-time codes, and the principal that they
//! come to. What a principal may do is decided in `policy` and `role`.

pub mod jwt;
pub mod key;
pub mod mapping;
pub mod password;
pub mod principal;
pub mod session;
pub mod throttle;
pub mod totp;

pub use principal::Principal;

use std::hint::black_box;

/// Whether two texts are the same, in a time that tells nothing of where they differ. Their
/// lengths are no secret.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    left.len() == right.len() && black_box(difference) == 0
}
