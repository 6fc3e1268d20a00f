//! One budget's account: the windows of its limits, and what is in them.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::lease::{self, Granted, Keep, Lease, More, SliceKey};
use super::{Alert, Draw, Refusal, Standing};
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
    /// What it counts, in a few letters.
    pub(super) shape: String,
    zone: TimeZone,
    limits: Vec<VecDeque<Spent>>,
}

/// One window of one limit.
#[derive(Debug)]
pub(super) struct Spent {
    pub(super) window: Window,
    spent: Money,
    held: Money,
    /// The highest share that was told, and of what: each is told once.
    told: (u8, Money),
    /// What the database has is counted in `spent`. Until then what is spent goes into the
    /// database before anybody asks.
    pub(super) known: bool,
    /// A question that is on its way: what was settled before it comes with the answer.
    asked: Option<u64>,
    /// What was settled since.
    since: Money,
    /// Others may have spent of it.
    stale: bool,
    /// What may be spent without asking, where several gateways share the database.
    lease: Lease,
}

impl Spent {
    fn new(window: Window, known: bool) -> Self {
        Self {
            window,
            spent: Money::ZERO,
            held: Money::ZERO,
            told: (0, Money::ZERO),
            known,
            asked: None,
            since: Money::ZERO,
            stale: false,
            lease: Lease::default(),
        }
    }
}

impl Account {
    /// With the window of this time, whose sum is missing.
    pub(super) fn new(budget: Arc<Budget>, zone: TimeZone, now: Millis) -> Self {
        let limits = budget.limits.iter().map(|_| VecDeque::new()).collect();
        let shape = lease::shape(&budget);
        let mut account = Self { budget, shape, zone, limits };
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
    /// budget, which needs a new account. Where gateways share, so does one that has other slices.
    pub(super) fn change(&mut self, new: &Arc<Budget>, sharing: bool) -> bool {
        let periods = |budget: &Budget| budget.limits.iter().map(|l| l.period).collect::<Vec<_>>();
        let old = &self.budget;
        let same = old.scope == new.scope
            && old.model == new.model
            && old.time_zone == new.time_zone
            && periods(old) == periods(new);
        let shape = lease::shape(new);
        let same = same && !(sharing && shape != self.shape);
        if same {
            (self.budget, self.shape) = (Arc::clone(new), shape);
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
        let known = window.start > latest;
        let at = windows.partition_point(|spent| spent.window.start < window.start);
        windows.insert(at, Spent::new(window, known));
        &mut windows[at]
    }

    /// Puts a question about all sums that are missing, and all money that is wanted; `None` where
    /// nothing is.
    pub(super) fn ask(&mut self, number: u64) -> Option<Vec<More>> {
        let (mut any, mut more) = (false, Vec::new());
        for limit in 0..self.limits() {
            for at in 0..self.limits[limit].len() {
                let key = self.key(limit, at);
                let spent = &mut self.limits[limit][at];
                let wants = !spent.known || spent.stale || spent.lease.gap > Money::ZERO;
                if spent.asked.is_some() || !wants {
                    continue;
                }
                (any, spent.asked, spent.since, spent.stale) =
                    (true, Some(number), Money::ZERO, false);
                let gap = std::mem::take(&mut spent.lease.gap);
                let urgent = std::mem::take(&mut spent.lease.urgent);
                if gap > Money::ZERO {
                    let (granted, held) = (spent.lease.granted, spent.held);
                    more.push(More { limit, key, granted, held, gap, urgent });
                }
            }
        }
        any.then_some(more)
    }

    fn key(&self, limit: usize, at: usize) -> SliceKey {
        SliceKey {
            budget: self.budget.id.clone(),
            shape: self.shape.clone(),
            part: i64::try_from(limit).unwrap_or(i64::MAX),
            start: self.limits[limit][at].window.start,
        }
    }

    /// The windows that a question is about.
    pub(super) fn asked(&self, number: u64) -> Vec<(usize, Window)> {
        let windows = self.limits.iter().enumerate().flat_map(|(limit, windows)| {
            let asked = windows.iter().filter(move |spent| spent.asked == Some(number));
            asked.map(move |spent| (limit, spent.window))
        });
        windows.collect()
    }

    pub(super) fn load(
        &mut self,
        number: u64,
        (limit, start): (usize, Millis),
        sum: Money,
        granted: Option<Granted>,
        round: u64,
    ) {
        // The budget may have fewer limits by now.
        if limit < self.limits()
            && let Some(spent) = self.find(limit, start)
            && spent.asked == Some(number)
        {
            (spent.asked, spent.known, spent.spent) = (None, true, spent.since.plus(sum));
            if let Some(granted) = granted {
                spent.lease.answer(granted, spent.since, round);
            }
        }
    }

    pub(super) fn unanswered(&mut self, number: u64) {
        for spent in self.limits.iter_mut().flatten() {
            if spent.asked == Some(number) {
                spent.asked = None;
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
        self.budget.limits[limit].allowed(now)
    }

    /// What is left in the window of a time by what is allowed now; all there is where the limit
    /// only warns, nothing where the sum is not known.
    pub(super) fn left(&mut self, limit: usize, at: Millis, now: Millis) -> Money {
        if self.is_soft(limit) {
            return Money::MAX;
        }
        let allowed = self.allowed(limit, now);
        let known = self.find(limit, at).filter(|spent| spent.known);
        known.map_or(Money::ZERO, |spent| allowed.minus(spent.spent).minus(spent.held))
    }

    /// Of what is left, the part that this gateway may spend.
    pub(super) fn leased(&mut self, limit: usize, at: Millis, now: Millis) -> Money {
        let left = self.left(limit, at, now);
        if self.is_soft(limit) {
            return left;
        }
        let allowed = self.allowed(limit, now);
        let found = self.find(limit, at);
        found.map_or(Money::ZERO, |spent| left.min(spent.lease.idle(spent.held, allowed)))
    }

    /// The lease of a window that is there.
    pub(super) fn lease(&mut self, limit: usize, at: Millis) -> Option<&mut Lease> {
        self.find(limit, at).map(|spent| &mut spent.lease)
    }

    /// What each slice is to be; what is not needed is given back. `others`: somebody may need it.
    pub(super) fn renew(&mut self, others: bool, now: Millis, keeps: &mut Vec<(SliceKey, Keep)>) {
        for limit in (0..self.limits()).filter(|limit| !self.budget.limits[*limit].soft) {
            for at in 0..self.limits[limit].len() {
                let key = self.key(limit, at);
                let spent = &mut self.limits[limit][at];
                let over = spent.window.end.is_some_and(|end| end <= now);
                let keep = match spent.asked {
                    None => spent.lease.renew(spent.held, others, over),
                    // The answer is on its way, and grants what this could not know.
                    Some(_) => Keep { most: Money::MAX, held: spent.held },
                };
                if keep.most.max(keep.held) > Money::ZERO {
                    keeps.push((key, keep));
                }
            }
        }
    }

    /// Nothing is granted any more, but what is held is spent all the same.
    pub(super) fn void(&mut self) {
        for spent in self.limits.iter_mut().flatten() {
            (spent.asked, spent.lease) = (None, Lease::default());
        }
    }

    /// Others go short of what a slice is of. `true`: something of it lies idle.
    pub(super) fn wished(&mut self, key: &SliceKey) -> bool {
        let limit = usize::try_from(key.part).ok().filter(|limit| *limit < self.limits());
        let ours = (key.shape == self.shape).then_some(limit).flatten();
        let Some(spent) = ours.and_then(|limit| self.find(limit, key.start)) else { return false };
        spent.lease.wished = spent.lease.granted > spent.held;
        spent.lease.wished
    }

    /// Others may have spent of its windows: of those that this gateway spends of, or of `all`.
    pub(super) fn refresh(&mut self, all: bool) {
        for spent in self.limits.iter_mut().flatten() {
            spent.stale |= all || spent.lease.used > Money::ZERO;
        }
    }

    pub(super) fn exceeded(&mut self, limit: usize, at: Millis, now: Millis) -> Refusal {
        let allowed = self.allowed(limit, now);
        let budget = Arc::clone(&self.budget);
        let found = self.find(limit, at);
        let (spent, held, others, resets_at) = found
            .map_or((Money::ZERO, Money::ZERO, Money::ZERO, None), |found| {
                (found.spent, found.held, found.lease.others, found.window.end)
            });
        Refusal::Exceeded { budget, limit, allowed, spent, held, others, resets_at }
    }

    pub(super) fn standing(&mut self, limit: usize, now: Millis, latest: Millis) -> Standing {
        let allowed = self.allowed(limit, now);
        let Spent { window, spent, held, known, lease, .. } = self.at(limit, now, latest);
        let (held, others) = (*held, lease.others);
        Standing { window: *window, allowed, spent: *spent, held, others, known: *known }
    }

    /// Books a cost in the windows of a time; `draws`: what slices it is taken from, where there
    /// are such.
    pub(super) fn spend(
        &mut self,
        at: Millis,
        cost: Money,
        alerts: &mut Vec<Alert>,
        mut draws: Option<&mut Vec<Draw>>,
    ) {
        for limit in 0..self.limits() {
            if let Some(draws) = draws.as_deref_mut() {
                self.draw(limit, at, cost, draws);
            }
            let allowed = self.allowed(limit, at);
            // What is not known here has the ledger when the sum is asked for.
            let Some(spent) = self.find(limit, at) else { continue };
            spent.since = spent.since.plus(cost);
            if !spent.known {
                continue;
            }
            spent.spent = spent.spent.plus(cost);
            let (sum, told, resets_at) = (spent.spent, spent.told, spent.window.end);
            let told = if told.1 == allowed { told.0 } else { 0 };
            // The limit itself is always told.
            let asked = self.budget.limits[limit].alert_percent.iter().copied().chain([100]);
            let reached = asked.filter(|percent| {
                i128::from(sum.0) * 100 >= i128::from(allowed.0) * i128::from(*percent)
            });
            let Some(percent) = reached.max().filter(|percent| *percent > told) else { continue };
            let budget = Arc::clone(&self.budget);
            alerts.push(Alert { budget, limit, percent, allowed, spent: sum, resets_at });
            if let Some(spent) = self.find(limit, at) {
                spent.told = (percent, allowed);
            }
        }
    }

    /// Takes a cost out of what this gateway was granted, here and, with the ledger's line, in the
    /// database.
    fn draw(&mut self, limit: usize, at: Millis, cost: Money, draws: &mut Vec<Draw>) {
        let soft = self.is_soft(limit);
        let found = self.limits[limit].iter().rposition(|spent| spent.window.contains(at));
        let Some(place) = found.filter(|_| cost > Money::ZERO) else { return };
        let lease = &mut self.limits[limit][place].lease;
        lease.used = lease.used.plus(cost);
        if !soft {
            lease.granted = lease.granted.minus(cost);
            draws.push(Draw { key: self.key(limit, place), cost });
        }
    }
}
