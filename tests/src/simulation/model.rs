//! What stands for a language model: a function from all tokens so far to the next one. Keys and
//! values of a position are the hash of the tokens up to it, so a page that holds anything else
//! is known to be wrong.
//!
//! Most seeds repeat themselves: the next token is that of the last one, but for one in eight. So
//! what was said before is often said again, and then suddenly not.

use scheduler::{Logprobs, Token};

use super::random::mix;

/// Token ids end here. Small, so that stop tokens are met and prefixes coincide.
pub const VOCABULARY: u64 = 61;

/// Behind no token.
pub const ROOT: u64 = 0x1234_5678_9abc_de40;

/// Bits of a chain that hold its last token, and one that is always set: 0 stands for "never
/// computed".
const LAST: u64 = 0x3f;
const COMPUTED: u64 = 0x40;

/// The hash of a sequence that is one token longer.
#[must_use]
pub fn extend(chain: u64, token: Token) -> u64 {
    let last = u64::from(token) % VOCABULARY;
    mix(chain, u64::from(token) + 1) & !LAST | COMPUTED | last
}

/// The token drawn behind `chain`, never one of `banned`.
#[must_use]
pub fn draw(chain: u64, seed: u64, banned: &[Token]) -> Token {
    let repeats = !seed.is_multiple_of(4) && !mix(chain, 1).is_multiple_of(8);
    let context = if repeats { chain & LAST } else { chain };
    let first = mix(context, seed) % VOCABULARY;
    let candidates = (0..VOCABULARY).map(|i| ((first + i) % VOCABULARY) as Token);
    candidates.into_iter().find(|token| !banned.contains(token)).expect("a token is allowed")
}

/// What is reported about the token that ends `chain`.
#[must_use]
pub fn logprobs(chain: u64, top: u32) -> Logprobs {
    let logprob = -((chain >> 40) as f32) / 1000.0;
    let top = (0..top).map(|i| (i, -(i as f32))).collect();
    Logprobs { logprob, rank: 1, top }
}
