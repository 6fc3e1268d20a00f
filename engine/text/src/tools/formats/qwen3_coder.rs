//! Qwen3-Coder: elements named after function and parameters.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "qwen3-coder",
    signs: &["<tool_call>", "<function=", "<parameter="],
    openings: &["<tool_call>"],
    at_start: false,
    open: "",
    between: Some("\n"),
    close: "",
    before: "<tool_call>\n<function=",
    middle: ">\n",
    arguments: Arguments::Tagged {
        key_open: "<parameter=",
        key_close: ">\n",
        value_close: "\n</parameter>\n",
    },
    after: "</function>\n</tool_call>",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
