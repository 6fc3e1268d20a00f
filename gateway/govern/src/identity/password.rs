//! Passwords: Argon2id with the parameters that OWASP's password storage cheat sheet names (19 MiB,
//! two passes, one lane), kept in PHC form.
//!
//! Either call takes some 20 ms of a core and 19 MiB: never on a runtime's thread, and only so many
//! at once as there is memory for.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::id::random;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Shortest and longest password that may be set, in bytes.
const BYTES_MIN: usize = 12;
const BYTES_MAX: usize = 256;

/// Nobody's: checked where there is nobody, so that this takes as long. The same parameters, and a
/// hash that is no password's that anybody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1\
    $bm9ib2R5J3Mgc2FsdC4uLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password that cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has 12 to 256 bytes, this one has {bytes}")]
pub struct NotPassword {
    /// How long it is.
    pub bytes: usize,
}

/// What is kept of a password, in PHC form.
///
/// # Errors
/// It is too short to protect anything, or longer than anybody types.
///
/// # Panics
/// There is no memory to compute it in.
pub fn hash(password: &str) -> Result<String, NotPassword> {
    let bytes = password.len();
    if !(BYTES_MIN..=BYTES_MAX).contains(&bytes) {
        return Err(NotPassword { bytes });
    }
    let phc = argon2()
        .hash_password_with_salt(password.as_bytes(), &random::<16>())
        .expect("19 MiB of memory");
    Ok(phc.to_string())
}

/// Whether this is the password. `None` for somebody who has none or is not known: that takes as
/// long as a wrong password.
#[must_use]
pub fn verify(password: &str, phc: Option<&str>) -> bool {
    // Nobody has such a password, so this tells nothing.
    if password.len() > BYTES_MAX {
        return false;
    }
    let kept = phc.and_then(|phc| PasswordHash::new(phc).ok());
    let known = kept.is_some();
    let kept = kept.unwrap_or_else(|| PasswordHash::new(NOBODY).expect("it is well-formed"));
    argon2().verify_password(password.as_bytes(), &kept).is_ok() && known
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other_is() {
        let phc = hash("correct horse battery").expect("long enough");
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_ne!(hash("correct horse battery"), Ok(phc.clone()), "the salt is new");
        for (password, kept, expect) in [
            ("correct horse battery", Some(&*phc), true),
            ("correct horse battery ", Some(&*phc), false),
            ("Correct horse battery", Some(&*phc), false),
            ("", Some(&*phc), false),
            ("correct horse battery", None, false),
            ("correct horse battery", Some("not a hash"), false),
            ("correct horse battery", Some(NOBODY), false),
        ] {
            assert_eq!(verify(password, kept), expect, "{password:?} {kept:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for (bytes, fits) in [(0, false), (11, false), (12, true), (256, true), (257, false)] {
            let password = "p".repeat(bytes);
            let kept = hash(&password);
            assert_eq!(kept.is_ok(), fits, "{bytes}");
            assert_eq!(kept.is_ok_and(|phc| verify(&password, Some(&phc))), fits, "{bytes}");
        }
    }

    #[test]
    fn nobody_costs_what_somebody_costs() {
        let shape = |phc: &str| {
            let phc = PasswordHash::new(phc).expect("well-formed");
            let sizes = (phc.salt.map(|salt| salt.len()), phc.hash.map(|hash| hash.len()));
            (phc.algorithm.to_string(), phc.version, phc.params.to_string(), sizes)
        };
        assert_eq!(shape(NOBODY), shape(&hash("some password").expect("long enough")));
    }
}
