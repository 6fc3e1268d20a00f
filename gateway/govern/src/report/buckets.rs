//! Stretches of the calendar that a report is cut into.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{ROWS_MAX, ReportError};
use crate::Millis;
use crate::budget::window::{Period, Window};

/// How long a stretch is; it begins where the calendar of a time zone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// From one full hour to the next. Where clocks are set back an hour, both are told apart.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// A month of the calendar.
    Month,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The stretch that a time lies in: its first millisecond, and the first one after it.
    pub(super) fn around(self, now: Millis, zone: &TimeZone) -> (Millis, Millis) {
        let period = match self {
            Self::Hour => return hour(now, zone),
            Self::Day => Period::Day,
            Self::Week => Period::Week,
            Self::Month => Period::Month,
        };
        let Window { start, end } = Window::of(period, now, zone);
        (start, end.unwrap_or(Millis::MAX))
    }
}

/// A bucket that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a bucket; write hour, day, week or month")]
pub struct NotBucket(String);

impl FromStr for Bucket {
    type Err = NotBucket;

    fn from_str(text: &str) -> Result<Self, NotBucket> {
        let known = Self::ALL.into_iter().find(|bucket| bucket.name() == text);
        known.ok_or_else(|| NotBucket(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A stretch, and the part of it that lies in the report's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where the calendar begins it.
    pub(super) start: Millis,
    /// The part's first millisecond.
    pub(super) from: Millis,
    /// The first millisecond after the part.
    pub(super) to: Millis,
}

/// All stretches of a range, in order.
pub(super) fn stretches(
    bucket: Bucket,
    from: Millis,
    to: Millis,
    zone: &TimeZone,
) -> Result<Vec<Stretch>, ReportError> {
    let mut all = Vec::new();
    let mut at = from;
    while at < to {
        if all.len() == ROWS_MAX {
            return Err(ReportError::Rows);
        }
        let (start, end) = bucket.around(at, zone);
        all.push(Stretch { start, from: at, to: end.min(to) });
        at = end;
    }
    Ok(all)
}

const HOUR_MS: i64 = 60 * 60 * 1000;

/// From one full hour of the clock to the next. Where clocks are set by a part of an hour, that
/// begins an hour too, a shorter one.
fn hour(now: Millis, zone: &TimeZone) -> (Millis, Millis) {
    let since_full = |at: Millis| (at + offset_ms(at, zone)).rem_euclid(HOUR_MS);
    let mut start = now - since_full(now);
    if since_full(start) != 0 {
        // Within the calendar: the offset just before was another one.
        let set = Timestamp::from_millisecond(now + 1).ok();
        let set = set.and_then(|at| zone.preceding(at).next());
        start = set.map_or(start, |set| set.timestamp().as_millisecond());
    }
    (start, start + HOUR_MS - since_full(start))
}

/// Reports lie within the calendar, so there is always one.
fn offset_ms(at: Millis, zone: &TimeZone) -> i64 {
    let seconds = Timestamp::from_millisecond(at).map_or(0, |at| zone.to_offset(at).seconds());
    i64::from(seconds) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::window::zone;
    use crate::store::batch::QUARTER_MS;

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().expect(text).as_millisecond()
    }

    #[test]
    fn hours_follow_the_clock() {
        let check = |zone_name: &str, from: &str, to: &str, expect: &[&str]| {
            let zone = zone(zone_name).expect("known");
            let all = stretches(Bucket::Hour, at(from), at(to), &zone).expect("few");
            let starts: Vec<Millis> = all.iter().map(|hour| hour.start).collect();
            let expect: Vec<Millis> = expect.iter().map(|text| at(text)).collect();
            assert_eq!(starts, expect, "{zone_name} {from}");
        };
        check(
            "Europe/Berlin",
            "2026-10-25T00:15:00Z",
            "2026-10-25T02:30:00Z",
            &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
        );
        check(
            "Asia/Kathmandu",
            "2026-06-01T00:00:00Z",
            "2026-06-01T01:30:00Z",
            &["2026-05-31T23:15:00Z", "2026-06-01T00:15:00Z", "2026-06-01T01:15:00Z"],
        );
        // Set back from 2:00 to 1:30, and forward from 2:00 to 2:30.
        check(
            "Australia/Lord_Howe",
            "2026-04-04T14:00:00Z",
            "2026-04-04T16:00:00Z",
            &["2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"],
        );
        check(
            "Australia/Lord_Howe",
            "2026-10-03T15:00:00Z",
            "2026-10-03T16:30:00Z",
            &["2026-10-03T14:30:00Z", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"],
        );
    }

    /// Every quarter of two years lies in one stretch, the same wherever the range begins.
    #[test]
    fn stretches_are_whole() {
        let zones = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"];
        for name in zones {
            let zone = zone(name).expect("known");
            for bucket in Bucket::ALL {
                let from = at("2025-12-31T10:00:00Z");
                let to = from + 8000 * HOUR_MS;
                let all = stretches(bucket, from, to, &zone).expect("few");
                assert_eq!((all[0].from, all[all.len() - 1].to), (from, to));
                for pair in all.windows(2) {
                    assert_eq!((pair[0].to, pair[1].from), (pair[1].start, pair[1].start));
                }
                for part in &all {
                    assert!(part.start <= part.from && part.from < part.to, "{name} {part:?}");
                    let last = part.to - QUARTER_MS;
                    assert_eq!(bucket.around(last, &zone).0, part.start, "{name} {bucket}");
                }
            }
        }
    }
}
