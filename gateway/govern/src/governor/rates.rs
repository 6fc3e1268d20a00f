//! Which rates a request counts in, and whether it may: by this gateway's count, or by that of all
//! of them.

use super::Governor;
use crate::limit::{self, Admitted, RateRule};
use crate::policy::check::Layer;
use crate::{Ask, Denied, Principal};

/// The layers of a principal that bound rates.
struct Layers<'a>(Vec<Bounding<'a>>);

/// A layer, with the texts that its rules show and are known by.
struct Bounding<'a> {
    layer: Layer<'a>,
    name: String,
    scope: String,
}

impl<'a> Layers<'a> {
    /// `None`: no layer bounds any rate.
    fn of(principal: &'a Principal) -> Option<Self> {
        let layers = principal.layers();
        if layers.iter().all(|layer| layer.policy.rates.is_empty()) {
            return None;
        }
        // Everything has no layer of its own; the others stand in the same order.
        let scopes = principal.scopes().into_iter().skip(1);
        let bounding = layers.into_iter().zip(scopes).filter_map(|(layer, scope)| {
            let bounds = !layer.policy.rates.is_empty();
            bounds.then(|| Bounding { name: layer.to_string(), scope: scope.to_string(), layer })
        });
        Some(Self(bounding.collect()))
    }

    fn rules(&self, model: &str) -> Vec<RateRule<'_>> {
        let mut all = Vec::new();
        for Bounding { layer, name, scope } in &self.0 {
            all.extend(limit::rules(scope, name, &layer.policy.rates, model));
        }
        all
    }
}

impl Governor {
    /// Counts a request in all its rates. `None`: nothing bounds it.
    pub(super) fn rates(
        &self,
        principal: &Principal,
        ask: &Ask,
        tokens: u64,
    ) -> Result<Option<Admitted>, Denied> {
        let Some(layers) = Layers::of(principal) else { return Ok(None) };
        let rules = layers.rules(&ask.model);
        if rules.is_empty() {
            return Ok(None);
        }
        self.shared.limits.admit(&rules, tokens, self.shared.clock.micros()).map(Some)
    }

    /// The same among all gateways that share their rates, if they do.
    pub(super) async fn rates_among(
        &self,
        principal: &Principal,
        ask: &Ask,
        tokens: u64,
    ) -> Result<Option<Admitted>, Denied> {
        if self.shared.limits.shared().is_none() {
            return self.rates(principal, ask, tokens);
        }
        let Some(layers) = Layers::of(principal) else { return Ok(None) };
        let rules = layers.rules(&ask.model);
        if rules.is_empty() {
            return Ok(None);
        }
        let organisation = principal.organisation.id.as_str();
        let now_us = self.shared.clock.micros();
        self.shared.limits.admit_among(organisation, &rules, tokens, now_us).await.map(Some)
    }

    /// Whether requests are counted for all gateways at the moment; `None` where this one counts
    /// for itself.
    #[must_use]
    pub fn rates_are_shared(&self) -> Option<bool> {
        self.shared.limits.shared().map(limit::shared::Shared::is_there)
    }
}
