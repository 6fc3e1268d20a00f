//! What budgets would have granted: their windows, filled by the replay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::budget::window::{self, Window};
use crate::directory::Directory;
use crate::entity::Budget;
use crate::policy::pattern;
use crate::report::ReportError;
use crate::{Id, Millis, Money, Scope};

/// Requests that run at once in a replay; beyond it the one that ends first ends early.
const RUNNING_MAX: usize = 1 << 18;

/// The windows that a limit keeps: the one at hand, and those of requests that began before it.
const WINDOWS_MAX: usize = 4;

/// All budgets that are judged.
pub(super) struct Books {
    accounts: Vec<Account>,
    by_scope: HashMap<Scope, Vec<usize>>,
    running: BinaryHeap<Reverse<Running>>,
    serial: u64,
    /// Budgets over everything, where one organisation alone is replayed.
    pub(super) left_out: bool,
    pub(super) cut: u64,
    pub(super) spent: Money,
}

struct Account {
    budget: Arc<Budget>,
    zone: TimeZone,
    limits: Vec<VecDeque<Filled>>,
}

#[derive(Debug)]
struct Filled {
    window: Window,
    spent: Money,
    held: Money,
}

/// A request that was let in and has not ended. Ordered by when it ends.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    ends: i64,
    serial: u64,
    admitted_at: Millis,
    settled_at: Millis,
    least: Money,
    cost: Money,
    accounts: Arc<[usize]>,
}

/// What was spent in a window before the replay begins.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    account: usize,
    limit: usize,
    start: Millis,
    pub(super) scope: Scope,
    pub(super) model: Option<String>,
    /// The part of the window before the replay.
    pub(super) window: Window,
}

/// The order of what happens in one millisecond: ends that leave more than the least that was held,
/// beginnings, other ends. So no request finds less than it did.
const EARLY: i64 = 0;
const BEGINS: i64 = 1;
const LATE: i64 = 2;

fn moment(at: Millis, order: i64) -> i64 {
    at.saturating_mul(3).saturating_add(order)
}

impl Books {
    pub(super) fn open(
        directory: &Directory,
        organisation: Option<&Id>,
    ) -> Result<Self, ReportError> {
        let mut books = Self {
            accounts: Vec::new(),
            by_scope: HashMap::new(),
            running: BinaryHeap::new(),
            serial: 0,
            left_out: false,
            cut: 0,
            spent: Money::ZERO,
        };
        for budget in directory.budgets() {
            if organisation.is_some() && budget.scope == Scope::Everything {
                books.left_out = true;
                continue;
            }
            let own = directory.organisation(&budget.organisation);
            let name = budget.time_zone.as_deref().or(own.map(|own| own.time_zone.as_str()));
            let zone = window::zone(name.unwrap_or("UTC")).map_err(ReportError::Zone)?;
            let limits = budget.limits.iter().map(|_| VecDeque::new()).collect();
            let number = books.accounts.len();
            books.by_scope.entry(budget.scope.clone()).or_default().push(number);
            books.accounts.push(Account { budget: Arc::clone(budget), zone, limits });
        }
        Ok(books)
    }

    /// What has to be known before the first line of this time.
    pub(super) fn opening(&self, from: Millis) -> Vec<Opening> {
        let mut all = Vec::new();
        for (account, Account { budget, zone, .. }) in self.accounts.iter().enumerate() {
            for (limit, Window { start, .. }) in
                budget.limits.iter().map(|it| Window::of(it.period, from, zone)).enumerate()
            {
                let (scope, model) = (budget.scope.clone(), budget.model.clone());
                let window = Window { start, end: Some(from) };
                all.extend((start < from).then_some(Opening {
                    account,
                    limit,
                    start,
                    scope,
                    model,
                    window,
                }));
            }
        }
        all
    }

    pub(super) fn opened(&mut self, opening: &Opening, sum: Money) {
        let Opening { account, limit, window, .. } = opening;
        let account = &mut self.accounts[*account];
        account.at(*limit, window.end.unwrap_or(opening.start)).spent = sum;
    }

    /// The budgets that pay for a model of somebody with these scopes.
    pub(super) fn payers(&self, scopes: &[Scope], model: &str) -> Arc<[usize]> {
        let all = scopes.iter().filter_map(|scope| self.by_scope.get(scope)).flatten().copied();
        let pays = |at: &usize| {
            let wanted = self.accounts[*at].budget.model.as_deref();
            wanted.is_none_or(|wanted| pattern::matches(wanted, model))
        };
        all.filter(pays).collect()
    }

    /// Whether one of them refuses.
    pub(super) fn any_hard(&self, payers: &[usize]) -> bool {
        payers.iter().any(|at| self.accounts[*at].budget.limits.iter().any(|limit| !limit.soft))
    }

    /// Ends what has ended before a request of this time begins.
    pub(super) fn reach(&mut self, at: Millis) {
        self.end_before(moment(at, BEGINS));
    }

    /// Holds the least of a request that begins; `false`: a budget has less.
    pub(super) fn hold(&mut self, payers: &Arc<[usize]>, at: Millis, least: Money) -> bool {
        for account in payers.iter() {
            let account = &mut self.accounts[*account];
            for limit in 0..account.limits.len() {
                if account.left(limit, at, at) < least {
                    return false;
                }
            }
        }
        for account in payers.iter() {
            let account = &mut self.accounts[*account];
            for limit in 0..account.limits.len() {
                let filled = account.at(limit, at);
                filled.held = filled.held.plus(least);
            }
        }
        true
    }

    /// A request was let in, and is going to cost this.
    pub(super) fn begin(
        &mut self,
        accounts: Arc<[usize]>,
        (admitted_at, settled_at): (Millis, Millis),
        (least, cost): (Money, Money),
    ) {
        let order = if cost <= least { EARLY } else { LATE };
        let ends = moment(settled_at.max(admitted_at), order);
        self.serial += 1;
        let serial = self.serial;
        let running = Running { ends, serial, admitted_at, settled_at, least, cost, accounts };
        self.running.push(Reverse(running));
        if self.running.len() > RUNNING_MAX
            && let Some(Reverse(first)) = self.running.pop()
        {
            self.settle(&first);
        }
    }

    /// Ends everything.
    pub(super) fn finish(&mut self) {
        self.end_before(i64::MAX);
    }

    fn end_before(&mut self, moment: i64) {
        while self.running.peek().is_some_and(|Reverse(first)| first.ends < moment) {
            if let Some(Reverse(first)) = self.running.pop() {
                self.settle(&first);
            }
        }
    }

    fn settle(&mut self, running: &Running) {
        let Running { admitted_at, settled_at, least, cost, accounts, .. } = running;
        let mut paid = *cost;
        for account in accounts.iter() {
            let account = &mut self.accounts[*account];
            for limit in 0..account.limits.len() {
                let filled = account.at(limit, *admitted_at);
                filled.held = filled.held.minus(*least);
                // A raise may have begun or ended on the way.
                let left = account.left(limit, *admitted_at, *settled_at);
                let left = left.max(account.left(limit, *admitted_at, *admitted_at));
                paid = paid.min(left.max(Money::ZERO));
            }
        }
        for account in accounts.iter() {
            let account = &mut self.accounts[*account];
            for limit in 0..account.limits.len() {
                let filled = account.at(limit, *admitted_at);
                filled.spent = filled.spent.plus(paid);
            }
        }
        self.cut += u64::from(paid < *cost);
        self.spent = self.spent.plus(paid);
    }
}

impl Account {
    /// The window of a time.
    fn at(&mut self, limit: usize, at: Millis) -> &mut Filled {
        let period = self.budget.limits[limit].period;
        let windows = &mut self.limits[limit];
        if let Some(found) = windows.iter().rposition(|filled| filled.window.contains(at)) {
            return &mut windows[found];
        }
        while windows.len() >= WINDOWS_MAX
            && windows.front().is_some_and(|filled| filled.held == Money::ZERO)
        {
            windows.pop_front();
        }
        let window = Window::of(period, at, &self.zone);
        windows.push_back(Filled { window, spent: Money::ZERO, held: Money::ZERO });
        let last = windows.len() - 1;
        &mut windows[last]
    }

    /// What is left in the window of a time by what is allowed at another.
    fn left(&mut self, limit: usize, at: Millis, now: Millis) -> Money {
        let Self { budget, .. } = self;
        let it = &budget.limits[limit];
        if it.soft {
            return Money::MAX;
        }
        let allowed = it.allowed(now);
        let Filled { spent, held, .. } = self.at(limit, at);
        allowed.minus(*spent).minus(*held)
    }
}
