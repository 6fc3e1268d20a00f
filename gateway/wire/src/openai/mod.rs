//! OpenAI's dialect: chat completions, completions, embeddings, models, errors; and what others
//! added in the same style: two tokenizer routes, ranking, scores. Parsing is in `chat`,
//! `completion`, `embeddings`, `rerank` and `tokenize`, with fields that belong together in files
//! of their own; what is accepted, ignored or refused by name stands in the tables of [`policy`];
//! answers are written by [`answer`], [`stream`], [`embeddings`] and [`rerank`].

mod adapters;
pub mod answer;
mod calls;
mod chat;
mod completion;
mod decoding;
pub mod embeddings;
mod forward;
mod message;
mod order;
pub mod policy;
mod read;
mod reasoning;
mod render;
pub mod rerank;
pub mod stream;
mod strict;
mod structured;
mod tokenize;
mod tools;

pub use adapters::{AdapterRequest, parse_load_adapter, parse_unload_adapter};
pub use chat::{parse as parse_chat, parse_forward as parse_chat_forward};
pub use completion::{parse as parse_completion, parse_forward as parse_completion_forward};
pub(crate) use decoding::flex;
pub use embeddings::parse as parse_embeddings;
pub use forward::{Flavor, render};
pub(crate) use forward::{effort_of, user};
pub(crate) use read::logprob_entry as read_logprob;
pub use read::{Reader, read_answer, read_error};
pub use render::{chat_to_json, completion_to_json};
pub use rerank::{parse_rerank, parse_score, render_rerank};
pub(crate) use strict::is_strict;
pub use tokenize::{detokenize_answer, parse_detokenize, parse_tokenize, tokenize_answer};
