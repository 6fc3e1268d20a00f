//! Stretches of time that a limit counts in. A window is a function of time alone: nothing has to
//! run at midnight for a new one to begin, so nothing can forget to.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Millis;

/// How long a stretch is and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// A month of the calendar.
    Month,
    /// Since ever.
    Total,
}

/// One stretch. Holds until its end: a caller may keep it and ask [`Window::contains`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Its first millisecond.
    pub start: Millis,
    /// The first millisecond after it; `None`: it does not end.
    pub end: Option<Millis>,
}

impl Window {
    /// The stretch that a time lies in. [`Period::Total`] begins at `i64::MIN`, so that an entry
    /// counts whatever its gateway's clock said; so do times before the calendar's first year
    /// (-9999), and times behind its last (9999) have no end.
    #[must_use]
    pub fn of(period: Period, now: Millis, zone: &TimeZone) -> Self {
        let always = Self { start: Millis::MIN, end: None };
        let Some(step) = period.step() else { return always };
        let Some(first) = period.first_day(now, zone) else { return always };
        let mut start = Some(first);
        let mut next = first.checked_add(step).ok();
        // Clocks that are set back over midnight show a day's last minutes again after the next
        // day has begun. They belong to the day that has begun: a window begins once.
        if let Some(begun) = next.filter(|&day| begins(day, zone).is_some_and(|at| at <= now)) {
            start = next;
            next = begun.checked_add(step).ok();
        } else if begins(first, zone).is_some_and(|at| at > now) {
            // The other way round: clocks set forward over midnight skip a day's beginning.
            next = start;
            start = first.checked_sub(step).ok();
        }
        Self {
            start: start.and_then(|day| begins(day, zone)).unwrap_or(Millis::MIN),
            end: next.and_then(|day| begins(day, zone)),
        }
    }

    /// Whether a time lies in it.
    #[must_use]
    pub fn contains(&self, now: Millis) -> bool {
        self.start <= now && self.end.is_none_or(|end| now < end)
    }
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Total];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// The first millisecond of the stretch that a time lies in.
    #[must_use]
    pub fn start(self, now: Millis, zone: &TimeZone) -> Millis {
        Window::of(self, now, zone).start
    }

    /// The first millisecond after the stretch that a time lies in; `None`: it does not end.
    #[must_use]
    pub fn end(self, now: Millis, zone: &TimeZone) -> Option<Millis> {
        Window::of(self, now, zone).end
    }

    /// The day on which the stretch begins that the calendar shows at a time.
    fn first_day(self, now: Millis, zone: &TimeZone) -> Option<Date> {
        let today = zone.to_datetime(Timestamp::from_millisecond(now).ok()?).date();
        match self {
            Self::Day => Some(today),
            Self::Week => {
                let since_monday = today.weekday().to_monday_zero_offset();
                today.checked_sub(since_monday.days()).ok()
            }
            Self::Month => Some(today.first_of_month()),
            Self::Total => None,
        }
    }

    fn step(self) -> Option<Span> {
        match self {
            Self::Day => Some(1.day()),
            Self::Week => Some(1.week()),
            Self::Month => Some(1.month()),
            Self::Total => None,
        }
    }
}

/// When a day begins: at midnight, at the first one where clocks show two, and where they show
/// none as much later as they are set forward.
fn begins(day: Date, zone: &TimeZone) -> Option<Millis> {
    let midnight = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0)).compatible().ok()?;
    Some(midnight.as_millisecond())
}

/// The time zone of an IANA name. Windows are asked for often: look it up once.
///
/// # Errors
/// There is no such zone.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    match TimeZone::get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => {
            let name: String = name.chars().take(64).collect();
            Err(format!("`{name}` is no time zone; write a name such as Europe/Berlin or UTC"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Millis {
        text.parse::<Timestamp>().expect(text).as_millisecond()
    }

    #[track_caller]
    fn check(zone_name: &str, period: Period, now: &str, start: &str, end: &str) {
        let zone = zone(zone_name).expect(zone_name);
        let window = Window::of(period, millis(now), &zone);
        let shown = |at: Millis| Timestamp::from_millisecond(at).expect("a time").to_string();
        let found = (shown(window.start), window.end.map(shown).expect("an end"));
        assert_eq!(found, (start.to_owned(), end.to_owned()), "{zone_name} {period:?} {now}");
        assert!(window.contains(millis(now)));
    }

    #[test]
    fn days_weeks_and_months_of_plain_zones() {
        use Period::{Day, Month, Week};
        let at = "2028-02-29T23:59:59.999Z";
        check("UTC", Day, at, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z");
        check("UTC", Month, at, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check("UTC", Week, at, "2028-02-28T00:00:00Z", "2028-03-06T00:00:00Z");
        // A Thursday: its week goes over the end of the year.
        let at = "2026-12-31T18:14:59Z";
        check("UTC", Week, at, "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z");
        // 5:45 ahead: one second before midnight, and midnight.
        let kathmandu = "Asia/Kathmandu";
        check(kathmandu, Day, at, "2026-12-30T18:15:00Z", "2026-12-31T18:15:00Z");
        check(kathmandu, Month, at, "2026-11-30T18:15:00Z", "2026-12-31T18:15:00Z");
        let next = "2026-12-31T18:15:00Z";
        check(kathmandu, Month, next, "2026-12-31T18:15:00Z", "2027-01-31T18:15:00Z");
        check("UTC", Day, "1969-12-31T12:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z");
    }

    #[test]
    fn days_on_which_clocks_are_set() {
        use Period::{Day, Month, Week};
        let berlin = "Europe/Berlin";
        let at = "2026-03-29T12:00:00Z";
        check(berlin, Day, at, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(berlin, Month, at, "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
        check(berlin, Week, at, "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z");
        let at = "2026-10-25T12:00:00Z";
        check(berlin, Day, at, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        let new_york = "America/New_York";
        let at = "2026-11-01T12:00:00Z";
        check(new_york, Day, at, "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // No midnight: clocks went from 24:00 to 01:00.
        let at = "2015-10-18T12:00:00Z";
        check("America/Sao_Paulo", Day, at, "2015-10-18T03:00:00Z", "2015-10-19T02:00:00Z");
        // Two midnights: clocks went from 01:00 back to 00:00.
        let at = "2026-11-01T05:30:00Z";
        check("America/Havana", Day, at, "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // Clocks went from 00:01 back to 23:01: the day had begun, and begins once.
        let st_johns = "America/St_Johns";
        let begun = "2006-10-29T02:30:00Z";
        for at in [begun, "2006-10-29T02:30:59Z", "2006-10-29T02:31:00Z", "2006-10-29T03:30:00Z"] {
            check(st_johns, Day, at, begun, "2006-10-30T03:30:00Z");
        }
        // Samoa had no 30 December 2011.
        let at = "2011-12-30T12:00:00Z";
        check("Pacific/Apia", Day, at, "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn the_ends_of_the_calendar() {
        let utc = zone("UTC").expect("UTC");
        for now in [Millis::MIN, -1, 0, Millis::MAX] {
            let total = Window::of(Period::Total, now, &utc);
            assert_eq!(total, Window { start: Millis::MIN, end: None });
        }
        let edges = [Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond()];
        let beyond = [Millis::MIN, Millis::MAX];
        for period in Period::ALL {
            for now in edges.into_iter().chain(beyond) {
                assert!(Window::of(period, now, &utc).contains(now), "{period:?} {now}");
            }
        }
    }

    #[test]
    fn unknown_zones_are_named() {
        for wrong in ["", "Europe/Atlantis", "Etc/Unknown", "+01:00", "CET-1CEST"] {
            assert!(zone(wrong).is_err_and(|said| said.contains(wrong)), "{wrong}");
        }
        assert!(zone("Europe/Berlin").is_ok());
    }
}
