//! Models that read and do not write: what a gateway has to know of one, what it asks of a node,
//! and what it is told. Each vector has a line of its own, so that no line is long.

use serde::{Deserialize, Serialize};

use super::{Bits, Why};
use crate::backend::embed::Input;
use crate::backend::{Reads, Task};

/// Longest line of an answer: vectors have some thousand numbers, this has room for 300,000.
pub(in crate::cluster) const VECTOR_BYTES_MAX: usize = 4 << 20;
/// Numbers in a vector that such a line has room for.
pub(in crate::cluster) const SIZE_MAX: usize = 300_000;

/// What a gateway has to know of such a model to do its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderCard {
    /// Its name.
    pub name: String,
    /// What it is.
    pub fingerprint: String,
    /// When it was loaded.
    pub created: u64,
    /// What it does.
    pub task: ReaderTask,
    /// Longest input in tokens.
    pub context: usize,
    /// Numbers in a vector.
    pub size: usize,
    /// Vectors have length one.
    pub normalises: bool,
    /// See [`Reads`].
    pub prompts: Vec<(String, String)>,
    /// The one that stands there when nothing is said.
    pub default_prompt: Option<String>,
    /// What stands in front is part of the vector.
    pub include_prompt: bool,
    /// Texts are made lower case first.
    pub lower_case: bool,
    /// How a pair is written where it becomes one text.
    pub pair: Option<[String; 3]>,
    /// Tokenizer: see [`text::TextModel::to_portable`].
    pub text: String,
}

/// [`Task`]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderTask {
    /// One vector per text.
    Embed,
    /// One score per pair.
    Rerank,
}

impl From<Task> for ReaderTask {
    fn from(task: Task) -> Self {
        match task {
            Task::Embed => Self::Embed,
            Task::Rerank => Self::Rerank,
        }
    }
}

impl From<ReaderTask> for Task {
    fn from(task: ReaderTask) -> Self {
        match task {
            ReaderTask::Embed => Self::Embed,
            ReaderTask::Rerank => Self::Rerank,
        }
    }
}

impl ReaderCard {
    /// How texts become tokens.
    #[must_use]
    pub fn reads(&self) -> Reads {
        Reads {
            prompts: self.prompts.clone(),
            default_prompt: self.default_prompt.clone(),
            include_prompt: self.include_prompt,
            lower_case: self.lower_case,
            pair: self.pair.clone(),
        }
    }
}

/// A request to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The model's name.
    pub model: String,
    /// What the gateway takes the model for.
    pub fingerprint: String,
    /// Of each input its tokens, their types (none where all are 0), and how many of the first
    /// are left out of the vector.
    pub inputs: Vec<(Vec<u32>, Vec<u32>, usize)>,
    /// Time that is left for it.
    pub deadline_ms: Option<u64>,
}

impl Read {
    /// A request as it goes to a node.
    #[must_use]
    pub fn new(
        (model, fingerprint): (&str, &str),
        inputs: &[Input],
        deadline_ms: Option<u64>,
    ) -> Self {
        let one = |input: &Input| (input.ids.clone(), input.types.clone(), input.skip);
        Self {
            model: model.to_owned(),
            fingerprint: fingerprint.to_owned(),
            inputs: inputs.iter().map(one).collect(),
            deadline_ms,
        }
    }
}

/// What a node tells of such a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadTold {
    /// The next input's vector; a score is one of one number.
    Vector(Vec<Bits>),
    /// All of them are told. How long they waited and were computed, in microseconds.
    Done(u64, u64),
    /// It was refused, or broke off.
    Refused(Why),
}
