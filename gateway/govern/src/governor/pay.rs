//! Money for a request: what it needs, from which budgets, and what is said where there is too
//! little. Where gateways share the budgets, a request waits a moment for money that this one has
//! not leased yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Governor, Weighed};
use crate::budget::books::{Need, Stock};
use crate::budget::{Hold, Payer, Refusal};
use crate::deliver::Reached;
use crate::entity::Budget;
use crate::ledger::Tokens;
use crate::price::ModelPrice;
use crate::{Ask, Denied, Millis, Money, Principal, Rule};

/// Longest wait for the database to grant money.
const GRANT: Duration = Duration::from_millis(750);

/// Longest wait for other gateways to give back what lies idle there.
const GIVE_BACK: Duration = Duration::from_millis(250);

impl Governor {
    /// Waits a moment, where gateways share budgets, until this one has leased what a request
    /// needs. [`Governor::admit`] and [`Governor::again`] decide by what is there then; without
    /// this, they may say no to what would have been paid for a moment later.
    pub async fn stock_up(&self, principal: &Principal, ask: &Ask) {
        if self.shared.peers.is_some()
            && let Ok(weighed) = self.weigh(principal, ask)
        {
            self.stock(&weighed, ask).await;
        }
    }

    /// See [`Governor::stock_up`].
    pub(super) async fn stock(&self, weighed: &Weighed, ask: &Ask) {
        let Some(peers) = self.shared.peers.as_ref().filter(|peers| !peers.lapsed()) else {
            return;
        };
        let Weighed { now, payer, price, .. } = weighed;
        let Some(price) = price.as_ref().filter(|price| !price.is_free()) else { return };
        let most = [weighed.first.min(1), weighed.first, weighed.allowed.max_output];
        let need = need(price, ask, most);
        let stock = || self.shared.books.stock(payer, *now, need, |what| self.shared.ask(what));
        let begun = Instant::now();
        loop {
            let told = peers.peer.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let patience = match stock() {
                Stock::Ready => return,
                Stock::Waits => GRANT,
                Stock::Elsewhere => GIVE_BACK,
            };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() || timeout(left, told).await.is_err() {
                return;
            }
        }
    }

    /// Holds money for the prompt and some tokens of each choice: the least, the first, and all.
    pub(super) fn pay(
        &self,
        payer: &Arc<Payer>,
        price: Option<&ModelPrice>,
        ask: &Ask,
        per_choice: [u32; 3],
        now: Millis,
    ) -> Result<Hold, Denied> {
        let Some(price) = price else { return Ok(Hold::default()) };
        let need = need(price, ask, per_choice);
        if let Some(peers) = &self.shared.peers {
            if peers.lapsed() && self.shared.books.left(payer, now).is_some() {
                let message = "The database has not been heard of for too long: what others spend \
                               of a budget is not known. Try again.";
                return Err(Denied::new(Rule::Unavailable, message).after(1));
            }
            self.shared.books.stock(payer, now, need, |what| self.shared.ask(what));
        }
        let hold = self.shared.books.hold(payer, now, need, |what| self.shared.ask(what));
        hold.map_err(|refusal| match refusal {
            Refusal::Unknown => {
                let message = "What may be spent of a budget is being summed up; try again.";
                Denied::new(Rule::Unavailable, message).after(1)
            }
            Refusal::Exceeded { budget, limit, allowed, spent, held, others, resets_at } => {
                // What lies idle with other gateways is back in a moment.
                if others == Money::ZERO {
                    self.shared.reached(&Reached {
                        budget: &budget,
                        limit,
                        percent: 100,
                        allowed,
                        spent,
                        held: Some(held),
                        resets_at,
                    });
                }
                let denied =
                    broke(&budget, limit, (allowed, spent, held), need.least, resets_at, now);
                elsewhere(denied, others)
            }
        })
    }
}

/// The price of the prompt and so many tokens of each choice: the least, the first, and all.
fn need(price: &ModelPrice, ask: &Ask, per_choice: [u32; 3]) -> Need {
    let [least, first, all] = per_choice.map(|tokens| {
        let output = u64::from(ask.choices) * u64::from(tokens);
        price.cost(&Tokens { output, ..price.dearest(ask.input_tokens) })
    });
    Need { least, first, all }
}

fn broke(
    budget: &Budget,
    limit: usize,
    (allowed, spent, held): (Money, Money, Money),
    least: Money,
    resets_at: Option<Millis>,
    now: Millis,
) -> Denied {
    let period = budget.limits.get(limit).map_or("", |limit| limit.period.name());
    let message = format!(
        "The budget '{}' allows {allowed} {period}: {spent} is spent and {held} is held by \
         requests that run; this one needs {least} at least.",
        budget.name
    );
    let denied = Denied::new(Rule::Budget, message);
    match resets_at {
        Some(at) => denied.after(u64::try_from((at - now).max(0)).unwrap_or(0).div_ceil(1000)),
        None => denied,
    }
}

/// Other gateways may give some of it back.
fn elsewhere(mut denied: Denied, others: Money) -> Denied {
    if others > Money::ZERO {
        denied.message.push_str(&format!(" {others} is set aside for other gateways."));
        denied.retry_after_s = Some(1);
    }
    denied
}
