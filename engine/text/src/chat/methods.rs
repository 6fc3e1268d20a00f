//! Methods of Python's strings and lists that templates call and minijinja's own compatibility
//! layer does not have, or has with other results.
//!
//! Methods that change a list or a dict (`append`, `update`, ...) are left out on purpose:
//! transformers runs templates in a sandbox that refuses them too.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{prose, strings};

/// Strings that a padding method makes are short in honest templates.
const PADDED_CHARS_MAX: usize = 1 << 16;

pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq if method == "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *wanted);
            Some(at.map(Value::from).ok_or_else(|| invalid("value is not in list"))?)
        }
        ValueKind::Map | ValueKind::Seq if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (left, right) = text.split_once(separator).unwrap_or((text, ""));
            three(text, left, separator, right)
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (left, right) = text.rsplit_once(separator).unwrap_or(("", text));
            three(text, left, separator, right)
        }
        "ljust" => padded(text, args, |gap, _| (0, gap))?,
        "rjust" => padded(text, args, |gap, _| (gap, 0))?,
        "center" => padded(text, args, prose::sides)?,
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let zeros = "0".repeat(gap(text, width)?);
            match text.strip_prefix(['-', '+']) {
                Some(digits) => format!("{}{zeros}{digits}", &text[..1]).into(),
                None => format!("{zeros}{text}").into(),
            }
        }
        "casefold" => text.to_lowercase().into(),
        "swapcase" => text.chars().map(swapped).collect::<String>().into(),
        "isdecimal" => (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into(),
        _ => return strings::call(text, method, args),
    }))
}

/// Python's `split` and `rsplit`: without a separator, words; with `maxsplit`, at most so many
/// cuts, counted from the side that the name says.
fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, cuts, kwargs): (Option<Value>, Option<i64>, minijinja::value::Kwargs) =
        from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let cuts = match cuts {
        Some(cuts) => cuts,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let parts_max = usize::try_from(cuts).map_or(usize::MAX, |cuts| cuts.saturating_add(1));
    let separator = separator.filter(|separator| !separator.is_none());
    let Some(separator) = separator else {
        return Ok(words(text, parts_max, from_right).into_iter().map(Value::from).collect());
    };
    let separator = separator.as_str().ok_or_else(|| invalid("separator must be a string"))?;
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    Ok(if from_right {
        let mut parts: Vec<&str> = text.rsplitn(parts_max, separator).collect();
        parts.reverse();
        parts.into_iter().map(Value::from).collect()
    } else {
        text.splitn(parts_max, separator).map(Value::from).collect()
    })
}

fn words(text: &str, parts_max: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let cut = if from_right {
            rest.rsplit_once(char::is_whitespace).map(|(left, right)| (right, left.trim_end()))
        } else {
            rest.split_once(char::is_whitespace).map(|(left, right)| (left, right.trim_start()))
        };
        match cut {
            Some((word, more)) if parts.len() + 1 < parts_max => {
                parts.push(word);
                rest = more;
            }
            _ => {
                // The uncut remainder keeps the white space on its far side, as in Python.
                parts.push(if from_right {
                    &text[..rest.as_ptr().addr() - text.as_ptr().addr() + rest.len()]
                } else {
                    &text[rest.as_ptr().addr() - text.as_ptr().addr()..]
                });
                if cut.is_none() {
                    let last = parts.len() - 1;
                    parts[last] = rest;
                }
                break;
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// A tuple (left, separator, right); an unfound separator is empty.
fn three(text: &str, left: &str, separator: &str, right: &str) -> Value {
    let found = left.len() + right.len() < text.len();
    Value::from(Tuple::from([left, if found { separator } else { "" }, right].map(Value::from)))
}

fn gap(text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    if width > PADDED_CHARS_MAX {
        return Err(invalid("padding is too wide"));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

fn padded(
    text: &str,
    args: &[Value],
    sides: fn(usize, usize) -> (usize, usize),
) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let (left, right) = sides(gap(text, width)?, usize::try_from(width).unwrap_or(0));
    let fill = fill.unwrap_or(" ");
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(right)).into())
}

fn swapped(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}
