//! Llama 3.1 to 3.3: the whole answer is a JSON object, or several with semicolons between them.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "llama-json",
    signs: &["dictionary of argument name and its value"],
    openings: &["{\"name\": \""],
    at_start: true,
    open: "",
    between: Some("; "),
    close: "",
    before: "{\"name\": \"",
    middle: "\", \"parameters\": ",
    arguments: Arguments::Json,
    after: "}",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
