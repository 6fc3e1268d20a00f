//! Numbers as Python writes them. It differs from Rust in floats only: 1e+16, 1e-05, nan.

use minijinja::value::Value;
use minijinja::{Error, Output, State, escape_formatter};

/// How `{{ x }}` prints.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match float(value) {
        Some(number) => out.write_str(&repr(number)).map_err(Error::from),
        None => escape_formatter(out, state, value),
    }
}

/// The `string` filter: Python's `str(x)`.
pub(super) fn string(value: &Value) -> Value {
    match float(value) {
        Some(number) => repr(number).into(),
        None if value.as_str().is_some() => value.clone(),
        None => value.to_string().into(),
    }
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
