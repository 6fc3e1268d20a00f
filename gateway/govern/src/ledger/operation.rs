//! One operation on its way: money held, tokens counted, settled exactly once.
//!
//! It is shared by who makes the tokens and who hands them out. It settles when it is finished, or
//! when the last of them lets it go: a panic, a client that leaves and a task that is dropped all
//! end there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::writer::{Job, Note};
use super::{Entry, Outcome, ServiceTier, Tokens};
use crate::bodies::Place;
use crate::budget::{Hold, Payer};
use crate::governor::{Fsync, Peers, Shared};
use crate::journal::{Journal, Record, SLOTS_MAX, Slot};
use crate::limit::{Admitted, Standing};
use crate::policy::Label;
use crate::price::ModelPrice;
use crate::{Id, Millis, Money};

/// More is asked for when a choice is this near to what is paid for: more tokens than an engine
/// has in flight.
pub(crate) const NEAR: u32 = 16;

/// So many operations may wait for the database before answers do.
const BEHIND: u32 = SLOTS_MAX / 4;

/// An operation that was let in.
pub struct Operation {
    pub(crate) shared: Arc<Shared>,
    /// What is held by; and charged, where nothing else is said.
    pub(crate) price: Option<ModelPrice>,
    /// The sheet's own, where only the answer tells how the request was served.
    pub(crate) open: Option<ModelPrice>,
    /// Only the answer tells.
    pub(crate) told: bool,
    pub(crate) payer: Arc<Payer>,
    pub(crate) choices: u32,
    /// Most new tokens per choice, whatever the budget.
    pub(crate) max_output: u32,
    /// Tokens per choice that are asked for at a time.
    pub(crate) step: u32,
    /// More is asked for when a choice is this near to what is paid for.
    pub(crate) near: u32,
    pub(crate) stopped: AtomicBool,
    /// One of its operation's attempts has come to its own end: nobody pays for a second answer.
    pub(crate) answered: Arc<AtomicBool>,
    pub(crate) state: Mutex<State>,
}

/// What changes while it runs.
#[derive(Debug)]
pub(crate) struct State {
    /// Nobody else has it before it is settled, and nobody changes it after that.
    pub(crate) entry: Arc<Entry>,
    pub(crate) hold: Hold,
    pub(crate) allowance: u32,
    pub(crate) slot: Option<Slot>,
    pub(crate) rates: Option<Admitted>,
    /// Somebody computed something for it.
    pub(crate) ran: bool,
    pub(crate) settled: bool,
    /// Room for what is said, where that is to be recorded.
    pub(crate) place: Option<Place>,
}

/// What one attempt leaves to the next.
pub(crate) struct Attempt {
    pub(crate) operation: Id,
    pub(crate) number: i64,
    /// Counted once for all of them.
    pub(crate) rates: Option<Admitted>,
    /// One of them has answered.
    pub(crate) answered: Arc<AtomicBool>,
}

impl Attempt {
    /// The first one of an operation.
    pub(crate) fn first(rates: Option<Admitted>, now: Millis) -> Self {
        Self { operation: Id::new("op", now), number: 1, rates, answered: Arc::default() }
    }
}

/// What an operation has cost, and the word that it is durable.
#[derive(Debug)]
pub struct Receipt {
    /// Nano-dollars.
    pub cost: Money,
    /// The budget ended it.
    pub budget_stop: bool,
    durable: Durable,
}

/// What is waited for until an end is durable.
#[derive(Debug)]
enum Durable {
    /// Nothing: somebody else has settled it, or nobody waits for the disk.
    Already,
    /// The disk of this machine.
    Journal(Arc<Journal>, Record),
    Database(oneshot::Receiver<()>),
}

impl Receipt {
    /// Waits until it is on this machine's disk, in the journal, if answers wait for that; or,
    /// where that cannot be written, in the database. Not for longer than `patience`.
    pub async fn durable(self, patience: Duration) {
        match self.durable {
            Durable::Already => {}
            Durable::Journal(journal, record) => journal.keep(record, patience).await,
            Durable::Database(written) => drop(timeout(patience, written).await),
        }
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
        // Somebody else may have made more than was asked for, and tells it all at once.
        let so_far = longest.max(*allowance);
        let wanted = cost(self.max_output.min(so_far.saturating_add(self.step)));
        let unit = cost(*allowance + 1).minus(hold.amount());
        let more = wanted.minus(hold.amount());
        if self.shared.peers.as_ref().is_some_and(Peers::lapsed) {
            return None;
        }
        let now = self.shared.clock.now();
        let ask = |question| self.shared.ask(question);
        let granted = self.shared.books.extend(hold, now, (unit, more), ask);
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
        let tokens = &mut Arc::make_mut(entry).tokens;
        tokens.output = tokens.output.max(output);
        tokens.reasoning = reasoning;
        if let Some(slot) = slot
            && let Err(error) = self.shared.journal.progress(*slot, entry.tokens)
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
        let entry = Arc::make_mut(&mut state.entry);
        let reasoning = entry.tokens.reasoning;
        entry.tokens = Tokens { reasoning, ..tokens };
        entry.outcome = outcome;
        entry.first_token_ms = first_token_ms;
    }

    /// How long the device ran it, from its first step to its end; microseconds. Called before the
    /// end is told to anybody.
    pub fn ran_for(&self, device_us: u64) {
        let mut state = self.state();
        if !state.settled {
            Arc::make_mut(&mut state.entry).device_us = device_us;
        }
    }

    /// How it was served, by the word of whoever did. It counts where nobody knew before.
    pub fn served(&self, tier: ServiceTier) {
        let mut state = self.state();
        if !state.settled && self.told {
            Arc::make_mut(&mut state.entry).service_tier = tier;
        }
    }

    /// It came to its own end, and this is what its answer says was made. An engine may have made
    /// a token more before it heard of a stop string; nobody pays for what they cannot see.
    pub fn answered(&self, output: u64, reasoning: u64) {
        let mut state = self.state();
        if state.settled {
            return;
        }
        state.ran = true;
        let entry = Arc::make_mut(&mut state.entry);
        entry.tokens.output = output;
        entry.tokens.reasoning = reasoning;
        if entry.outcome == Outcome::Cancelled {
            entry.outcome = Outcome::Done;
        }
    }

    /// An attempt beside this one, which counts anew.
    pub(crate) fn next_attempt(&self) -> Attempt {
        let state = self.state();
        let (operation, number) = (state.entry.operation.clone(), state.entry.attempt + 1);
        Attempt { operation, number, rates: None, answered: Arc::clone(&self.answered) }
    }

    /// Settles an attempt that came to nothing, and gives away what the next one goes on with.
    pub(crate) fn hand_over(&self) -> Attempt {
        let attempt = {
            let mut state = self.state();
            if !state.settled {
                Arc::make_mut(&mut state.entry).outcome = Outcome::Failed;
            }
            // Nothing was answered: the next attempt has room of its own.
            state.place = None;
            Attempt {
                operation: state.entry.operation.clone(),
                number: state.entry.attempt + 1,
                rates: state.rates.take(),
                answered: Arc::clone(&self.answered),
            }
        };
        self.settle();
        attempt
    }

    /// Tokens of its prompt, as it was let in with.
    #[must_use]
    pub fn input_tokens(&self) -> u64 {
        self.state().entry.tokens.input
    }

    /// How secret it is.
    #[must_use]
    pub fn label(&self) -> Label {
        self.state().entry.label
    }

    /// What the tightest hard budget has left; `None` where there is none.
    #[must_use]
    pub fn left(&self) -> Option<Money> {
        self.shared.books.left(&self.payer, self.shared.clock.now())
    }

    /// What is left of the tightest rates of requests and of tokens.
    #[must_use]
    pub fn rates(&self) -> [Option<Standing>; 2] {
        let state = self.state();
        let rates = state.rates.as_ref();
        let requests = rates.and_then(Admitted::request_rate);
        [requests, rates.and_then(Admitted::token_rate)]
    }

    /// Whether what is said has to be recorded, and is not yet.
    #[must_use]
    pub fn records(&self) -> bool {
        self.state().place.is_some()
    }

    /// Records what was said, where a policy asks for it: the request as it came, and of the answer
    /// what left. Once, at the end, however it ended; it never waits.
    pub fn record(&self, request: &[u8], answer: &[u8]) {
        let mut state = self.state();
        if let Some(place) = state.place.take() {
            let about = self.shared.about(&state.entry, self.shared.clock.now());
            place.keep(about, request, answer);
        }
    }

    /// The budget, and nothing else, ended it.
    pub fn stopped_by_budget(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// What ran and was not recorded although it had to be leaves a line in the audit.
    fn missing(&self) {
        let mut state = self.state();
        let State { entry, place, ran, .. } = &mut *state;
        if place.take().is_none() || !*ran {
            return;
        }
        let body = format!(r#"{{"operation":"{}","recorded":false}}"#, entry.operation);
        let (kind, organisation) = ("body".to_owned(), entry.organisation.to_string());
        self.shared.push(Job::Note(Note { at: entry.settled_at, kind, organisation, body }));
    }

    /// Its name in the ledger.
    #[must_use]
    pub fn id(&self) -> Id {
        self.state().entry.operation.clone()
    }

    /// When it was let in.
    #[must_use]
    pub fn admitted_at(&self) -> Millis {
        self.state().entry.admitted_at
    }

    /// Settles it. Once: a second call finds nothing to do and costs nothing.
    pub fn finish(&self) -> Receipt {
        self.settle()
    }

    /// Settles one of which nobody reads anything: another attempt has answered.
    pub fn lost(&self) {
        self.state().ran = false;
        drop(self.settle());
    }

    /// Settles one at which whoever computes it has failed.
    pub fn failed(&self) {
        let mut state = self.state();
        if !state.settled {
            Arc::make_mut(&mut state.entry).outcome = Outcome::Failed;
        }
        drop(state);
        drop(self.settle());
    }

    fn settle(&self) -> Receipt {
        let mut state = self.state();
        let budget_stop = self.stopped.load(Ordering::Relaxed);
        if state.settled {
            return Receipt { cost: state.entry.cost, budget_stop, durable: Durable::Already };
        }
        state.settled = true;
        let State { entry: shared, hold, slot, rates, ran, .. } = &mut *state;
        let entry = Arc::make_mut(shared);
        // Of two that end at once, before either has the caller.
        if entry.outcome == Outcome::Done && self.answered.swap(true, Ordering::Relaxed) {
            (entry.outcome, *ran) = (Outcome::Cancelled, false);
        }
        if !*ran {
            (entry.tokens, entry.device_us) = (Tokens::default(), 0);
        }
        let now = self.shared.clock.now();
        entry.settled_at = now;
        entry.duration_ms = now.saturating_sub(entry.admitted_at).max(0);
        if budget_stop && entry.outcome == Outcome::Done {
            entry.outcome = Outcome::BudgetStop;
        }
        let open = self.open.as_ref().map(|price| price.of(entry.service_tier));
        entry.cost = match (open.as_deref().or(self.price.as_ref()), entry.outcome) {
            // Nobody pays for our faults.
            (None, _) | (_, Outcome::Failed) => Money::ZERO,
            (Some(price), _) => price.billed(&entry.tokens, entry.device_us),
        };
        if let Some(mut rates) = rates.take() {
            let used = entry.tokens.input.saturating_add(entry.tokens.output);
            rates.settle(used, self.shared.clock.micros());
        }
        let slot = slot.take();
        let json = entry.json();
        let record = slot.map(|slot| self.shared.journal.settled(slot, entry)).transpose();
        let record = record.unwrap_or_else(|error| {
            tracing::error!(%error, "the journal cannot be written");
            None
        });
        // On this machine's disk is soon enough: the database has it a moment later. Where it falls
        // behind, answers wait for it, or the journal would be full.
        let (durable, done) = match record {
            Some(record) if self.shared.journal.taken() < BEHIND => {
                let durable = match self.shared.fsync {
                    Fsync::Always => Durable::Journal(Arc::clone(&self.shared.journal), record),
                    Fsync::EverySecond => Durable::Already,
                };
                (durable, None)
            }
            _ => {
                let (done, written) = oneshot::channel();
                (Durable::Database(written), Some(done))
            }
        };
        // What was refused, kept from before or made no tokens says nothing of a model's answers.
        if entry.tokens.output > 0 {
            self.shared.learn(&entry.model, entry.tokens.output / u64::from(self.choices.max(1)));
        }
        let (cost, line) = (entry.cost, Arc::clone(shared));
        let alerts = self.shared.books.settle(hold, cost, |draws| {
            self.shared.push(Job::Settle { entry: line, json, draws, slot, done });
        });
        self.shared.alert(&alerts);
        Receipt { cost, budget_stop, durable }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.settle();
        self.missing();
    }
}
