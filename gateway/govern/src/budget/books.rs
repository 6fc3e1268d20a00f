//! What was spent and what is held, per budget, limit and window.
//!
//! A request holds money before it spends it. All limits that it falls under grant the same
//! amount, or none does. Settling turns the hold into what was really spent. One lock guards it
//! all: it is held for a few hundred nanoseconds, and everything that must keep the order in which
//! money moved (the queue of the writer) is pushed under it.
//!
//! Which accounts a request falls under is looked up each time money moves, never remembered: a
//! budget that is made, changed or deleted while requests run counts what they hold and spend from
//! then on, no more and no less.
//!
//! An account begins with a sum from the database. Until that is there, nothing is granted. Where
//! several gateways share the database, a hard limit grants what this one has leased of it
//! (`lease`), and asks for more when that comes to its end.

mod account;
mod lease;
mod sharing;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::window::{self, Window};
use crate::entity::Budget;
use crate::policy::pattern;
use crate::{Id, Map, Millis, Money, Scope};
use account::Account;
pub use lease::More;
pub(crate) use lease::{Granted, Keep, SliceKey, shape};
use sharing::Sharing;
pub(crate) use sharing::Stock;

/// All accounts.
#[derive(Debug, Default)]
pub struct Books {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    accounts: Map<Id, Account>,
    /// Accounts by what they count, those of a scope sorted.
    by_scope: Map<Scope, Vec<Id>>,
    /// What running requests hold.
    holds: Map<u64, Held>,
    /// Names of holds and of asked sums.
    serial: u64,
    /// The latest time of anything that the database has, or will have from here.
    latest: Millis,
    /// Where several gateways share the database.
    sharing: Option<Sharing>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            accounts: Map::default(),
            by_scope: Map::default(),
            holds: Map::default(),
            serial: 0,
            latest: Millis::MIN,
            sharing: None,
        }
    }
}

/// Who pays: what a request's spending counts in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    /// The scopes, the widest first.
    pub scopes: Vec<Scope>,
    /// The model.
    pub model: String,
}

#[derive(Debug)]
struct Held {
    payer: Arc<Payer>,
    at: Millis,
    amount: Money,
}

/// Money set aside for one request. Its owner settles it, whichever way it ends.
#[derive(Debug, Default)]
#[must_use = "a hold that is not settled is never given back"]
pub struct Hold {
    /// 0: it holds nothing.
    number: u64,
    amount: Money,
    bounded: bool,
}

impl Hold {
    /// What is set aside.
    #[must_use]
    pub fn amount(&self) -> Money {
        self.amount
    }

    /// No budget bounded it when it was made.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        !self.bounded
    }
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// With less it cannot begin.
    pub least: Money,
    /// What it begins with.
    pub first: Money,
    /// What it may cost at most: held where nothing bounds it, since nothing is asked for later.
    pub all: Money,
}

/// Why no money was granted.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// A limit has too little left.
    Exceeded {
        /// The budget.
        budget: Arc<Budget>,
        /// Which of its limits.
        limit: usize,
        /// What it allows now, raises among it.
        allowed: Money,
        /// Of that, spent.
        spent: Money,
        /// Of that, held by requests that run.
        held: Money,
        /// Of that, set aside for other gateways.
        others: Money,
        /// When its window ends.
        resets_at: Option<Millis>,
    },
    /// What was spent, or may be spent here, is not known yet; it is being asked for.
    Unknown,
}

/// What the database is asked for: sums, and more money for this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The budget.
    pub budget: Id,
    /// Tells it from an earlier question about the same budget.
    pub number: u64,
    /// When it was put.
    pub(crate) at: Millis,
    /// Money that is wanted.
    pub(crate) more: Vec<More>,
}

/// Part of a slice that was spent: it leaves the slice when the ledger has the cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) key: SliceKey,
    pub(crate) cost: Money,
}

/// A budget, and the windows of its limits whose sums are wanted.
pub type Wanted = (Arc<Budget>, Vec<(usize, Window)>);

/// A share of a limit that was reached just now.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// The budget.
    pub budget: Arc<Budget>,
    /// Which of its limits.
    pub limit: usize,
    /// The share, in percent.
    pub percent: u8,
    /// What the limit allows now, raises among it.
    pub allowed: Money,
    /// What was spent.
    pub spent: Money,
    /// When the window ends; `None`: it does not.
    pub resets_at: Option<Millis>,
}

/// A limit as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The window.
    pub window: Window,
    /// What is allowed in it, raises among it.
    pub allowed: Money,
    /// Spent in it.
    pub spent: Money,
    /// Held in it.
    pub held: Money,
    /// Set aside in it for other gateways, as far as this one knows.
    pub others: Money,
    /// Whether what the database knows is in `spent`.
    pub known: bool,
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database has, or will have, an entry of this time.
    pub fn seen(&self, at: Millis) {
        let mut state = self.lock();
        state.latest = state.latest.max(at);
    }

    /// Opens or changes an account. Changed limits count at once and keep what was spent. `true`:
    /// it is new, or counts other spending or other windows than before, and its sums are asked
    /// for. `ask` runs before anything else can move money, and says whether the question is on
    /// its way.
    ///
    /// # Errors
    /// Its time zone is not known.
    pub fn open(
        &self,
        budget: &Arc<Budget>,
        now: Millis,
        ask: impl FnOnce(Question) -> bool,
    ) -> Result<bool, String> {
        let zone = window::zone(budget.time_zone.as_deref().unwrap_or("UTC"))?;
        let mut state = self.lock();
        let sharing = state.sharing.is_some();
        if let Some(account) = state.accounts.get_mut(&budget.id)
            && account.change(budget, sharing)
        {
            return Ok(false);
        }
        state.remove(&budget.id);
        let mut account = Account::new(Arc::clone(budget), zone, now);
        for held in state.holds.values() {
            if account.counts(&held.payer) {
                account.hold(held.at, held.amount);
            }
        }
        let ids = state.by_scope.entry(budget.scope.clone()).or_default();
        ids.insert(ids.partition_point(|id| *id < budget.id), budget.id.clone());
        let number = state.next();
        account.put(number, now, ask);
        state.accounts.insert(budget.id.clone(), account);
        Ok(true)
    }

    /// Closes an account: its limits are gone.
    pub fn close(&self, budget: &Id) {
        self.lock().remove(budget);
    }

    /// What a question is about. `None` where nobody waits for the answer any more.
    #[must_use]
    pub fn asked(&self, question: &Question) -> Option<Wanted> {
        let state = self.lock();
        let account = state.accounts.get(&question.budget)?;
        let windows = account.asked(question.number);
        (!windows.is_empty()).then(|| (Arc::clone(&account.budget), windows))
    }

    /// Takes one answer in: what the database knows of a window, and what this gateway may spend.
    pub(crate) fn load(
        &self,
        question: &Question,
        window: (usize, Millis),
        sum: Money,
        granted: Option<Granted>,
    ) {
        let mut state = self.lock();
        let round = state.round();
        if let Some(account) = state.accounts.get_mut(&question.budget) {
            account.load(question.number, window, sum, granted, round);
        }
    }

    /// No answer comes; whoever needs it next asks again.
    pub fn unanswered(&self, question: &Question) {
        if let Some(account) = self.lock().accounts.get_mut(&question.budget) {
            account.unanswered(question.number);
        }
    }

    /// Sets the first of a need aside in all accounts; where one has less left, what it has, if
    /// that is at least the least. `ask` as in [`Books::open`], where a sum is not known.
    ///
    /// # Errors
    /// A hard limit has too little left, or is not known yet.
    pub fn hold(
        &self,
        payer: &Arc<Payer>,
        now: Millis,
        need: Need,
        ask: impl FnOnce(Question) -> bool,
    ) -> Result<Hold, Refusal> {
        let mut state = self.lock();
        let (number, latest, sharing) = (state.next(), state.latest(), state.sharing.is_some());
        let (mut granted, mut ask) = (None, Some(ask));
        state.try_each(payer, |account| {
            for limit in 0..account.limits() {
                let known = account.at(limit, now, latest).known;
                if !(known || sharing && account.is_soft(limit)) {
                    if let Some(ask) = ask.take() {
                        account.put(number, now, ask);
                    }
                    return Err(Refusal::Unknown);
                }
                let left = match sharing {
                    true => account.leased(limit, now, now),
                    false => account.left(limit, now, now),
                };
                let most = granted.unwrap_or(need.first).min(left);
                if most < need.least {
                    let known = !sharing || account.lease(limit, now).is_some_and(|l| l.short);
                    let refusal = account.exceeded(limit, now, now);
                    return Err(if known { refusal } else { Refusal::Unknown });
                }
                granted = Some(most);
            }
            Ok(())
        })?;
        let bounded = granted.is_some();
        let amount = granted.unwrap_or(need.all);
        state.each(payer, |account| account.hold(now, amount));
        state.holds.insert(number, Held { payer: Arc::clone(payer), at: now, amount });
        Ok(Hold { number, amount, bounded })
    }

    /// Sets up to `wanted` more aside, and returns how much that was. `unit` is the least that is
    /// of use: below it nothing is taken. What a lease is short of is asked for, for the next time.
    pub fn extend(
        &self,
        hold: &mut Hold,
        now: Millis,
        (unit, wanted): (Money, Money),
        ask: impl FnMut(Question) -> bool,
    ) -> Money {
        let mut state = self.lock();
        let Some(Held { payer, at, .. }) = state.holds.get(&hold.number) else {
            return Money::ZERO;
        };
        let (payer, at) = (Arc::clone(payer), *at);
        let sharing = state.sharing.is_some();
        let mut granted = wanted;
        state.each(&payer, |account| {
            for limit in 0..account.limits() {
                granted = granted.min(match sharing {
                    true => account.leased(limit, at, now),
                    false => account.left(limit, at, now),
                });
            }
        });
        if granted >= unit {
            state.each(&payer, |account| account.hold(at, granted));
            hold.amount = hold.amount.plus(granted);
            if let Some(held) = state.holds.get_mut(&hold.number) {
                held.amount = hold.amount;
            }
        } else {
            granted = Money::ZERO;
        }
        if sharing {
            // Enough for the next step, before it is needed.
            state.stock(&payer, (at, now), (unit, wanted), ask);
        }
        granted
    }

    /// Turns a hold into what was spent, in every account that the request falls under now: those
    /// too that were opened while it ran. `queued` runs before anything else can move money.
    pub(crate) fn settle(
        &self,
        hold: &mut Hold,
        cost: Money,
        queued: impl FnOnce(Vec<Draw>),
    ) -> Vec<Alert> {
        let (mut alerts, mut draws) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        let Hold { number, .. } = std::mem::take(hold);
        if let Some(Held { payer, at, amount }) = state.holds.remove(&number) {
            state.latest = state.latest.max(at);
            let sharing = state.sharing.is_some();
            state.each(&payer, |account| {
                account.give_back(at, amount);
                account.spend(at, cost, &mut alerts, sharing.then_some(&mut draws));
            });
        }
        queued(draws);
        alerts
    }

    /// How a budget's limits stand.
    #[must_use]
    pub fn standing(&self, budget: &Id, now: Millis) -> Option<Vec<Standing>> {
        let mut state = self.lock();
        let latest = state.latest();
        let account = state.accounts.get_mut(budget)?;
        Some((0..account.limits()).map(|limit| account.standing(limit, now, latest)).collect())
    }

    /// What the tightest hard limit has left; `None` where there is none.
    #[must_use]
    pub fn left(&self, payer: &Payer, now: Millis) -> Option<Money> {
        let mut least: Option<Money> = None;
        let mut state = self.lock();
        let latest = state.latest();
        state.each(payer, |account| {
            for limit in 0..account.limits() {
                if account.is_soft(limit) {
                    continue;
                }
                account.at(limit, now, latest);
                let left = account.left(limit, now, now).max(Money::ZERO);
                least = Some(least.map_or(left, |least| least.min(left)));
            }
        });
        least
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn remove(&mut self, budget: &Id) {
        let Some(account) = self.accounts.remove(budget) else { return };
        if let Some(ids) = self.by_scope.get_mut(&account.budget.scope) {
            ids.retain(|id| id != budget);
            if ids.is_empty() {
                self.by_scope.remove(&account.budget.scope);
            }
        }
    }

    /// What others book is not known here: nothing is taken for a first booking then.
    fn latest(&self) -> Millis {
        if self.sharing.is_some() { Millis::MAX } else { self.latest }
    }

    fn round(&self) -> u64 {
        self.sharing.as_ref().map_or(0, |sharing| sharing.round)
    }

    /// The accounts that count a payer's spending.
    fn each(&mut self, payer: &Payer, mut f: impl FnMut(&mut Account)) {
        let all = self.try_each(payer, |account| {
            f(account);
            Ok::<_, Infallible>(())
        });
        let Ok(()) = all;
    }

    /// As [`State::each`], up to the first error.
    fn try_each<E>(
        &mut self,
        payer: &Payer,
        mut f: impl FnMut(&mut Account) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { accounts, by_scope, .. } = self;
        for id in payer.scopes.iter().filter_map(|scope| by_scope.get(scope)).flatten() {
            if let Some(account) = accounts.get_mut(id)
                && account.counts_model(&payer.model)
            {
                f(account)?;
            }
        }
        Ok(())
    }
}

impl Account {
    fn counts_model(&self, model: &str) -> bool {
        self.budget.model.as_deref().is_none_or(|wanted| pattern::matches(wanted, model))
    }

    fn counts(&self, payer: &Payer) -> bool {
        payer.scopes.contains(&self.budget.scope) && self.counts_model(&payer.model)
    }

    /// Puts a question, where there is something to be asked.
    fn put(&mut self, number: u64, at: Millis, ask: impl FnOnce(Question) -> bool) {
        let Some(more) = self.ask(number) else { return };
        if !ask(Question { budget: self.budget.id.clone(), number, at, more }) {
            self.unanswered(number);
        }
    }
}
