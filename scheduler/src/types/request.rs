//! What the gateway asks of the scheduler.

use super::{Micros, Refusal, Token};
use crate::config::{CHOICES_MAX, LOGIT_BIAS_MAX, LOGPROBS_MAX, STOP_TOKENS_MAX};

/// Names one request for its whole life. The gateway makes them unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How the next token of a row is drawn. Ranges are checked by [`Request::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: keep the most probable tokens whose mass reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many tokens; 0 keeps all.
    pub top_k: u32,
    /// Drop tokens less probable than this share of the best one's probability; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling mass; 1 keeps all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is
    /// off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each token seen in the output; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once per occurrence in the output; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens. Negative infinity forbids a token.
    pub logit_bias: Vec<(Token, f32)>,
    /// The draw at position p depends on (seed, choice, p) alone, never on the rest of the batch.
    pub seed: u64,
    /// `Some(k)`: report the log-probability of the chosen token and of the k most probable ones.
    pub logprobs: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
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
            logprobs: None,
        }
    }
}

/// One prompt and what is to be made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name in every event.
    pub id: RequestId,
    /// The prompt, at least one token.
    pub prompt: Vec<Token>,
    /// How many continuations of the prompt to make (`n`); they share the prompt's pages.
    pub choices: u32,
    /// Most tokens made per choice; reaching it ends the choice with [`super::Finish::Length`].
    pub max_tokens: u32,
    /// Tokens per choice that are paid for so far. It ends the choice as `max_tokens` does, but
    /// [`Command::Extend`] may raise it while the request runs.
    pub allowance: u32,
    /// Tokens of `stop_tokens` cannot be drawn before this many tokens were made, unless a grammar
    /// leaves nothing else.
    pub min_tokens: u32,
    /// Tokens that end a choice: end-of-sequence ids and the caller's own. Reported, then ended.
    pub stop_tokens: Vec<Token>,
    /// How tokens are drawn. Choice i draws with its own stream of the seed.
    pub sampling: Sampling,
    /// Log-probabilities of the prompt's own tokens with this many alternatives.
    pub prompt_logprobs: Option<u32>,
    /// Smaller is more urgent. A lower class never delays a higher one.
    pub priority: u8,
    /// Who is served: requests of one priority share the device's time equally between tenants.
    pub tenant: u64,
    /// Separates prefix caches: pages are shared only between requests of the same salt.
    pub salt: u64,
    /// The low-rank adapter that the engine computes it with; 0 is none. Whoever sets it gives
    /// requests of different adapters different salts.
    pub adapter: u32,
    /// The grammar that the engine holds its tokens to; the engine knows it by this number. 0 is
    /// none.
    pub grammar: u64,
    /// When set, the request is ended with [`super::Refusal::Deadline`] at this time.
    pub deadline: Option<Micros>,
    /// What another engine made of it before this one goes on: empty, or one entry per choice.
    /// All counts of the request include it.
    pub made: Vec<Made>,
}

/// What was made of a choice before its request came here. None of it is reported again; the
/// choice goes on as one does that was preempted behind these tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// In order.
    pub tokens: Vec<Token>,
    /// The choice's end was reported: nothing more is made of it.
    pub ended: bool,
}

impl Request {
    /// One choice of the most probable tokens that ends at `max_tokens`, and nothing else asked
    /// for: what benches and tests start from.
    #[must_use]
    pub fn greedy(id: RequestId, prompt: Vec<Token>, max_tokens: u32) -> Self {
        Self {
            id,
            prompt,
            choices: 1,
            max_tokens,
            allowance: max_tokens,
            min_tokens: 0,
            stop_tokens: Vec::new(),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            prompt_logprobs: None,
            priority: 0,
            tenant: 0,
            salt: 0,
            adapter: 0,
            grammar: 0,
            deadline: None,
            made: Vec::new(),
        }
    }

    /// Tokens made before it came here, over all choices.
    #[must_use]
    pub fn made_tokens(&self) -> usize {
        self.made.iter().map(|made| made.tokens.len()).sum()
    }

    /// Tokens of the longest choice made before it came here.
    #[must_use]
    pub fn made_longest(&self) -> usize {
        self.made.iter().map(|made| made.tokens.len()).max().unwrap_or(0)
    }

    /// Checks every range that depends on the request alone.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the first field that is out of range.
    pub fn check(&self) -> Result<(), Refusal> {
        let rules = [
            (!self.prompt.is_empty(), "prompt", "has no token"),
            ((1..=CHOICES_MAX).contains(&self.choices), "choices", "not within 1..=128"),
            (self.max_tokens >= 1, "max_tokens", "must be at least 1"),
            (self.allowance >= 1, "allowance", "must be at least 1"),
            (self.min_tokens <= self.max_tokens, "min_tokens", "more than max_tokens"),
            (self.stop_tokens.len() <= STOP_TOKENS_MAX, "stop_tokens", "more than 64"),
            (in_range(self.prompt_logprobs), "prompt_logprobs", "more than 128 alternatives"),
            (
                self.made.is_empty() || self.made.len() == self.choices as usize,
                "made",
                "not one entry per choice",
            ),
            (self.made_longest() <= self.max_tokens as usize, "made", "more than max_tokens"),
        ];
        refuse_first(&rules).and_then(|()| self.sampling.check())
    }
}

impl Sampling {
    /// Checks every range.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the first field that is out of range.
    pub fn check(&self) -> Result<(), Refusal> {
        let share = |x: f32| x > 0.0 && x <= 1.0;
        let known = |x: f32| !x.is_nan() && x < f32::INFINITY;
        let rules = [
            (self.temperature.is_finite() && self.temperature >= 0.0, "temperature", NOT_POSITIVE),
            (share(self.top_p), "top_p", "not within (0, 1]"),
            ((0.0..=1.0).contains(&self.min_p), "min_p", "not within [0, 1]"),
            (share(self.typical_p), "typical_p", "not within (0, 1]"),
            (
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "repetition_penalty",
                "not a finite number above 0",
            ),
            (self.presence_penalty.is_finite(), "presence_penalty", "not a finite number"),
            (self.frequency_penalty.is_finite(), "frequency_penalty", "not a finite number"),
            (self.logit_bias.len() <= LOGIT_BIAS_MAX, "logit_bias", "more than 4096 entries"),
            (
                self.logit_bias.iter().all(|&(_, bias)| known(bias)),
                "logit_bias",
                "a value is neither finite nor negative infinity",
            ),
            (in_range(self.logprobs), "logprobs", "more than 128 alternatives"),
        ];
        refuse_first(&rules)
    }
}

const NOT_POSITIVE: &str = "not a finite number of at least 0";

fn in_range(alternatives: Option<u32>) -> bool {
    alternatives.is_none_or(|n| n <= LOGPROBS_MAX)
}

fn refuse_first(rules: &[(bool, &'static str, &str)]) -> Result<(), Refusal> {
    match rules.iter().find(|(holds, ..)| !holds) {
        Some(&(_, field, wrong)) => Err(Refusal::Invalid(field, wrong.to_owned())),
        None => Ok(()),
    }
}

/// What the gateway tells the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Take a request in. Answered by events that carry its id.
    Submit(Box<Request>),
    /// Stop a request: its pages are free after the step in flight. Ends with `Finish::Cancelled`.
    Cancel(RequestId),
    /// Stop one choice (a stop string was met in its text); the others run on.
    CancelChoice(RequestId, u32),
    /// Raise a request's token allowance per choice to this total.
    Extend(RequestId, u32),
}
