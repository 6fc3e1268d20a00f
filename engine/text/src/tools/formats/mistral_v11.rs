//! Mistral, tokenizers v11 and later: a token before each name and one before its arguments.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "mistral-v11",
    signs: &["[TOOL_CALLS]", "[ARGS]"],
    openings: &["[TOOL_CALLS]"],
    at_start: false,
    open: "",
    between: Some(""),
    close: "",
    before: "[TOOL_CALLS]",
    middle: "[ARGS]",
    arguments: Arguments::Json,
    after: "",
    layout: Layout::Plain,
    ids: Ids::Nine,
};
