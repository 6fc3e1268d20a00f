//! Strings that are written as they are, up to a marker that none of them holds.
//!
//! Such a string and the text that ends it are one terminal: it holds the marker at its end and
//! nowhere before, so the longest match is the only one. Where a special token ends it, that token
//! is no text at all and stands behind the terminal.

use serde_json::Value;

use super::source::Source;
use crate::grammar::lark;
use crate::grammar::watch::SPECIAL;

/// Text that a reader takes for JSON that is no string, or may until more of it is there.
const LIKE_JSON: &str =
    r#"/[ \t\r\n]*(?:[\[{0-9\-](?s:.*)|(?:true|false|null)(?:[^A-Za-z0-9_](?s:.*))?)/"#;

/// Strings of the formats that the compiler knows. Not all strings of each format, but no others.
const FORMATS: [(&str, &str); 7] = [
    ("duration", r"P(?:[0-9]{1,9}W|[0-9]{1,9}D(?:T[0-9]{1,9}[HMS])?|T[0-9]{1,9}[HMS])"),
    ("email", r"[A-Za-z0-9_+\-]{1,32}(?:\.[A-Za-z0-9_+\-]{1,15}){0,2}@(?:HOST\.)HOST"),
    ("hostname", r"HOST(?:\.HOST){0,6}"),
    ("ipv4", r"(?:BYTE\.){3}BYTE"),
    ("ipv6", r"(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|::(?:[0-9a-fA-F]{1,4})?"),
    ("uri", r"[a-z][a-z0-9+.\-]{0,15}:\/\/HOST(?:\.HOST)*(?::[0-9]{1,5})?(?:\/PATH*)?(?:\?PATH*)?"),
    ("uuid", r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
];

/// Words of [`FORMATS`].
const PARTS: [(&str, &str); 3] = [
    ("HOST", r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,30}[A-Za-z0-9])?)"),
    ("BYTE", r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"),
    ("PATH", r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@\/]|%[0-9A-Fa-f]{2})"),
];

/// Which strings, beside their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Strings only: all text is one.
    Nothing,
    /// JSON of other kinds too: text that looks like it is none.
    Json,
}

/// An expression for a string that `close` ends, with `close`.
///
/// * `schema`: of strings, as `grammar::schema::prepare` writes it.
/// * `None`: there is no such string.
pub(super) fn until(
    source: &mut Source,
    close: &[u8],
    schema: &Value,
    beside: Beside,
) -> Option<String> {
    let text = close.iter().position(|byte| *byte == SPECIAL).unwrap_or(close.len());
    let (end, rest) = close.split_at(text);
    let end = String::from_utf8_lossy(end).into_owned();
    let body = body(schema, &end, beside)?;
    let end = lark::string(&end);
    let whole = if text == close.len() {
        format!("(({body}) {end}) & ~(/(?s:.*)/ {end} /(?s:.+)/)")
    } else if text > 0 {
        format!("({body}) {end}")
    } else {
        body
    };
    let terminal = source.terminal(whole);
    Some(format!("{terminal} {}", lark::expression(rest)))
}

fn body(schema: &Value, end: &str, beside: Beside) -> Option<String> {
    if let Some(texts) = schema.get("enum").and_then(Value::as_array) {
        let texts = texts.iter().filter_map(Value::as_str);
        let fits = |text: &&str| {
            (end.is_empty() || !text.contains(end)) && (beside == Beside::Nothing || !json(text))
        };
        let texts: Vec<String> = texts.filter(fits).map(lark::string).collect();
        return (!texts.is_empty()).then(|| texts.join(" | "));
    }
    let count = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let (min, max) = (count("minLength").unwrap_or(0), count("maxLength"));
    let mut parts = vec![match (min, max) {
        (0, None) => "/(?s:.*)/".to_owned(),
        (_, Some(0)) => "\"\"".to_owned(),
        (min, max) => {
            let max = max.map_or_else(String::new, |max| max.to_string());
            format!("/(?s:.{{{min},{max}}})/")
        }
    }];
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        if let Some(pattern) = part.get("pattern").and_then(Value::as_str) {
            parts.push(format!("/{}/", llguidance::regex_to_lark(pattern, "dw")));
        }
        if let Some(format) = part.get("format").and_then(Value::as_str) {
            parts.push(format!("/(?:{})/", format_of(format)?));
        }
    }
    if beside == Beside::Json {
        parts.push(format!("~{LIKE_JSON}"));
    }
    Some(parts.join(" & "))
}

fn format_of(name: &str) -> Option<String> {
    let pattern = FORMATS.iter().find(|(known, _)| *known == name)?.1.to_owned();
    Some(PARTS.iter().fold(pattern, |pattern, (word, meaning)| pattern.replace(word, meaning)))
}

/// As the reader sees it.
fn json(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| !value.is_string())
}
