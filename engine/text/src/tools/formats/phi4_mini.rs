//! Phi-4-mini: a JSON list between two tokens.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "phi4-mini",
    signs: &["<|tool|>", "<|/tool|>"],
    openings: &["<|tool_call|>"],
    at_start: false,
    open: "<|tool_call|>[",
    between: Some(", "),
    close: "]<|/tool_call|>",
    before: "{\"name\": \"",
    middle: "\", \"arguments\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
