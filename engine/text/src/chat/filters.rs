//! Filters and tests whose results differ between minijinja and Python's Jinja.

#![expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]

use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("dictsort", dictsort);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
}

/// Something undefined has the length 0.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        let reason = format!("value of type {} has no length", value.kind());
        Error::new(ErrorKind::InvalidOperation, reason)
    })
}

/// What is no number becomes the default, where minijinja fails.
fn int(value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = or_named(default, &kwargs, "default")?;
    let base = kwargs.get::<Option<u32>>("base")?.unwrap_or(10);
    kwargs.assert_all_used()?;
    let parsed = match value.as_str() {
        Some(text) => {
            let text = text.trim();
            let whole = i64::from_str_radix(text, base.clamp(2, 36)).ok();
            whole.or_else(|| text.parse().ok().and_then(truncated)).map(Value::from)
        }
        None if value.is_integer() => Some(value.clone()),
        None => number(value).and_then(truncated).map(Value::from),
    };
    Ok(parsed.or(default).unwrap_or_else(|| 0.into()))
}

fn float(value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = or_named(default, &kwargs, "default")?;
    kwargs.assert_all_used()?;
    let parsed = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => number(value),
    };
    Ok(parsed.map(Value::from).or(default).unwrap_or_else(|| 0.0.into()))
}

fn or_named(given: Option<Value>, kwargs: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    if given.is_some() { Ok(given) } else { kwargs.get(name) }
}

fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn truncated(number: f64) -> Option<i64> {
    (number.is_finite() && number.abs() < 9e18).then_some(number as i64)
}

/// Pairs, sorted by key or by value; Jinja's parameters in Jinja's order.
fn dictsort(
    value: &Value,
    case_sensitive: Option<Value>,
    by: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let case_sensitive = or_named(case_sensitive, &kwargs, "case_sensitive")?;
    let by = or_named(by, &kwargs, "by")?;
    let reverse = kwargs.get::<Option<bool>>("reverse")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    if value.kind() != ValueKind::Map {
        return Err(Error::new(ErrorKind::InvalidOperation, "dictsort needs a dict"));
    }
    let case_sensitive = case_sensitive.is_some_and(|value| value.is_true());
    let by_value = by.is_some_and(|by| by.as_str() == Some("value"));
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        let rank = if by_value { item.clone() } else { key.clone() };
        let rank = match rank.as_str() {
            Some(text) if !case_sensitive => text.to_lowercase().into(),
            _ => rank,
        };
        pairs.push((rank, Value::from(Tuple::from([key, item]))));
    }
    pairs.sort_by(|a, b| if reverse { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}

/// In Python, whatever has a length and an index: strings and dicts too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

/// None is not; something undefined is (and is empty).
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}
