//! The internal model of requests that want numbers in place of text: embeddings, and scores of
//! pairs. Plain data; ranges were checked by the dialect that parsed it.

use crate::request::Prompt;

/// How far an input may be cut to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncate {
    /// Not at all: what is too long is refused.
    #[default]
    Never,
    /// To what the model reads at most.
    ToModel,
    /// To so many tokens, or to what the model reads if that is less.
    To(usize),
}

/// What stands in front of each text, for models that were trained with instructions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Instruction {
    /// What the model's author has for texts of which nothing is said.
    #[default]
    Default,
    /// The model's prompt of this name; it has to have it.
    Named(String),
    /// Texts are questions: the model's prompt for them, if it makes a difference at all.
    Query,
    /// Texts are what is searched: as for questions.
    Document,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

/// Texts to vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingRequest {
    /// The model's name.
    pub model: String,
    /// What to embed, at least one.
    pub inputs: Vec<Prompt>,
    /// How vectors are written.
    pub encoding: Encoding,
    /// Length of the vectors; `None`: the model's.
    pub dimensions: Option<usize>,
    /// Whether inputs may be cut.
    pub truncate: Truncate,
    /// What stands in front of the texts. Token ids are taken as they are.
    pub instruction: Instruction,
}

/// One query against documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankRequest {
    /// The model's name.
    pub model: String,
    /// What is asked.
    pub query: String,
    /// What may answer it, at least one.
    pub documents: Vec<String>,
    /// Only so many of the best; `None`: all.
    pub top_n: Option<usize>,
    /// The answer repeats the documents.
    pub return_documents: bool,
    /// Tokens that are read of each document; `None`: all.
    pub document_tokens: Option<usize>,
    /// Whether pairs may be cut.
    pub truncate: Truncate,
}

/// Pairs of texts to scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// The model's name.
    pub model: String,
    /// The pairs, at least one.
    pub pairs: Vec<(String, String)>,
    /// Whether pairs may be cut.
    pub truncate: Truncate,
}
