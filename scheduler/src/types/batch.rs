//! What the scheduler hands to an engine each step, and what comes back. No request, no user and
//! no text down here: an engine knows rows (one per running sequence), tokens and pages.

use super::{Sampling, Token};

/// A sequence takes a row slot, or takes it again after a preemption. Everything that the engine
/// keeps per slot (block table, token history, sampling state) starts from this. After a step that
/// failed it may come for a slot that is still taken, and replaces what was there.
#[derive(Debug, Clone, PartialEq)]
pub struct RowStart {
    /// The row's slot, below `Config::rows_max`.
    pub slot: u32,
    /// All tokens known so far: the prompt, then what was made before a preemption.
    pub tokens: Vec<Token>,
    /// How many of them are the prompt.
    pub prompt_len: u32,
    /// How to draw; the seed is already the choice's own.
    pub sampling: Sampling,
    /// Tokens that may not be drawn while the sequence is shorter than `stop_from`.
    pub stop_tokens: Vec<Token>,
    /// Sequence length (prompt included) from which stop tokens may be drawn.
    pub stop_from: u32,
    /// See [`super::Request::adapter`].
    pub adapter: u32,
    /// See [`super::Request::grammar`]. Where in it the sequence is follows from `tokens`.
    pub grammar: u64,
}

/// `page` becomes entry `index` of the slot's block table: it holds the keys and values of
/// positions `index * PAGE_TOKENS ..`. Tables only grow, and restart with [`RowStart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageGrant {
    /// The row's slot.
    pub slot: u32,
    /// Place in its block table.
    pub index: u32,
    /// Page number in the pool.
    pub page: u32,
}

/// Which positions of a row need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: more of the prompt follows.
    No,
    /// The last position that is no draft, and the drafts': tokens are drawn from them.
    Sample,
    /// Prompt log-probabilities of every position of this row that predicts a prompt token, with
    /// this many alternatives; `sample` also draws a token from the last position.
    Prompt {
        /// Alternatives wanted.
        top: u32,
        /// Whether the row ends the prompt.
        sample: bool,
    },
}

/// One sequence's part in a step: positions `first .. first + len`.
///
/// The last `drafts` of its input tokens are drafts: guesses of what would be drawn one step at a
/// time. The engine draws behind the last known token, exactly as it would without drafts; while
/// it drew the draft that follows, it draws behind that one too, as if the step before had drawn
/// it. What it computed of drafts that were not drawn counts for nothing and is computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The row's slot.
    pub slot: u32,
    /// First position computed. Everything before it lies in the slot's pages.
    pub first: u32,
    /// Positions computed, at least 1.
    pub len: u32,
    /// Where its input tokens start in [`Batch::tokens`].
    pub tokens_at: u32,
    /// The single input token was not known when this was planned: it is the one that this slot
    /// samples in the step before, and lies in the engine already. `tokens` holds 0 in its place.
    pub late: bool,
    /// How many of `len` are drafts: at most [`Engine::drafts_max`], and 0 unless `logits` is
    /// [`Logits::Sample`].
    pub drafts: u32,
    /// Which positions need logits.
    pub logits: Logits,
}

/// One step's work. The scheduler reuses the buffers, so an engine copies what it keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Counts launches from 1.
    pub step: u64,
    /// Slots given back before this step.
    pub ends: Vec<u32>,
    /// Slots taken before this step (after `ends`).
    pub starts: Vec<RowStart>,
    /// Block table entries added before this step (after `starts`).
    pub grants: Vec<PageGrant>,
    /// The work, at most one row per slot.
    pub rows: Vec<Row>,
    /// Input tokens of all rows, one after the other.
    pub tokens: Vec<Token>,
}

/// Log-probabilities at one position (natural log over the full vocabulary, before temperature
/// and penalties).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logprobs {
    /// Of the token that stands there.
    pub logprob: f32,
    /// Its rank, from 1.
    pub rank: u32,
    /// The most probable tokens, best first; ties by the smaller id.
    pub top: Vec<(Token, f32)>,
}

/// A token drawn for a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The row's slot.
    pub slot: u32,
    /// The token.
    pub token: Token,
    /// When asked for.
    pub logprobs: Option<Box<Logprobs>>,
    /// Tokens that must follow it: they join the sequence as if they had been drawn. Only of an
    /// engine with one step in flight, and only behind the last token drawn for its row.
    pub forced: Vec<Token>,
}

/// Log-probabilities of prompt tokens: entry i is about position `first + i`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptLogprobs {
    /// Position of the first entry, at least 1: nothing predicts position 0.
    pub first: u32,
    /// One per position.
    pub entries: Vec<Logprobs>,
}

/// What a step made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutput {
    /// [`Batch::step`] that this answers.
    pub step: u64,
    /// Time the device worked on it, for the cost model.
    pub elapsed_us: u64,
    /// In the batch's order: one for a row that samples, and one more for each of its drafts that
    /// was drawn. Where nothing can be drawn behind such a draft, that one is missing.
    pub samples: Vec<Sample>,
    /// Per slot that asked.
    pub prompt_logprobs: Vec<(u32, PromptLogprobs)>,
    /// Rows that failed alone (not-a-number logits, say). They have no sample.
    pub failed: Vec<(u32, String)>,
}

/// A whole step failed. What the scheduler does about it depends on what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The step had no effect; pages written before it are sound. Its rows are tried again.
    Step(String),
    /// The device lost its memory and was set up anew: all slots and pages are empty. Everything
    /// that runs is computed again from its tokens.
    Lost(String),
    /// The engine is gone for good: every request ends with an error.
    Dead(String),
}

/// A device that runs batches. `launch` starts a step and returns; `collect` waits for the oldest
/// step launched and not yet collected. At most [`Engine::depth`] steps are in flight.
pub trait Engine {
    /// Steps that may be in flight: 1 (launch, collect) or 2 (launch the next, collect the last).
    fn depth(&self) -> usize;

    /// Drafts that a row may carry; 0: it takes none.
    fn drafts_max(&self) -> u32;

    /// Starts a step. Failures are reported by `collect`.
    fn launch(&mut self, batch: &Batch);

    /// Waits for the oldest step in flight and overwrites `out` with what it made.
    ///
    /// # Errors
    /// The step failed as a whole; `out` is then meaningless. Later steps in flight fail too.
    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault>;
}
