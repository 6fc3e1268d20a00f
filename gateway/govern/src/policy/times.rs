//! Times at which requests are taken. The clock on the wall counts: where clocks are set back, an
//! hour that is shown twice is meant twice.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Millis;
use crate::budget::window;

/// From one time of the day to another, on some days of the week.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Days, 1 (Monday) to 7 (Sunday), on which it begins; empty: all.
    #[serde(default)]
    pub days: Vec<u8>,
    /// `09:00`
    pub from: String,
    /// `18:00`; before `from` it means the next day. `24:00` is the end of the day.
    pub to: String,
    /// IANA name of the time zone.
    pub time_zone: String,
}

/// Minutes of a day.
const DAY: u16 = 24 * 60;

impl Hours {
    /// Whether a time lies in them. Hours whose times or zone cannot be read hold none.
    #[must_use]
    pub fn contains(&self, now: Millis) -> bool {
        let (Some((from, to)), Ok(zone)) = (self.stretch(), window::zone(&self.time_zone)) else {
            return false;
        };
        let Ok(now) = Timestamp::from_millisecond(now) else { return false };
        let wall = zone.to_datetime(now);
        let minute =
            u16::from(wall.hour().unsigned_abs()) * 60 + u16::from(wall.minute().unsigned_abs());
        let today = wall.weekday().to_monday_one_offset().unsigned_abs();
        let yesterday = if today == 1 { 7 } else { today - 1 };
        let on = |day: u8| self.days.is_empty() || self.days.contains(&day);
        if from < to {
            return on(today) && (from..to).contains(&minute);
        }
        (on(today) && minute >= from) || (on(yesterday) && minute < to)
    }

    /// What is wrong with them, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        if let Some(day) = self.days.iter().find(|day| !(1..=7).contains(*day)) {
            return Err(format!("days: {day} is no day; write 1 (Monday) to 7 (Sunday)"));
        }
        for (field, text, last) in [("from", &self.from, DAY - 1), ("to", &self.to, DAY)] {
            if minutes(text).is_none_or(|minute| minute > last) {
                let text: String = text.chars().take(16).collect();
                return Err(format!("{field}: `{text}` is no time of the day; write 09:00"));
            }
        }
        if self.stretch().is_none() {
            let same = "from and to are the same; write 00:00 and 24:00 for a whole day";
            return Err(same.to_owned());
        }
        window::zone(&self.time_zone).map(|_| ()).map_err(|why| format!("time_zone: {why}"))
    }

    /// First minute of the day, and the first one after; that is below the first where it belongs
    /// to the next day.
    fn stretch(&self) -> Option<(u16, u16)> {
        let from = minutes(&self.from).filter(|&from| from < DAY)?;
        let to = minutes(&self.to)?;
        (from != to).then_some((from, to))
    }
}

/// `Mon, Tue 09:00 to 18:00 Europe/Berlin`
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let named = |day: &u8| NAMES.get(usize::from(*day).wrapping_sub(1)).copied();
        let days: Vec<&str> = self.days.iter().filter_map(named).collect();
        let gap = if days.is_empty() { "" } else { " " };
        let Self { from, to, time_zone, .. } = self;
        write!(f, "{}{gap}{from} to {to} {time_zone}", days.join(", "))
    }
}

/// Minutes since midnight of `HH:MM`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |two: &str| {
        let digits = two.len() == 2 && two.bytes().all(|b| b.is_ascii_digit());
        two.parse::<u16>().ok().filter(|_| digits)
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|&minute| minute < 60)?);
    Some(hour * 60 + minute).filter(|&all| all <= DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(days: &[u8], from: &str, to: &str, zone: &str) -> Hours {
        let (from, to, time_zone) = (from.to_owned(), to.to_owned(), zone.to_owned());
        Hours { days: days.to_vec(), from, to, time_zone }
    }

    #[track_caller]
    fn check(hours: &Hours, inside: &[&str], outside: &[&str]) {
        assert_eq!(hours.check(), Ok(()));
        let millis = |text: &str| text.parse::<Timestamp>().expect(text).as_millisecond();
        for text in inside {
            assert!(hours.contains(millis(text)), "{text} in {hours}");
        }
        for text in outside {
            assert!(!hours.contains(millis(text)), "{text} not in {hours}");
        }
    }

    #[test]
    fn hours_of_working_days() {
        // 2026-03-06 is a Friday; Berlin is one hour ahead of UTC.
        let work = hours(&[1, 2, 3, 4, 5], "09:00", "18:00", "Europe/Berlin");
        check(
            &work,
            &["2026-03-06T08:00:00Z", "2026-03-06T16:59:59.999Z"],
            &["2026-03-06T07:59:59.999Z", "2026-03-06T17:00:00Z", "2026-03-07T12:00:00Z"],
        );
        let all = hours(&[6], "00:00", "24:00", "UTC");
        check(
            &all,
            &["2026-03-07T00:00:00Z", "2026-03-07T23:59:59.999Z"],
            &["2026-03-06T23:59:59.999Z", "2026-03-08T00:00:00Z"],
        );
    }

    #[test]
    fn over_midnight_the_day_of_the_beginning_counts() {
        // Friday and Sunday nights: Monday morning belongs to Sunday.
        let nights = hours(&[5, 7], "22:00", "06:00", "UTC");
        check(
            &nights,
            &[
                "2026-03-06T22:00:00Z",
                "2026-03-07T05:59:00Z",
                "2026-03-08T23:00:00Z",
                "2026-03-09T05:59:59Z",
            ],
            &[
                "2026-03-06T05:00:00Z",
                "2026-03-06T21:59:59Z",
                "2026-03-07T06:00:00Z",
                "2026-03-07T23:00:00Z",
                "2026-03-08T05:00:00Z",
                "2026-03-09T06:00:00Z",
            ],
        );
    }

    #[test]
    fn clocks_that_are_set_forward_and_back() {
        // Berlin, 2026: from 02:00 to 03:00 on 29 March (01:00 UTC), back on 25 October (01:00
        // UTC). New York: forward on 8 March (07:00 UTC), back on 1 November (06:00 UTC).
        let early = hours(&[7], "02:30", "04:00", "Europe/Berlin");
        check(
            &early,
            &["2026-03-29T01:00:00Z", "2026-03-29T01:59:59Z"],
            &["2026-03-29T00:59:59Z", "2026-03-29T02:00:00Z"],
        );
        check(
            &early,
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:59:59Z"],
            &["2026-10-25T00:29:59Z", "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z"],
        );
        let skipped = hours(&[], "02:00", "03:00", "America/New_York");
        check(
            &skipped,
            &["2026-03-07T07:30:00Z", "2026-03-09T06:30:00Z"],
            &["2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"],
        );
        let twice = hours(&[7], "01:00", "02:00", "America/New_York");
        check(
            &twice,
            &["2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:59:59Z"],
            &["2026-11-01T04:59:59Z", "2026-11-01T07:00:00Z"],
        );
        let night = hours(&[6], "22:00", "06:00", "Europe/Berlin");
        check(
            &night,
            &["2026-03-28T21:00:00Z", "2026-03-29T03:59:59Z", "2026-10-25T04:59:59Z"],
            &["2026-03-29T04:00:00Z", "2026-10-25T05:00:00Z"],
        );
    }

    #[test]
    fn wrong_hours_are_named_and_hold_nothing() {
        for (wrong, named) in [
            (hours(&[0], "09:00", "18:00", "UTC"), "days"),
            (hours(&[8], "09:00", "18:00", "UTC"), "days"),
            (hours(&[], "24:00", "18:00", "UTC"), "from"),
            (hours(&[], "9:00", "18:00", "UTC"), "from"),
            (hours(&[], "09:60", "18:00", "UTC"), "from"),
            (hours(&[], "+9:00", "18:00", "UTC"), "from"),
            (hours(&[], "09:00", "24:01", "UTC"), "to"),
            (hours(&[], "09:00", "", "UTC"), "to"),
            (hours(&[], "09:00", "18:00:00", "UTC"), "to"),
            (hours(&[], "09:00", "09:00", "UTC"), "same"),
            (hours(&[], "09:00", "18:00", "Europe/Atlantis"), "time_zone"),
            (hours(&[], "09:00", "18:00", ""), "time_zone"),
        ] {
            let said = wrong.check().expect_err(named);
            assert!(said.contains(named), "{said}");
            if named != "days" {
                assert!((0..24).all(|hour| !wrong.contains(hour * 3_600_000)), "{wrong}");
            }
        }
    }
}
