//! What is to be known of a request before it counts anywhere: what policy allows of it, who pays,
//! and at which price.

use std::sync::Arc;

use super::Governor;
use crate::bodies::Place;
use crate::budget::Payer;
use crate::ledger::ServiceTier;
use crate::policy::check::{self, Allowed};
use crate::price::ModelPrice;
use crate::{Ask, Denied, Millis, Principal, Rule};

impl Governor {
    /// What is to be known of a request before it counts anywhere.
    pub(super) fn weigh(&self, principal: &Principal, ask: &Ask) -> Result<Weighed, Denied> {
        let now = self.shared.clock.now();
        let allowed = check::request(&principal.layers(), ask)?;
        if principal.project.is_none() {
            let message =
                "Requests are booked on a project, and whoever asks has none; show a key of one.";
            return Err(Denied::new(Rule::NoProject, message));
        }
        let payer =
            Arc::new(Payer { scopes: principal.scopes(), model: ask.answering().to_owned() });
        let (sheet, price, open) = {
            let directory = self.shared.directory();
            let sheet = directory.prices_at(now);
            let found = sheet.and_then(|sheet| sheet.price(ask.answering()));
            // Somebody else may serve it as a batch, or as any other.
            let open = found.filter(|_| ask.service_tier == ServiceTier::Flex && !ask.is_local());
            let price = match (found, open) {
                (_, Some(price)) => Some(price.dearer()),
                (Some(price), None) => Some(price.of(ask.service_tier).into_owned()),
                (None, None) => None,
            };
            let sheet = sheet.map(|sheet| sheet.id.text()).unwrap_or_default();
            (sheet, price, open.cloned())
        };
        if !price.as_ref().is_some_and(ModelPrice::is_bounded)
            && self.shared.books.left(&payer, now).is_some()
        {
            return Err(unpriced(ask.answering(), price.is_some()));
        }
        let place = allowed.record.then(|| self.shared.bodies.reserve()).transpose()?;
        let step = self.shared.step(ask.answering()).max(ask.burst.saturating_mul(2));
        let first = step.min(allowed.max_output);
        let output = u64::from(ask.choices) * u64::from(first);
        let expected = ask.input_tokens.saturating_add(output);
        Ok(Weighed { now, allowed, payer, sheet, price, open, step, first, expected, place })
    }
}

/// A hard budget pays, and nobody could say what is left of it. `timed`: there is a price, of time
/// that nothing bounds.
pub(crate) fn unpriced(model: &str, timed: bool) -> Denied {
    let why = match timed {
        true => "is priced by its device's time without a `us_per_token_max`",
        false => "has no price",
    };
    Denied::new(Rule::Price, format!("A budget pays for this, and {model} {why}."))
}

/// What is known of a request that is about to count.
pub(super) struct Weighed {
    pub(super) now: Millis,
    pub(super) allowed: Allowed,
    pub(super) payer: Arc<Payer>,
    /// The price sheet's id.
    pub(super) sheet: Arc<str>,
    /// What is held by.
    pub(super) price: Option<ModelPrice>,
    /// The sheet's own, where only the answer tells how the request was served.
    pub(super) open: Option<ModelPrice>,
    /// Tokens per choice that are asked for at a time, and at first.
    pub(super) step: u32,
    pub(super) first: u32,
    /// What it counts for in the rates of tokens.
    pub(super) expected: u64,
    pub(super) place: Option<Place>,
}
