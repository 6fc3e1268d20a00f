//! Bounds of what is written into documents, and how amounts and times are read. Each refusal names
//! the field.

use std::collections::BTreeMap;

use govern::budget::window;
use govern::entity::Grant;
use govern::policy::Policy;
use govern::{Millis, Money};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::refusal::Refusal;

const NAME_LETTERS_MAX: usize = 128;
const TEXT_LETTERS_MAX: usize = 512;
const METADATA_MAX: usize = 16;
const METADATA_NAME_BYTES_MAX: usize = 64;
const METADATA_TEXT_BYTES_MAX: usize = 512;
const GRANTS_MAX: usize = 64;

/// The year 10000: a time past it is a mistake in its unit.
const TIME_MAX: Millis = 253_402_300_800_000;

/// A field of a change that is there, `null` among it. Together with `default` it tells "make it
/// nothing" from "leave it".
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A name for people.
pub(super) fn name(field: &str, text: &str) -> Result<(), Refusal> {
    bounded(field, text, NAME_LETTERS_MAX)
}

/// A sentence.
pub(super) fn sentence(field: &str, text: &str) -> Result<(), Refusal> {
    bounded(field, text, TEXT_LETTERS_MAX)
}

fn bounded(field: &str, text: &str, most: usize) -> Result<(), Refusal> {
    let letters = text.chars().count();
    if text.trim().is_empty() || letters > most || text.chars().any(char::is_control) {
        let why =
            format!("'{field}' has 1 to {most} characters, none of them a control character.");
        return Err(Refusal::invalid(field, why));
    }
    Ok(())
}

/// The rules of a layer.
pub(super) fn policy(policy: &Policy) -> Result<(), Refusal> {
    policy.check().map_err(|why| inside("policy", &why))
}

/// What another's check says, under the field that it was asked about.
pub(super) fn inside(field: &str, why: &str) -> Refusal {
    let inner = why.split_once(':').map(|(inner, _)| inner);
    let plain =
        |inner: &&str| inner.bytes().all(|b| b.is_ascii_alphanumeric() || b"_[].".contains(&b));
    let param =
        inner.filter(plain).map_or_else(|| field.to_owned(), |inner| format!("{field}.{inner}"));
    Refusal::invalid(param, format!("{field}: {why}."))
}

/// A time zone's name.
pub(super) fn zone(field: &str, name: &str) -> Result<TimeZone, Refusal> {
    window::zone(name).map_err(|why| Refusal::invalid(field, format!("'{field}': {why}.")))
}

/// The caller's own notes.
pub(super) fn metadata(pairs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let fits = |(name, text): (&String, &String)| {
        (1..=METADATA_NAME_BYTES_MAX).contains(&name.len()) && text.len() <= METADATA_TEXT_BYTES_MAX
    };
    if pairs.len() > METADATA_MAX || !pairs.iter().all(fits) {
        let why = format!(
            "'metadata' has at most {METADATA_MAX} pairs, names of at most \
             {METADATA_NAME_BYTES_MAX} bytes and texts of at most {METADATA_TEXT_BYTES_MAX}."
        );
        return Err(Refusal::invalid("metadata", why));
    }
    Ok(())
}

/// How many grants there are; whether they may be given the caller judges.
pub(super) fn grants(grants: &[Grant]) -> Result<(), Refusal> {
    if grants.len() > GRANTS_MAX {
        let why = format!("'grants' has at most {GRANTS_MAX} entries.");
        return Err(Refusal::invalid("grants", why));
    }
    Ok(())
}

/// A time to come.
pub(super) fn future(field: &str, at: Millis, now: Millis) -> Result<(), Refusal> {
    if at <= now || at >= TIME_MAX {
        let why =
            format!("'{field}' is a time to come, in milliseconds since 1970 ({now} is now).");
        return Err(Refusal::invalid(field, why));
    }
    Ok(())
}

/// An amount that is written either as whole nano-dollars or as dollars in a text. A JSON number
/// with a point has lost digits before anybody reads it: it is no amount.
pub(super) fn amount(
    at: &str,
    nano_usd: Option<&Value>,
    usd: Option<&Value>,
) -> Result<Money, Refusal> {
    let wrong = |field: &str, why: &str| Err(Refusal::invalid(format!("{at}{field}"), why));
    match (nano_usd, usd) {
        (Some(nano), None) => match nano.as_i64().filter(|nano| *nano >= 0) {
            Some(nano) => Ok(Money(nano)),
            None => {
                let why = format!("'{at}nano_usd' is a whole number from 0 to {}.", i64::MAX);
                wrong("nano_usd", &why)
            }
        },
        (None, Some(Value::String(text))) => match text.parse() {
            Ok(money) => Ok(money),
            Err(error) => wrong("usd", &format!("'{at}usd': {error}.")),
        },
        (None, Some(_)) => {
            let why = format!("'{at}usd' is a text such as \"5.00\": a number would lose digits.");
            wrong("usd", &why)
        }
        (None, None) => wrong("usd", &format!("Say '{at}usd' or '{at}nano_usd'.")),
        (Some(_), Some(_)) => wrong("usd", &format!("Say '{at}usd' or '{at}nano_usd', not both.")),
    }
}

/// A time as milliseconds since 1970, as `2026-11-01T12:00:00Z`, or a day, which begins in a zone.
pub(super) fn time(text: &str, zone: &TimeZone) -> Option<Millis> {
    if let Ok(at) = text.parse::<Millis>() {
        return (0..TIME_MAX).contains(&at).then_some(at);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_millisecond());
    }
    let day: Date = text.parse().ok()?;
    Some(zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0)).compatible().ok()?.as_millisecond())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_exact_or_refused() {
        let check = |nano: Option<Value>, usd: Option<Value>, expect: Option<i64>| {
            let read = amount("", nano.as_ref(), usd.as_ref()).ok();
            assert_eq!(read, expect.map(Money), "{nano:?} {usd:?}");
        };
        check(Some(json!(5)), None, Some(5));
        check(Some(json!(0)), None, Some(0));
        check(Some(json!(i64::MAX)), None, Some(i64::MAX));
        check(Some(json!(-1)), None, None);
        check(Some(json!(u64::MAX)), None, None);
        check(Some(json!(5.0)), None, None);
        check(Some(json!("5")), None, None);
        check(None, Some(json!("5.00")), Some(5_000_000_000));
        check(None, Some(json!("0.000000001")), Some(1));
        check(None, Some(json!(5)), None);
        check(None, Some(json!("-5")), None);
        check(None, Some(json!("99999999999999")), None);
        check(Some(json!(1)), Some(json!("1")), None);
        check(None, None, None);
    }

    #[test]
    fn times_are_read() {
        let berlin = window::zone("Europe/Berlin").expect("a zone");
        for (text, expect) in [
            ("1762000000000", Some(1_762_000_000_000)),
            ("2026-11-01", Some(1_793_487_600_000)),
            ("2026-11-01T00:00:00Z", Some(1_793_491_200_000)),
            ("-1", None),
            ("yesterday", None),
            ("2026-13-01", None),
        ] {
            assert_eq!(time(text, &berlin), expect, "{text}");
        }
    }
}
