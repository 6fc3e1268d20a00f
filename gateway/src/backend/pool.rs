//! A model that reads and does not write: what handlers know of it.

use std::sync::Arc;
use std::time::Instant;

use scheduler::types::Refusal;

use super::SubmitError;
use super::embed::{Input, LocalEmbedder, Pooling, Vectors};
use super::source::Source;
use crate::cluster::{ClusterReader, ClusterReading};

/// What becomes of what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One vector per text.
    Embed,
    /// One score per pair of texts.
    Rerank,
}

impl Task {
    /// As `/v1/models` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
        }
    }

    /// The routes that such a model answers on.
    #[must_use]
    pub fn serves(self) -> &'static str {
        match self {
            Self::Embed => "/v1/embeddings",
            Self::Rerank => "/v1/rerank and /v1/score",
        }
    }
}

/// How texts become tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// What stands in front of a text, by name.
    pub prompts: Vec<(String, String)>,
    /// The one of these that stands there when nothing is said.
    pub default_prompt: Option<String>,
    /// What stands in front is part of the vector.
    pub include_prompt: bool,
    /// Texts are made lower case first.
    pub lower_case: bool,
    /// How a pair is written where it becomes one text: what stands before the query, between
    /// both and behind. `None`: the tokenizer knows how.
    pub pair: Option<[String; 3]>,
}

/// A model that makes one vector of each text, or one score of each pair.
pub struct PoolModel {
    /// Its name in `/v1/models` and in requests.
    pub id: String,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
    /// What it does.
    pub task: Task,
    /// Longest input in tokens.
    pub context: usize,
    /// Numbers in a vector.
    pub size: usize,
    /// Vectors have length one.
    pub normalises: bool,
    /// Tokenizer.
    pub text: Arc<text::TextModel>,
    /// How texts become tokens.
    pub reads: Reads,
    /// The engine.
    pub engine: Reader,
}

/// What reads for a model.
pub type Reader = Source<LocalEmbedder, ClusterReader>;

/// A request that one of them has. Dropping it cancels it.
pub(crate) type BeingRead = Source<Pooling, Box<ClusterReading>>;

impl From<LocalEmbedder> for Reader {
    fn from(engine: LocalEmbedder) -> Self {
        Self::Local(engine)
    }
}

impl From<ClusterReader> for Reader {
    fn from(engine: ClusterReader) -> Self {
        Self::Cluster(engine)
    }
}

impl Reader {
    /// Hands inputs over; latency and timeout count from `arrived`.
    ///
    /// # Errors
    /// They cannot be taken now.
    pub(crate) fn submit(
        &self,
        inputs: Vec<Input>,
        arrived: Instant,
    ) -> Result<BeingRead, SubmitError> {
        Ok(match self {
            Self::Local(engine) => BeingRead::Local(engine.submit(inputs, arrived)?),
            Self::Cluster(engine) => BeingRead::Cluster(engine.submit(inputs, arrived)?.into()),
        })
    }
}

impl BeingRead {
    /// Waits for the vectors; also, where a node made them, which it was and why.
    pub(crate) async fn result(self) -> Result<(Vectors, Option<String>), Refusal> {
        match self {
            Self::Local(pooling) => pooling.result().await.map(|vectors| (vectors, None)),
            Self::Cluster(reading) => {
                let (vectors, route) = reading.result().await?;
                Ok((vectors, Some(route)))
            }
        }
    }
}
