//! How tokens are drawn and scored, and what comes back.

/// How a slot draws. See `scheduler::Sampling` for what the numbers mean; all ranges are checked
/// by the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub typical_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Added to single logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// With the position, the only source of randomness.
    pub seed: u64,
    /// Tokens that cannot be drawn at positions below `banned_until`.
    pub banned: Vec<u32>,
    /// See `banned`; compared with the position that the drawn token will take.
    pub banned_until: u32,
}

impl Sampler {
    /// Draws by the model's own probabilities, everything else off.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            banned: Vec::new(),
            banned_until: 0,
        }
    }

    /// The most probable token, everything else off.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::plain() }
    }
}

/// A logits row to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRow {
    /// The slot whose sampler and history apply. The drawn token joins its history.
    pub slot: u32,
    /// Position that the drawn token will take.
    pub position: u32,
    /// The token that the next row takes to have been drawn here: that row draws for the same slot
    /// at the next position, with this token in the history, and only if this row drew it. `None`:
    /// no row builds on this one. Only where [`crate::Compute::drafts_max`] allows it.
    pub draft: Option<u32>,
    /// `Some(k)`: also report log-probabilities with k alternatives.
    pub logprobs: Option<u32>,
    /// The row of the masks that says which tokens may be drawn; `None`: all. See
    /// [`crate::Compute::sample`].
    pub mask: Option<u32>,
}

/// Rows of one slot that build on each other: the first of them draws for sure.
pub fn chains(rows: &[SampleRow]) -> impl Iterator<Item = &[SampleRow]> {
    rows.chunk_by(|row, _| row.draft.is_some())
}

/// u32 words of a mask over so many tokens: bit t % 32 of word t / 32 is token t.
#[must_use]
pub fn mask_words(vocab: usize) -> usize {
    vocab.div_ceil(32)
}

/// A logits row whose next token is known (a prompt's): only its log-probabilities are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogprobRow {
    /// The slot, for the caller's book-keeping.
    pub slot: u32,
    /// Position of `token`.
    pub position: u32,
    /// The token that stands there.
    pub token: u32,
    /// Alternatives wanted.
    pub top: u32,
}

/// What a step drew, in the order of the calls. Reused between steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drawn {
    /// One per [`SampleRow`] that drew: slot and token; `None` when the row held a NaN or +inf, or
    /// nothing could be drawn. Rows behind a draft that was not drawn have none.
    pub tokens: Vec<(u32, Option<u32>)>,
    /// One per row that asked and drew: slot, position, log-probability and rank (from 1) of the
    /// token that stands there, and the most probable tokens, best first, ties by the smaller id. A
    /// row that gave no token, or held a NaN, has an entry with rank 0, a NaN and no alternatives.
    pub logprobs: Vec<Scored>,
    /// Device time of the step in microseconds.
    pub elapsed_us: u64,
}

/// Log-probabilities of one position, over the full vocabulary, before penalties and temperature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    /// The slot.
    pub slot: u32,
    /// Position of the token.
    pub position: u32,
    /// The token drawn or given.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// 1 for the most probable.
    pub rank: u32,
    /// Alternatives.
    pub top: Vec<(u32, f32)>,
}
