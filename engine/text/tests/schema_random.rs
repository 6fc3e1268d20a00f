//! Random schemas and a model that draws any token the mask allows: each answer ends, is JSON, and
//! meets its schema by a small validator of our own.

#[path = "schema/engine.rs"]
mod engine;
#[path = "schema/random.rs"]
mod random;
#[path = "schema/validator.rs"]
mod validator;

use engine::Engine;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use random::Random;
use serde_json::Value;
use std::sync::Arc;

/// Tokens of one answer; the largest schemas here allow some thousand bytes.
const TOKENS_MAX: usize = 20_000;
/// So many are drawn freely.
const OPEN_TOKENS: usize = 300;

fn runs() -> u64 {
    std::env::var("HEARTH_RUNS").map_or(300, |runs| runs.parse().unwrap())
}

/// Single bytes, pieces of JSON, and random texts of a few bytes; the end is the last.
fn vocabulary() -> TokEnv {
    let mut random = Random::new(1);
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for piece in
        ["{\"", "\":", "\",\"", "\"}", "[[", "]]", "null", "true", "},{", "\": \"", "é", "😀"]
    {
        words.push(piece.as_bytes().to_vec());
    }
    let letters: Vec<char> = "abcdefgkxyz0123456789{}[]\",: -.\n".chars().collect();
    for _ in 0..400 {
        let length = 2 + random.index(4);
        let word: String = (0..length).map(|_| letters[random.index(letters.len())]).collect();
        words.push(word.into_bytes());
    }
    words.sort();
    words.dedup();
    words.push(b"\xFF<end>".to_vec());
    let end = u32::try_from(words.len() - 1).unwrap();
    let info = TokRxInfo::new(end + 1, end);
    Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)))
}

/// Draws an answer. A model that draws anything never comes to the end of an unbounded string, or
/// of a tree that grows faster than it closes, so after a while it prefers what closes.
fn answer(engine: &Engine, vocabulary: &TokEnv, schema: &Value, random: &mut Random) -> String {
    let mut matcher = engine.compile(schema).unwrap_or_else(|why| panic!("{schema}: {why}"));
    let trie = vocabulary.tok_trie();
    let mut bytes = Vec::new();
    for drawn in 0..TOKENS_MAX {
        let mask = matcher.compute_mask().unwrap_or_else(|why| panic!("{schema}: {why}"));
        let mut allowed = mask.to_list();
        assert!(!allowed.is_empty(), "{schema}: {:?}", String::from_utf8_lossy(&bytes));
        if drawn > OPEN_TOKENS {
            let whole = |id: &u32| *id == trie.eos_token();
            let closes = |id: &u32| matches!(trie.token(*id), b"\"" | b"}" | b"]");
            let opens = |id: &u32| trie.token(*id).iter().any(|byte| b"{[".contains(byte));
            prefer(&mut allowed, |id| !opens(id));
            if random.index(8) > 0 {
                prefer(&mut allowed, closes);
            }
            prefer(&mut allowed, whole);
        }
        let token = allowed[random.index(allowed.len())];
        matcher.consume_token(token).unwrap_or_else(|why| panic!("{schema}: {why}"));
        if token != trie.eos_token() {
            bytes.extend_from_slice(trie.token(token));
        }
        if matcher.is_stopped() {
            return String::from_utf8(bytes).expect("text");
        }
    }
    panic!("{schema}: no end after {:?}", String::from_utf8_lossy(&bytes[..500]));
}

/// Keeps what is liked, if there is any of it.
fn prefer(allowed: &mut Vec<u32>, liked: impl Fn(&u32) -> bool) {
    if allowed.iter().any(&liked) {
        allowed.retain(liked);
    }
}

#[test]
fn answers_end_and_meet_their_schemas() {
    let vocabulary = vocabulary();
    let engine = Engine::new(&vocabulary);
    let mut refused = 0;
    for seed in 0..runs() {
        let mut random = Random::new(seed);
        let schema = random::schema(&mut random);
        if let Err(why) = text::grammar::schema::prepare(&schema) {
            // Parts that exclude each other are drawn now and then.
            let why = why.to_string();
            let fair = ["value fits", "properties than there are", "not seen to exclude"];
            assert!(fair.iter().any(|fair| why.contains(fair)), "seed {seed}: {schema}: {why}");
            refused += 1;
            continue;
        }
        for _ in 0..2 {
            let text = answer(&engine, &vocabulary, &schema, &mut random);
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|why| panic!("seed {seed}: {schema}: {text}: {why}"));
            assert!(validator::valid(&schema, &schema, &value), "seed {seed}: {schema}: {text}");
        }
    }
    assert!(refused * 4 < runs(), "{refused} refused");
}
