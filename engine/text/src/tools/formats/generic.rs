//! For models whose template knows no tools: the prompt asks for a JSON object, a list of calls.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(in super::super) const FORMAT: Format = Format {
    name: "generic",
    signs: &[],
    openings: &["{\"tool_calls\": ["],
    at_start: true,
    open: "{\"tool_calls\": [",
    between: Some(", "),
    close: "]}",
    before: "{\"name\": \"",
    middle: "\", \"arguments\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
