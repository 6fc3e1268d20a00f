//! Mistral, tokenizers v3 to v7: a token, then a JSON list.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "mistral",
    signs: &["[TOOL_CALLS]"],
    openings: &["[TOOL_CALLS]"],
    at_start: false,
    open: "[TOOL_CALLS][",
    between: Some(", "),
    close: "]",
    before: "{\"name\": \"",
    middle: "\", \"arguments\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Nine,
};
