//! gpt-oss: a message to a function on the commentary channel. What else a model may write there
//! (the recipient behind the role, the word `json` without its token) is known to `write`.

use super::super::{Arguments, Format, Ids, Layout};

/// See the module.
pub(super) const FORMAT: Format = Format {
    name: "harmony",
    signs: &["<|start|>", "<|channel|>", "<|message|>"],
    openings: &["<|channel|>commentary to=functions."],
    at_start: false,
    open: "",
    between: None,
    close: "",
    before: "<|channel|>commentary to=functions.",
    middle: " <|constrain|>json<|message|>",
    arguments: Arguments::Json,
    after: "",
    layout: Layout::Channels,
    ids: Ids::Usual,
};
