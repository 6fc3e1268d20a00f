//! A schema as the engine holds answers to it, over a vocabulary of single bytes.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::sync::OnceLock;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use text::grammar::schema::{ESCAPES, prepare};

/// White space between the tokens of JSON.
const WHITE_SPACE: &str = r" |\n {0,32}";

/// A vocabulary, compiled for.
pub(crate) struct Engine(ParserFactory);

impl Engine {
    /// Bytes.
    pub(crate) fn bytes() -> &'static Self {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        ENGINE.get_or_init(|| Self::new(&ApproximateTokEnv::single_byte_env()))
    }

    /// Any vocabulary.
    pub(crate) fn new(vocabulary: &TokEnv) -> Self {
        let mut factory = ParserFactory::new_simple(vocabulary).unwrap();
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Self(factory)
    }

    /// A schema's grammar at its start, or why there is none.
    pub(crate) fn compile(&self, schema: &Value) -> Result<Matcher, String> {
        let mut prepared = prepare(schema).map_err(|error| error.to_string())?;
        prepared["x-guidance"] =
            json!({"whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES});
        let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(prepared));
        let mut matcher = Matcher::new(parser);
        let first = |error: String| error.lines().next().unwrap_or_default().to_owned();
        matcher.compute_mask().map_err(|error| first(error.to_string()))?;
        Ok(matcher)
    }
}

/// Whether a text can be written whole, token by token.
pub(crate) fn writes(start: &Matcher, text: &str) -> bool {
    let mut matcher = start.clone();
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    let taken = matcher.try_consume_tokens(&tokens).unwrap();
    taken == tokens.len() && matcher.is_accepting().unwrap()
}
