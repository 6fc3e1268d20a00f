//! Anthropic's dialect: Messages, with the counting of tokens, models and errors. Requests are
//! parsed in `request`, with what belongs together in files of its own; what is accepted, ignored
//! or refused by name stands in the tables of [`policy`]; answers are written by `answer` and
//! `stream`. `render`, `read` and `reader` are the same dialect from the other side: what a
//! provider that speaks it is sent, and what it says.
//!
//! What differs from OpenAI's chat, and what becomes of it here:
//! - A turn holds blocks of all kinds. Thoughts, text and calls of an assistant become one
//!   message; results of tools become messages of their own in front of the rest of their turn.
//!   Turns of one role that follow each other are one turn, as Anthropic reads them.
//! - A result says whether the tool failed. The internal model has no word for that, so the text
//!   of such a result begins with `Tool error: `, which `render` turns back.
//! - Thoughts are shown only to a caller who asked for `thinking`; with `display: omitted` no
//!   block of them is written. Without `thinking` a model here is asked not to think
//!   ([`crate::Effort::None`]); one that cannot help it has its thoughts hidden.
//! - Blocks of thoughts carry a signature. Words that nobody has sealed have the signature
//!   `hearth1.words`, which promises nothing and is dropped when it comes back; a seal of the
//!   Responses dialect travels inside a signature and is itself again when it comes back.
//! - An assistant's turn at the end is the start of the answer.
//! - `cache_control` is accepted anywhere: prefixes are shared without being told.
//!
//! Source: Anthropic's API reference; the types of the packages `anthropic` 2.12 (Python) and
//! `@anthropic-ai/sdk` 1.12.

mod answer;
mod aside;
mod block;
mod calls;
mod models;
pub mod policy;
mod read;
mod reader;
mod render;
mod request;
mod seal;
mod stream;
mod thinking;
mod tools;
mod turns;
mod usage;

pub use answer::{answer, count_answer, error};
pub use models::{model_answer, models_answer};
pub use read::{read_answer, read_error};
pub use reader::Reader;
pub use render::render;
pub use request::{parse, parse_count, parse_forward};
pub use stream::Writer;

/// In front of the text of a result whose tool failed.
const TOOL_ERROR: &str = "Tool error: ";
