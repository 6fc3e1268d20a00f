//! The arithmetic of one rate per minute: the generic cell rate algorithm (ITU-T I.371), in its
//! form as a leaky bucket. A bucket holds a minute's worth and drains evenly, so that over any
//! stretch of time no more is let in than a full bucket and what drains in that time.
//!
//! All in whole numbers: rates that do not divide a minute would otherwise let in one less, or one
//! more. No clock here.

/// Microseconds in a minute: parts that a request, or a token, is made of. With this many, a
/// bucket drains by its rate in each microsecond.
const PARTS: i128 = 60_000_000;

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// So much more may come at once.
    pub remaining: u64,
    /// Milliseconds until all of it may.
    pub reset_ms: u64,
}

/// Too much for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Microseconds after which the same would pass, if nothing else comes.
    After(u64),
    /// It is more than a minute's worth, so it never passes.
    Never,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// What has been let in and has not drained, in parts. Never negative.
    debt: i128,
    /// Until when it has drained, microseconds. Never goes back.
    drained_us: i64,
    /// By how much it drains in a minute.
    rate: u32,
}

impl Gcra {
    /// An empty bucket.
    #[must_use]
    pub const fn new(rate: u32, now_us: i64) -> Self {
        Self { debt: 0, drained_us: now_us, rate }
    }

    /// A bucket that has drained after so many microseconds, and so many parts of one more; a
    /// microsecond has as many parts as the rate says.
    pub(super) fn with_debt(rate: u32, us: i64, parts: i64) -> Self {
        let debt = i128::from(us) * i128::from(rate) + i128::from(parts);
        Self { debt, drained_us: 0, rate }
    }

    /// Lets `cost` in, if it fits. Another rate than before keeps the share of the bucket that is
    /// used. While a clock shows a time before the latest that was seen, nothing drains.
    ///
    /// # Errors
    /// It does not fit; nothing has changed then but the time and the rate.
    pub fn check(&mut self, now_us: i64, cost: u64, rate: u32) -> Result<Remaining, Refused> {
        self.advance(now_us, rate);
        let cost = i128::from(cost).saturating_mul(PARTS);
        if cost > self.size() {
            return Err(Refused::Never);
        }
        let over = self.debt.saturating_add(cost).saturating_sub(self.size());
        if over > 0 {
            let behind = i128::from(self.drained_us) - i128::from(now_us);
            let wait = self.drains_in_us(over).saturating_add(behind);
            return Err(Refused::After(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        self.debt += cost;
        Ok(self.remaining())
    }

    /// Takes back a cost that was let in and not used. Before or after draining makes no
    /// difference, so no time is needed.
    pub fn give_back(&mut self, cost: u64) {
        self.debt = self.debt.saturating_sub(i128::from(cost).saturating_mul(PARTS)).max(0);
    }

    /// Lets in what has been used already, whether it fits or not: what comes next waits longer.
    pub fn take(&mut self, now_us: i64, cost: u64) {
        self.advance(now_us, self.rate);
        self.debt = self.debt.saturating_add(i128::from(cost).saturating_mul(PARTS));
    }

    /// Whether nothing is left of what was let in, so that a new one would be the same.
    #[must_use]
    pub fn is_idle(&mut self, now_us: i64) -> bool {
        self.advance(now_us, self.rate);
        self.debt == 0
    }

    /// What is left.
    #[must_use]
    pub fn remaining(&self) -> Remaining {
        let remaining = (self.size() - self.debt).max(0) / PARTS;
        let reset_ms = (self.drains_in_us(self.debt) + 999) / 1000;
        Remaining {
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            reset_ms: u64::try_from(reset_ms).unwrap_or(u64::MAX),
        }
    }

    /// A minute's worth, in parts.
    fn size(&self) -> i128 {
        i128::from(self.rate) * PARTS
    }

    /// Microseconds in which so many parts drain. A rate of 0 drains nothing: for ever.
    fn drains_in_us(&self, parts: i128) -> i128 {
        match i128::from(self.rate) {
            0 => i128::from(i64::MAX),
            rate => parts / rate + i128::from(parts % rate != 0),
        }
    }

    fn advance(&mut self, now_us: i64, rate: u32) {
        if now_us > self.drained_us {
            let passed = i128::from(now_us) - i128::from(self.drained_us);
            self.debt = (self.debt - passed * i128::from(self.rate)).max(0);
            self.drained_us = now_us;
        }
        if rate != self.rate {
            let (old, new) = (i128::from(self.rate), i128::from(rate));
            self.debt = self.debt.saturating_mul(new).checked_div(old).unwrap_or(0);
            self.rate = rate;
        }
    }
}
