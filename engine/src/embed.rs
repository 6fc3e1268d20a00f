//! Models that read and do not write: one vector of each input, or one score of each pair.
//!
//! The layers are the [`crate::transformer`]'s; what stands behind them (pooling, a dense layer, a
//! classifier) comes from the files that sentence-transformers writes beside a model, and is
//! computed on the host. It knows neither texts nor requests: inputs are tokens, results numbers.

mod classes;
mod files;
mod pool;
mod run;

use kernels::cpu::Cpu;

use crate::model::ModelFiles;
use crate::plan::{self, Plan, PlanError, PlanOptions, Room};
use crate::start::{Loaded, StartError, cpu_config, load};

pub use files::describe;
pub use kernels::Fault as DeviceFault;
pub use pool::{Activation, Pooling, Stage};
pub use run::Embedder;

/// What a model is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// It continues texts.
    Generate,
    /// It makes a vector of each text.
    Embed,
    /// It scores how well a document answers a query.
    Rerank,
}

/// How texts become inputs, for whoever makes tokens.
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
    /// both and behind. `None`: as the tokenizer writes pairs.
    pub pair: Option<[String; 3]>,
}

/// What stands behind a model's layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooler {
    /// [`Task::Embed`] or [`Task::Rerank`].
    pub task: Task,
    /// From hidden states to one; the results of several stand one after the other.
    pub pooling: Vec<Pooling>,
    /// What becomes of it, in this order.
    pub stages: Vec<Stage>,
    /// Numbers in a result; 1 for scores.
    pub size: usize,
    /// Tokens of an input at most, as the model's author has it.
    pub tokens_max: Option<usize>,
    /// How texts become inputs.
    pub reads: Reads,
}

/// One sequence of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// The type of each token; empty where all are 0.
    pub types: &'a [u32],
    /// So many of the first tokens are read but not pooled.
    pub skip: usize,
}

impl Pooler {
    /// Results have length one.
    #[must_use]
    pub fn normalises(&self) -> bool {
        matches!(self.stages.last(), Some(Stage::Normalise))
    }

    fn of(task: Task, hidden: usize, pooling: Vec<Pooling>, stages: Vec<Stage>) -> Self {
        let size = stages.iter().fold(hidden * pooling.len(), |size, stage| stage.size(size));
        let reads = Reads { include_prompt: true, ..Reads::default() };
        Self { task, pooling, stages, size, tokens_max: None, reads }
    }
}

/// Inputs in a step at most, for each so many tokens: most are longer.
const TOKENS_PER_ROW: usize = 4;

/// The memory plan of a model that reads only: no cache outlives a call, so it holds one input
/// and one step. An encoder's step is as long as its longest input, which it sees at once.
///
/// # Errors
/// As [`plan::plan`].
pub fn plan(
    files: &ModelFiles,
    pooler: &Pooler,
    options: &PlanOptions,
    room: impl Into<Room>,
) -> Result<Plan, PlanError> {
    let room = room.into();
    let author = pooler.tokens_max.map_or(files.spec.context, |most| most.min(files.spec.context));
    let context = options.context.unwrap_or(author);
    let longest = if files.spec.causal { 0 } else { context };
    let step_tokens_max = options.step_tokens_max.max(longest).max(2);
    let rows_max = (step_tokens_max / TOKENS_PER_ROW).clamp(1, step_tokens_max - 1);
    let options = PlanOptions {
        context: Some(context),
        cache_bytes: None,
        rows_max,
        step_tokens_max,
        ..options.clone()
    };
    let mut plan = plan::plan(files, &options, room)?;
    // Each input of a step may leave a page half full.
    let shape = &mut plan.cache;
    shape.pages = (context + step_tokens_max).div_ceil(shape.page_tokens) + rows_max;
    plan.cache_bytes = (shape.pages * shape.page_bytes()) as u64;
    let taken = plan.weight_bytes.saturating_add(plan.activation_bytes);
    let left = room.bytes().saturating_sub(taken);
    if plan.cache_bytes > left {
        return Err(PlanError::Cache { wanted: plan.cache_bytes, left });
    }
    Ok(plan)
}

/// An embedder on a CPU.
pub type CpuEmbedder = Embedder<Cpu>;

/// Starts a model on the CPU. Nothing of `files` is used afterwards.
///
/// # Errors
/// See [`StartError`].
pub fn start_cpu(
    files: &ModelFiles,
    pooler: Pooler,
    plan: &Plan,
) -> Result<CpuEmbedder, StartError> {
    let device = Cpu::new(cpu_config(&files.spec, plan));
    let loaded: Loaded<Cpu> = load(device, &files.spec, files.weights.as_ref(), plan)?;
    Ok(Embedder::new(loaded, pooler, plan))
}
