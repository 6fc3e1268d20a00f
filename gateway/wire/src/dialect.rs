//! The dialects by name.

use std::fmt;

/// A dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's plain completions.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's generateContent.
    Gemini,
    /// Amazon Bedrock's Converse.
    Converse,
    /// OpenAI's embeddings.
    Embeddings,
    /// Jina's ranking, which others share.
    Rerank,
    /// Cohere's ranking, version 2.
    Cohere,
    /// vLLM's scores of pairs.
    Score,
}

impl Dialect {
    /// Its name for people and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Converse => "converse",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Cohere => "cohere",
            Self::Score => "score",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
