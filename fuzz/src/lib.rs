//! Parsers of what strangers send, for a fuzzer that is guided by coverage: each file in `src/bin`
//! is one target and calls one function of this crate with any bytes. The functions call what the
//! gateway calls, and check what must hold for every input.
//!
//! The two sides of a pair, the clients that read what was written, and the kit for answers of
//! models are those of the crates' own tests. Nothing here is part of the server.

pub mod models;
pub mod requests;
mod seeds;
pub mod streams;
pub mod texts;

pub use seeds::{Seeds, plant};

#[allow(unused_imports, reason = "other tests draw with it")]
#[path = "../../engine/text/tests/answer_kit/mod.rs"]
mod answer_kit;
#[path = "../../gateway/wire/tests/pairs/chat_client.rs"]
mod chat_client;
#[path = "../../gateway/wire/tests/pairs/completions_client.rs"]
mod completions_client;
#[path = "../../gateway/wire/tests/pairs/frame.rs"]
mod frame;
#[path = "../../gateway/wire/tests/gemini/client.rs"]
mod gemini_client;
#[path = "../../engine/tests/loading_kit/mod.rs"]
mod loading_kit;
#[allow(dead_code, reason = "the dialect's own tests look at more of it")]
#[path = "../../gateway/wire/tests/messages/client.rs"]
mod messages_client;
#[allow(dead_code, reason = "the dialect's own tests look at more of it")]
#[path = "../../gateway/wire/tests/responses/checker.rs"]
mod responses_client;
#[path = "../../gateway/wire/tests/properties/rest.rs"]
mod rest;
#[allow(dead_code, reason = "the tests of the pairs use all of it")]
#[path = "../../gateway/wire/tests/pairs/side.rs"]
mod side;

/// A target: its seeds, and what it does with any bytes.
#[macro_export]
macro_rules! target {
    ($seeds:expr, $try:path) => {
        libfuzzer_sys::fuzz_target!(init: $crate::plant($seeds), |bytes: &[u8]| $try(bytes));
    };
}

/// Numbers below `sides` that depend on the bytes alone, so that an input is tried in the same way
/// whenever it comes.
fn rolls(bytes: &[u8]) -> impl FnMut(usize) -> usize {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash) | 1;
    move |sides| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % sides
    }
}

/// The bytes in pieces, now long and now short ones.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut roll = rolls(bytes);
    let most = [1, 3, 20, 200][roll(4)];
    let (mut out, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + roll(most)).min(rest.len()));
        out.push(now);
        rest = later;
    }
    out
}
