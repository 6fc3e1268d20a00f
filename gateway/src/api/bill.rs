//! The governor's side of a request: judged and paid for before it begins, counted while it runs,
//! settled before its last byte leaves.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use govern::ledger::{Outcome, Tokens};
use govern::policy::Label;
use govern::{Ask, Denied, Governor, Money, Operation, Principal, Receipt};
use wire::Usage;

use super::App;
use super::envelope::{Caller, Who};
use super::error::Failure;
use super::generate::service_tier;
use super::run::Run;
use crate::backend::meter::{End, Meter};

/// Longest wait of an answer's last byte for this machine's disk: one that is slower than that is
/// broken, and says so in the log.
const PATIENCE: Duration = Duration::from_secs(2);

const COST: HeaderName = HeaderName::from_static("x-hearth-cost");
const REMAINING: HeaderName = HeaderName::from_static("x-hearth-budget-remaining");
const NOTICE: HeaderName = HeaderName::from_static("x-hearth-notice");

/// Of requests and of tokens, under OpenAI's names: how many in a minute, how many more now, and
/// when it is all of them again.
const RATES: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

/// A request that somebody pays for.
#[derive(Clone)]
pub(super) struct Bill(Arc<Operation>);

/// What an answer says that the budget ended.
pub(super) const USED_UP: &str =
    "The answer ends here because the budget that pays for it is used up.";

/// Judges a request and sets money aside for it. `None`: nobody governs.
pub(super) async fn admit(
    app: &App,
    caller: &Caller,
    ask: impl FnOnce() -> Ask,
) -> Result<Option<Bill>, Failure> {
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else { return Ok(None) };
    let ask = asked(caller, who, ask());
    let operation = governor.let_in(&who.principal, &ask).await?;
    who.said.by(&operation);
    Ok(Some(Bill(operation)))
}

/// How secret a request is; the lowest label where nobody governs.
pub(super) fn label(
    app: &App,
    caller: &Caller,
    ask: impl FnOnce() -> Ask,
) -> Result<Label, Failure> {
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else {
        return Ok(Label::default());
    };
    let (ask, principal) = (asked(caller, who, ask()), &who.principal);
    Ok(match caller.wonders {
        true => governor.would_label(principal, &ask)?,
        false => governor.label(principal, &ask)?,
    })
}

/// As [`label`], with most new tokens per choice.
pub(super) fn judged(
    app: &App,
    caller: &Caller,
    ask: impl FnOnce() -> Ask,
) -> Result<(Label, u32), Failure> {
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else {
        return Ok((Label::default(), u32::MAX));
    };
    let ask = asked(caller, who, ask());
    let allowed = governor.judged(&who.principal, &ask)?;
    Ok((allowed.label, allowed.max_output))
}

/// Judges a request whose answer is there already, and books that it was given again, for nothing;
/// what the answer's head says of it.
pub(super) async fn given_again(
    app: &App,
    caller: &Caller,
    ask: Ask,
) -> Result<HeaderMap, Failure> {
    judged(app, caller, || ask.clone())?;
    // Nothing is computed, so nothing is held.
    let backend = govern::ask::CACHE.to_owned();
    let ask = || Ask { backend, input_tokens: 0, max_output: None, room: 0, burst: 0, ..ask };
    let mut headers = HeaderMap::new();
    if let Some(bill) = admit(app, caller, ask).await? {
        bill.rates(&mut headers);
        bill.0.used(Tokens::default(), Outcome::Done, 0);
        let receipt = bill.0.finish();
        bill.settled(&mut headers, &receipt);
        durable(receipt).await;
    }
    Ok(headers)
}

/// An answer's head says that something ended it, or is missing.
pub(super) fn has_notice(headers: &HeaderMap) -> bool {
    headers.contains_key(NOTICE)
}

/// A question with what is known of its caller.
fn asked(caller: &Caller, who: &Who, ask: Ask) -> Ask {
    let (request_id, source) = (Arc::clone(&caller.request_id), who.source());
    let (label, arm) = (ask.label.max(caller.past_label()), Arc::clone(&caller.arm));
    Ask { request_id, source, label, arm, ..ask }
}

/// As [`admit`], for another attempt of the same operation: `Governor::again` where the one before
/// has come to nothing, `Governor::beside` where it is still waited for. Nobody else comes between
/// the choice of that one and the end of this.
pub(super) async fn further(
    app: &App,
    caller: &Caller,
    before: impl FnOnce() -> (Bill, Further),
    ask: impl FnOnce() -> Ask,
) -> Result<Option<Bill>, Failure> {
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else { return Ok(None) };
    let ask = asked(caller, who, ask());
    governor.stock_up(&who.principal, &ask).await;
    let (before, how) = before();
    let operation = how(governor, &who.principal, &ask, &before.0)?;
    who.said.by(&operation);
    Ok(Some(Bill(operation)))
}

/// How an attempt follows another.
pub(super) type Further =
    fn(&Governor, &Principal, &Ask, &Operation) -> Result<Arc<Operation>, Denied>;

impl Bill {
    /// The same operation.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Another one was faster: its money is free at once.
    pub(super) fn lost(&self) {
        self.0.lost();
    }

    /// Whoever computed it has failed, and has perhaps no word of its own any more.
    pub(super) fn failed(&self) {
        self.0.failed();
    }

    /// What the prompt was taken for, for providers that do not say.
    pub(super) fn estimate(&self) -> Usage {
        Usage { prompt_tokens: self.0.input_tokens(), ..Usage::default() }
    }

    /// New tokens that are paid for.
    pub(super) fn allowance(&self) -> u32 {
        self.0.allowance()
    }

    /// Tokens were made by somebody else; `false`: what is paid for is used up.
    pub(super) fn made(&self, longest: u32) -> bool {
        self.0.made(longest);
        let up = longest >= self.0.allowance() && self.0.allowance() < self.0.max_output();
        if up {
            self.0.stopped_by_budget();
        }
        !up
    }

    /// A provider served it as a batch, or did not, as it says itself. It counts where a batch was
    /// asked for.
    pub(super) fn served(&self, flex: bool) {
        self.0.served(service_tier(flex));
    }

    /// Settles with what a provider says was used; `first` is the time to the first byte.
    pub(super) fn finish_provider(
        &self,
        usage: &Usage,
        outcome: Outcome,
        first: Duration,
    ) -> Receipt {
        self.provider_used(usage, outcome, first);
        if outcome == Outcome::Done {
            self.0.answered(usage.completion_tokens, usage.reasoning_tokens);
        }
        self.0.finish()
    }

    /// What a provider made of an answer that it broke off, for the books of this attempt. The next
    /// one settles it.
    pub(super) fn broke_off(&self, usage: &Usage, first: Duration) {
        self.provider_used(usage, Outcome::Failed, first);
    }

    fn provider_used(&self, usage: &Usage, outcome: Outcome, first: Duration) {
        let tokens = Tokens {
            input: usage.prompt_tokens,
            cache_read: usage.cached_tokens,
            cache_write: usage.cache_write_tokens,
            output: usage.completion_tokens,
            reasoning: usage.reasoning_tokens,
        };
        let first_ms = i64::try_from(first.as_millis()).unwrap_or(i64::MAX);
        self.0.used(tokens, outcome, first_ms);
    }

    /// Whoever was asked gave nothing that anybody has read.
    pub(super) fn came_to_nothing(&self) {
        self.0.used(Tokens::default(), Outcome::Failed, 0);
    }

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
    pub(super) fn finish_input(&self, input: u64, device_us: u64) -> Receipt {
        self.0.ran_for(device_us);
        self.0.used(Tokens { input, ..Tokens::default() }, Outcome::Done, 0);
        self.0.finish()
    }

    /// What is left of the budgets and the rates, for the head of an answer that is under way.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        self.remaining(headers);
        self.rates(headers);
    }

    /// What is left of the rates.
    pub(super) fn rates(&self, headers: &mut HeaderMap) {
        for (rate, [limit, remaining, reset]) in self.0.rates().into_iter().zip(RATES) {
            let Some(rate) = rate else { continue };
            headers.insert(limit, rate.limit.into());
            headers.insert(remaining, rate.remaining.into());
            put(headers, reset, format!("{}ms", rate.reset_ms));
        }
    }

    /// What the tightest hard budget has left: less what is held while the answer is under way, and
    /// exact where it is settled.
    pub(super) fn remaining(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.0.left() {
            put(headers, REMAINING, left.decimals());
        }
    }

    /// What the head of a whole answer says beside, when it is settled.
    pub(super) fn settled(&self, headers: &mut HeaderMap, receipt: &Receipt) {
        cost_header(headers, receipt.cost);
        self.remaining(headers);
    }
}

/// Waits until it is durable.
pub(super) async fn durable(receipt: Receipt) {
    receipt.durable(PATIENCE).await;
}

/// What an answer has cost.
pub(super) fn cost_header(headers: &mut HeaderMap, cost: Money) {
    put(headers, COST, cost.decimals());
}

/// What a program that reads no body text should know.
pub(super) fn notice_header(headers: &mut HeaderMap, notice: &str) {
    put(headers, NOTICE, notice.to_owned());
}

/// What the prompts of one request have cost together; `None`: nobody counts.
pub(super) fn cost<'r>(runs: impl Iterator<Item = &'r Run>) -> Option<Money> {
    runs.filter_map(|run| run.cost).reduce(Money::plus)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
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
        self.0.ran_for(usage.prefill_us.saturating_add(usage.decode_us));
        let outcome = if *failed { Outcome::Failed } else { Outcome::Cancelled };
        self.0.used(tokens, outcome, i64::try_from(first_us / 1000).unwrap_or(i64::MAX));
        if *longest >= self.0.allowance() && self.0.allowance() < self.0.max_output() {
            self.0.stopped_by_budget();
        }
    }
}
