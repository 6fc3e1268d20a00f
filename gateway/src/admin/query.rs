//! The part of an address behind the question mark. What a route does not honour it refuses.

use axum::extract::Query as Pairs;
use axum::http::Uri;
use jiff::tz::TimeZone;

use govern::Millis;

use super::check;
use super::refusal::Refusal;

/// Things on one page of a list.
const PAGE: std::ops::RangeInclusive<u32> = 1..=200;
const PAGE_USUAL: u32 = 50;

/// A parameter: its name, and what it means.
pub(super) type Known = (&'static str, &'static str);

/// Parameters, each once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them.
    ///
    /// # Errors
    /// One is not known, or is there twice.
    pub(super) fn read(uri: &Uri, known: &[Known]) -> Result<Self, Refusal> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Refusal::invalid("query", error.body_text()))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            let short: String = name.chars().take(64).collect();
            if !known.iter().any(|(one, _)| one == name) {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let why = match names.as_slice() {
                    [] => format!("Unknown parameter '{short}': this route takes none."),
                    _ => format!("Unknown parameter '{short}': known are {}.", names.join(", ")),
                };
                return Err(Refusal::invalid(short, why));
            }
            if pairs[..at].iter().any(|(one, _)| one == name) {
                return Err(Refusal::invalid(name, format!("'{name}' is there twice.")));
            }
        }
        Ok(Self(pairs))
    }

    /// One of them.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// Things on a page.
    pub(super) fn limit(&self) -> Result<u32, Refusal> {
        let Some(asked) = self.get("limit") else { return Ok(PAGE_USUAL) };
        asked.parse().ok().filter(|limit| PAGE.contains(limit)).ok_or_else(|| {
            let why = format!("'limit' is from {} to {}.", PAGE.start(), PAGE.end());
            Refusal::invalid("limit", why)
        })
    }

    /// A time, or a day, which begins in a zone.
    pub(super) fn time(&self, name: &str, zone: &TimeZone) -> Result<Option<Millis>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        check::time(text, zone).map(Some).ok_or_else(|| {
            let why = format!(
                "'{name}' is a day such as 2026-11-01, a time such as 2026-11-01T12:00:00Z, or \
                 milliseconds since 1970."
            );
            Refusal::invalid(name, why)
        })
    }
}
