//! When to try again: later and later, and not all at the same moment.

use std::time::Duration;

/// The pause after so many failures in a row (from 1): `first`, doubled with each further failure,
/// never above `most`; between its half and its whole by `random`.
#[must_use]
pub fn pause(failures: u32, first: Duration, most: Duration, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let whole = first.saturating_mul(1 << doublings).min(most);
    let half = whole / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    half.saturating_add(Duration::from_micros(random % span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_scatter() {
        let ms = Duration::from_millis;
        let check = |failures, random, least: u64, most: u64| {
            let found = pause(failures, ms(100), ms(5000), random);
            assert!((ms(least)..=ms(most)).contains(&found), "{failures}: {found:?}");
        };
        for random in [0, 1, 49_999, 50_000, u64::MAX] {
            check(1, random, 50, 100);
            check(2, random, 100, 200);
            check(6, random, 1600, 3200);
            check(7, random, 2500, 5000);
            check(u32::MAX, random, 2500, 5000);
        }
        assert_eq!(pause(1, ms(100), ms(5000), 0), ms(50));
        assert_eq!(pause(1, ms(100), ms(5000), 50_000), ms(100));
        let all: std::collections::BTreeSet<_> =
            (0..100).map(|random| pause(3, ms(100), ms(5000), random * 7919)).collect();
        assert!(all.len() > 90, "{all:?}");
        assert_eq!(pause(9, Duration::MAX, Duration::MAX, 0), Duration::MAX / 2);
    }
}
