//! Kimi K2: tokens around a section and each call; a name is numbered.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "kimi-k2",
    signs: &["<|tool_calls_section_begin|>"],
    openings: &["<|tool_calls_section_begin|>"],
    at_start: false,
    open: "<|tool_calls_section_begin|>",
    between: Some(""),
    close: "<|tool_calls_section_end|>",
    before: "<|tool_call_begin|>functions.",
    middle: ":{index}<|tool_call_argument_begin|>",
    arguments: Arguments::Json,
    after: "<|tool_call_end|>",
    layout: Layout::Plain,
    ids: Ids::Numbered,
};
