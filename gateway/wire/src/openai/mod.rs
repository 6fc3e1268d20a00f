//! OpenAI's dialect: chat completions, completions, models, errors; and the two tokenizer routes
//! that vLLM added in the same style. Parsing is in `chat`, `completion` and `tokenize`; what is
//! accepted, ignored or refused by name stands in the tables of [`policy`]; answers are written
//! by [`answer`] and [`stream`].

pub mod answer;
mod chat;
mod completion;
mod decoding;
mod message;
pub mod policy;
mod render;
pub mod stream;
mod tokenize;

pub use chat::parse as parse_chat;
pub use completion::parse as parse_completion;
pub use render::{chat_to_json, completion_to_json};
pub use tokenize::{detokenize_answer, parse_detokenize, parse_tokenize, tokenize_answer};
