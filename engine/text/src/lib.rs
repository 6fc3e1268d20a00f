//! Tokens and text: tokenizer, chat template, incremental detokenizer, stop strings.
//!
//! Text goes in at the top of the house and comes out at the top again; everything below the
//! gateway speaks token ids. This crate is the border. It is plain and synchronous: it knows no
//! request, no socket, no clock (the caller passes `now`) and nothing else of ours.
//!
//! * [`TextModel`]: loaded once per model, shared by all requests.
//! * [`Detokenizer`] and [`StopStrings`]: one of each per generated sequence.
//! * [`ChatInput`]: what one conversation hands to the template.

pub mod answer;
mod chat;
mod decode;
mod description;
mod detokenizer;
mod encode;
mod error;
mod files;
mod folder;
mod gguf;
pub mod grammar;
mod model;
mod portable;
mod pretokenizer;
mod protobuf;
mod sentencepiece;
mod stop;
pub mod tools;
mod vocabulary;

pub use chat::ChatInput;
pub use detokenizer::Detokenizer;
pub use error::{TemplateError, TextError};
pub use files::TextFiles;
pub use gguf::GgufVocab;
pub use model::TextModel;
pub use stop::{StopStrings, Stopped};
