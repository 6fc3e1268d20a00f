//! Filters and tests whose results differ between minijinja and Python's Jinja.

#![expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::globals;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("items", items);
    environment.add_filter("sort", sort);
    environment.add_filter("unique", unique);
    environment.add_function("dict", dict);
    environment.add_function("namespace", namespace);
    environment.add_function("cycler", |items: Rest<Value>| globals::cycler(items.0));
    environment.add_function("joiner", globals::joiner);
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
fn int(
    value: &Value,
    default: Option<Value>,
    base: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = or_named(default, &kwargs, "default")?;
    let base = or_named(base, &kwargs, "base")?;
    let base = base.and_then(|base| base.as_i64()).unwrap_or(10);
    let base = u32::try_from(base).unwrap_or(10);
    kwargs.assert_all_used()?;
    let parsed = match value.as_str() {
        Some(text) => {
            let text = text.trim();
            let prefixes = match base {
                16 => ["0x", "0X"],
                8 => ["0o", "0O"],
                2 => ["0b", "0B"],
                _ => ["", ""],
            };
            let text = prefixes.iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
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

/// Something undefined has no items.
fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    minijinja::filters::items(value)
}

/// Jinja's first parameters may stand by their place too: `sort(reverse, case_sensitive)`.
fn sort(
    state: &State,
    value: Value,
    reverse: Option<Value>,
    case_sensitive: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let places = [("reverse", reverse), ("case_sensitive", case_sensitive)];
    minijinja::filters::sort(state, value, by_name(places, &kwargs)?)
}

fn unique(
    state: &State,
    value: Value,
    case_sensitive: Option<Value>,
    attribute: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let places = [("case_sensitive", case_sensitive), ("attribute", attribute)];
    minijinja::filters::unique(state, value, by_name(places, &kwargs)?)
}

/// Parameters by place joined to those by name.
fn by_name<const N: usize>(
    places: [(&str, Option<Value>); N],
    kwargs: &Kwargs,
) -> Result<Kwargs, Error> {
    let mut all = Vec::new();
    for name in kwargs.args() {
        all.push((name.to_owned(), kwargs.get::<Value>(name)?));
    }
    all.extend(places.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(all.into_iter().collect())
}

/// Python's `dict(x, **more)`, where `x` is a dict or a list of pairs.
fn dict(value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    let mut set = |key: Value, item: Value| match pairs.iter_mut().find(|(known, _)| *known == key)
    {
        Some((_, old)) => *old = item,
        None => pairs.push((key, item)),
    };
    if let Some(value) = value.filter(|value| !value.is_undefined()) {
        for item in value.try_iter()? {
            match value.kind() {
                ValueKind::Map => set(item.clone(), value.get_item(&item)?),
                _ => set(item.get_item_by_index(0)?, item.get_item_by_index(1)?),
            }
        }
    }
    for name in kwargs.args() {
        set(name.into(), kwargs.get(name)?);
    }
    Ok(Value::from_pairs(pairs))
}

/// `namespace(x, **more)`.
fn namespace(value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let pairs = dict(value, kwargs)?;
    minijinja::functions::namespace(Some(pairs.into()))
}

/// In Python, whatever has a length and an index: strings and dicts too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

/// None is not; something undefined is (and is empty).
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}
