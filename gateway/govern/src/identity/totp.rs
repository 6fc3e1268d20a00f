//! One-time codes that change with time (RFC 6238, on RFC 4226's): HMAC-SHA1, six digits, steps of
//! 30 seconds, which is what every authenticator app speaks. A code counts one step early or late,
//! for clocks that differ, and never twice.

use std::fmt::Write;

use ring::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};

use super::same;
use crate::Millis;
use crate::id::random;

const STEP_MS: Millis = 30_000;
const MODULUS: u32 = 1_000_000;
/// RFC 4226 asks for at least 16 bytes and recommends 20.
const SECRET_BYTES: usize = 20;
/// RFC 4648's letters.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The secret that a person's app and this server share.
pub struct Totp(Vec<u8>);

impl Totp {
    /// A secret that nobody knows.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a default would be the same each time")]
    pub fn new() -> Self {
        Self(random::<SECRET_BYTES>().to_vec())
    }

    /// A secret in base32, without padding. `None` where it is none, or shorter than the RFC
    /// allows.
    #[must_use]
    pub fn of_base32(text: &str) -> Option<Self> {
        let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
        for letter in text.bytes() {
            let five = BASE32.iter().position(|known| *known == letter)?;
            bits = (bits << 5) | u32::try_from(five).ok()?;
            held += 5;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held).to_le_bytes()[0]);
                bits &= (1 << held) - 1;
            }
        }
        // What is left over is the last letter's filling, less than a letter of zeros.
        (bytes.len() >= 16 && held < 5 && bits == 0).then_some(Self(bytes))
    }

    /// The secret in base32, for an app and for the database (sealed).
    #[must_use]
    pub fn base32(&self) -> String {
        let letter = |five: &[u8]| {
            let index = five.iter().fold(0, |all, bit| all << 1 | usize::from(*bit));
            char::from(BASE32[index << (5 - five.len())])
        };
        let bits: Vec<u8> =
            self.0.iter().flat_map(|b| (0..8).rev().map(move |at| b >> at & 1)).collect();
        bits.chunks(5).map(letter).collect()
    }

    /// What an app reads from a QR code.
    #[must_use]
    pub fn uri(&self, issuer: &str, account: &str) -> String {
        let (issuer, account) = (percent(issuer), percent(account));
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}\
             &algorithm=SHA1&digits=6&period=30",
            self.base32()
        )
    }

    /// The code of a step.
    #[must_use]
    pub fn code(&self, step: u64) -> String {
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let number = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
        format!("{:06}", number % MODULUS)
    }

    /// The step whose code this is, if that may be used now: keep it as the next `last_step`, or
    /// the same code counts again. Whoever guesses must be slowed down by the caller.
    #[must_use]
    pub fn verify(&self, code: &str, now: Millis, last_step: Option<u64>) -> Option<u64> {
        let step = step_of(now);
        let near = step.saturating_sub(1)..=step.saturating_add(1);
        let fresh = near.filter(|step| last_step.is_none_or(|last| *step > last));
        // All are compared: the time does not tell which one was near.
        fresh.fold(None, |found, step| {
            let hit = same(self.code(step).as_bytes(), code.as_bytes());
            found.or(hit.then_some(step))
        })
    }
}

/// Which step a time is in.
#[must_use]
pub fn step_of(now: Millis) -> u64 {
    now.max(0).div_euclid(STEP_MS).cast_unsigned()
}

/// As RFC 3986 has it, without any letter that means something in a URI.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            all.push(char::from(b));
        } else {
            write!(all, "%{b:02X}").expect("a string takes everything");
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: seconds, and the last six of the eight digits for SHA-1.
    const VECTORS: [(Millis, &str); 6] = [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ];

    fn of_the_rfc() -> Totp {
        Totp(b"12345678901234567890".to_vec())
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (seconds, code) in VECTORS {
            assert_eq!(of_the_rfc().code(step_of(seconds * 1000)), code, "{seconds}");
        }
    }

    #[test]
    fn a_code_counts_once_and_one_step_around() {
        let totp = of_the_rfc();
        let now = 1_111_111_111_000;
        let step = step_of(now);
        for (made, last, expect) in [
            (step - 2, None, None),
            (step - 1, None, Some(step - 1)),
            (step, None, Some(step)),
            (step + 1, None, Some(step + 1)),
            (step + 2, None, None),
            (step, Some(step - 1), Some(step)),
            (step, Some(step), None),
            (step - 1, Some(step), None),
        ] {
            let code = totp.code(made);
            assert_eq!(totp.verify(&code, now, last), expect, "{made} after {last:?}");
        }
        for wrong in ["", "050470", "50471", "0504711", " 050471", "０50471"] {
            assert_eq!(totp.verify(wrong, now, None), None, "{wrong:?}");
        }
        assert_eq!(totp.verify(&totp.code(0), Millis::MIN, None), Some(0));
        let end = step_of(Millis::MAX);
        assert_eq!(totp.verify(&totp.code(end), Millis::MAX, None), Some(end));
    }

    #[test]
    fn secrets_are_written_and_read() {
        assert_eq!(of_the_rfc().base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        for length in 16..64 {
            let secret: Vec<u8> = random::<64>()[..length].to_vec();
            let text = Totp(secret.clone()).base32();
            assert_eq!(Totp::of_base32(&text).expect(&text).0, secret);
        }
        let short = "GEZDGNBVGY3TQOJQGEZDGNBV";
        let filled = "GEZDGNBVGY3TQOJQGEZDGNBVGZ";
        let lower = "gezdgnbvgy3tqojqgezdgnbvgy3tqojq";
        for wrong in ["", short, filled, lower, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1"] {
            assert!(Totp::of_base32(wrong).is_none(), "{wrong}");
        }
        assert_ne!(Totp::new().0, Totp::new().0);
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        assert_eq!(
            of_the_rfc().uri("Acme & Co", "ann@example.org"),
            "otpauth://totp/Acme%20%26%20Co:ann%40example.org\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%20%26%20Co\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}
