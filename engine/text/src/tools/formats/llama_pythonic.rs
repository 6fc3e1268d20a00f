//! Llama 3.2 and 4: a list of calls in the syntax of Python.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "llama-pythonic",
    signs: &["[func_name1(params_name1=params_value1"],
    openings: &["[{name}("],
    at_start: true,
    open: "[",
    between: Some(", "),
    close: "]",
    before: "",
    middle: "(",
    arguments: Arguments::Python,
    after: ")",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
