//! One budget's account: the windows of its limits, and what is in them.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{Alert, Refusal, Standing};
use crate::budget::window::Window;
use crate::entity::Budget;
use crate::{Millis, Money};

/// Windows kept per limit: the current one, and those of requests that began before it. More are
/// kept only while something is held in the oldest.
const WINDOWS_MAX: usize = 4;

/// One budget.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) budget: Arc<Budget>,
    zone: TimeZone,
    limits: Vec<VecDeque<Spent>>,
}

/// What the database knows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// Nobody has asked. What is spent meanwhile goes into the database before anybody does.
    Missing,
    /// Somebody has, in the question of this number: what was settled before it comes with the
    /// answer, what is settled after it is counted here.
    Asked(u64),
    /// It is counted here.
    Known,
}

/// One window of one limit.
#[derive(Debug)]
pub(super) struct Spent {
    pub(super) window: Window,
    spent: Money,
    held: Money,
    /// The highest share that was told: each is told once.
    told: u8,
    pub(super) sum: Sum,
}

impl Spent {
    fn new(window: Window, sum: Sum) -> Self {
        Self { window, spent: Money::ZERO, held: Money::ZERO, told: 0, sum }
    }
}

impl Account {
    /// With the window of this time, whose sum is missing.
    pub(super) fn new(budget: Arc<Budget>, zone: TimeZone, now: Millis) -> Self {
        let limits = budget.limits.iter().map(|_| VecDeque::new()).collect();
        let mut account = Self { budget, zone, limits };
        for limit in 0..account.limits() {
            account.at(limit, now, Millis::MAX);
        }
        account
    }

    pub(super) fn limits(&self) -> usize {
        self.limits.len()
    }

    pub(super) fn is_soft(&self, limit: usize) -> bool {
        self.budget.limits[limit].soft
    }

    /// Takes other amounts over. `false`: what was counted so far does not count for the changed
    /// budget, which needs a new account.
    pub(super) fn change(&mut self, new: &Arc<Budget>) -> bool {
        let periods = |budget: &Budget| budget.limits.iter().map(|l| l.period).collect::<Vec<_>>();
        let old = &self.budget;
        let same = old.scope == new.scope
            && old.model == new.model
            && old.time_zone == new.time_zone
            && periods(old) == periods(new);
        if same {
            self.budget = Arc::clone(new);
        }
        same
    }

    fn find(&mut self, limit: usize, at: Millis) -> Option<&mut Spent> {
        self.limits[limit].iter_mut().rev().find(|spent| spent.window.contains(at))
    }

    /// The window of a time. The newest one is nearly always the one. A window that begins behind
    /// everything that was ever booked (`latest`) begins with nothing spent; of any other one (the
    /// clock was put back) the sum is missing.
    pub(super) fn at(&mut self, limit: usize, now: Millis, latest: Millis) -> &mut Spent {
        let period = self.budget.limits[limit].period;
        let windows = &mut self.limits[limit];
        if let Some(at) = windows.iter().rposition(|spent| spent.window.contains(now)) {
            return &mut windows[at];
        }
        while windows.len() >= WINDOWS_MAX
            && windows.front().is_some_and(|spent| spent.held == Money::ZERO)
        {
            windows.pop_front();
        }
        let window = Window::of(period, now, &self.zone);
        let sum = if window.start > latest { Sum::Known } else { Sum::Missing };
        let at = windows.partition_point(|spent| spent.window.start < window.start);
        windows.insert(at, Spent::new(window, sum));
        &mut windows[at]
    }

    /// Makes all missing sums those of a question. `false`: none is.
    pub(super) fn wants(&mut self, question: Sum) -> bool {
        let mut wants = false;
        for spent in self.limits.iter_mut().flatten().filter(|spent| spent.sum == Sum::Missing) {
            (spent.sum, spent.spent, wants) = (question, Money::ZERO, true);
        }
        wants
    }

    /// The windows that a question is about.
    pub(super) fn asked(&self, number: u64) -> Vec<(usize, Window)> {
        let windows = self.limits.iter().enumerate().flat_map(|(limit, windows)| {
            let asked = windows.iter().filter(move |spent| spent.sum == Sum::Asked(number));
            asked.map(move |spent| (limit, spent.window))
        });
        windows.collect()
    }

    pub(super) fn load(&mut self, number: u64, limit: usize, start: Millis, sum: Money) {
        if let Some(spent) = self.find(limit, start)
            && spent.sum == Sum::Asked(number)
        {
            spent.spent = spent.spent.plus(sum);
            spent.sum = Sum::Known;
        }
    }

    pub(super) fn unanswered(&mut self, number: u64) {
        for spent in self.limits.iter_mut().flatten() {
            if spent.sum == Sum::Asked(number) {
                spent.sum = Sum::Missing;
            }
        }
    }

    /// Sets money aside in the windows of a time.
    pub(super) fn hold(&mut self, at: Millis, amount: Money) {
        for limit in 0..self.limits() {
            let spent = self.at(limit, at, Millis::MAX);
            spent.held = spent.held.plus(amount);
        }
    }

    /// Gives back what was set aside. A window that something is held in is never forgotten.
    pub(super) fn give_back(&mut self, at: Millis, amount: Money) {
        for limit in 0..self.limits() {
            if let Some(spent) = self.find(limit, at) {
                spent.held = spent.held.minus(amount);
            }
        }
    }

    fn allowed(&self, limit: usize, now: Millis) -> Money {
        let limit = &self.budget.limits[limit];
        let raises = limit.raises.iter().filter(|raise| (raise.from..raise.until).contains(&now));
        raises.fold(limit.nano_usd, |sum, raise| sum.plus(raise.nano_usd))
    }

    /// What is left in the window of a time by what is allowed now; all there is where the limit
    /// only warns, nothing where the sum is not known.
    pub(super) fn left(&mut self, limit: usize, at: Millis, now: Millis) -> Money {
        if self.is_soft(limit) {
            return Money::MAX;
        }
        let allowed = self.allowed(limit, now);
        let known = self.find(limit, at).filter(|spent| spent.sum == Sum::Known);
        known.map_or(Money::ZERO, |spent| allowed.minus(spent.spent).minus(spent.held))
    }

    pub(super) fn exceeded(&mut self, limit: usize, at: Millis, now: Millis) -> Refusal {
        let allowed = self.allowed(limit, now);
        let budget = Arc::clone(&self.budget);
        let found = self.find(limit, at);
        let (spent, held, resets_at) =
            found.map_or((Money::ZERO, Money::ZERO, None), |s| (s.spent, s.held, s.window.end));
        Refusal::Exceeded { budget, limit, allowed, spent, held, resets_at }
    }

    pub(super) fn standing(&mut self, limit: usize, now: Millis, latest: Millis) -> Standing {
        let allowed = self.allowed(limit, now);
        let Spent { window, spent, held, sum, .. } = self.at(limit, now, latest);
        let known = *sum == Sum::Known;
        Standing { window: *window, allowed, spent: *spent, held: *held, known }
    }

    pub(super) fn spend(&mut self, at: Millis, cost: Money, alerts: &mut Vec<Alert>) {
        for limit in 0..self.limits() {
            let allowed = self.allowed(limit, at);
            let Some(spent) = self.find(limit, at).filter(|spent| spent.sum != Sum::Missing) else {
                // The ledger has it when the sum is asked for.
                continue;
            };
            spent.spent = spent.spent.plus(cost);
            if spent.sum != Sum::Known {
                continue;
            }
            let (sum, told, window_start) = (spent.spent, spent.told, spent.window.start);
            let asked = self.budget.limits[limit].alert_percent.iter().copied();
            let reached = asked.filter(|percent| {
                i128::from(sum.0) * 100 >= i128::from(allowed.0) * i128::from(*percent)
            });
            let Some(percent) = reached.max().filter(|percent| *percent > told) else { continue };
            let budget = Arc::clone(&self.budget);
            alerts.push(Alert { budget, limit, percent, spent: sum, window_start });
            if let Some(spent) = self.find(limit, at) {
                spent.told = percent;
            }
        }
    }
}
