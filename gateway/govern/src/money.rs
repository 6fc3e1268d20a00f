//! Amounts of money: whole nano-dollars. No float touches a bill.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nano-dollars; up to about 9.2 thousand million dollars.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(pub i64);

/// Nano-dollars in a dollar.
const DOLLAR: i64 = 1_000_000_000;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than there is.
    pub const MAX: Self = Self(i64::MAX);

    /// Whole dollars.
    #[must_use]
    pub const fn dollars(dollars: i64) -> Self {
        Self(dollars.saturating_mul(DOLLAR))
    }

    /// The sum, held at the type's bounds: an amount beyond them fits no budget either way.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Plain decimals, as programs read them: at least two, no more than needed. Twice in the head
    /// of each answer, so without a formatter.
    #[must_use]
    pub fn decimals(self) -> String {
        let (mut nano, dollar) = (self.0.unsigned_abs(), DOLLAR.unsigned_abs());
        let mut whole = itoa::Buffer::new();
        let whole = whole.format(nano / dollar);
        let mut part = [b'0'; 9];
        for digit in part.iter_mut().rev() {
            *digit += (nano % 10) as u8;
            nano /= 10;
        }
        let needed = part.iter().rposition(|digit| *digit != b'0').map_or(2, |last| last + 1);
        let mut text = String::with_capacity(32);
        if self.0 < 0 {
            text.push('-');
        }
        text.push_str(whole);
        text.push('.');
        text.extend(part[..needed.max(2)].iter().copied().map(char::from));
        text
    }

    /// The difference, held at the type's bounds.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// An amount that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount in dollars such as 5, 0.25 or 12.50")]
pub struct NotMoney(String);

/// Dollars with up to nine decimals, with or without `$`. Negative amounts are none.
impl FromStr for Money {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let wrong = || NotMoney(text.chars().take(32).collect());
        let plain = text.trim();
        let plain = plain.strip_prefix('$').unwrap_or(plain);
        let (whole, part) = plain.split_once('.').unwrap_or((plain, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || part.len() > 9 || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let part: i64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
        let nano = whole.checked_mul(DOLLAR).and_then(|nano| nano.checked_add(part));
        nano.map(Self).ok_or_else(wrong)
    }
}

/// Dollars, at least two decimals, no more than needed.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.decimals();
        match text.strip_prefix('-') {
            Some(amount) => write!(f, "-${amount}"),
            None => write!(f, "${text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        let check = |text: &str, nano: i64, shown: &str| {
            let read: Money = text.parse().expect(text);
            assert_eq!(read, Money(nano), "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(read.decimals(), shown.replace('$', ""));
        };
        check("5", 5 * DOLLAR, "$5.00");
        check("$0.25", DOLLAR / 4, "$0.25");
        check("0.000000001", 1, "$0.000000001");
        check("9223372036.854775807", i64::MAX, "$9223372036.854775807");
        assert_eq!(Money(-1_500_000_000).to_string(), "-$1.50");
        let wrong =
            ["", "$", "-1", "1.0000000001", "1e3", "9223372036.854775808", "１", "0x1", ".5"];
        for text in wrong {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }
}
