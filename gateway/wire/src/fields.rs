//! Reads typed fields out of a JSON object and says exactly which one is wrong.
//!
//! A fault starts with the path below the place that found it; each caller on the way up puts
//! its own name in front. So the happy path builds no path at all.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorKind};

/// A field that cannot be accepted.
#[derive(Debug)]
pub(crate) struct Fault {
    path: String,
    lead: &'static str,
    rest: String,
    code: &'static str,
}

pub(crate) type Parsed<T> = Result<T, Fault>;

impl Fault {
    fn new(path: &str, lead: &'static str, rest: String, code: &'static str) -> Self {
        Self { path: path.to_owned(), lead, rest, code }
    }

    /// The value has the wrong type.
    pub(crate) fn kind(path: &str, expected: &str, got: &Value) -> Self {
        let rest = format!(": expected {expected}, but got {} instead.", describe(got));
        Self::new(path, "Invalid type for", rest, "invalid_type")
    }

    /// The value is of the right type and still wrong.
    pub(crate) fn value(path: &str, why: impl AsRef<str>) -> Self {
        let rest = format!(": {}.", why.as_ref());
        Self::new(path, "Invalid value for", rest, "invalid_value")
    }

    /// The value is outside its range.
    pub(crate) fn range(path: &str, why: impl AsRef<str>, code: &'static str) -> Self {
        Self::new(path, "Invalid value for", format!(": {}.", why.as_ref()), code)
    }

    /// The field must be there.
    pub(crate) fn missing(path: &str) -> Self {
        Self::new(path, "Missing required parameter:", ".".into(), "missing_required_parameter")
    }

    /// The field is known, and what it asks for cannot be done.
    pub(crate) fn unsupported(path: &str, why: impl AsRef<str>) -> Self {
        let rest = format!(": {}.", why.as_ref());
        Self::new(path, "Unsupported parameter:", rest, "unsupported_parameter")
    }

    /// The field is known, and what it asks for cannot be done.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.code == "unsupported_parameter"
    }

    /// Puts a field's name in front of the path.
    pub(crate) fn under(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    /// Puts a list's name and the item's number in front of the path.
    pub(crate) fn at(self, name: &str, index: usize) -> Self {
        self.under(&format!("[{index}]")).under(name)
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let Fault { path, lead, rest, code } = fault;
        if path.is_empty() {
            let message = format!("{lead} the body{rest}");
            return Self::new(ErrorKind::Invalid, code, message);
        }
        let message = format!("{lead} '{path}'{rest}");
        Self::new(ErrorKind::Invalid, code, message).with_param(path)
    }
}

/// A value's type in words, with the value where it helps and is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => format!("a boolean ({b})"),
        Value::Number(n) if n.is_f64() => format!("a decimal number ({n})"),
        Value::Number(n) => format!("an integer ({n})"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// A JSON object. `null` is the same as absent everywhere: clients send unset options that way.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a Value) -> Parsed<Self> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(Fault::kind("", "an object", other)),
        }
    }

    pub(crate) fn entries(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(self, name: &str) -> Parsed<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(Fault::kind(name, "a string", other)),
        }
    }

    pub(crate) fn required_string(self, name: &str) -> Parsed<&'a str> {
        self.string(name)?.ok_or_else(|| Fault::missing(name))
    }

    pub(crate) fn boolean(self, name: &str, default: bool) -> Parsed<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(Fault::kind(name, "a boolean", other)),
        }
    }

    pub(crate) fn integer(self, name: &str, range: RangeInclusive<i64>) -> Parsed<Option<i64>> {
        self.get(name).map(|value| integer(value, &range).map_err(|f| f.under(name))).transpose()
    }

    pub(crate) fn natural(self, name: &str, range: RangeInclusive<u32>) -> Parsed<Option<u32>> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        Ok(self.integer(name, range)?.and_then(|n| u32::try_from(n).ok()))
    }

    pub(crate) fn number(self, name: &str, range: RangeInclusive<f64>) -> Parsed<Option<f64>> {
        self.get(name).map(|value| number(value, &range).map_err(|f| f.under(name))).transpose()
    }

    pub(crate) fn object(self, name: &str) -> Parsed<Option<Self>> {
        self.get(name).map(|value| Self::of(value).map_err(|f| f.under(name))).transpose()
    }

    pub(crate) fn map(self, name: &str) -> Parsed<Map<String, Value>> {
        Ok(self.object(name)?.map(|fields| fields.0.clone()).unwrap_or_default())
    }

    pub(crate) fn list(self, name: &str, max: usize) -> Parsed<Option<&'a [Value]>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                bound(items.len(), max).map_err(|f| f.under(name))?;
                Ok(Some(items))
            }
            Some(other) => Err(Fault::kind(name, "an array", other)),
        }
    }

    /// Reads each item of a list; absent is empty.
    pub(crate) fn each<T>(
        self,
        name: &str,
        max: usize,
        mut read: impl FnMut(&'a Value) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let items = self.list(name, max)?.unwrap_or_default();
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            out.push(read(item).map_err(|f| f.at(name, index))?);
        }
        Ok(out)
    }

    /// Refuses every field that is not in `known`.
    pub(crate) fn only(self, known: &[&str]) -> Parsed<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(unknown(key, known.iter().copied())),
        }
    }
}

/// Refuses a list that is too long.
pub(crate) fn bound(len: usize, max: usize) -> Parsed<()> {
    if len <= max {
        return Ok(());
    }
    let why = format!("expected at most {max} items, but got {len}");
    Err(Fault::range("", why, "array_above_max_length"))
}

/// An integer written as one: `5.0` is refused, because guessing hides a client's mistake.
pub(crate) fn integer(value: &Value, range: &RangeInclusive<i64>) -> Parsed<i64> {
    let Value::Number(n) = value else {
        return Err(Fault::kind("", "an integer", value));
    };
    if n.is_f64() {
        return Err(Fault::kind("", "an integer", value));
    }
    let (low, high) = (*range.start(), *range.end());
    match n.as_i64() {
        Some(i) if i < low => {
            let why = format!("expected an integer of at least {low}, but got {i}");
            Err(Fault::range("", why, "integer_below_min_value"))
        }
        Some(i) if i <= high => Ok(i),
        _ => {
            let why = format!("expected an integer of at most {high}, but got {n}");
            Err(Fault::range("", why, "integer_above_max_value"))
        }
    }
}

/// A token id.
pub(crate) fn token(value: &Value) -> Parsed<u32> {
    let id = integer(value, &(0..=i64::from(u32::MAX)))?;
    u32::try_from(id).map_err(|_| Fault::value("", "not a token id"))
}

pub(crate) fn number(value: &Value, range: &RangeInclusive<f64>) -> Parsed<f64> {
    let Some(n) = value.as_f64() else {
        return Err(Fault::kind("", "a number", value));
    };
    let (low, high) = (*range.start(), *range.end());
    if n < low {
        let why = format!("expected a number of at least {low}, but got {n}");
        return Err(Fault::range("", why, "decimal_below_min_value"));
    }
    if n > high {
        let why = format!("expected a number of at most {high}, but got {n}");
        return Err(Fault::range("", why, "decimal_above_max_value"));
    }
    Ok(n)
}

/// A field that no table knows, with the nearest name that one does.
pub(crate) fn unknown<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Fault {
    let hint = nearest(name, known).map(|near| format!(" Did you mean '{near}'?"));
    let rest = format!(".{}", hint.unwrap_or_default());
    Fault::new(&short(name), "Unknown parameter:", rest, "unknown_parameter")
}

/// The start of a caller's own text, for messages: long ones would only fill logs.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The known name that differs least, if it differs by no more than a third of its letters.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(edits, candidate)| *edits <= 1.max(candidate.len() / 3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name() {
        let known = ["temperature", "top_p", "top_k", "max_tokens", "n"];
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(nearest(name, known.into_iter()), expect, "{name}");
        };
        check("temprature", Some("temperature"));
        check("maxTokens", Some("max_tokens"));
        check("top-p", Some("top_p"));
        check("frobnicate", None);
        check(&"x".repeat(10_000), None);
    }

    #[test]
    fn paths() {
        let fault = Fault::missing("type").at("content", 0).at("messages", 2);
        assert_eq!(ApiError::from(fault).param.as_deref(), Some("messages[2].content[0].type"));
        let fault = Fault::value("", "bad").at("stop", 1);
        assert_eq!(ApiError::from(fault).param.as_deref(), Some("stop[1]"));
    }
}
