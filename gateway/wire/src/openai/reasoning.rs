//! The fields that steer thoughts: OpenAI's `reasoning_effort`, vLLM's `thinking_token_budget` and
//! `include_reasoning`, and OpenRouter's `reasoning`, which says the first two in other words.

use super::policy;
use crate::fields::{Fault, Fields, Parsed};
use crate::request::{Effort, Reasoning};

pub(crate) fn parse(fields: Fields<'_>) -> Parsed<Reasoning> {
    let inner = fields.object("reasoning")?;
    let (inner_effort, inner_budget) = inner
        .map_or(Ok((None, None)), |inner| {
            policy::apply(inner, &[policy::REASONING])?;
            Ok((effort(inner, "effort")?, inner.natural("max_tokens", 0..=u32::MAX)?))
        })
        .map_err(|fault: Fault| fault.under("reasoning"))?;
    let effort = one(
        (effort(fields, "reasoning_effort")?, "reasoning_effort"),
        (inner_effort, "reasoning.effort"),
    )?;
    let budget = one(
        (fields.natural("thinking_token_budget", 0..=u32::MAX)?, "thinking_token_budget"),
        (inner_budget, "reasoning.max_tokens"),
    )?;
    let include = fields.boolean("include_reasoning", true)?;
    Ok(Reasoning { effort, budget, include, ..Reasoning::default() })
}

/// A client may send both names if they agree.
fn one<T: PartialEq>(first: (Option<T>, &str), second: (Option<T>, &str)) -> Parsed<Option<T>> {
    if first.0.is_some() && second.0.is_some() && first.0 != second.0 {
        return Err(Fault::value(second.1, format!("it differs from '{}'", first.1)));
    }
    Ok(first.0.or(second.0))
}

fn effort(fields: Fields<'_>, field: &str) -> Parsed<Option<Effort>> {
    let Some(name) = fields.string(field)? else { return Ok(None) };
    let known = Effort::ALL.into_iter().find(|effort| effort.name() == name);
    let all = || Effort::ALL.map(Effort::name).join("', '");
    known.map(Some).ok_or_else(|| Fault::value(field, format!("expected one of '{}'", all())))
}
