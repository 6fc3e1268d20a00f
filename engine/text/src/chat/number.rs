//! Numbers as Python writes them. It differs from Rust in floats only: 1e+16, 1e-05, nan.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output, State, escape_formatter};

/// How `{{ x }}` prints.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if float(value).is_some() || nests(value) {
        return out.write_str(&text(value)).map_err(Error::from);
    }
    escape_formatter(out, state, value)
}

/// The `string` filter: Python's `str(x)`.
pub(super) fn string(value: &Value) -> Value {
    if value.as_str().is_some() { value.clone() } else { text(value).into() }
}

/// Python's `str(x)`.
pub(super) fn text(value: &Value) -> String {
    if float(value).is_some() || nests(value) { repr_of(value) } else { value.to_string() }
}

/// Lists and dicts of plain data: what is inside prints otherwise than in Rust.
fn nests(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map)
}

/// Python's `repr(x)`.
pub(super) fn repr_of(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, 0, &mut out);
    out
}

/// Values from JSON are no deeper than JSON parsers allow; what a template nests is cut there.
const DEPTH_MAX: usize = 200;

fn write_repr(value: &Value, depth: usize, out: &mut String) {
    if depth > DEPTH_MAX {
        return out.push_str("...");
    }
    match (value.as_str(), value.kind()) {
        (Some(text), _) => quote(text, out),
        (None, ValueKind::Seq) => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let items = value.try_iter().into_iter().flatten();
            let mut count = 0;
            for item in items {
                if count > 0 {
                    out.push_str(", ");
                }
                write_repr(&item, depth + 1, out);
                count += 1;
            }
            out.push_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        (None, ValueKind::Map) => {
            out.push('{');
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, depth + 1, out);
                out.push_str(": ");
                let item = value.get_item(&key).unwrap_or_default();
                write_repr(&item, depth + 1, out);
            }
            out.push('}');
        }
        _ => match float(value) {
            Some(number) => out.push_str(&repr(number)),
            None => out.push_str(&value.to_string()),
        },
    }
}

/// Single quotes, unless only they occur; what cannot be seen as its number.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let _ = match c as u32 {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(mark);
}

/// Rust's table of what can be seen, by way of its debug form. A mark that joins the letter before
/// it counts as visible, so it is asked for behind a letter.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    !format!("{:?}", String::from_iter(['a', c])).contains("\\u{")
}

/// A number in JSON, as Python's `json` module writes it.
pub(super) fn json(value: &Value) -> String {
    match float(value) {
        Some(number) if number.is_nan() => "NaN".into(),
        Some(number) if number.is_infinite() && number > 0.0 => "Infinity".into(),
        Some(number) if number.is_infinite() => "-Infinity".into(),
        Some(number) => repr(number),
        None => value.to_string(),
    }
}

fn float(value: &Value) -> Option<f64> {
    let is_float = value.is_number() && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// Python's `repr`: the shortest digits that read back the same, with an exponent outside
/// 1e-4 .. 1e16.
fn repr(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".into()
        } else {
            format!("{}inf", if number < 0.0 { "-" } else { "" })
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}
