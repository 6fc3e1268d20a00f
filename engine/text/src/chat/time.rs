//! `strftime_now(format)`: the date that some templates write into the system prompt.
//!
//! The time is given by the caller, so that a rendering can be repeated exactly. Names are
//! English, as in the C locale. Directives: Python's `datetime.strftime`.

use std::fmt::Write as _;

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAY_SECONDS: i64 = 86_400;

struct Moment {
    year: i64,
    /// 0 to 11.
    month: usize,
    /// 1 to 31.
    day: i64,
    /// 0 is Sunday.
    weekday: i64,
    /// 1 to 366.
    year_day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    /// Walks the Gregorian calendar; the range is cut to years that `strftime` can print.
    fn new(seconds: i64) -> Moment {
        // 0001-01-01 and 9999-12-31, as in Python's datetime.
        let seconds = seconds.clamp(-62_135_596_800, 253_402_300_799);
        let (days, time) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
        // Days since 0001-01-01, then whole cycles of 400, 100, 4 and 1 years.
        let mut rest = days + 719_162;
        let mut year = 1 + 400 * (rest / 146_097);
        rest %= 146_097;
        let centuries = (rest / 36_524).min(3);
        rest -= centuries * 36_524;
        let fours = rest / 1_461;
        rest -= fours * 1_461;
        let ones = (rest / 365).min(3);
        rest -= ones * 365;
        year += 100 * centuries + 4 * fours + ones;
        let year_day = rest + 1;
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let february = if leap { 29 } else { 28 };
        let mut month = 0;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if rest < length {
                break;
            }
            rest -= length;
            month += 1;
        }
        Moment {
            year,
            month,
            day: rest + 1,
            weekday: (days + 4).rem_euclid(7),
            year_day,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    fn hour12(&self) -> i64 {
        (self.hour + 11) % 12 + 1
    }
}

/// Writes a moment, given as seconds since 1970, by a format.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    let moment = Moment::new(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next().unwrap_or('%');
        let plain = directive == '-';
        if plain {
            directive = chars.next().unwrap_or('-');
        }
        if !write_directive(&moment, directive, plain, seconds, &mut out)? {
            let reason = format!("strftime_now: %{directive} is not supported");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
    }
    Ok(out)
}

/// False for a directive that is not known. `plain` leaves out the padding zeros (`%-d`).
fn write_directive(
    m: &Moment,
    directive: char,
    plain: bool,
    seconds: i64,
    out: &mut String,
) -> Result<bool, Error> {
    let mut number = |value: i64, width: usize| {
        let width = if plain { 0 } else { width };
        let _ = write!(out, "{value:0width$}");
    };
    match directive {
        'Y' => number(m.year, 0),
        'C' => number(m.year / 100, 2),
        'y' => number(m.year % 100, 2),
        'm' => number(m.month as i64 + 1, 2),
        'd' => number(m.day, 2),
        'j' => number(m.year_day, 3),
        'H' => number(m.hour, 2),
        'I' => number(m.hour12(), 2),
        'M' => number(m.minute, 2),
        'S' => number(m.second, 2),
        'f' => number(0, 6),
        'w' => number(m.weekday, 0),
        'u' => number((m.weekday + 6) % 7 + 1, 0),
        'U' => number((m.year_day + 6 - m.weekday) / 7, 2),
        'W' => number((m.year_day + 6 - (m.weekday + 6) % 7) / 7, 2),
        's' => number(seconds, 0),
        'e' => {
            let _ = write!(out, "{:>1$}", m.day, if plain { 0 } else { 2 });
        }
        'a' => out.push_str(&DAYS[m.weekday as usize][..3]),
        'A' => out.push_str(DAYS[m.weekday as usize]),
        'b' | 'h' => out.push_str(&MONTHS[m.month][..3]),
        'B' => out.push_str(MONTHS[m.month]),
        'p' => out.push_str(if m.hour < 12 { "AM" } else { "PM" }),
        'n' => out.push('\n'),
        't' => out.push('\t'),
        '%' => out.push('%'),
        // A moment without a time zone prints none, as in Python.
        'Z' | 'z' => {}
        'F' => out.push_str(&strftime("%Y-%m-%d", seconds)?),
        'T' | 'X' => out.push_str(&strftime("%H:%M:%S", seconds)?),
        'R' => out.push_str(&strftime("%H:%M", seconds)?),
        'r' => out.push_str(&strftime("%I:%M:%S %p", seconds)?),
        'D' | 'x' => out.push_str(&strftime("%m/%d/%y", seconds)?),
        'c' => out.push_str(&strftime("%a %b %e %H:%M:%S %Y", seconds)?),
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_as_python_writes_them() {
        let all = "%Y-%m-%d %H:%M:%S %j %a %A %b %B %p %I %-d %y %w %u %U %W %c|%x|%X|%%";
        let check = |seconds, expect: &str| assert_eq!(strftime(all, seconds).unwrap(), expect);
        check(
            0,
            "1970-01-01 00:00:00 001 Thu Thursday Jan January AM 12 1 70 4 4 00 00 \
             Thu Jan  1 00:00:00 1970|01/01/70|00:00:00|%",
        );
        check(
            1_709_211_599,
            "2024-02-29 12:59:59 060 Thu Thursday Feb February PM 12 29 24 4 4 08 09 \
             Thu Feb 29 12:59:59 2024|02/29/24|12:59:59|%",
        );
        check(
            4_102_444_799,
            "2099-12-31 23:59:59 365 Thu Thursday Dec December PM 11 31 99 4 4 52 52 \
             Thu Dec 31 23:59:59 2099|12/31/99|23:59:59|%",
        );
        assert!(strftime("%Q", 0).is_err());
        assert_eq!(strftime("%d %b %Y", i64::MAX).unwrap(), "31 Dec 9999");
    }
}
