//! DeepSeek V3.1: tokens around each call and between name and arguments.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "deepseek-v31",
    signs: &["<｜tool▁calls▁begin｜>"],
    openings: &["<｜tool▁calls▁begin｜>"],
    at_start: false,
    open: "<｜tool▁calls▁begin｜>",
    between: Some(""),
    close: "<｜tool▁calls▁end｜>",
    before: "<｜tool▁call▁begin｜>",
    middle: "<｜tool▁sep｜>",
    arguments: Arguments::Json,
    after: "<｜tool▁call▁end｜>",
    layout: Layout::Plain,
    ids: Ids::Usual,
};
