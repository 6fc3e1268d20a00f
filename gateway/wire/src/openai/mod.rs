//! OpenAI's dialect: chat completions, completions, embeddings, models, errors; and what others
//! added in the same style: two tokenizer routes, ranking, scores. Parsing is in `chat`,
//! `completion`, `embeddings`, `rerank` and `tokenize`, with fields that belong together in files
//! of their own; what is accepted, ignored or refused by name stands in the tables of [`policy`];
//! answers are written by [`answer`], [`stream`], [`embeddings`] and [`rerank`].

mod adapters;
pub mod answer;
mod chat;
mod completion;
mod decoding;
pub mod embeddings;
mod message;
mod order;
pub mod policy;
mod reasoning;
mod render;
pub mod rerank;
pub mod stream;
mod structured;
mod tokenize;
mod tools;

pub use adapters::{AdapterRequest, parse_load_adapter, parse_unload_adapter};
pub use chat::parse as parse_chat;
pub use completion::parse as parse_completion;
pub use embeddings::parse as parse_embeddings;
pub use render::{chat_to_json, completion_to_json};
pub use rerank::{parse_rerank, parse_score};
pub use tokenize::{detokenize_answer, parse_detokenize, parse_tokenize, tokenize_answer};
