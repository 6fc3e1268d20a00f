//! Command R and R+: actions as an indented JSON list in a code block.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "command-r",
    signs: &["Action:", "tool_name"],
    openings: &["Action: ```json"],
    at_start: false,
    open: "Action: ```json\n[\n",
    between: Some(",\n"),
    close: "\n]\n```",
    before: "    {\n        \"tool_name\": \"",
    middle: "\",\n        \"parameters\": ",
    arguments: Arguments::Json,
    after: "\n    }",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
