//! Tokens, in this dialect's sense: what was read from a cache and what was written to one stand
//! beside `input_tokens`, not in it.

use serde::Deserialize;

use crate::answer::{Finish, Usage};
use crate::json::put;

/// Appends an object with all counts.
pub(super) fn write(out: &mut Vec<u8>, usage: &Usage) {
    let apart = usage.cached_tokens.saturating_add(usage.cache_write_tokens);
    let counts = [
        ("{\"input_tokens\":", usage.prompt_tokens.saturating_sub(apart)),
        (",\"cache_creation_input_tokens\":", usage.cache_write_tokens),
        (",\"cache_read_input_tokens\":", usage.cached_tokens),
        (",\"output_tokens\":", usage.completion_tokens),
        (",\"output_tokens_details\":{\"thinking_tokens\":", usage.reasoning_tokens),
    ];
    for (name, count) in counts {
        out.extend_from_slice(name.as_bytes());
        put(out, &count);
    }
    out.extend_from_slice(b"}}");
}

/// Counts as a provider says them. What it does not say, an earlier event has said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Said {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<Details>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
struct Details {
    thinking_tokens: Option<u64>,
}

impl Said {
    /// Later counts replace earlier ones: they are sums.
    pub(super) fn correct(&mut self, later: Self) {
        let pairs = [
            (&mut self.input_tokens, later.input_tokens),
            (&mut self.cache_creation_input_tokens, later.cache_creation_input_tokens),
            (&mut self.cache_read_input_tokens, later.cache_read_input_tokens),
            (&mut self.output_tokens, later.output_tokens),
        ];
        for (count, later) in pairs {
            *count = later.or(*count);
        }
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
    }

    /// In the internal sense: the prompt with what was cached of it.
    pub(super) fn usage(&self) -> Usage {
        let cached_tokens = self.cache_read_input_tokens.unwrap_or(0);
        let cache_write_tokens = self.cache_creation_input_tokens.unwrap_or(0);
        let details = self.output_tokens_details.unwrap_or_default();
        Usage {
            prompt_tokens: self
                .input_tokens
                .unwrap_or(0)
                .saturating_add(cached_tokens)
                .saturating_add(cache_write_tokens),
            cached_tokens,
            cache_write_tokens,
            completion_tokens: self.output_tokens.unwrap_or(0),
            reasoning_tokens: details.thinking_tokens.unwrap_or(0),
        }
    }
}

/// Why a message ended. `calls`: it has some. A pause, or a reason that is new, is an end like any
/// other to a caller who cannot go on from it.
pub(super) fn finish(reason: Option<&str>, calls: bool) -> Finish {
    match reason {
        Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
        Some("tool_use") => Finish::ToolCalls,
        Some("refusal") => Finish::Refused,
        // Some servers that speak the dialect say "end_turn" after calls.
        None | Some("end_turn") if calls => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}

/// The name of an end. `stop`: the caller's text that made it.
pub(super) fn stop_reason(finish: Finish, stop: Option<&str>) -> &'static str {
    match finish {
        Finish::Stop if stop.is_some() => "stop_sequence",
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::Refused => "refusal",
    }
}

/// `"stop_reason":..,"stop_sequence":..,"stop_details":..`
pub(super) fn write_end(out: &mut Vec<u8>, finish: Finish, stop: Option<&str>) {
    out.extend_from_slice(b"\"stop_reason\":");
    put(out, stop_reason(finish, stop));
    out.extend_from_slice(b",\"stop_sequence\":");
    put(out, &stop.filter(|_| finish == Finish::Stop));
    out.extend_from_slice(if finish == Finish::Refused {
        b",\"stop_details\":{\"type\":\"refusal\",\"category\":null,\"explanation\":null}"
    } else {
        b",\"stop_details\":null"
    });
}
