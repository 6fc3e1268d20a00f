//! Granite 3: a token, then a JSON list.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "granite",
    signs: &["<|tool_call|>"],
    openings: &["<|tool_call|>"],
    at_start: false,
    open: "<|tool_call|>[",
    between: Some(", "),
    close: "]",
    before: "{\"name\": \"",
    middle: "\", \"arguments\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
