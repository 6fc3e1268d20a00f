//! One operation on its way: money held, tokens counted, settled exactly once.
//!
//! It is shared by who makes the tokens and who hands them out. It settles when it is finished, or
//! when the last of them lets it go: a panic, a client that leaves and a task that is dropped all
//! end there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::writer::Job;
use super::{Entry, Outcome, Tokens};
use crate::budget::{Hold, Payer};
use crate::governor::Shared;
use crate::journal::{SLOTS_MAX, Slot};
use crate::limit::{Admitted, Standing};
use crate::price::ModelPrice;
use crate::{Millis, Money};

/// More is asked for when a choice is this near to what is paid for: more tokens than an engine
/// has in flight.
pub(crate) const NEAR: u32 = 16;

/// So many operations may wait for the database before answers do.
const BEHIND: u32 = SLOTS_MAX / 4;

/// An operation that was let in.
pub struct Operation {
    pub(crate) shared: Arc<Shared>,
    pub(crate) price: Option<ModelPrice>,
    pub(crate) payer: Arc<Payer>,
    pub(crate) choices: u32,
    /// Most new tokens per choice, whatever the budget.
    pub(crate) max_output: u32,
    /// Tokens per choice that are asked for at a time.
    pub(crate) step: u32,
    /// More is asked for when a choice is this near to what is paid for.
    pub(crate) near: u32,
    pub(crate) stopped: AtomicBool,
    pub(crate) state: Mutex<State>,
}

/// What changes while it runs.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entry: Entry,
    pub(crate) hold: Hold,
    pub(crate) allowance: u32,
    pub(crate) slot: Option<Slot>,
    pub(crate) rates: Option<Admitted>,
    /// Somebody computed something for it.
    pub(crate) ran: bool,
    pub(crate) settled: bool,
}

/// What an operation has cost, and the word that it is durable.
#[derive(Debug)]
pub struct Receipt {
    /// Nano-dollars.
    pub cost: Money,
    /// The budget ended it.
    pub budget_stop: bool,
    durable: oneshot::Receiver<()>,
}

impl Receipt {
    /// Waits until it is on this machine's disk, in the journal; or, where that cannot be written,
    /// in the database. Not for longer than `patience`.
    pub async fn durable(self, patience: std::time::Duration) {
        let _ = tokio::time::timeout(patience, self.durable).await;
    }
}

impl Operation {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New tokens per choice that are paid for.
    #[must_use]
    pub fn allowance(&self) -> u32 {
        self.state().allowance
    }

    /// New tokens per choice that policy and context allow.
    #[must_use]
    pub fn max_output(&self) -> u32 {
        self.max_output
    }

    /// Tokens were made: `longest` is the longest choice now. Holds more money where the end of
    /// what is paid for is near; returns the new allowance where it grew.
    pub fn made(&self, longest: u32) -> Option<u32> {
        let mut state = self.state();
        let State { entry, hold, allowance, settled, .. } = &mut *state;
        if *settled
            || *allowance >= self.max_output
            || longest.saturating_add(self.near) < *allowance
        {
            return None;
        }
        let price = self.price.as_ref()?;
        let cost = |per_choice: u32| {
            let output = u64::from(self.choices) * u64::from(per_choice);
            price.cost(&Tokens { output, ..price.dearest(entry.tokens.input) })
        };
        let wanted = cost(self.max_output.min(allowance.saturating_add(self.step)));
        let unit = cost(*allowance + 1).minus(hold.amount());
        let more = wanted.minus(hold.amount());
        let granted = self.shared.books.extend(hold, self.shared.clock.now(), unit, more);
        if granted == Money::ZERO {
            return None;
        }
        let dearest = price.dearest(entry.tokens.input);
        let paid = price.output_within(&dearest, self.choices, hold.amount());
        *allowance = paid.min(self.max_output);
        Some(*allowance)
    }

    /// Notes what is about to be handed out, so that it is paid for even if this process is
    /// killed the moment after.
    pub fn hands_out(&self, output: u64, reasoning: u64) {
        let mut state = self.state();
        let State { entry, slot, ran, settled, .. } = &mut *state;
        if *settled || (output, reasoning) == (entry.tokens.output, entry.tokens.reasoning) {
            return;
        }
        *ran = true;
        entry.tokens.output = entry.tokens.output.max(output);
        entry.tokens.reasoning = reasoning;
        if let Some(slot) = slot
            && let Err(error) =
                self.shared.journal.progress(*slot, entry.operation.as_str(), entry.tokens)
        {
            tracing::error!(%error, "the journal cannot be written");
        }
    }

    /// What was really used, from who made it. Called before the end is told to anybody.
    pub fn used(&self, tokens: Tokens, outcome: Outcome, first_token_ms: i64) {
        let mut state = self.state();
        if state.settled {
            return;
        }
        state.ran = true;
        let reasoning = state.entry.tokens.reasoning;
        state.entry.tokens = Tokens { reasoning, ..tokens };
        state.entry.outcome = outcome;
        state.entry.first_token_ms = first_token_ms;
    }

    /// It came to its own end, and this is what its answer says was made. An engine may have made
    /// a token more before it heard of a stop string; nobody pays for what they cannot see.
    pub fn answered(&self, output: u64, reasoning: u64) {
        let mut state = self.state();
        if state.settled {
            return;
        }
        state.ran = true;
        state.entry.tokens.output = output;
        state.entry.tokens.reasoning = reasoning;
        if state.entry.outcome == Outcome::Cancelled {
            state.entry.outcome = Outcome::Done;
        }
    }

    /// What the tightest hard budget has left; `None` where there is none.
    #[must_use]
    pub fn left(&self) -> Option<Money> {
        self.shared.books.left(&self.payer, self.shared.clock.now())
    }

    /// What is left of the rates, under OpenAI's names.
    #[must_use]
    pub fn rate_headers(&self) -> Vec<(&'static str, String)> {
        let state = self.state();
        let Some(rates) = &state.rates else { return Vec::new() };
        let mut headers = Vec::new();
        let mut add = |names: [&'static str; 3], rate: Option<Standing>| {
            if let Some(Standing { limit, remaining, reset_ms }) = rate {
                let values = [limit.to_string(), remaining.to_string(), format!("{reset_ms}ms")];
                headers.extend(names.into_iter().zip(values));
            }
        };
        add(
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            rates.request_rate(),
        );
        add(
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
            rates.token_rate(),
        );
        headers
    }

    /// The budget, and nothing else, ended it.
    pub fn stopped_by_budget(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// When it was let in.
    #[must_use]
    pub fn admitted_at(&self) -> Millis {
        self.state().entry.admitted_at
    }

    /// Settles it. Once: a second call finds nothing to do and costs nothing.
    pub fn finish(&self) -> Receipt {
        let (done, durable) = oneshot::channel();
        let (cost, budget_stop) = self.settle(Some(done));
        Receipt { cost, budget_stop, durable }
    }

    fn settle(&self, done: Option<oneshot::Sender<()>>) -> (Money, bool) {
        let mut state = self.state();
        let budget_stop = self.stopped.load(Ordering::Relaxed);
        if state.settled {
            return (state.entry.cost, budget_stop);
        }
        state.settled = true;
        let State { entry, hold, slot, rates, ran, .. } = &mut *state;
        if !*ran {
            entry.tokens = Tokens::default();
        }
        let now = self.shared.clock.now();
        entry.settled_at = now;
        entry.duration_ms = now.saturating_sub(entry.admitted_at).max(0);
        if budget_stop && entry.outcome == Outcome::Done {
            entry.outcome = Outcome::BudgetStop;
        }
        entry.cost = match (&self.price, entry.outcome) {
            // Nobody pays for our faults.
            (None, _) | (_, Outcome::Failed) => Money::ZERO,
            (Some(price), _) => price.cost(&entry.tokens),
        };
        if let Some(mut rates) = rates.take() {
            let used = entry.tokens.input.saturating_add(entry.tokens.output);
            rates.settle(used, self.shared.clock.micros());
        }
        let (slot, mut done) = (slot.take(), done);
        match slot.map(|slot| self.shared.journal.settled(slot, entry)) {
            // On this machine's disk is soon enough: the database has it a moment later. Where it
            // falls behind, answers wait for it, or the journal would be full.
            Some(Ok(())) if self.shared.journal.taken() < BEHIND => {
                done.take().into_iter().for_each(|done| self.shared.journal.tell(done));
            }
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "the journal cannot be written"),
            None => {}
        }
        let job = Job::Settle { entry: Box::new(entry.clone()), slot, done };
        self.shared.learn(&entry.model, entry.tokens.output / u64::from(self.choices.max(1)));
        let cost = entry.cost;
        let alerts = self.shared.books.settle(hold, cost, || {
            self.shared.push(job);
        });
        self.shared.alert(alerts);
        (cost, budget_stop)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.settle(None);
    }
}
