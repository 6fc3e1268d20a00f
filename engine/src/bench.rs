//! How fast a model runs on a device: through the scheduler and the runner that serve it, without
//! a network. `hearth bench engine` prints the figures.
//!
//! Random weights will do (`random`), so that every shape can be measured where nothing can be
//! downloaded. Times are taken around the real calls; what a step must read at least (`roof`) says
//! how far from the device's limit they are. It must not know who reads the figures.

use kernels::Compute;
use scheduler::Config;
use scheduler::types::PAGE_TOKENS;

mod blocks;
mod drive;
mod measure;
mod random;
mod roof;
pub mod shapes;
mod timed;

pub use random::{Stored, random_model};
pub use roof::{Ceilings, ceilings};

use crate::model::ModelFiles;
use crate::plan::{self, Plan, PlanError, PlanOptions, Room};
use crate::runner::Runner;
use crate::start::scheduler_config;
use crate::weights::LoadError;
use roof::Work;

/// Steps of a batch before those that count.
const WARM_STEPS: usize = 4;
/// Rows that decode while prompts arrive.
pub const MIXED_ROWS: usize = 32;
/// Prompts that arrive meanwhile, one after the other.
const MIXED_PROMPTS: usize = 4;
/// Tokens that each of those rows makes at most.
const MIXED_TOKENS: usize = 1024;
/// Prompts of a length that are timed alone; their median counts.
const PROMPT_REPEATS: usize = 5;

/// What is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Decoding: sequences at once, each a measurement.
    pub batches: Vec<usize>,
    /// Tokens of each sequence's prompt.
    pub context: usize,
    /// Decode steps that count.
    pub steps: usize,
    /// Prompts alone: tokens, each a measurement.
    pub prompts: Vec<usize>,
    /// Decoding while prompts arrive.
    pub mixed: Option<Mixed>,
    /// Many requests at once.
    pub throughput: Option<Throughput>,
}

/// [`MIXED_ROWS`] sequences decode while long prompts arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed {
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Time between two tokens that the scheduler aims at.
    pub target_us: u64,
}

/// Requests that are all there from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// Tokens of each prompt.
    pub input: usize,
    /// Tokens made for each.
    pub output: usize,
    /// How many.
    pub requests: usize,
}

/// What a measurement gave. Times are in milliseconds unless they say otherwise.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Steps in which every row makes one token.
    Decode {
        /// Rows.
        batch: usize,
        /// Mean positions that a row attended to.
        context: f64,
        /// Steps that counted.
        steps: usize,
        /// Median from one step's end to the next one's.
        step_ms: f64,
        /// 99 of 100 took at most this.
        step_p99_ms: f64,
        /// Over all steps.
        tokens_per_s: f64,
        /// Median time that the host worked in a step instead of waiting for the device. On a
        /// CPU without the computing itself.
        host_us: f64,
        /// Median by the device's own clock.
        device_us: f64,
        /// What a step must read.
        bytes: f64,
        /// Time for that at the speed of a copy; `None`: unknown.
        roof_ms: Option<f64>,
        /// Of `step_ms`: the roof's share.
        share: Option<f64>,
    },
    /// One prompt alone.
    Prefill {
        /// Its tokens.
        prompt: usize,
        /// Median time to its first token.
        first_token_ms: f64,
        /// Prompt tokens by that time.
        tokens_per_s: f64,
        /// Operations by that time.
        tflops: f64,
        /// Of the rate of the vendor's bf16 product; `None`: unknown.
        share: Option<f64>,
    },
    /// Decoding while prompts arrive.
    Mixed {
        /// Rows that decoded.
        rows: usize,
        /// Tokens of a prompt.
        prompt: usize,
        /// Prompts that were computed to their end meanwhile.
        prompts: usize,
        /// What the scheduler aimed at.
        target_ms: f64,
        /// Median time between two tokens of a row.
        between_ms: f64,
        /// 99 of 100 took at most this.
        between_p99_ms: f64,
        /// Prompt tokens per second meanwhile.
        prompt_tokens_per_s: f64,
    },
    /// Many requests at once.
    Throughput {
        /// Tokens of a prompt.
        input: usize,
        /// Tokens made for each.
        output: usize,
        /// How many.
        requests: usize,
        /// From the first step to the last token.
        seconds: f64,
        /// Tokens made per second.
        output_tokens_per_s: f64,
        /// With prompts.
        tokens_per_s: f64,
        /// Mean rows of a step.
        rows: f64,
        /// Times that a sequence lost its pages and was computed again.
        preemptions: u64,
    },
    /// It was left out: the plan is too small for it.
    DoesNotFit {
        /// What was wanted.
        what: String,
        /// What it needs beside what the plan has.
        why: String,
    },
}

/// Nothing more can be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// The engine failed.
    #[error("{0}")]
    Engine(String),
    /// The model's files.
    #[error(transparent)]
    Files(#[from] LoadError),
}

impl Measures {
    /// Sequences at once that they ask for at most; `usual` where as many as possible are wanted.
    #[must_use]
    pub fn rows(&self, usual: usize) -> usize {
        let batches = self.batches.iter().copied().max().unwrap_or(1);
        let mixed = if self.mixed.is_some() { MIXED_ROWS + 1 } else { 1 };
        batches.max(mixed).max(if self.throughput.is_some() { usual } else { 1 })
    }

    /// Positions of the longest sequence, in steps of `step_tokens` tokens.
    fn context_max(&self, step_tokens: usize) -> usize {
        let batches = self.batches.iter().map(|&rows| self.context + self.made(rows, step_tokens));
        let prompts = self.prompts.iter().map(|prompt| prompt + 1);
        let mixed =
            self.mixed.map_or(0, |mixed| (mixed.prompt + 1).max(self.context + MIXED_TOKENS));
        let throughput = self.throughput.map_or(0, |how| how.input + how.output);
        batches.chain(prompts).chain([mixed, throughput]).max().unwrap_or(0)
    }

    /// Tokens that a row makes: the first rows decode while the last ones' prompts are computed.
    fn made(&self, rows: usize, step_tokens: usize) -> usize {
        let prompt_tokens = step_tokens.saturating_sub(rows).max(1);
        2 * (rows * self.context).div_ceil(prompt_tokens) + 2 * WARM_STEPS + self.steps
    }

    /// Pages for everything that is measured.
    fn pages(&self, step_tokens: usize) -> usize {
        let pages = |rows: usize, tokens: usize| rows * tokens.div_ceil(PAGE_TOKENS);
        let batches = self
            .batches
            .iter()
            .map(|&rows| pages(rows, self.context + self.made(rows, step_tokens)));
        let mixed = self.mixed.map_or(0, |mixed| {
            pages(MIXED_ROWS, self.context + MIXED_TOKENS) + pages(1, mixed.prompt + 1)
        });
        let most = batches.chain([mixed]).max().unwrap_or(0);
        // What the scheduler keeps free beside.
        most + most / 50 + 16
    }
}

/// A plan for these measurements: the context that they need, and a cache for the largest of
/// them where there is room for it.
///
/// # Errors
/// Not even one sequence fits.
pub fn plan_for(
    files: &ModelFiles,
    options: &PlanOptions,
    room: Room,
    measures: &Measures,
) -> Result<Plan, PlanError> {
    let context = measures.context_max(options.step_tokens_max).clamp(2, files.spec.context);
    let options = PlanOptions { context: Some(context), ..options.clone() };
    let usual = plan::plan(files, &options, room)?;
    let pages = measures.pages(options.step_tokens_max);
    if usual.cache.pages >= pages || options.cache_bytes.is_some() {
        return Ok(usual);
    }
    let cache_bytes = Some((pages * usual.cache.page_bytes()) as u64);
    Ok(plan::plan(files, &PlanOptions { cache_bytes, ..options }, room).unwrap_or(usual))
}

/// A model on a device that nothing else uses.
pub struct Bench<'a, C: Compute> {
    runner: &'a mut Runner<C>,
    plan: &'a Plan,
    vocab: usize,
    work: Work,
    ceilings: Ceilings,
    /// Drives so far: each has prompts of its own.
    drives: u64,
}

impl<'a, C: Compute> Bench<'a, C> {
    /// Of a model that was started under `plan`.
    ///
    /// # Errors
    /// Its files changed.
    pub fn new(
        files: &ModelFiles,
        plan: &'a Plan,
        runner: &'a mut Runner<C>,
        ceilings: Ceilings,
    ) -> Result<Self, BenchError> {
        let work = Work::of(files, plan, runner.weight_bytes())?;
        Ok(Self { runner, plan, vocab: files.spec.vocab, work, ceilings, drives: 0 })
    }

    /// Measures, and hands out each figure as it is there.
    ///
    /// # Errors
    /// The engine failed; figures that are out stay true.
    pub fn run(
        &mut self,
        measures: &Measures,
        tell: &mut dyn FnMut(Figure),
    ) -> Result<(), BenchError> {
        for &batch in &measures.batches {
            tell(self.decode(measures, batch)?);
        }
        for &prompt in &measures.prompts {
            tell(self.prefill(prompt)?);
        }
        if let Some(mixed) = measures.mixed {
            tell(self.mixed(mixed, measures.context)?);
        }
        if let Some(throughput) = measures.throughput {
            tell(self.throughput(throughput)?);
        }
        Ok(())
    }

    /// The limits of a server, but no prompt is found in the cache, steps are as large as they can
    /// be, and nothing is guessed: random weights repeat themselves.
    fn config(&self) -> Config {
        let usual = scheduler_config(self.plan);
        Config { prefix_cache: false, target_itl_us: 0, drafts_max: 0, ..usual }
    }

    /// Refuses what the plan is too small for: rows, tokens of each, and one more sequence.
    fn refuse(&self, what: &str, rows: usize, tokens: usize, beside: usize) -> Option<Figure> {
        let Plan { rows_max, context, .. } = *self.plan;
        let config = self.config();
        let free = config.pages - config.watermark_pages;
        let needed = rows * tokens.div_ceil(PAGE_TOKENS) + beside.div_ceil(PAGE_TOKENS);
        let longest = tokens.max(beside);
        let why = if rows > rows_max {
            format!("{rows} rows are wanted, the plan has {rows_max}")
        } else if longest > context {
            format!("sequences of {longest} tokens are wanted, the plan's are {context}")
        } else if needed > free {
            let (needed, free) = (needed * PAGE_TOKENS, free * PAGE_TOKENS);
            format!("a cache for {needed} tokens is wanted, the plan's holds {free}")
        } else {
            return None;
        };
        Some(Figure::DoesNotFit { what: what.to_owned(), why })
    }

    fn step_tokens(&self) -> usize {
        self.plan.step_tokens_max
    }
}
