//! Filters that lay out or quote text, with Jinja's parameters in Jinja's order.

#![expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::number;

/// Padding and indents are short in honest templates.
const WIDTH_MAX: usize = 1 << 16;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("indent", indent);
    environment.add_filter("wordwrap", wordwrap);
    environment.add_filter("truncate", truncate);
    environment.add_filter("center", center);
    environment.add_filter("wordcount", |value: &Value| words(&plain(value)));
    environment.add_filter("striptags", |value: &Value| striptags(&plain(value)));
    environment.add_filter("urlencode", urlencode);
    for name in ["escape", "e"] {
        environment.add_filter(name, |value: &Value| escaped(&plain(value)));
    }
    environment.add_filter("forceescape", |value: &Value| escaped(&plain(value)));
    environment.add_filter("pprint", |value: &Value| number::repr_of(value));
    environment.add_filter("xmlattr", xmlattr);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| number::text(value), str::to_owned)
}

/// A parameter by its place or by its name.
fn given(place: Option<Value>, kwargs: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    if place.is_some() { Ok(place) } else { kwargs.get(name) }
}

fn width(value: Option<Value>, usual: usize) -> Result<usize, Error> {
    let Some(value) = value else { return Ok(usual) };
    let width = value.as_i64().ok_or_else(|| invalid("a width must be a number"))?;
    match usize::try_from(width) {
        Ok(width) if width <= WIDTH_MAX => Ok(width),
        Ok(_) => Err(invalid("a width is too large")),
        Err(_) => Ok(0),
    }
}

fn is_true(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// `indent(width=4, first=False, blank=False)`; the width may be a string to put there.
fn indent(
    value: &Value,
    by: Option<Value>,
    first: Option<Value>,
    blank: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let by = given(by, &kwargs, "width")?;
    let first = is_true(given(first, &kwargs, "first")?);
    let blank = is_true(given(blank, &kwargs, "blank")?);
    kwargs.assert_all_used()?;
    let by = match by.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => " ".repeat(width(by, 4)?),
    };
    let text = plain(value);
    // Jinja puts a line end behind the text and takes lines apart; what ends with one stays so.
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        if if at == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `wordwrap(width=79, break_long_words=True, wrapstring="\n", break_on_hyphens=True)`.
fn wordwrap(
    value: &Value,
    at: Option<Value>,
    break_long: Option<Value>,
    wrap: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let columns = width(given(at, &kwargs, "width")?, 79)?.max(1);
    let break_long = given(break_long, &kwargs, "break_long_words")?.is_none_or(|v| v.is_true());
    let wrap = given(wrap, &kwargs, "wrapstring")?.map_or_else(|| "\n".to_owned(), |v| plain(&v));
    kwargs.assert_all_used()?;
    let text = plain(value);
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        let start = out.len();
        for word in line.split_whitespace() {
            let mut word = word;
            let fits = |current: &str, word: &str| {
                let gap = usize::from(!current.is_empty());
                current.chars().count() + gap + word.chars().count() <= columns
            };
            if !fits(&current, word) && !current.is_empty() {
                out.push(std::mem::take(&mut current));
            }
            while break_long && word.chars().count() > columns {
                let cut = word.char_indices().nth(columns).map_or(word.len(), |(byte, _)| byte);
                out.push(word[..cut].to_owned());
                word = &word[cut..];
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        if !current.is_empty() || out.len() == start {
            out.push(current);
        }
    }
    Ok(out.join(&wrap))
}

/// `truncate(length=255, killwords=False, end="...", leeway=5)`, the last by name only.
fn truncate(
    value: &Value,
    length: Option<Value>,
    kill: Option<Value>,
    end: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let length = width(given(length, &kwargs, "length")?, 255)?;
    let kill = is_true(given(kill, &kwargs, "killwords")?);
    let end = given(end, &kwargs, "end")?.map_or_else(|| "...".to_owned(), |v| plain(&v));
    let leeway = width(kwargs.get("leeway")?, 5)?;
    kwargs.assert_all_used()?;
    let text = plain(value);
    if text.chars().count() <= length + leeway {
        return Ok(text);
    }
    let room = length
        .checked_sub(end.chars().count())
        .ok_or_else(|| invalid("truncate: the length is shorter than the end"))?;
    let cut: String = text.chars().take(room).collect();
    let kept =
        if kill { &cut } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(left, _)| left) };
    Ok(format!("{kept}{end}"))
}

/// `center(width=80)`, with Python's idea of the middle.
fn center(value: &Value, at: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let width = width(given(at, &kwargs, "width")?, 80)?;
    kwargs.assert_all_used()?;
    let text = plain(value);
    let (left, right) = sides(width.saturating_sub(text.chars().count()), width);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(right)))
}

/// How `str.center` parts an odd gap: the left gets more if the width is odd too.
pub(super) fn sides(gap: usize, width: usize) -> (usize, usize) {
    let left = gap / 2 + (gap & width & 1);
    (left, gap - left)
}

fn words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// Comments and tags go, white space becomes one space.
fn striptags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (open, close) = if rest[at..].starts_with("<!--") { (4, "-->") } else { (1, ">") };
        let Some(end) = rest[at + open..].find(close) else { break };
        kept.push_str(&rest[..at]);
        rest = &rest[at + open + end + close.len()..];
    }
    kept.push_str(rest);
    let words: Vec<&str> = kept.split_whitespace().collect();
    let text = words.join(" ");
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'")];
    let text = named.iter().fold(text, |text, (from, to)| text.replace(from, to));
    text.replace("&amp;", "&")
}

/// A string as a part of a path, or pairs as a query.
fn urlencode(value: &Value) -> Result<String, Error> {
    if value.as_str().is_some() || value.is_number() {
        return Ok(quoted(&plain(value), false));
    }
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        let (key, item) = match value.kind() {
            ValueKind::Map => (item.clone(), value.get_item(&item)?),
            _ => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
        };
        parts.push(format!("{}={}", quoted(&plain(&key), true), quoted(&plain(&item), true)));
    }
    Ok(parts.join("&"))
}

fn quoted(text: &str, query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn escaped(text: &str) -> String {
    let pairs = [("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&#39;"), ("\"", "&#34;")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Attributes of an element; those that are none or undefined are left out.
fn xmlattr(value: &Value, space: Option<bool>) -> Result<String, Error> {
    let mut out = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let gap = if out.is_empty() && space == Some(false) { "" } else { " " };
        let _ = write!(out, "{gap}{}=\"{}\"", escaped(&plain(&key)), escaped(&plain(&item)));
    }
    Ok(out)
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}
