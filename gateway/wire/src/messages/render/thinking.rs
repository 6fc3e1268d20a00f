//! How hard a model thinks, in this dialect: a budget, or an effort and the model's own judgement.

use serde_json::{Map, Value, json};

use super::put_config;
use crate::json::set;
use crate::lost::Lost;
use crate::messages::thinking::BUDGET_MIN;
use crate::request::{Effort, Reasoning};

/// Writes `thinking` and `output_config.effort`; whether the model may think. `forced`: a call is
/// forced, with which there are no thoughts.
pub(super) fn render(
    out: &mut Map<String, Value>,
    asked: Reasoning,
    max_tokens: u32,
    forced: bool,
    lost: &mut Lost,
) -> bool {
    if asked.effort == Some(Effort::None) || asked.budget == Some(0) {
        set(out, "thinking", json!({"type": "disabled"}));
        return false;
    }
    if forced {
        // Asked for both, the provider refuses the request.
        lost.some("reasoning_effort", asked.effort.as_ref());
        lost.some("thinking_token_budget", asked.budget.as_ref());
        return false;
    }
    let budget = asked.budget.map(|budget| budget.min(max_tokens.saturating_sub(1)));
    let fits = budget.filter(|budget| *budget >= BUDGET_MIN);
    if budget.is_some() && fits.is_none() {
        lost.field("thinking_token_budget");
    }
    let mut thinking = match (fits, asked.effort) {
        (Some(budget), _) => json!({"type": "enabled", "budget_tokens": budget}),
        (None, Some(_)) => json!({"type": "adaptive"}),
        (None, None) => return false,
    };
    // What is shown without being asked for differs from model to model.
    thinking["display"] = if asked.include { "summarized" } else { "omitted" }.into();
    out.insert("thinking".into(), thinking);
    if let Some(effort) = asked.effort {
        // The least that there is.
        let effort = if effort == Effort::Minimal { Effort::Low } else { effort };
        put_config(out, "effort", effort.name());
    }
    true
}
