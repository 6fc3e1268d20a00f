//! Command R7B and A: a JSON list between two tokens, a line for each call; calls are numbered.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "command-r7b",
    signs: &["<|START_ACTION|>"],
    openings: &["<|START_ACTION|>"],
    at_start: false,
    open: "<|START_ACTION|>[\n    ",
    between: Some(",\n    "),
    close: "\n]<|END_ACTION|>",
    before: "{\"tool_call_id\": \"{index}\", \"tool_name\": \"",
    middle: "\", \"parameters\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
