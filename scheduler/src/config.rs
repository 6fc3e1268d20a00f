//! Every limit of the scheduler, in one place, checked against each other once at start.
//! It knows no device: whoever starts the engine measures its memory and fills this in.

use crate::types::{Micros, PAGE_TOKENS};

/// Most choices (`n`) of one request. Each may hold a row, so this bounds what one caller takes.
pub const CHOICES_MAX: u32 = 128;

/// Most alternatives per position, for made and for prompt tokens.
pub const LOGPROBS_MAX: u32 = 128;

/// Most stop token ids of a request: they are compared with every token made.
pub const STOP_TOKENS_MAX: usize = 64;

/// Most entries of a logit bias.
pub const LOGIT_BIAS_MAX: usize = 4096;

/// Most drafts of a row: with the token before them they fit the sixteen rows of logits that every
/// engine has at once, and where sixteen guesses hold, a seventeenth would gain little.
pub const DRAFTS_MAX: u32 = 15;

/// Pages that fit 32-bit page numbers with a value to spare for "none".
const PAGES_MAX: usize = u32::MAX as usize / 2;

/// Rows beyond which no engine of today gains anything; it bounds the buffers claimed at start.
const ROWS_MAX: usize = 65_536;

/// What a scheduler may use, and what it aims for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Sequences that run at once: slots of the engine.
    pub rows_max: usize,
    /// KV pages in the pool.
    pub pages: usize,
    /// Longest sequence, prompt and made tokens together.
    pub context_max: usize,
    /// Most tokens computed in one step, decode rows included.
    pub step_tokens_max: usize,
    /// Prompt tokens that a step may compute however slow the decode rows are, so that decoding
    /// never starves a prompt.
    pub prefill_tokens_min: usize,
    /// Requests that may wait. One more is refused with `Overloaded`.
    pub waiting_max: usize,
    /// Time between two tokens of a sequence that prompts of others may not stretch. 0: no
    /// target, every step is as large as `step_tokens_max` allows.
    pub target_itl_us: Micros,
    /// Whether pages are shared between requests with equal prefixes.
    pub prefix_cache: bool,
    /// Pages that stay available when a sequence is admitted beside others: room for the rows
    /// that run to grow, so that admission does not cause preemption at once.
    pub watermark_pages: usize,
    /// Times that a row may fail alone, or lose its device, before its request is refused.
    pub faults_max: u32,
    /// Tokens that a row may guess ahead, of those that its engine takes; 0: none.
    pub drafts_max: u32,
}

impl Config {
    /// The limits that a device gives, with defaults for the rest.
    #[must_use]
    pub fn new(rows_max: usize, pages: usize, context_max: usize) -> Self {
        Self {
            rows_max,
            pages,
            context_max,
            // Above this, large matrix products gain nothing and a step only gets longer.
            step_tokens_max: 8192.max(rows_max * 2),
            // A fourth of a millisecond on a large GPU: small beside any target.
            prefill_tokens_min: 64,
            waiting_max: 1024,
            // Twenty tokens a second: faster than people read.
            target_itl_us: 50_000,
            prefix_cache: true,
            // About one page per hundred: what some rows need until others end.
            watermark_pages: pages / 100,
            faults_max: 3,
            drafts_max: DRAFTS_MAX,
        }
    }

    /// Asserts the limits against each other.
    ///
    /// # Panics
    /// A limit makes no sense, alone or beside another one.
    pub fn check(&self) {
        let Self { rows_max, pages, context_max, step_tokens_max, .. } = *self;
        assert!((1..=ROWS_MAX).contains(&rows_max), "rows_max {rows_max}");
        assert!((1..=PAGES_MAX).contains(&pages), "pages {pages}");
        assert!((2..=u32::MAX as usize / 2).contains(&context_max), "context_max {context_max}");
        assert!(step_tokens_max <= u32::MAX as usize / 2, "step_tokens_max {step_tokens_max}");
        assert!(self.prefill_tokens_min >= 1, "a prompt must make progress");
        assert!(
            step_tokens_max >= rows_max + self.prefill_tokens_min,
            "a step of {step_tokens_max} tokens does not hold {rows_max} decode rows and {} \
             prompt tokens",
            self.prefill_tokens_min
        );
        assert!(self.waiting_max >= 1, "nothing could ever be submitted");
        assert!(self.watermark_pages < pages, "the watermark leaves no pages");
        assert!(self.faults_max >= 1, "one transient fault would refuse everything");
        assert!(self.drafts_max <= DRAFTS_MAX, "drafts_max {}", self.drafts_max);
    }

    /// Longest sequence that context and pool can hold.
    #[must_use]
    pub fn sequence_max(&self) -> usize {
        self.context_max.min(self.pages * PAGE_TOKENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_check() {
        for rows in [1, 16, 256, 4096] {
            Config::new(rows, 1000, 4096).check();
        }
    }

    #[test]
    #[should_panic(expected = "does not hold")]
    fn a_step_must_hold_all_rows() {
        Config { step_tokens_max: 100, ..Config::new(100, 1000, 4096) }.check();
    }
}
