//! What happens to requests: they are let in or refused, make tokens, and end in every way that
//! there is.

use std::sync::Arc;

use govern::ledger::{Outcome, ServiceTier, Tokens};
use govern::{Ask, Operation, Rule};

use super::model::{Payer, Row, Sold, cost, money, most, paid};
use super::world::{MODELS, World};

/// A request that runs.
pub(super) struct Running {
    operation: Arc<Operation>,
    request: String,
    payer: Payer,
    sheet: String,
    /// `None`: it costs nothing.
    price: Option<Sold>,
    /// How it asks to be served, and whether that is sure.
    asked: ServiceTier,
    local: bool,
    input: u64,
    /// Tokens of each choice.
    made: Vec<u32>,
    allowance: u32,
    /// Tokens and thoughts that were handed out.
    handed: (u64, u64),
}

impl Running {
    fn choices(&self) -> u32 {
        self.made.len() as u32
    }

    fn output(&self) -> u64 {
        self.made.iter().copied().map(u64::from).sum()
    }

    /// How it counts as served, where somebody says this of it.
    fn served(&self, says: Option<ServiceTier>) -> ServiceTier {
        match (self.local, self.asked) {
            (true, asked) => asked,
            (false, ServiceTier::Flex) => says.unwrap_or_default(),
            (false, ServiceTier::Default) => ServiceTier::Default,
        }
    }

    fn longest(&self) -> u32 {
        self.made.iter().copied().max().unwrap_or(0)
    }
}

impl World {
    fn held(&self) -> i128 {
        let standing = self.governor.books().standing(&self.watcher, self.now());
        i128::from(standing.expect("the watcher")[0].held.0)
    }

    fn ask(&mut self) -> Ask {
        self.serial += 1;
        let random = &mut self.random;
        let flex = random.permille(400);
        let elsewhere = random.permille(500);
        Ask {
            backend: if elsewhere { "a provider".to_owned() } else { String::new() },
            service_tier: if flex { ServiceTier::Flex } else { ServiceTier::Default },
            model: random.pick(&MODELS).to_owned(),
            surface: "chat",
            input_tokens: random.pick(&[0, 1, 7, 100, 999, 1000, 1001, 4000]),
            choices: random.between(1, 3) as u32,
            max_output: random.permille(400).then(|| random.between(1, 1500) as u32),
            room: random.pick(&[0, 1, 30, 700, 6000]),
            request_id: format!("request {:06}", self.serial).into(),
            ..Ask::default()
        }
    }

    /// Somebody asks for something.
    pub(super) async fn admit(&mut self, running: &mut Vec<Running>) {
        let ask = self.ask();
        let key = self.keys[self.random.index(self.keys.len())].clone();
        let principal = self.principal(&key);
        let (scopes, model) = (principal.scopes(), ask.model.clone());
        let payer = Payer { scopes, model, at: self.now() };
        let (sheet, price) = self.model.price(&ask.model, payer.at);
        let before = self.held();
        self.governor.stock_up(&principal, &ask).await;
        let mut result = self.governor.admit(&principal, &ask);
        // Behind a clock that was set, each of its budgets may have to be summed up.
        for _ in 0..self.model.budgets.len() {
            let unknown = |denied: &govern::Denied| denied.rule == Rule::Unavailable;
            if !result.as_ref().is_err_and(unknown) {
                break;
            }
            self.tally.summed_up += 1;
            self.governor.flush().await;
            self.governor.stock_up(&principal, &ask).await;
            result = self.governor.admit(&principal, &ask);
        }
        let left = self.model.left(&payer, payer.at);
        let about = format!("{} of {}: {left:?} left", ask.request_id, ask.model);
        let Some(price) = price else {
            assert_eq!(result.is_err(), left.is_some(), "{about}");
            if let Err(denied) = &result {
                assert_eq!(denied.rule, Rule::Price, "{about}");
                self.tally.without_price += 1;
            }
            return self.admitted(result.ok(), (ask, payer, sheet, None), 0, running);
        };
        let sold = Sold::of(&price, ask.service_tier, ask.is_local());
        if sold.held.is_free() {
            let operation = result.expect("nobody pays for it");
            return self.admitted(Some(operation), (ask, payer, sheet, None), 0, running);
        }
        let bound = ask.max_output.unwrap_or(u32::MAX).min(ask.room);
        let price = &sold.held;
        let cost = |output: u32| i128::from(most(price, ask.input_tokens, ask.choices, output));
        let granted = self.held() - before;
        match result {
            Ok(operation) => {
                assert!(left.is_none_or(|left| granted <= left), "{about}: {granted} granted");
                let enough = cost(bound.min(64));
                let all = left.map_or(enough, |left| enough.min(left));
                assert!(granted >= all, "{about}: only {granted} granted");
                assert!(granted <= cost(bound), "{about}: {granted} granted, for nothing");
                let allowance = paid(price, ask.input_tokens, ask.choices, money(granted).0, bound);
                assert_eq!(operation.allowance(), allowance, "{about}");
                let about = (ask, payer, sheet, Some(sold));
                self.admitted(Some(operation), about, granted, running);
            }
            Err(denied) => {
                assert_eq!(denied.rule, Rule::Budget, "{about}: {denied}");
                assert!(left.is_some_and(|left| left < cost(bound.min(1))), "{about}: {denied}");
                assert_eq!(granted, 0, "{about}");
                self.tally.refused += 1;
            }
        }
    }

    fn admitted(
        &mut self,
        operation: Option<Arc<Operation>>,
        (ask, payer, sheet, price): (Ask, Payer, String, Option<Sold>),
        granted: i128,
        running: &mut Vec<Running>,
    ) {
        let Some(operation) = operation else { return };
        self.tally.admitted += 1;
        assert_eq!(operation.max_output(), ask.max_output.unwrap_or(u32::MAX).min(ask.room));
        let held = (payer.clone(), money(granted).0);
        self.model.holds.insert(ask.request_id.to_string(), held);
        self.model.granted(&payer);
        running.push(Running {
            allowance: operation.allowance(),
            operation,
            payer,
            sheet,
            price,
            asked: ask.service_tier,
            local: ask.is_local(),
            request: ask.request_id.to_string(),
            input: ask.input_tokens,
            made: vec![0; ask.choices as usize],
            handed: (0, 0),
        });
    }

    /// The engine makes some tokens for one choice of a request. `true`: that choice can have no
    /// more.
    pub(super) async fn make(&mut self, running: &mut Running) -> bool {
        let choice = self.random.index(running.made.len());
        let burst = self.random.between(1, 12) as u32;
        let room = running.allowance.min(running.operation.max_output()) - running.made[choice];
        running.made[choice] += burst.min(room);
        let longest = running.longest();
        let before = self.held();
        let left = self.model.left(&running.payer, self.now());
        let mut grown = running.operation.made(longest);
        if grown.is_none() && self.shares {
            // More was leased, if there is any; an engine asks again at the next token.
            self.governor.flush().await;
            grown = running.operation.made(longest);
        }
        let granted = self.held() - before;
        let bound = running.operation.max_output();
        if let Some(Sold { held: price, .. }) = &running.price {
            let held = self.model.holds.get_mut(&running.request).expect("it runs");
            assert!(left.is_none_or(|left| granted <= left.max(0)), "{granted} of {left:?}");
            held.1 += money(granted).0;
            let (held, choices) = (held.1, running.choices());
            let allowance = paid(price, running.input, choices, held, bound);
            if let Some(grown) = grown {
                assert!(grown > running.allowance && granted > 0);
                assert_eq!(grown, allowance);
                self.tally.extended += 1;
            } else {
                assert_eq!(granted, 0);
                if longest >= running.allowance && longest < bound {
                    // It ends here, and rightly so.
                    self.tally.stopped += 1;
                    let next = most(price, running.input, choices, running.allowance + 1);
                    let left = left.expect("a hard limit");
                    assert!(left < i128::from(next - held), "{left} would have paid for more");
                }
            }
            self.model.granted(&running.payer);
        } else {
            assert_eq!((grown, granted), (None, 0));
        }
        running.allowance = running.operation.allowance();
        if self.random.permille(600) {
            let output = running.output();
            running.handed = (output, self.random.between(0, output));
            running.operation.hands_out(running.handed.0, running.handed.1);
        }
        running.made[choice] >= running.allowance.min(bound)
    }

    /// It ends, one way or the other.
    pub(super) fn end(&mut self, running: Running) {
        let random = &mut self.random;
        let cache_read = random.between(0, running.input);
        let cache_write = random.between(0, running.input - cache_read);
        let used = Tokens {
            input: running.input,
            cache_read,
            cache_write,
            output: running.output(),
            reasoning: 0,
        };
        let (operation, handed) = (&running.operation, running.handed);
        // A provider may say that it served it as any other, or nothing at all.
        let says = random.pick(&[None, Some(ServiceTier::Default), Some(ServiceTier::Flex)]);
        says.into_iter().for_each(|tier| operation.served(tier));
        let served = running.served(says);
        let bound = operation.max_output();
        let stopped = running.longest() >= running.allowance && running.allowance < bound;
        let thoughts = Tokens { reasoning: handed.1, ..used };
        let (tokens, outcome) = match random.below(6) {
            0..=2 => {
                operation.used(used, Outcome::Cancelled, 3);
                if stopped {
                    operation.stopped_by_budget();
                }
                // An answer that was cut at a stop string says one less than was made.
                let output = used.output.saturating_sub(random.below(2));
                let reasoning = random.between(0, output);
                operation.answered(output, reasoning);
                let receipt = operation.finish();
                let outcome = if stopped { Outcome::BudgetStop } else { Outcome::Done };
                assert_eq!(receipt.budget_stop, stopped);
                // Whoever is late changes nothing, and pays nothing again.
                operation.used(Tokens::default(), Outcome::Failed, 0);
                operation.served(ServiceTier::Flex);
                operation.hands_out(output + 9, 0);
                assert_eq!(operation.made(running.allowance), None);
                assert_eq!(operation.finish().cost, receipt.cost);
                (Tokens { output, reasoning, ..used }, outcome)
            }
            3 => {
                operation.used(used, Outcome::Cancelled, 3);
                (thoughts, Outcome::Cancelled)
            }
            4 => {
                operation.used(used, Outcome::Failed, 3);
                (thoughts, Outcome::Failed)
            }
            _ => {
                // Nobody says anything: a panic, or it never began.
                let handed = Tokens {
                    input: running.input,
                    output: handed.0,
                    reasoning: handed.1,
                    ..Tokens::default()
                };
                let tokens = if handed.output == 0 { Tokens::default() } else { handed };
                (tokens, Outcome::Cancelled)
            }
        };
        let price = running.price.as_ref().filter(|_| outcome != Outcome::Failed);
        let cost = price.map_or(0, |price| cost(price.charged(served), &tokens));
        let (_, held) = self.model.holds.remove(&running.request).expect("it ran");
        assert!(cost <= held, "{cost} was spent of {held}");
        let Running { request, payer, sheet: price, .. } = running;
        self.model.rows.insert(request, Row { payer, tokens, cost, outcome, price, served });
    }
}
