//! Where a request counts on the server, and for how much: the names of its counters, and costs as
//! the script adds them.

use ring::digest::{Context, SHA256};

use super::RateRule;

/// Microseconds in a minute.
const MINUTE_US: u128 = 60_000_000;

/// No cost is higher: with the time of the next centuries it stays below 2^53, up to where the
/// script's numbers are whole. It is 35 years of a rate.
const COST_US_MAX: i64 = 1 << 50;

/// A share of a minute, as the script adds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Whole microseconds.
    pub(super) us: i64,
    /// And so many parts of one, of which a microsecond has as many as the rate says.
    pub(super) parts: i64,
    /// So many a minute; -1: any number.
    pub(super) rate: i64,
}

impl Cost {
    /// Of what nobody bounds.
    pub(super) const NONE: Self = Self { us: 0, parts: 0, rate: -1 };

    /// Of so many requests or tokens.
    pub(super) fn of(count: u64, rate: u32) -> Self {
        let (parts, each) = (u128::from(count) * MINUTE_US, u128::from(rate));
        let whole = parts.checked_div(each).and_then(|us| i64::try_from(us).ok());
        match whole.filter(|us| *us < COST_US_MAX) {
            Some(us) => {
                let parts = i64::try_from(parts % each).expect("less than a rate");
                Self { us, parts, rate: rate.into() }
            }
            None => Self { us: COST_US_MAX, parts: 0, rate: rate.into() },
        }
    }

    /// The same, given back.
    pub(super) fn back(self) -> Self {
        Self { us: -self.us, parts: -self.parts, rate: self.rate }
    }
}

/// The names of one rule's counters.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its buckets.
    pub(super) rates: String,
    /// Who runs.
    pub(super) running: String,
    pub(super) tokens_per_minute: Option<u32>,
    /// Whether it bounds how many run.
    pub(super) concurrent: bool,
}

/// The counters of all rules of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(pub(super) Vec<Place>);

impl Places {
    /// Names are hashes: of a fixed length, and telling nothing to whoever looks into the server.
    /// Those of an organisation have one tag, which keeps them together where a server is many.
    pub(super) fn of(organisation: &str, rules: &[RateRule<'_>]) -> Self {
        let tag = hash(&[organisation]);
        let place = |rule: &RateRule<'_>| {
            // No pattern of models is empty.
            let model = rule.rates.model.as_deref().unwrap_or_default();
            let own = hash(&[rule.key, &rule.index.to_string(), model]);
            let name = format!("hearth:{{{tag}}}:{own}");
            Place {
                running: format!("{name}:running"),
                rates: name,
                tokens_per_minute: rule.rates.tokens_per_minute,
                concurrent: rule.rates.concurrent.is_some(),
            }
        };
        Self(rules.iter().map(place).collect())
    }
}

/// 96 bits of a hash: no two names share them.
fn hash(texts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&text.len().to_le_bytes());
        context.update(text.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_exact_and_stays_within_the_scripts_numbers() {
        let check = |count, rate, us, parts| {
            assert_eq!(Cost::of(count, rate), Cost { us, parts, rate: rate.into() });
        };
        check(1, 7, 8_571_428, 4);
        check(7, 7, 60_000_000, 0);
        check(1, u32::MAX, 0, 60_000_000);
        check(u64::from(u32::MAX), u32::MAX, 60_000_000, 0);
        check(u64::MAX, 1, COST_US_MAX, 0);
        check(1, 0, COST_US_MAX, 0);
        // The year 2200, and a bucket that has just taken the highest cost.
        let year_2200_us = 7_258_118_400_000_000_i64;
        assert!(year_2200_us + COST_US_MAX < 1 << 53);
    }
}
