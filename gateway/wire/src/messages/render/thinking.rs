//! How hard a model thinks, in this dialect: a budget, or an effort and the model's own judgement.

use serde_json::{Map, Value};

use super::put_config;
use crate::claude::{Claude, Draws};
use crate::lost::Lost;
use crate::request::Reasoning;

/// Writes `thinking` and `output_config.effort`; which ways to choose tokens are left. `forced`: a
/// call is forced.
pub(super) fn render(
    out: &mut Map<String, Value>,
    model: &str,
    asked: Reasoning,
    (max_tokens, forced): (u32, bool),
    lost: &mut Lost,
) -> Draws {
    let mut thinking = Claude::of(model).thinking(asked, Some(max_tokens), forced, lost);
    if let Some(value) = thinking.value.as_mut().filter(|value| value["type"] != "disabled") {
        // What is shown without being asked for differs from model to model.
        value["display"] = if asked.include { "summarized" } else { "omitted" }.into();
    }
    out.extend(thinking.value.map(|value| ("thinking".to_owned(), value)));
    if let Some(effort) = thinking.effort {
        put_config(out, "effort", effort);
    }
    thinking.draws
}
