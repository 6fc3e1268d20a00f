//! When a provider wants to be asked again, in whatever words it says so: `Retry-After` in seconds
//! or as a date, `retry-after-ms`, Google's `retryDelay`, and the times at which limits are reset.
//! Pure: the time comes in.

use std::time::Duration;

use hyper::header::{DATE, HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

/// Longest wait that is believed.
const ASKED_MAX: u64 = 3_600;

/// Longest wait that is made of a hint: it says when a limit is whole again, and a part of it is
/// enough.
const HINT_MAX: u64 = 60;

/// Seconds that a provider asks for.
pub(super) fn asked(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<u64> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let ms = text("retry-after-ms").and_then(number).map(|ms| ms / 1000);
    let wait = ms
        .or_else(|| {
            text(RETRY_AFTER.as_str()).and_then(|text| number(text).or(date(text, headers, now)))
        })
        .or_else(|| google(body))?;
    Some(whole(wait).min(ASKED_MAX))
}

/// Seconds until a limit is reset, where a provider asks for nothing: the last of those that are
/// used up; where none says so, the first of all.
pub(super) fn hinted(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let (mut used_up, mut any) = (None, None);
    for (name, value) in headers {
        let Some(remaining) = remaining(name.as_str()) else { continue };
        let Some(wait) = value.to_str().ok().and_then(|text| until(text.trim(), now)) else {
            continue;
        };
        any = Some(any.map_or(wait, |least: Duration| least.min(wait)));
        if headers.get(remaining).is_some_and(|left| left.as_bytes() == b"0") {
            used_up = used_up.max(Some(wait));
        }
    }
    // A limit that is reset now was another one's reason: a moment in any case.
    used_up.or(any).map(|wait| whole(wait).clamp(1, HINT_MAX))
}

/// The header beside one that says when a limit is reset: how much of it is left.
fn remaining(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("anthropic-ratelimit-") {
        let what = rest.strip_suffix("-reset")?;
        return Some(format!("anthropic-ratelimit-{what}-remaining"));
    }
    let rest = name.strip_prefix("x-ratelimit-reset")?;
    Some(format!("x-ratelimit-remaining{rest}"))
}

/// A wait as providers write it: seconds, a time since 1970 in seconds or milliseconds, a date of
/// RFC 3339, or `6m0s`.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    if let Some(wait) = number(text) {
        let at = match wait.as_secs() {
            0..1_000_000_000 => return Some(wait),
            1_000_000_000..100_000_000_000 => wait,
            _ => wait / 1000,
        };
        let now = Duration::from_millis(u64::try_from(now.as_millisecond()).ok()?);
        return Some(at.saturating_sub(now));
    }
    match text.parse::<Timestamp>() {
        Ok(at) => Some(between(now, at)),
        Err(_) => span(text),
    }
}

/// What Google says in its error: `{"@type": "..RetryInfo", "retryDelay": "36s"}`.
fn google(body: &[u8]) -> Option<Duration> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let value = value.get(0).unwrap_or(&value);
    let details = value.get("error")?.get("details")?.as_array()?;
    details.iter().find_map(|detail| span(detail.get("retryDelay")?.as_str()?))
}

fn number(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// A date as HTTP writes it. The provider's own clock counts, where it tells the time.
fn date(text: &str, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let parse = |text: &str| rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok();
    let theirs = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse);
    Some(between(theirs.unwrap_or(now), parse(text)?))
}

/// Nothing, if it is over.
fn between(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// `1h2m3.5s`, `120ms`: numbers, each with its unit.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..unit].parse().ok()?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        sum += number
            * match &rest[..end] {
                "d" => 86_400.0,
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(sum).ok().filter(|_| !text.is_empty())
}

fn whole(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn what_is_asked_for() {
        for (lines, body, expect) in [
            (&[("retry-after", "7")][..], "", Some(7)),
            (&[("retry-after", "0")], "", Some(0)),
            (&[("retry-after", "1.2")], "", Some(2)),
            (&[("retry-after", "99999999")], "", Some(ASKED_MAX)),
            (&[("retry-after", "1e300")], "", None),
            (&[("retry-after", "-1")], "", None),
            (&[("retry-after", "inf")], "", None),
            (&[("retry-after", "soon")], "", None),
            (&[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")], "", Some(30)),
            (&[("retry-after", "Sat, 21 Nov 2026 11:00:30 GMT")], "", Some(0)),
            // A clock that is wrong by an hour, and consistent.
            (
                &[
                    ("date", "Sat, 21 Nov 2026 13:00:00 GMT"),
                    ("retry-after", "Sat, 21 Nov 2026 13:00:05 GMT"),
                ],
                "",
                Some(5),
            ),
            (&[("retry-after-ms", "1500"), ("retry-after", "20")], "", Some(2)),
            (&[("retry-after-ms", "much"), ("retry-after", "20")], "", Some(20)),
            (&[], r#"{"error":{"details":[{"x":1},{"retryDelay":"36.5s"}]}}"#, Some(37)),
            (&[], r#"[{"error":{"details":[{"retryDelay":"2s"}]}}]"#, Some(2)),
            (&[], "no JSON", None),
        ] {
            assert_eq!(asked(&headers(lines), body.as_bytes(), now()), expect, "{lines:?} {body}");
        }
    }

    #[test]
    fn what_is_hinted_at() {
        for (lines, expect) in [
            (&[][..], None),
            (&[("x-ratelimit-remaining-tokens", "0")], None),
            (&[("x-ratelimit-reset-tokens", "120ms")], Some(1)),
            (&[("x-ratelimit-reset-tokens", "0s")], Some(1)),
            (&[("x-ratelimit-reset-tokens", "6m0s")], Some(HINT_MAX)),
            (&[("x-ratelimit-reset", "12")], Some(12)),
            (&[("x-ratelimit-reset", "1795262405")], Some(5)),
            (&[("x-ratelimit-reset", "1795262409500")], Some(10)),
            (&[("x-ratelimit-reset", "3.x")], None),
            (
                // The requests are used up; the tokens, which are whole again sooner, are not.
                &[
                    ("x-ratelimit-reset-requests", "17s"),
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-tokens", "2.5s"),
                    ("x-ratelimit-remaining-tokens", "900"),
                ],
                Some(17),
            ),
            (
                &[("x-ratelimit-reset-requests", "17s"), ("x-ratelimit-reset-tokens", "2.5s")],
                Some(3),
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-reset", "2026-11-21T12:00:20Z"),
                    ("anthropic-ratelimit-requests-remaining", "40"),
                    ("anthropic-ratelimit-input-tokens-reset", "2026-11-21T12:00:09Z"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ],
                Some(9),
            ),
            (&[("anthropic-ratelimit-requests-reset", "2026-11-21T11:00:00Z")], Some(1)),
        ] {
            assert_eq!(hinted(&headers(lines), now()), expect, "{lines:?}");
        }
    }
}
