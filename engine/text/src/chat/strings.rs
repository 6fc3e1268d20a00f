//! More methods of Python's strings: those that search within bounds, and those that know what a
//! word or a line is.

use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{Error, ErrorKind};

/// Tabs are a few columns wide in honest templates.
const TAB_MAX: i64 = 256;

/// Nothing for a method that is not known here.
pub(super) fn call(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let found = window(text, start, end).and_then(|(before, part)| {
                let from_right = method.starts_with('r');
                let at = if from_right { part.rfind(wanted) } else { part.find(wanted) };
                at.map(|at| before + part[..at].chars().count())
            });
            match found {
                Some(at) => at.into(),
                None if method.ends_with("find") => (-1).into(),
                None => return Err(invalid("substring not found")),
            }
        }
        "count" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = window(text, start, end);
            part.map_or(0, |(_, part)| part.matches(wanted).count()).into()
        }
        "startswith" => edge(text, args, |part, wanted| part.starts_with(wanted))?,
        "endswith" => edge(text, args, |part, wanted| part.ends_with(wanted))?,
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = match keep {
                Some(keep) => keep,
                None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
            };
            kwargs.assert_all_used()?;
            lines(text, keep).into_iter().map(Value::from).collect()
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            joined(text, items)?.into()
        }
        "expandtabs" => {
            let (width,): (Option<i64>,) = from_args(args)?;
            expand_tabs(text, width.unwrap_or(8).clamp(0, TAB_MAX) as usize).into()
        }
        "title" => title(text).into(),
        "istitle" => (text.chars().any(char::is_alphabetic) && title(text) == text).into(),
        "isidentifier" => {
            let mut chars = text.chars();
            let first = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
            (first && chars.all(|c| c.is_alphanumeric() || c == '_')).into()
        }
        _ => return Ok(None),
    }))
}

/// The characters from `start` to `end`, with Python's meaning of negative bounds, and how many
/// lie before them. Nothing if the start lies behind the end of the text.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    let count = text.chars().count();
    let bound = |at: i64| match usize::try_from(at) {
        Ok(at) => at,
        Err(_) => count.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let start = start.map_or(0, bound);
    let end = end.map_or(count, bound).min(count);
    if start > end {
        return None;
    }
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    Some((start, &text[byte(start)..byte(end)]))
}

/// One wanted string or a tuple of them.
fn edge(text: &str, args: &[Value], has: fn(&str, &str) -> bool) -> Result<Value, Error> {
    let (wanted, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let Some((_, part)) = window(text, start, end) else { return Ok(false.into()) };
    if let Some(wanted) = wanted.as_str() {
        return Ok(has(part, wanted).into());
    }
    let mut any = false;
    for wanted in wanted.try_iter()? {
        any |= has(part, wanted.as_str().ok_or_else(|| invalid("expected strings"))?);
    }
    Ok(any.into())
}

fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = |c: char| {
            matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}')
                || matches!(c, '\u{2028}' | '\u{2029}')
        };
        let Some(at) = rest.find(ends) else {
            lines.push(rest);
            break;
        };
        let mark = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(&rest[..if keep { at + mark } else { at }]);
        rest = &rest[at + mark..];
    }
    lines
}

fn joined(separator: &str, items: &Value) -> Result<String, Error> {
    let mut out = String::new();
    for (at, item) in items.try_iter()?.enumerate() {
        let Some(text) = item.as_str() else {
            let kind = item.kind();
            return Err(invalid(&format!("join: item {at} is of type {kind}, not a string")));
        };
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(out)
}

fn expand_tabs(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if width > 0 => {
                let gap = width - column % width;
                out.extend(std::iter::repeat_n(' ', gap));
                column += gap;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// A letter behind anything but a letter is large, others are small.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}
