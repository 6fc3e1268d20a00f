//! Answers that are drawn while a grammar is compiled. A pattern whose automaton grows with each
//! token would break an answer in its middle; here its request is refused before it begins.

use std::collections::{BTreeSet, HashSet};

use llguidance::TokenParser;
use llguidance::api::StopReason;
use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use super::{lark, schema};

/// In each walk one token of so many closes what it can. First many short texts, then long ones.
const WALKS: [u64; 2] = [4, 64];

/// Tokens of a walk.
const TOKENS: u32 = 128;

/// States that both walks may make, of the 50,000 that a lexer may have.
const STATES_MAX: usize = 20_000;

/// A pattern with so many states is not tried by itself: it has no room to grow.
const SMALL: usize = 1_000;

/// Patterns of one grammar that are tried by themselves. More of that size have no common use.
const PATTERNS_MAX: usize = 16;

/// Whether sequences may begin with this grammar; `create` makes the parser of another.
///
/// # Errors
/// There is no first token, or a walk, of the whole or of one of its patterns alone, met a bound.
pub(super) fn run(
    create: impl Fn(String) -> Result<TokenParser, String>,
    vocabulary: &Vocabulary,
    parser: &TokenParser,
    lark: &str,
) -> Result<(), String> {
    let walks = Walks { vocabulary, closers: closers(vocabulary) };
    walks.run(parser).map_err(|why| why.unwrap_or_else(|| "no text satisfies it".to_owned()))?;
    let large = patterns(lark).into_iter().filter(|pattern| !is_small(pattern));
    for pattern in large.take(PATTERNS_MAX) {
        let schema = json!({"type": "string", "pattern": pattern});
        let alone = format!("start: {}\n", lark::json_prepared(schema));
        let met = match create(alone) {
            Ok(parser) => walks.run(&parser).err().flatten(),
            Err(why) => Some(why),
        };
        if let Some(why) = met {
            let shown: String = pattern.chars().take(100).collect();
            return Err(format!("the pattern '{shown}': {why}"));
        }
    }
    Ok(())
}

struct Walks<'a> {
    vocabulary: &'a Vocabulary,
    closers: Vec<u32>,
}

impl Walks<'_> {
    /// Walks on a copy. `Err(None)`: there is no first token.
    fn run(&self, fresh: &TokenParser) -> Result<(), Option<String>> {
        let lexer = fresh.deep_clone();
        let mut random = 1;
        for one_in in WALKS {
            let mut parser = lexer.clone();
            parser.start_without_prompt();
            self.walk(&mut parser, one_in, &mut random)?;
        }
        Ok(())
    }

    fn walk(
        &self,
        parser: &mut TokenParser,
        one_in: u64,
        random: &mut u64,
    ) -> Result<(), Option<String>> {
        for made in 0..TOKENS {
            let Ok(mask) = parser.compute_mask() else {
                if made == 0 && parser.stop_reason() == StopReason::NoExtensionBias {
                    return Err(None);
                }
                break;
            };
            let at = draw(random);
            let closes = draw(random).is_multiple_of(one_in);
            let closer = self.closers.iter().filter(|_| closes).find(|id| mask.is_allowed(**id));
            let Some(token) = closer.copied().or_else(|| self.any(mask.as_slice(), at)) else {
                break;
            };
            if parser.consume_token(token).is_err() || parser.check_stop().unwrap_or(true) {
                break;
            }
        }
        let states = parser.parser.lexer_stats().num_states;
        match parser.stop_reason() {
            StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                Err(Some("it is too complex to be held to".to_owned()))
            }
            _ if states > STATES_MAX => {
                let why = "it is too complex to be held to: its automaton grows with each token";
                Err(Some(why.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// An allowed token that ends nothing, from somewhere on.
    fn any(&self, words: &[u32], at: u64) -> Option<u32> {
        let ends = self.vocabulary.ends();
        let start = usize::try_from(at % words.len() as u64).unwrap_or_default();
        (start..words.len()).chain(0..start).find_map(|word| {
            let bits = (0..32).map(|bit| (bit + at as u32 / 64) % 32);
            let allowed = bits.filter(|bit| words[word] >> bit & 1 == 1);
            allowed.map(|bit| word as u32 * 32 + bit).find(|id| !ends.contains(id))
        })
    }
}

/// What closes a string, a list or an object, or goes on to its next part.
fn closers(vocabulary: &Vocabulary) -> Vec<u32> {
    let token = |text: &[u8]| vocabulary.tokens(text).filter(|tokens| tokens.len() == 1);
    [&b"\""[..], b"}", b"]", b",", b":"].into_iter().filter_map(token).flatten().collect()
}

/// Xorshift: the same walks in each process.
fn draw(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Patterns of the schemas in a grammar, as `json_prepared` wrote them.
fn patterns(lark: &str) -> BTreeSet<String> {
    const KEY: &str = "\"pattern\":";
    let after = lark.match_indices(KEY).map(|(at, _)| &lark[at + KEY.len()..]);
    let first = |rest| serde_json::Deserializer::from_str(rest).into_iter::<Value>().next();
    let text = |value| if let Some(Ok(Value::String(text))) = value { Some(text) } else { None };
    after.filter(|rest| rest.starts_with('"')).filter_map(|rest| text(first(rest))).collect()
}

/// Whether all states of its automaton are soon met.
fn is_small(pattern: &str) -> bool {
    let Some(mut regex) = schema::automaton(pattern) else { return false };
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_by_key(|byte| regex.alpha().map(*byte));
    bytes.dedup_by_key(|byte| regex.alpha().map(*byte));
    let mut known = HashSet::from([regex.initial_state()]);
    let mut open: Vec<_> = known.iter().copied().collect();
    while let Some(state) = open.pop() {
        for &byte in &bytes {
            let next = regex.transition(state, byte);
            if !next.is_dead() && known.insert(next) {
                open.push(next);
            }
        }
        if known.len() > SMALL {
            return false;
        }
    }
    true
}
