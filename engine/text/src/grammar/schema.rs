//! JSON Schemas of callers, checked and brought into the compiler's form.
//!
//! The compiler (`llguidance`) leaves out or misreads some of what a schema may say, and its errors
//! name no path. So a schema is not handed on: it is read into a form of our own, where every
//! keyword is either understood or refused by name, parts that must hold together are met, and
//! what has no instance is found; then it is written anew, in the few keywords that the compiler
//! enforces. Whatever passes is enforced; where the two differ, fewer values can be written than
//! the schema allows, never more.
//!
//! Knows JSON Schema and the compiler's ways, no tokens and no requests.

mod format;
mod keywords;
mod meet;
mod number;
mod object;
mod pattern;
mod read;
mod refs;
mod shape;
mod solve;
mod values;
mod write;

use std::fmt;

use serde_json::Value;

pub(super) use pattern::compile as automaton;

/// Escapes in strings that may be written: those that JSON cannot do without, so each text has one
/// spelling. With `\u` a key could be spelled past its own schema (`"\u0061"` beside a property
/// `a`), so the compiler must be told of these (`json_allowed_escapes`).
pub const ESCAPES: &str = "nrbtf\\\"";

/// Bytes of a schema as JSON. Large ones in use have 100 to 200 KiB, most of them descriptions.
const BYTES_MAX: usize = 256 << 10;
/// Schemas within schemas; below it each level costs reader and compiler some KiB of stack.
const NESTING_MAX: usize = 64;
/// As [`NESTING_MAX`], for what is written: the compiler follows references as it meets them.
const DEPTH_MAX: usize = 128;
/// Schemas in all, and what meeting them yields.
const SUBSCHEMAS_MAX: usize = 10_000;
/// Schemas that are written. The compiler takes 50 us for each, twice that for many in one place.
const WRITTEN_MAX: usize = 3_000;
/// Steps of putting parts together: an `allOf` of `anyOf`s multiplies. 5 us each.
const STEPS_MAX: usize = 20_000;
/// Values of one `enum`. The compiler takes 30 ms for as many texts.
const ENUM_MAX: usize = 4096;
/// The same of numbers, arrays and objects, each of which is a grammar of its own.
const ENUM_OTHER_MAX: usize = 1000;
/// The same beside a format: the compiler makes an automaton of each, 0.5 ms.
const ENUM_FORMAT_MAX: usize = 64;
/// Characters of a single text and of a name. Each of its tokens costs the more the longer it is,
/// 1.5 ms of a mask here.
const LITERAL_MAX: usize = 4096;
/// Characters of one pattern.
const PATTERN_MAX: usize = 4096;
/// Patterns that one text must match.
const PATTERNS_MAX: usize = 8;
/// `patternProperties` of one object: each two are compared.
const NAME_PATTERNS_MAX: usize = 32;
/// Optional properties that may come next, in all choices of one place. The engine faults while
/// it generates where a row has more than 2000 items, four of them for each.
const OPTIONAL_MAX: usize = 450;
/// Optional properties of which one must be there: the compiler writes each choice out.
const OPTIONAL_COUNTED_MAX: usize = 32;
/// `minLength` and `maxLength`.
const LENGTH_MAX: u64 = 1 << 20;
/// `minItems`, `maxItems`, `minProperties` and `maxProperties`.
const ITEMS_MAX: u64 = 1 << 16;

/// Why a schema cannot be held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// Where, from the schema's root: `properties.a.items`, `$defs.X.anyOf[2]`, empty at the root.
    pub path: String,
    /// Which keyword.
    pub keyword: Option<String>,
    /// What is wrong, as the end of a sentence that the keyword or the schema begins.
    pub reason: String,
}

impl SchemaError {
    fn new(path: &str, keyword: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), keyword: Some(keyword.to_owned()), reason: reason.into() }
    }

    fn whole(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), keyword: None, reason: reason.into() }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.keyword {
            Some(keyword) => write!(f, "'{keyword}'")?,
            None => f.write_str("the schema")?,
        }
        if !self.path.is_empty() {
            write!(f, " at {}", self.path)?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for SchemaError {}

/// Checks a schema and writes it in the form that the compiler takes: always an object, without
/// any option of the compiler in it.
///
/// # Errors
/// What of it cannot be held to, and where: keywords that cannot be enforced, values that make no
/// sense, schemas that no value meets, and whatever is too large.
pub fn prepare(schema: &Value) -> Result<Value, SchemaError> {
    measure(schema)?;
    let raws = read::read(schema)?;
    let solved = solve::solve(raws)?;
    write::write(&solved)
}

/// Counts bytes, without recursion: values may be nested deeper than a stack takes.
fn measure(schema: &Value) -> Result<(), SchemaError> {
    let mut bytes = 0;
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        bytes += match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 4,
            Value::String(text) => text.len() + 2,
            Value::Array(values) => {
                open.extend(values);
                values.len() + 2
            }
            Value::Object(map) => {
                open.extend(map.values());
                map.keys().map(|key| key.len() + 4).sum::<usize>() + 2
            }
        };
        if bytes > BYTES_MAX {
            let why = format!("is larger than {BYTES_MAX} bytes");
            return Err(SchemaError::whole("", why));
        }
    }
    Ok(())
}

/// How a number of bounds reads in a reason.
fn at_most(limit: impl fmt::Display) -> String {
    format!("is more than can be held to: at most {limit}")
}
