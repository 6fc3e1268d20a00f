//! Names of things: a word for the kind, then 20 characters that nobody can guess, sorted by the
//! time of their making (`team_0k3v...`).

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use ring::digest::Digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::Millis;

/// The name of one thing. Cheap to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(Arc<str>);

/// Digits and lower-case letters without those that look alike, in ASCII order.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Longest name that is looked up at all.
const BYTES_MAX: usize = 64;

impl Id {
    /// A fresh name of a kind.
    ///
    /// # Panics
    /// The system has no randomness: nothing could be kept secret then.
    #[must_use]
    pub fn new(kind: &str, now: Millis) -> Self {
        // 45 bits of time, 55 bits of chance: 20 letters of 5.
        let time = now.max(0).cast_unsigned();
        let mut text = String::with_capacity(kind.len() + 21);
        text.push_str(kind);
        text.push('_');
        for (bits, letters) in [(time, 9), (chance(), 11)] {
            let five = |at: u32| LETTERS[usize::from((bits >> (at * 5)) as u8 & 31)];
            text.extend((0..letters).rev().map(|at| char::from(five(at))));
        }
        Self(text.into())
    }

    /// A name that somebody wrote. It may name nothing.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let fits = !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(plain);
        fits.then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 in hexadecimal: every request is known by one, and leaves one behind.
pub(crate) fn hex_of(digest: &Digest) -> [u8; 64] {
    let mut text = [b'0'; 64];
    // As long as the digest, so that it fits.
    let _ = hex::encode_to_slice(digest, &mut text);
    text
}

pub(crate) fn text_of(hex: &[u8; 64]) -> String {
    String::from_utf8_lossy(hex).into_owned()
}

/// Bytes that nobody can guess.
///
/// # Panics
/// The system has no randomness: nothing could be kept secret then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system's random numbers");
    bytes
}

/// `length` letters that nobody can guess, 5 bits each.
#[must_use]
pub fn random_letters(length: usize) -> String {
    let letter = || char::from(LETTERS[usize::from(random::<1>()[0] & 31)]);
    (0..length).map(|_| letter()).collect()
}

/// Numbers that nobody can guess, for names alone. The system is asked for many at a time: each
/// question is a system call, and each request has a name.
fn chance() -> u64 {
    thread_local!(static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            let bytes = random::<512>();
            drawn.extend(bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes));
        }
        drawn.pop().expect("64 numbers")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_do_not_meet() {
        let ids: Vec<Id> = (0..1000).map(|at| Id::new("op", 1_790_000_000_000 + at)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.as_str().len() == 23));
        assert_eq!(Id::of("team_1"), Some(Id("team_1".into())));
        for wrong in ["", "a b", "a'--", "é", &"x".repeat(65)] {
            assert_eq!(Id::of(wrong), None, "{wrong}");
        }
    }
}
