//! Pieces of grammars in `llguidance`'s Lark dialect.

use serde_json::{Map, Value, json};

use super::schema::{self, SchemaError};
use super::watch::{SPECIAL, special};
use crate::TextModel;

/// White space between the tokens of JSON: a blank, or a line's end with its indentation. Bounded,
/// so that a weak model cannot write blanks for ever.
const WHITE_SPACE: &str = r" |\n {0,32}|\n\t{0,8}";

/// Text and special tokens, as one stream of bytes: a special token is 0xFF, which no text holds,
/// and its id.
pub type Literal = Vec<u8>;

/// A marker as a model writes it: where the spelling of one of its special tokens stands, that
/// token is meant.
#[must_use]
pub fn literal(text: &TextModel, spelled: &str) -> Literal {
    let mut out = Vec::new();
    let mut rest = spelled;
    while let Some(first) = rest.chars().next() {
        let end = match text.special_at(rest) {
            Some((id, end)) => {
                out.extend(special(id));
                end
            }
            None => {
                out.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
                first.len_utf8()
            }
        };
        rest = &rest[end..];
    }
    out
}

/// A stream as a Lark expression; empty for an empty stream.
#[must_use]
pub fn expression(stream: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        if let [SPECIAL, a, b, c, d, after @ ..] = rest {
            parts.push(format!("<[{}]>", u32::from_le_bytes([*a, *b, *c, *d])));
            rest = after;
            continue;
        }
        let end = rest.iter().position(|byte| *byte == SPECIAL).unwrap_or(rest.len());
        parts.push(string(&String::from_utf8_lossy(&rest[..end])));
        rest = &rest[end..];
    }
    parts.join(" ")
}

/// A text as a Lark string.
#[must_use]
pub fn string(text: &str) -> String {
    // JSON leaves this one as it is; Lark does not take it.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// One of the texts.
#[must_use]
pub fn choice(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| string(text.as_ref())).collect();
    format!("start: CHOICE\nCHOICE: {}\n", texts.join(" | "))
}

/// A regular expression in the syntax of the `regex` crate.
#[must_use]
pub fn regex(pattern: &str) -> String {
    format!("start: /{}/\n", llguidance::regex_to_lark(pattern, ""))
}

/// JSON of a schema, as a Lark expression. The schema is checked and brought into the compiler's
/// form first.
///
/// # Errors
/// What of the schema cannot be held to.
pub fn json(schema: &Value) -> Result<String, SchemaError> {
    let prepared = schema::prepare(schema)?;
    Ok(json_prepared(prepared))
}

/// Any JSON object.
#[must_use]
pub fn json_object() -> String {
    json_prepared(json!({"type": "object"}))
}

/// JSON of a schema that [`schema::prepare`] wrote, or of one as plain.
pub(crate) fn json_prepared(schema: Value) -> String {
    let mut map = match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    // Without `\u` a key has one spelling: another one would be a key of no schema.
    let options = json!({
        "whitespace_flexible": true,
        "whitespace_pattern": WHITE_SPACE,
        "json_allowed_escapes": schema::ESCAPES,
    });
    map.insert("x-guidance".to_owned(), options);
    format!("%json {}", Value::Object(map))
}
