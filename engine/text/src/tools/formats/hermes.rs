//! Hermes, Qwen 2.5 and 3, and many others: a JSON object between tags, one pair for each call.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "hermes",
    signs: &["<tool_call>"],
    openings: &["<tool_call>"],
    at_start: false,
    open: "",
    between: Some("\n"),
    close: "",
    before: "<tool_call>\n{\"name\": \"",
    middle: "\", \"arguments\": ",
    arguments: Arguments::Json,
    after: "}\n</tool_call>",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
