//! `tojson` as transformers defines it: Python's `json.dumps(x, ensure_ascii=False)`, with its
//! separators, its floats and its order of keys, and without escapes for HTML. Models were trained
//! on exactly these bytes.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::number;

/// Deeper values than this do not come from JSON parsers, which stop at 128.
const DEPTH_MAX: usize = 200;

struct Style {
    ascii: bool,
    sort_keys: bool,
    item: String,
    key: String,
    indent: Option<String>,
}

/// The filter. Python's parameters, in Python's order; `sort_keys` by name only.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let given = |position: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let value = match position {
            Some(value) => Some(value),
            None => kwargs.get(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ascii = given(ensure_ascii, "ensure_ascii")?;
    let indent = given(indent, "indent")?;
    let separators = given(separators, "separators")?;
    let sort_keys = given(None, "sort_keys")?;
    kwargs.assert_all_used()?;
    let indent = indent.as_ref().map(indentation).transpose()?;
    let (item, key) = match separators {
        Some(pair) => (text(&pair.get_item_by_index(0)?)?, text(&pair.get_item_by_index(1)?)?),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let style = Style { ascii: is_true(ascii), sort_keys: is_true(sort_keys), item, key, indent };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

fn indentation(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        // In Python, True is the number 1.
        None if value.kind() == ValueKind::Bool => Ok(" ".repeat(usize::from(value.is_true()))),
        None => {
            let width = value.as_i64().ok_or_else(|| invalid("tojson: indent is no number"))?;
            Ok(" ".repeat(width.clamp(0, 64) as usize))
        }
    }
}

fn text(value: &Value) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| invalid("tojson: separators are two strings"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(invalid("tojson: value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number::json(value)),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                self.list('[', ']', items, depth, out, |style, item, out| {
                    style.write(&item, depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    pairs.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.list('{', '}', pairs.into_iter(), depth, out, |style, (key, item), out| {
                    style.quote(&key, out);
                    out.push_str(&style.key);
                    style.write(&item, depth + 1, out)
                })?;
            }
            kind => return Err(invalid(format!("tojson: {kind} is not JSON"))),
        }
        Ok(())
    }

    fn list<T>(
        &self,
        open: char,
        close: char,
        items: impl Iterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(&Style, T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        let mut empty = true;
        for item in items {
            if !std::mem::take(&mut empty) {
                out.push_str(&self.item);
            }
            self.new_line(depth + 1, out);
            write(self, item, out)?;
        }
        if !empty {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn quote(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// JSON has string keys only; Python writes numbers, truth values and None as their JSON text.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        ValueKind::Number => number::json(key),
        kind => return Err(invalid(format!("tojson: {kind} cannot be a key"))),
    })
}
