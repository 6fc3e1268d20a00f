//! The dialects as types and pure translation: everything a stranger sends is parsed here, and
//! everything a client reads is written here.
//!
//! One internal model ([`request`], [`answer`], [`error`]) stands in the middle; each dialect is
//! a module that translates bytes into it and back. Today there is [`openai`]; Responses,
//! Anthropic and Gemini become its siblings. No I/O, no clock, no HTTP status and nothing of the
//! engine in here, so that a fuzzer can reach all of it.

pub mod answer;
pub mod error;
mod fields;
mod json;
pub mod limits;
pub mod openai;
pub mod pooling;
pub mod request;

pub use answer::{Call, Choice, Finish, TokenLogprob, TopLogprob, Usage};
pub use error::{ApiError, ErrorKind};
pub use limits::Limits;
pub use pooling::{EmbeddingRequest, Encoding, Instruction, RerankRequest, ScoreRequest, Truncate};
pub use request::{
    ChatRequest, CompletionRequest, Content, Decoding, Detail, DetokenizeRequest, Effort, Form,
    Image, Message, Part, Prompt, Reasoning, Role, StreamOptions, Structured, Tag, Template,
    TokenizeInput, TokenizeRequest, Tool, ToolCall, ToolChoice,
};
