//! The dialects as types and pure translation: everything a stranger sends is parsed here, and
//! everything a client reads is written here.
//!
//! One internal model ([`request`], [`answer`], [`error`]) stands in the middle; each dialect is
//! a module that translates bytes into it and back. No I/O, no clock, no HTTP status and nothing of
//! the engine in here, so that a fuzzer can reach all of it.

pub mod answer;
pub mod back;
mod claude;
pub mod cohere;
pub mod converse;
mod dialect;
pub mod error;
mod fields;
pub mod gemini;
pub mod glance;
mod json;
pub mod limits;
pub mod lost;
pub mod messages;
pub mod openai;
pub mod piece;
pub mod pooling;
mod provider;
pub mod relay;
pub mod request;
pub mod responses;
pub mod sse;

pub use answer::{Answer, Call, Choice, Finish, Head, TokenLogprob, TopLogprob, Usage};
pub use back::Back;
pub use dialect::Dialect;
pub use error::{ApiError, ErrorKind};
pub use glance::Glance;
pub use limits::Limits;
pub use lost::Lost;
pub use piece::{Broken, Delta, Piece, Reader, Remark, Said, SealRef, Writer};
pub use pooling::{EmbeddingRequest, Encoding, Instruction, RerankRequest, ScoreRequest, Truncate};
pub use request::{
    ChatRequest, CompletionRequest, Content, Decoding, Detail, DetokenizeRequest, Effort, Form,
    Image, Message, Part, Prompt, Reasoning, Role, Seal, StreamOptions, Structured, Summary, Tag,
    Template, Thought, TokenizeInput, TokenizeRequest, Tool, ToolCall, ToolChoice,
};
