//! Regular expressions of schemas (ECMA 262), translated into the compiler's syntax.
//!
//! What the two read differently is written out (`.`, `\s`, classes), anchors become a match of
//! the whole string, and what the compiler cannot do (look-around, back references) is refused.

use std::collections::HashMap;

use llguidance::derivre::{Regex, RegexAst, RegexBuilder};

mod anchors;
mod parse;

/// Work for one question about patterns, in the automaton's units; a few ms. The compiler asks
/// whether a string is possible at all, and gives up at 10000.
const WORK_MAX: u64 = 8_000;
/// Bytes of a translated pattern: anchors in groups multiply it.
const TRANSLATED_MAX: usize = 64 << 10;
/// Texts that are held against patterns, in all; 5 us each, and the more the longer they are.
const MATCHES_MAX: usize = 20_000;

/// Patterns that common tools write with look-around, and the same set of strings without it.
const KNOWN: [(&str, &str); 3] = [
    // pydantic, `Decimal`: a sign, digits and a point, at least one digit.
    (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", r"^[+-]?(?:\d+\.?\d*|\.\d+)$"),
    // zod, `iso.duration()`: weeks, or at least one other part, and one behind a `T`.
    (
        concat!(
            r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?",
            r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$",
        ),
        concat!(
            r"^P(?:\d+W|(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)",
            r"(?:T(?:\d+H(?:\d+M)?(?:\d+(?:[.,]\d+)?S)?",
            r"|\d+M(?:\d+(?:[.,]\d+)?S)?|\d+(?:[.,]\d+)?S))?",
            r"|T(?:\d+H(?:\d+M)?(?:\d+(?:[.,]\d+)?S)?",
            r"|\d+M(?:\d+(?:[.,]\d+)?S)?|\d+(?:[.,]\d+)?S))$",
        ),
    ),
    // zod, `email()`: no dot at the start, and no two in a row.
    (
        concat!(
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]",
            r"@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
        ),
        concat!(
            r"^(?:[A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+-]",
            r"@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
        ),
    ),
];

/// A pattern as patterns of whole strings that all must match: one, and one for each look-ahead
/// at its start.
///
/// # Errors
/// Why it cannot be held to.
pub(super) fn translate(pattern: &str) -> Result<Vec<String>, String> {
    let known = KNOWN.iter().find(|(written, _)| *written == pattern);
    let tree = parse::parse(known.map_or(pattern, |(_, same)| same))?;
    let patterns = anchors::whole(tree)?;
    for pattern in &patterns {
        if pattern.len() > TRANSLATED_MAX {
            return Err("is too complex to be held to".to_owned());
        }
        compile(pattern).ok_or("is too complex to be held to")?;
    }
    Ok(patterns)
}

/// The automaton of a pattern; none where it is too complex.
pub(in crate::grammar) fn compile(pattern: &str) -> Option<Regex> {
    let mut builder = RegexBuilder::new();
    let expr = builder.mk_regex(pattern).ok()?;
    builder.into_regex_limited(expr, WORK_MAX).ok()
}

/// Patterns of a schema, compiled, and what was found out about them.
#[derive(Default)]
pub(super) struct Names {
    compiled: HashMap<String, Regex>,
    disjoint: HashMap<(String, String), bool>,
    empty: HashMap<(Vec<String>, u64, Option<u64>), Option<bool>>,
    matches: usize,
}

impl Names {
    /// Whether a text matches. Patterns come from `translate` or are our own. False once there
    /// were too many, see `exhausted`.
    pub(super) fn matches(&mut self, pattern: &str, text: &str) -> bool {
        // The automaton's states may grow with each character.
        self.matches += 1 + (text.len() / 16).pow(2);
        if self.exhausted() {
            return false;
        }
        let regex = self.compiled.entry(pattern.to_owned());
        regex.or_insert_with(|| compile(pattern).expect("it compiled before")).is_match(text)
    }

    /// Answers can no longer be trusted.
    pub(super) fn exhausted(&self) -> bool {
        self.matches > MATCHES_MAX
    }

    /// Whether no string matches all patterns with a length between. None: too much work to tell.
    pub(super) fn no_text(
        &mut self,
        patterns: &[String],
        min: u64,
        max: Option<u64>,
    ) -> Option<bool> {
        if patterns.is_empty() {
            return Some(false);
        }
        let key = (patterns.to_vec(), min, max);
        *self.empty.entry(key).or_insert_with(|| empty(&all(patterns, min, max)))
    }

    /// That no name matches both.
    pub(super) fn disjoint(&mut self, a: &str, b: &str) -> Result<(), String> {
        let key = (a.to_owned(), b.to_owned());
        let known = self.disjoint.entry(key).or_insert_with(|| {
            let both = [a, b].map(|pattern| RegexAst::Regex(pattern.to_owned()));
            empty(&RegexAst::And(both.to_vec())).unwrap_or(false)
        });
        if *known {
            return Ok(());
        }
        Err("has patterns that one name may both match, which cannot be enforced".to_owned())
    }
}

/// Strings that match all patterns and have a length between.
fn all(patterns: &[String], min: u64, max: Option<u64>) -> RegexAst {
    let mut all: Vec<RegexAst> = patterns.iter().map(|it| RegexAst::Regex(it.clone())).collect();
    if min > 0 || max.is_some() {
        let max = max.map_or_else(String::new, |max| max.to_string());
        all.push(RegexAst::Regex(format!("(?s:.{{{min},{max}}})")));
    }
    RegexAst::And(all)
}

/// Whether nothing matches. None: too much work to tell.
fn empty(ast: &RegexAst) -> Option<bool> {
    let mut builder = RegexBuilder::new();
    let expr = builder.mk(ast).ok()?;
    Some(builder.into_regex_limited(expr, WORK_MAX).ok()?.always_empty())
}
