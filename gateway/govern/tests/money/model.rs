//! What the books should say, worked out from lists: every row ever settled, every request that
//! runs. Slow, and too plain to be wrong in the same way.

use std::collections::BTreeMap;

use govern::budget::window::{Window, zone};
use govern::entity::{Budget, PriceSheet};
use govern::ledger::{Outcome, ServiceTier, Tokens};
use govern::policy::pattern;
use govern::price::{ModelPrice, TokenPrices};
use govern::{Id, Money, Scope};

/// Who pays, for which model, and when it was let in.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    pub(super) scopes: Vec<Scope>,
    pub(super) model: String,
    pub(super) at: i64,
}

/// A row that the ledger should have.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) payer: Payer,
    pub(super) tokens: Tokens,
    pub(super) cost: i64,
    pub(super) outcome: Outcome,
    pub(super) price: String,
    pub(super) served: ServiceTier,
}

/// How a request is sold: what is held by, and what is charged, served as a batch or not.
#[derive(Debug, Clone)]
pub(super) struct Sold {
    pub(super) held: ModelPrice,
    pub(super) usual: ModelPrice,
    pub(super) flex: ModelPrice,
}

impl Sold {
    /// `local`: it is known before that it is served as it was asked for.
    pub(super) fn of(price: &ModelPrice, asked: ServiceTier, local: bool) -> Self {
        let usual = with(price, |rates, _| rates);
        let flex = with(price, |rates, batch| batch.unwrap_or(rates));
        let held = match (asked, local) {
            (ServiceTier::Default, _) => usual.clone(),
            (ServiceTier::Flex, true) => flex.clone(),
            (ServiceTier::Flex, false) => with(price, |a, batch| {
                let b = batch.unwrap_or(a);
                let cache = |of: fn(&TokenPrices) -> Option<u64>| {
                    Some(of(&a).unwrap_or(a.input).max(of(&b).unwrap_or(b.input)))
                };
                TokenPrices {
                    input: a.input.max(b.input),
                    output: a.output.max(b.output),
                    cache_read: cache(|rates| rates.cache_read),
                    cache_write: cache(|rates| rates.cache_write),
                }
            }),
        };
        Self { held, usual, flex }
    }

    pub(super) fn charged(&self, served: ServiceTier) -> &ModelPrice {
        match served {
            ServiceTier::Default => &self.usual,
            ServiceTier::Flex => &self.flex,
        }
    }
}

fn with(
    price: &ModelPrice,
    rates: impl Fn(TokenPrices, Option<TokenPrices>) -> TokenPrices,
) -> ModelPrice {
    let mut made = price.clone();
    made.rates = rates(price.rates, price.batch);
    made.tiers.iter_mut().for_each(|tier| tier.rates = rates(tier.rates, tier.batch));
    made
}

/// All that counts.
#[derive(Default)]
pub(super) struct Model {
    pub(super) budgets: BTreeMap<Id, Budget>,
    /// The organisations' zones.
    pub(super) zones: BTreeMap<Id, String>,
    pub(super) sheets: Vec<PriceSheet>,
    /// By request.
    pub(super) rows: BTreeMap<String, Row>,
    /// What running requests hold, by request.
    pub(super) holds: BTreeMap<String, (Payer, i64)>,
    /// Spent and held, as last seen.
    seen: BTreeMap<(Id, usize, i64), i128>,
}

/// Pico-dollars of tokens: a tier's prices count for the whole prompt.
fn pico(price: &ModelPrice, tokens: &Tokens) -> u128 {
    let mut rates = price.rates;
    for tier in &price.tiers {
        if tokens.input > tier.above_input_tokens {
            rates = tier.rates;
        }
    }
    let read = tokens.cache_read.min(tokens.input);
    let write = tokens.cache_write.min(tokens.input - read);
    let parts = [
        (tokens.input - read - write, rates.input),
        (read, rates.cache_read.unwrap_or(rates.input)),
        (write, rates.cache_write.unwrap_or(rates.input)),
        (tokens.output, rates.output),
    ];
    parts.iter().map(|(count, each)| u128::from(*count) * u128::from(*each)).sum()
}

/// Nano-dollars, a part of one counting as one.
pub(super) fn cost(price: &ModelPrice, tokens: &Tokens) -> i64 {
    let pico = pico(price, tokens);
    i64::try_from(pico / 1000 + u128::from(!pico.is_multiple_of(1000))).expect("small prices")
}

/// What a request may cost at most, with so many new tokens in each choice.
pub(super) fn most(price: &ModelPrice, input: u64, choices: u32, output: u32) -> i64 {
    let tokens =
        Tokens { input, output: u64::from(choices) * u64::from(output), ..Tokens::default() };
    let read = Tokens { cache_read: input, ..tokens };
    let write = Tokens { cache_write: input, ..tokens };
    [tokens, read, write].map(|tokens| cost(price, &tokens)).into_iter().max().expect("three")
}

/// Most new tokens of each choice that an amount pays for.
pub(super) fn paid(price: &ModelPrice, input: u64, choices: u32, amount: i64, bound: u32) -> u32 {
    let fits = |output: u32| most(price, input, choices, output) <= amount;
    let (mut low, mut high) = (0, bound);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

impl Model {
    /// The price in force, and its sheet's name.
    pub(super) fn price(&self, model: &str, now: i64) -> (String, Option<ModelPrice>) {
        let begun = self.sheets.iter().filter(|sheet| sheet.effective_from <= now);
        let Some(sheet) = begun.max_by_key(|sheet| (sheet.effective_from, sheet.id.clone())) else {
            return (String::new(), None);
        };
        let found = sheet.models.iter().find(|price| pattern::matches(&price.model, model));
        (sheet.id.to_string(), found.cloned())
    }

    fn window(&self, budget: &Budget, limit: usize, at: i64) -> Window {
        let organisations = self.zones.get(&budget.organisation).map(String::as_str);
        let name = budget.time_zone.as_deref().or(organisations).unwrap_or("UTC");
        Window::of(budget.limits[limit].period, at, &zone(name).expect("a zone"))
    }

    /// Spent and held in the window of a time.
    pub(super) fn total(&self, budget: &Budget, limit: usize, at: i64) -> (i128, i128) {
        let window = self.window(budget, limit, at);
        let counts = |payer: &Payer| {
            window.contains(payer.at)
                && payer.scopes.contains(&budget.scope)
                && budget
                    .model
                    .as_deref()
                    .is_none_or(|wanted| pattern::matches(wanted, &payer.model))
        };
        let rows = self.rows.values().filter(|row| row.cost > 0 && counts(&row.payer));
        let holds = self.holds.values().filter(|(payer, _)| counts(payer));
        let spent = rows.map(|row| i128::from(row.cost)).sum();
        (spent, holds.map(|(_, amount)| i128::from(*amount)).sum())
    }

    /// The budgets that a payer's spending counts in.
    pub(super) fn budgets_of(&self, payer: &Payer) -> impl Iterator<Item = &Budget> {
        let (scopes, model) = (payer.scopes.clone(), payer.model.clone());
        self.budgets.values().filter(move |budget| {
            scopes.contains(&budget.scope)
                && budget.model.as_deref().is_none_or(|wanted| pattern::matches(wanted, &model))
        })
    }

    pub(super) fn allowed(budget: &Budget, limit: usize, now: i64) -> i128 {
        let limit = &budget.limits[limit];
        let raises = limit.raises.iter().filter(|raise| raise.from <= now && now < raise.until);
        i128::from(limit.nano_usd.0) + raises.map(|r| i128::from(r.nano_usd.0)).sum::<i128>()
    }

    /// What the tightest hard limit has left; `None`: there is none.
    pub(super) fn left(&self, payer: &Payer, now: i64) -> Option<i128> {
        let lefts = self.budgets_of(payer).flat_map(|budget| {
            let hard = (0..budget.limits.len()).filter(|limit| !budget.limits[*limit].soft);
            hard.map(|limit| {
                let (spent, held) = self.total(budget, limit, payer.at);
                Self::allowed(budget, limit, now) - spent - held
            })
        });
        lefts.min()
    }

    /// A budget counts other things now than before: what was seen says nothing any more.
    pub(super) fn forget(&mut self, budget: &Id) {
        self.seen.retain(|(id, ..), _| id != budget);
    }

    /// A payer was granted money, which was checked.
    pub(super) fn granted(&mut self, payer: &Payer) {
        let all: Vec<Budget> = self.budgets_of(payer).cloned().collect();
        for budget in &all {
            for limit in 0..budget.limits.len() {
                let (spent, held) = self.total(budget, limit, payer.at);
                let start = self.window(budget, limit, payer.at).start;
                self.seen.insert((budget.id.clone(), limit, start), spent + held);
            }
        }
    }

    /// Compares what a governor says with the lists. `standing` is told for each budget.
    pub(super) fn check(
        &mut self,
        now: i64,
        standing: impl Fn(&Id) -> Vec<govern::budget::books::Standing>,
    ) {
        let budgets: Vec<Budget> = self.budgets.values().cloned().collect();
        for budget in &budgets {
            let found = standing(&budget.id);
            assert_eq!(found.len(), budget.limits.len(), "{}", budget.name);
            for (limit, found) in found.iter().enumerate() {
                let (spent, held) = self.total(budget, limit, now);
                let about = format!("{} limit {limit} at {now}", budget.name);
                assert_eq!(found.window, self.window(budget, limit, now), "{about}");
                assert_eq!(i128::from(found.held.0), held, "{about}: held");
                if found.known {
                    assert_eq!(i128::from(found.spent.0), spent, "{about}: spent");
                }
                let allowed = Self::allowed(budget, limit, now);
                assert_eq!(i128::from(found.allowed.0), allowed, "{about}: allowed");
                if budget.limits[limit].soft {
                    continue;
                }
                let key = (budget.id.clone(), limit, found.window.start);
                let before = self.seen.insert(key, spent + held);
                if let Some(before) = before {
                    // An edit, or the end of a raise, may leave more than is allowed: then nothing
                    // is added to it.
                    assert!(
                        spent + held <= allowed.max(before),
                        "{about}: {spent} + {held} of {allowed}, {before} before"
                    );
                }
            }
        }
    }
}

/// Money of a small number.
pub(super) fn money(nano: i128) -> Money {
    Money(i64::try_from(nano).expect("a small amount"))
}
