//! The counters behind the lock: for each scope those of its rates. They are found without making
//! a key, and forgotten when forgetting them changes nothing.

use std::sync::Arc;

use super::gcra::{Gcra, Refused};
use super::{RateRule, Standing};
use crate::Map;
use crate::policy::Rates;

/// Counters from which on the table looks for some to forget.
const SWEEP_AT_LEAST: usize = 1024;

#[derive(Debug)]
pub(super) struct Table {
    scopes: Map<Arc<str>, Vec<Slot>>,
    counted: usize,
    /// So many counters start the next sweep: twice those that the last one left, so that sweeping
    /// costs each new one the same.
    sweep_at: usize,
    /// The next slot's name.
    serial: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self { scopes: Map::default(), counted: 0, sweep_at: SWEEP_AT_LEAST, serial: 0 }
    }
}

/// Counters of one rate of one scope.
#[derive(Debug)]
struct Slot {
    serial: u64,
    index: usize,
    /// Part of its name: when somebody puts another rate in this one's place, its counters begin
    /// anew unless both count the same models.
    model: Option<String>,
    requests: Option<Gcra>,
    tokens: Option<Gcra>,
    running: u32,
}

/// Where a request counts.
#[derive(Debug)]
pub(super) struct Held {
    scope: Arc<str>,
    serial: u64,
    /// Whether its requests were counted.
    requests: bool,
    /// Whether its tokens were counted.
    tokens: bool,
}

/// A request that counts in one slot.
pub(super) struct Taken {
    pub(super) held: Held,
    pub(super) requests: Option<Standing>,
    pub(super) tokens: Option<Standing>,
}

/// Which bound was reached. No time: waiting does not help.
pub(super) enum Refusal {
    Concurrent { limit: u32 },
    Requests { limit: u32, after_us: Option<u64> },
    Tokens { limit: u32, after_us: Option<u64> },
}

impl Table {
    /// Counts a request in one slot, if it fits there.
    pub(super) fn admit(
        &mut self,
        rule: &RateRule<'_>,
        tokens: u64,
        now_us: i64,
    ) -> Result<Taken, Refusal> {
        let (scope, at) = self.place(rule, now_us);
        let slots = self.scopes.get_mut(&scope).expect("the place is in the table");
        let slot = &mut slots[at];
        let (requests, tokens) = slot.admit(rule.rates, tokens, now_us)?;
        let held = Held {
            scope,
            serial: slot.serial,
            requests: requests.is_some(),
            tokens: tokens.is_some(),
        };
        Ok(Taken { held, requests, tokens })
    }

    /// As if the request had not been let in.
    pub(super) fn undo(&mut self, held: &Held, tokens: u64) {
        let Some(slot) = self.find(held) else { return };
        slot.running -= 1;
        if let Some(rate) = slot.requests.as_mut().filter(|_| held.requests) {
            rate.give_back(1);
        }
        if let Some(rate) = slot.tokens.as_mut().filter(|_| held.tokens) {
            rate.give_back(tokens);
        }
    }

    /// Counts another number of tokens than before.
    pub(super) fn correct(&mut self, held: &Held, before: u64, actual: u64, now_us: i64) {
        let Some(slot) = self.find(held) else { return };
        let Some(rate) = slot.tokens.as_mut().filter(|_| held.tokens) else { return };
        if actual < before {
            rate.give_back(before - actual);
        } else {
            rate.take(now_us, actual - before);
        }
    }

    /// The request runs no more.
    pub(super) fn leave(&mut self, held: &Held) {
        if let Some(slot) = self.find(held) {
            slot.running -= 1;
        }
    }

    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// Forgets slots that nothing is left of.
    pub(super) fn sweep(&mut self, now_us: i64) {
        self.scopes.retain(|_, slots| {
            slots.retain_mut(|slot| !slot.is_idle(now_us));
            !slots.is_empty()
        });
        self.counted = self.scopes.values().map(Vec::len).sum();
        self.sweep_at = SWEEP_AT_LEAST.max(self.counted * 2);
    }

    /// Where a rule's slot is; makes one where there is none.
    fn place(&mut self, rule: &RateRule<'_>, now_us: i64) -> (Arc<str>, usize) {
        if let Some((scope, slots)) = self.scopes.get_key_value(rule.key) {
            let at =
                slots.iter().position(|s| s.index == rule.index && s.model == rule.rates.model);
            if let Some(at) = at {
                return (scope.clone(), at);
            }
        }
        if self.counted >= self.sweep_at {
            self.sweep(now_us);
        }
        let known = self.scopes.get_key_value(rule.key).map(|(scope, _)| scope.clone());
        let scope = known.unwrap_or_else(|| Arc::from(rule.key));
        let slots = self.scopes.entry(scope.clone()).or_default();
        slots.push(Slot {
            serial: self.serial,
            index: rule.index,
            model: rule.rates.model.clone(),
            requests: None,
            tokens: None,
            running: 0,
        });
        self.serial += 1;
        self.counted += 1;
        (scope, slots.len() - 1)
    }

    /// A slot that a request runs in is never forgotten.
    fn find(&mut self, held: &Held) -> Option<&mut Slot> {
        self.scopes.get_mut(&held.scope)?.iter_mut().find(|slot| slot.serial == held.serial)
    }
}

impl Slot {
    fn is_idle(&mut self, now_us: i64) -> bool {
        let idle = |rate: &mut Option<Gcra>| rate.as_mut().is_none_or(|rate| rate.is_idle(now_us));
        self.running == 0 && idle(&mut self.requests) && idle(&mut self.tokens)
    }

    /// Counts a request: what is left of the bounds that there are.
    fn admit(
        &mut self,
        rates: &Rates,
        tokens: u64,
        now_us: i64,
    ) -> Result<(Option<Standing>, Option<Standing>), Refusal> {
        if let Some(limit) = rates.concurrent.filter(|&limit| self.running >= limit) {
            return Err(Refusal::Concurrent { limit });
        }
        let requests = count(&mut self.requests, rates.requests_per_minute, 1, now_us)
            .map_err(|(limit, after_us)| Refusal::Requests { limit, after_us })?;
        let tokens = count(&mut self.tokens, rates.tokens_per_minute, tokens, now_us);
        let tokens = tokens.map_err(|(limit, after_us)| {
            if let Some(rate) = self.requests.as_mut().filter(|_| requests.is_some()) {
                rate.give_back(1);
            }
            Refusal::Tokens { limit, after_us }
        })?;
        self.running += 1;
        Ok((requests, tokens))
    }
}

/// Counts in one rate, if it is bounded: what is left of it. Or its limit, and the microseconds
/// after which the cost would fit, if ever.
fn count(
    rate: &mut Option<Gcra>,
    limit: Option<u32>,
    cost: u64,
    now_us: i64,
) -> Result<Option<Standing>, (u32, Option<u64>)> {
    let Some(limit) = limit else { return Ok(None) };
    let rate = rate.get_or_insert_with(|| Gcra::new(limit, now_us));
    match rate.check(now_us, cost, limit) {
        Ok(left) => {
            let (remaining, reset_ms) = (left.remaining, left.reset_ms);
            Ok(Some(Standing { limit, remaining, reset_ms }))
        }
        Err(Refused::After(after_us)) => Err((limit, Some(after_us))),
        Err(Refused::Never) => Err((limit, None)),
    }
}
