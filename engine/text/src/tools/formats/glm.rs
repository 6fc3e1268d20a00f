//! GLM-4.5: the name, then pairs of keys and values in elements.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "glm",
    signs: &["<tool_call>", "<arg_key>"],
    openings: &["<tool_call>"],
    at_start: false,
    open: "",
    between: Some("\n"),
    close: "",
    before: "<tool_call>",
    middle: "\n",
    arguments: Arguments::Tagged {
        key_open: "<arg_key>",
        key_close: "</arg_key>\n<arg_value>",
        value_close: "</arg_value>\n",
    },
    after: "</tool_call>",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
