//! Slows down whoever guesses passwords: each account and each source address has failures, and
//! past a few of them each further one doubles the time until the next attempt.
//!
//! An attempt counts as failed from its beginning and until it has succeeded. Counted at its end, a
//! thousand attempts at once would all find the door open.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use ring::digest::{SHA256, digest};

use crate::Millis;

/// Most accounts, and most addresses, that are remembered.
const ENTRIES_MAX: usize = 65_536;

/// Longest delay: long enough that an account takes 100 guesses a day, short enough that its owner
/// is not locked out by a stranger for long.
const DELAY_MAX_MS: Millis = 15 * 60_000;

/// How soon one kind of entry is slowed down.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Attempts in a row that are let in at once.
    free: i64,
    /// One failure is forgotten in this time.
    forget_ms: Millis,
}

/// People mistype a few times, then think.
const ACCOUNT: Patience = Patience { free: 5, forget_ms: 4 * 3_600_000 };
/// A whole office may sit behind one address.
const SOURCE: Patience = Patience { free: 50, forget_ms: 60_000 };

/// The failures of all accounts and addresses.
#[derive(Debug, Default)]
pub struct Throttle {
    accounts: Table<[u8; 32]>,
    sources: Table<IpAddr>,
}

impl Throttle {
    /// Begins an attempt to sign in, which counts as failed until [`Self::succeeded`] is called.
    /// Accounts that do not exist are slowed down like those that do.
    ///
    /// # Errors
    /// Too early: whole seconds to wait. Nothing was counted.
    pub fn attempt(
        &mut self,
        account: &str,
        source: Option<IpAddr>,
        now: Millis,
    ) -> Result<(), u64> {
        let (account, source) = (name(account), source.map(network));
        let of_account = self.accounts.wait_ms(account, ACCOUNT, now);
        let of_source = source.map_or(0, |source| self.sources.wait_ms(source, SOURCE, now));
        let wait_ms = of_account.max(of_source).cast_unsigned();
        if wait_ms > 0 {
            return Err(wait_ms.div_ceil(1000));
        }
        self.accounts.failed(account, ACCOUNT, now);
        if let Some(source) = source {
            self.sources.failed(source, SOURCE, now);
        }
        Ok(())
    }

    /// The attempt was no failure. The account begins anew; the address gets back this one only,
    /// or whoever has one account could guess at the others for ever.
    pub fn succeeded(&mut self, account: &str, source: Option<IpAddr>) {
        self.accounts.0.remove(&name(account));
        if let Some(entry) = source.and_then(|source| self.sources.0.get_mut(&network(source))) {
            entry.clear_at = entry.clear_at.saturating_sub(SOURCE.forget_ms);
        }
    }
}

/// Accounts are kept as hashes: of one size however long somebody's name is.
fn name(account: &str) -> [u8; 32] {
    let account = account.trim().to_lowercase();
    let mut name = [0; 32];
    name.copy_from_slice(digest(&SHA256, account.as_bytes()).as_ref());
    name
}

/// What one person holds: an IPv4 address, or the first half of an IPv6 address.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Failures, as a bucket that leaks.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The last attempt.
    last: Millis,
    /// When all failures are forgotten.
    clear_at: Millis,
}

impl Entry {
    /// From when on there may be another attempt.
    fn open_at(self, patience: Patience) -> Millis {
        let left_ms = self.clear_at.saturating_sub(self.last).max(0).cast_unsigned();
        let failures = left_ms.div_ceil(patience.forget_ms.cast_unsigned()).cast_signed();
        let too_many = failures - patience.free;
        if too_many < 0 {
            return self.last;
        }
        let delay_ms = 1000_i64 << too_many.min(20);
        self.last.saturating_add(delay_ms.min(DELAY_MAX_MS))
    }
}

#[derive(Debug)]
struct Table<K>(HashMap<K, Entry>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Copy> Table<K> {
    /// Milliseconds until there may be another attempt; 0: now.
    fn wait_ms(&mut self, who: K, patience: Patience, now: Millis) -> Millis {
        let Some(entry) = self.0.get_mut(&who) else { return 0 };
        // A clock that was set back must not lock anybody out until it has caught up.
        if entry.last > now {
            let left_ms = entry.clear_at.saturating_sub(entry.last);
            (entry.last, entry.clear_at) = (now, now.saturating_add(left_ms));
        }
        entry.open_at(patience).saturating_sub(now).max(0)
    }

    fn failed(&mut self, who: K, patience: Patience, now: Millis) {
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&who) {
            self.make_room(now);
        }
        let entry = self.0.entry(who).or_insert(Entry { last: now, clear_at: now });
        entry.last = now;
        entry.clear_at = entry.clear_at.max(now).saturating_add(patience.forget_ms);
    }

    /// Forgets what is over, or else the quarter with the fewest failures: whoever fills the table
    /// with names pushes out names that have no delay yet.
    fn make_room(&mut self, now: Millis) {
        self.0.retain(|_, entry| entry.clear_at > now);
        if self.0.len() > ENTRIES_MAX / 4 * 3 {
            let mut ends: Vec<Millis> = self.0.values().map(|entry| entry.clear_at).collect();
            let (_, bound, _) = ends.select_nth_unstable(ENTRIES_MAX / 4);
            let bound = *bound;
            self.0.retain(|_, entry| entry.clear_at > bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_790_000_000_000;
    const DAY_MS: Millis = 86_400_000;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    /// Attempts that fail, as early as each is let in, until `end`.
    fn guesses(throttle: &mut Throttle, account: impl Fn(u64) -> String, end: Millis) -> u64 {
        let (mut now, mut count) = (NOW, 0);
        while now < end {
            match throttle.attempt(&account(count), address("192.0.2.7"), now) {
                Ok(()) => count += 1,
                Err(seconds) => now += seconds.cast_signed() * 1000,
            }
        }
        count
    }

    #[test]
    fn each_failure_doubles_the_delay() {
        let mut throttle = Throttle::default();
        let mut delays = Vec::new();
        let mut now = NOW;
        for _ in 0..18 {
            let wait = match throttle.attempt("ann", None, now) {
                Ok(()) => 0,
                Err(seconds) => {
                    now += seconds.cast_signed() * 1000;
                    assert_eq!(throttle.attempt("ann", None, now - 1), Err(1), "one too early");
                    assert_eq!(throttle.attempt(" ANN ", None, now), Ok(()), "in time");
                    seconds
                }
            };
            delays.push(wait);
        }
        let expect = [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900];
        assert_eq!(delays, expect);
        assert_eq!(throttle.attempt("bob", None, now), Ok(()), "another account");
        throttle.succeeded("ann", None);
        assert_eq!(throttle.attempt("ann", None, now), Ok(()), "begins anew");
    }

    #[test]
    fn guessing_takes_for_ever() {
        let one = guesses(&mut Throttle::default(), |_| "ann".to_owned(), NOW + DAY_MS);
        assert!((90..=115).contains(&one), "{one} guesses a day at one account");
        let many = guesses(&mut Throttle::default(), |at| format!("user {at}"), NOW + DAY_MS);
        assert!((1400..=1600).contains(&many), "{many} guesses a day from one address");
    }

    #[test]
    fn attempts_at_once_are_all_counted() {
        let mut throttle = Throttle::default();
        let passed = (0..1000).filter(|_| throttle.attempt("ann", None, NOW).is_ok()).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn a_success_gives_the_address_one_failure_back() {
        let mut throttle = Throttle::default();
        let office = address("192.0.2.7");
        for at in 0..10_000 {
            let account = format!("user {at}");
            assert_eq!(throttle.attempt(&account, office, NOW), Ok(()), "{at}");
            throttle.succeeded(&account, office);
        }
        // Somebody who has an account and guesses at others between.
        let mut guessed = 0;
        while throttle.attempt(&format!("victim {guessed}"), office, NOW).is_ok() {
            guessed += 1;
            if throttle.attempt("own", office, NOW).is_ok() {
                throttle.succeeded("own", office);
            }
        }
        assert_eq!(guessed, 50);
    }

    #[test]
    fn addresses_of_one_holder_are_one() {
        for (left, right, one) in [
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("2001:db8::1", "2001:db8::ffff:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let mut throttle = Throttle::default();
            for at in 0..51 {
                let _ = throttle.attempt(&at.to_string(), address(left), NOW);
            }
            let blocked = throttle.attempt("ann", address(right), NOW).is_err();
            assert_eq!(blocked, one, "{left} {right}");
        }
    }

    #[test]
    fn clocks_may_jump() {
        let times = [NOW, 0, Millis::MAX, Millis::MIN, -1, NOW, NOW - DAY_MS];
        let mut throttle = Throttle::default();
        for at in 0..700 {
            let now = times[at % times.len()];
            if let Err(seconds) = throttle.attempt("ann", address("::1"), now) {
                assert!(seconds <= 900, "{seconds}");
            }
            throttle.succeeded("bob", address("::1"));
        }
    }

    #[test]
    fn memory_is_bounded_and_victims_stay_protected() {
        let mut throttle = Throttle::default();
        while throttle.attempt("victim", None, NOW).is_ok() {}
        for at in 0..ENTRIES_MAX * 2 {
            assert_eq!(throttle.attempt(&format!("name {at}"), None, NOW), Ok(()));
            assert!(throttle.accounts.0.len() <= ENTRIES_MAX);
        }
        assert!(throttle.attempt("victim", None, NOW).is_err());
        let later = NOW + 30 * DAY_MS;
        throttle.accounts.make_room(later);
        assert!(throttle.accounts.0.is_empty(), "all of it is long over");
    }
}
