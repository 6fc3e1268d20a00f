//! Where a page ended. Lines stand by time, and by name and number where times are the same; a
//! cursor holds all three, so that pages neither repeat nor miss a line while new ones come.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ReportError;
use crate::Millis;

/// The last line of a page. Callers see a text that means nothing to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub(super) time: Millis,
    pub(super) name: String,
    pub(super) number: i64,
}

impl Cursor {
    /// A line's place.
    pub(crate) fn of(time: Millis, name: &str, number: i64) -> Self {
        Self { time, name: name.to_owned(), number }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = format!("{} {} {}", self.time, self.number, self.name);
        f.write_str(&URL_SAFE_NO_PAD.encode(plain))
    }
}

impl FromStr for Cursor {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let read = || {
            let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let mut parts = plain.splitn(3, ' ');
            let time = parts.next()?.parse().ok()?;
            let number = parts.next()?.parse().ok()?;
            // PostgreSQL takes no zero bytes.
            let name = parts.next().filter(|name| !name.contains('\0'))?.to_owned();
            Some(Self { time, name, number })
        };
        read().ok_or(ReportError::Cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_were_written() {
        for name in ["op_1", "", "two words ü"] {
            let cursor = Cursor { time: -5, name: name.to_owned(), number: i64::MAX };
            assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
        }
        for wrong in ["", "x", "1 2 op", "MSAy", "é"] {
            assert!(matches!(wrong.parse::<Cursor>(), Err(ReportError::Cursor)), "{wrong}");
        }
    }
}
