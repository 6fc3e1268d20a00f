//! DeepSeek V3 and R1: tokens around each call, arguments in a code block.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "deepseek-v3",
    signs: &["<｜tool▁calls▁begin｜>", "```json"],
    openings: &["<｜tool▁calls▁begin｜>"],
    at_start: false,
    open: "<｜tool▁calls▁begin｜>",
    between: Some("\n"),
    close: "<｜tool▁calls▁end｜>",
    before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    middle: "\n```json\n",
    arguments: Arguments::Json,
    after: "\n```<｜tool▁call▁end｜>",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
