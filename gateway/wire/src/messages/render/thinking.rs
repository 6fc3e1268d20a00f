//! How hard a model thinks, in this dialect: a budget, or an effort and the model's own judgement.

use serde_json::{Map, Value};

use super::put_config;
use crate::claude::{Claude, Draws, Setting};
use crate::json::set;
use crate::lost::Lost;
use crate::request::Reasoning;

/// Writes `thinking`, `output_config.effort` and the limit of tokens that goes with them; which
/// ways to choose tokens are left. `default`: the limit of an answer where the caller sets none.
pub(super) fn render(
    out: &mut Map<String, Value>,
    own: Claude,
    asked: Reasoning,
    (within, default): (Setting, u32),
    lost: &mut Lost,
) -> Draws {
    let mut thinking = own.thinking(asked, within, lost);
    let max_tokens = within.max_tokens.unwrap_or_else(|| own.limit_with(default, &thinking));
    set(out, "max_tokens", max_tokens.max(1));
    thinking.show(asked.include);
    out.extend(thinking.value.map(|value| ("thinking".to_owned(), value)));
    if let Some(effort) = thinking.effort {
        put_config(out, "effort", effort);
    }
    thinking.draws
}
