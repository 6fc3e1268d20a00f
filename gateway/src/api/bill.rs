//! The governor's side of a request: judged and paid for before it begins, counted while it runs,
//! settled before its last byte leaves.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use govern::ledger::{Outcome, Tokens};
use govern::{Ask, Money, Operation, Receipt};

use super::App;
use super::envelope::Caller;
use super::error::Failure;
use super::run::Run;
use crate::backend::meter::{End, Meter};

/// Longest wait of an answer's last byte for this machine's disk: one that is slower than that is
/// broken, and says so in the log.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request that somebody pays for.
#[derive(Clone)]
pub(super) struct Bill(Arc<Operation>);

/// What an answer says that the budget ended.
pub(super) const USED_UP: &str =
    "The answer ends here because the budget that pays for it is used up.";

/// Judges a request and sets money aside for it. `None`: nobody governs.
pub(super) fn admit(
    app: &App,
    caller: &Caller,
    ask: impl FnOnce() -> Ask,
) -> Result<Option<Bill>, Failure> {
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else { return Ok(None) };
    let (request_id, source) = (who.request_id.clone(), who.source());
    let operation = governor.admit(&who.principal, &Ask { request_id, source, ..ask() })?;
    Ok(Some(Bill(operation)))
}

impl Bill {
    /// For the engine's thread.
    pub(super) fn meter(&self) -> Box<dyn Meter> {
        Box::new(Engine(Arc::clone(&self.0)))
    }

    /// Most new tokens per choice.
    pub(super) fn max_output(&self) -> u32 {
        self.0.max_output()
    }

    /// Notes what is about to be handed out.
    pub(super) fn hands_out(&self, output: u64, reasoning: u64) {
        self.0.hands_out(output, reasoning);
    }

    /// Settles with what the answer says was used.
    pub(super) fn finish(&self, output: u64, reasoning: u64) -> Receipt {
        self.0.answered(output, reasoning);
        self.0.finish()
    }

    /// Settles work that makes no tokens.
    pub(super) fn finish_input(&self, input: u64) -> Receipt {
        self.0.used(Tokens { input, ..Tokens::default() }, Outcome::Done, 0);
        self.0.finish()
    }

    /// What is left of the budgets and the rates, for an answer's head.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.0.left() {
            put(headers, "x-hearth-budget-remaining", &dollars(left));
        }
        for (name, value) in self.0.rate_headers() {
            put(headers, name, &value);
        }
    }
}

/// Waits until it is durable.
pub(super) async fn durable(receipt: Receipt) {
    receipt.durable(PATIENCE).await;
}

/// What an answer has cost.
pub(super) fn cost_header(headers: &mut HeaderMap, cost: Money) {
    put(headers, "x-hearth-cost", &dollars(cost));
}

/// What a program that reads no body text should know.
pub(super) fn notice_header(headers: &mut HeaderMap, notice: &str) {
    put(headers, "x-hearth-notice", notice);
}

/// What the prompts of one request have cost together; `None`: nobody counts.
pub(super) fn cost<'r>(runs: impl Iterator<Item = &'r Run>) -> Option<Money> {
    runs.filter_map(|run| run.cost).reduce(Money::plus)
}

/// Plain decimals: programs read them.
pub(super) fn dollars(money: Money) -> String {
    money.to_string().replace('$', "")
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The engine's thread tells the operation what it makes.
struct Engine(Arc<Operation>);

impl Meter for Engine {
    fn allowance(&self) -> u32 {
        self.0.allowance()
    }

    fn made(&mut self, longest: u32) -> Option<u32> {
        self.0.made(longest)
    }

    fn ended(&mut self, end: &End) {
        let End { usage, failed, longest } = end;
        // One that never came to run has used nothing.
        let ran = usage.completion_tokens > 0 || usage.prefill_us > 0;
        let (input, cache_read) =
            if ran { (usage.prompt_tokens, usage.cached_tokens) } else { (0, 0) };
        let tokens = Tokens {
            input: input.into(),
            cache_read: cache_read.into(),
            output: usage.completion_tokens.into(),
            ..Tokens::default()
        };
        let first_us =
            if usage.completion_tokens > 0 { usage.queue_us + usage.prefill_us } else { 0 };
        let outcome = if *failed { Outcome::Failed } else { Outcome::Cancelled };
        self.0.used(tokens, outcome, i64::try_from(first_us / 1000).unwrap_or(i64::MAX));
        if *longest >= self.0.allowance() && self.0.allowance() < self.0.max_output() {
            self.0.stopped_by_budget();
        }
    }
}
