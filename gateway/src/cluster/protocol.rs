//! What gateways and nodes say to each other: lines of JSON, one value each. Plain data, and the
//! way from the scheduler's types to it and back. A field that is not known is refused: two
//! versions that do not agree find out at the first line, not in the middle of an answer.
//!
//! Floating-point numbers go over as their bits: a request must draw the same tokens there, and
//! JSON has no word for minus infinity.

mod adapters;
mod state;
mod vectors;

use scheduler::types::{
    Event, Finish, Logprobs, Made, PromptLogprobs, Refusal, Request, RequestId, Sampling, Usage,
};
use serde::{Deserialize, Serialize};
use text::grammar::Plan;

pub(super) use adapters::ADAPTER_BYTES_MAX;
pub use adapters::{AdapterDone, LoadAdapter, UnloadAdapter};
pub(super) use state::ADAPTERS_MAX;
pub use state::{Adapter, Changed, Delta, Load, ReadLoad, Served, ServedReader, Snapshot, State};
pub use vectors::{Read, ReadTold, ReaderCard, ReaderTask};
pub(super) use vectors::{SIZE_MAX, VECTOR_BYTES_MAX};

use crate::digest;

/// In which a gateway says what it speaks; without it that is 1.
pub const VERSION_HEADER: &str = "x-hearth-cluster";
/// What is spoken here. 2: models that read and do not write.
pub const VERSION: u32 = 2;

/// Where a node tells its state.
pub const STATE: &str = "/cluster/v1/state";
/// Where a node describes a model; its name stands behind.
pub const MODEL: &str = "/cluster/v1/model/";
/// Where a node makes tokens.
pub const GENERATE: &str = "/cluster/v1/generate";
/// Where a node describes a model that reads and does not write; its name stands behind.
pub const READER: &str = "/cluster/v1/reader/";
/// Where a node has such a model read.
pub const READ: &str = "/cluster/v1/read";
/// Where a node takes an adapter in, as gateways do.
pub const LOAD_ADAPTER: &str = "/v1/load_lora_adapter";
/// Where it lets one go.
pub const UNLOAD_ADAPTER: &str = "/v1/unload_lora_adapter";
/// Where a gateway hears of nodes.
pub const JOIN: &str = "/cluster/v1/join";

/// Longest request: a prompt of a million tokens has some 8 MB.
pub(super) const ASK_BYTES_MAX: usize = 32 << 20;
/// Longest word to a request that runs.
pub(super) const SAY_BYTES_MAX: usize = 4 << 10;
/// Longest batch of events: log-probabilities of a long prompt come in one.
pub(super) const TOLD_BYTES_MAX: usize = 64 << 20;
/// Longest state: a million pages have some 20 MB.
pub(super) const STATE_BYTES_MAX: usize = 64 << 20;
/// Longest description of a model: the largest tokenizers have 35 MB.
pub(super) const CARD_BYTES_MAX: usize = 256 << 20;

/// A float by its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bits(u32);

impl From<f32> for Bits {
    fn from(number: f32) -> Self {
        Self(number.to_bits())
    }
}

impl From<Bits> for f32 {
    fn from(bits: Bits) -> Self {
        Self::from_bits(bits.0)
    }
}

/// A request to make tokens: the scheduler's own, and what the node has to find for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The model's name, or an adapter's: `base:name`.
    pub model: String,
    /// What the gateway takes the model for.
    pub fingerprint: String,
    /// See [`Request`], as the rest of the fields.
    pub prompt: Vec<u32>,
    /// Continuations.
    pub choices: u32,
    /// Bound of each.
    pub max_tokens: u32,
    /// Of these, paid for.
    pub allowance: u32,
    /// No end before.
    pub min_tokens: u32,
    /// Ends.
    pub stop_tokens: Vec<u32>,
    /// How tokens are drawn.
    pub draw: Draw,
    /// Alternatives at each position of the prompt.
    pub prompt_logprobs: Option<u32>,
    /// Class.
    pub priority: u8,
    /// Whose it is.
    pub tenant: u64,
    /// Whose pages it may share; an adapter's are apart from these (`salt`).
    pub salt: u64,
    /// Time that is left for it.
    pub deadline_ms: Option<u64>,
    /// What its choices are held to.
    pub grammar: Option<Plan>,
    /// What was made of each choice elsewhere, and whether it has ended; empty where nothing was.
    pub made: Vec<(Vec<u32>, bool)>,
}

/// The salt of a request's pages at a node. Those of an adapter, which its fingerprint names, are
/// shared with nobody else's, and have the same hashes at all nodes that have the adapter.
pub(super) fn salt(salt: u64, adapter: Option<&str>) -> u64 {
    match adapter {
        None => salt,
        Some(fingerprint) => digest::number(&[&salt.to_le_bytes(), fingerprint.as_bytes()]),
    }
}

/// How tokens are drawn: [`Sampling`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    temperature: Bits,
    top_p: Bits,
    top_k: u32,
    min_p: Bits,
    typical_p: Bits,
    repetition_penalty: Bits,
    presence_penalty: Bits,
    frequency_penalty: Bits,
    logit_bias: Vec<(u32, Bits)>,
    seed: u64,
    logprobs: Option<u32>,
}

impl Ask {
    /// A request as it goes to a node.
    #[must_use]
    pub fn new(
        (model, fingerprint): (&str, &str),
        request: &Request,
        grammar: Option<Plan>,
        deadline_ms: Option<u64>,
    ) -> Self {
        let made = request.made.iter().map(|made| (made.tokens.clone(), made.ended));
        Self {
            model: model.to_owned(),
            fingerprint: fingerprint.to_owned(),
            prompt: request.prompt.clone(),
            choices: request.choices,
            max_tokens: request.max_tokens,
            allowance: request.allowance,
            min_tokens: request.min_tokens,
            stop_tokens: request.stop_tokens.clone(),
            draw: Draw::of(&request.sampling),
            prompt_logprobs: request.prompt_logprobs,
            priority: request.priority,
            tenant: request.tenant,
            salt: request.salt,
            deadline_ms,
            grammar,
            made: made.collect(),
        }
    }

    /// The request for the node's scheduler, without id, grammar and deadline.
    #[must_use]
    pub fn request(&self) -> Request {
        let made = self.made.iter();
        Request {
            id: RequestId(0),
            prompt: self.prompt.clone(),
            choices: self.choices,
            max_tokens: self.max_tokens,
            allowance: self.allowance,
            min_tokens: self.min_tokens,
            stop_tokens: self.stop_tokens.clone(),
            sampling: self.draw.sampling(),
            prompt_logprobs: self.prompt_logprobs,
            priority: self.priority,
            tenant: self.tenant,
            salt: self.salt,
            adapter: 0,
            grammar: 0,
            deadline: None,
            made: made
                .map(|(tokens, ended)| Made { tokens: tokens.clone(), ended: *ended })
                .collect(),
        }
    }
}

impl Draw {
    fn of(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature.into(),
            top_p: sampling.top_p.into(),
            top_k: sampling.top_k,
            min_p: sampling.min_p.into(),
            typical_p: sampling.typical_p.into(),
            repetition_penalty: sampling.repetition_penalty.into(),
            presence_penalty: sampling.presence_penalty.into(),
            frequency_penalty: sampling.frequency_penalty.into(),
            logit_bias: sampling.logit_bias.iter().map(|&(id, bias)| (id, bias.into())).collect(),
            seed: sampling.seed,
            logprobs: sampling.logprobs,
        }
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature.into(),
            top_p: self.top_p.into(),
            top_k: self.top_k,
            min_p: self.min_p.into(),
            typical_p: self.typical_p.into(),
            repetition_penalty: self.repetition_penalty.into(),
            presence_penalty: self.presence_penalty.into(),
            frequency_penalty: self.frequency_penalty.into(),
            logit_bias: self.logit_bias.iter().map(|&(id, bias)| (id, bias.into())).collect(),
            seed: self.seed,
            logprobs: self.logprobs,
        }
    }
}

/// A word to a request that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// So many tokens of each choice are paid for now.
    Allow(u32),
    /// Nobody wants this choice any more.
    Cancel(u32),
    /// Nobody wants any of it: what was used is told, and it ends.
    Stop,
}

/// What a node tells of a request. The scheduler's events, those tokens together that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Tokens, each with its choice.
    Tokens(Vec<(u32, u32)>),
    /// A choice's token with its log-probabilities.
    Scored(u32, u32, Score),
    /// Log-probabilities of the prompt from this position on.
    Prompt(u32, Vec<Score>),
    /// A choice has ended.
    Ended(u32, Ending),
    /// All have.
    Done(Used),
    /// It was refused, or broke off.
    Refused(Why, Used),
}

/// [`Logprobs`]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score(Bits, u32, Vec<(u32, Bits)>);

impl From<&Logprobs> for Score {
    fn from(found: &Logprobs) -> Self {
        let top = found.top.iter().map(|&(id, logprob)| (id, logprob.into())).collect();
        Self(found.logprob.into(), found.rank, top)
    }
}

impl From<Score> for Logprobs {
    fn from(Score(logprob, rank, top): Score) -> Self {
        let top = top.into_iter().map(|(id, logprob)| (id, logprob.into())).collect();
        Self { logprob: logprob.into(), rank, top }
    }
}

/// [`Finish`]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// An end token.
    Stop,
    /// A bound.
    Length,
    /// It was asked for.
    Cancelled,
}

impl From<Finish> for Ending {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
            Finish::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Ending> for Finish {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Stop => Self::Stop,
            Ending::Length => Self::Length,
            Ending::Cancelled => Self::Cancelled,
        }
    }
}

/// [`Refusal`]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A field is out of range.
    Invalid(String, String),
    /// It needs so many tokens; there can be so many.
    TooLong(u64, u64),
    /// The line is full.
    Overloaded,
    /// Its time is over.
    Deadline,
    /// The engine failed.
    Engine(String),
}

impl From<&Refusal> for Why {
    fn from(refusal: &Refusal) -> Self {
        let number = |tokens: usize| u64::try_from(tokens).unwrap_or(u64::MAX);
        match refusal {
            Refusal::Invalid(field, why) => Self::Invalid((*field).to_owned(), why.clone()),
            Refusal::TooLong { needed, limit } => Self::TooLong(number(*needed), number(*limit)),
            Refusal::Overloaded => Self::Overloaded,
            Refusal::Deadline => Self::Deadline,
            Refusal::Engine(why) => Self::Engine(why.clone()),
        }
    }
}

impl From<Why> for Refusal {
    fn from(why: Why) -> Self {
        // Fields that callers know by the same name.
        const FIELDS: [&str; 12] = [
            "max_tokens",
            "min_tokens",
            "temperature",
            "top_p",
            "min_p",
            "typical_p",
            "logprobs",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "prompt_logprobs",
        ];
        let number = |tokens: u64| usize::try_from(tokens).unwrap_or(usize::MAX);
        match why {
            Why::Invalid(field, why) => match FIELDS.iter().find(|known| **known == field) {
                Some(known) => Self::Invalid(known, why),
                None => Self::Engine(format!("{field}: {why}")),
            },
            Why::TooLong(needed, limit) => {
                Self::TooLong { needed: number(needed), limit: number(limit) }
            }
            Why::Overloaded => Self::Overloaded,
            Why::Deadline => Self::Deadline,
            Why::Engine(why) => Self::Engine(why),
        }
    }
}

/// [`Usage`]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    prompt: u32,
    cached: u32,
    made: u32,
    queue_us: u64,
    prefill_us: u64,
    decode_us: u64,
    preemptions: u32,
}

impl From<&Usage> for Used {
    fn from(usage: &Usage) -> Self {
        Self {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            made: usage.completion_tokens,
            queue_us: usage.queue_us,
            prefill_us: usage.prefill_us,
            decode_us: usage.decode_us,
            preemptions: usage.preemptions,
        }
    }
}

impl From<Used> for Usage {
    fn from(used: Used) -> Self {
        Self {
            prompt_tokens: used.prompt,
            cached_tokens: used.cached,
            completion_tokens: used.made,
            queue_us: used.queue_us,
            prefill_us: used.prefill_us,
            decode_us: used.decode_us,
            preemptions: used.preemptions,
        }
    }
}

/// Writes events as lines behind `out`, plain tokens that stand together in one.
pub(super) fn write(events: &[Event], out: &mut Vec<u8>) {
    let mut tokens: Vec<(u32, u32)> = Vec::new();
    for event in events {
        let told = match event {
            Event::Token { choice, token, logprobs: None, .. } => {
                tokens.push((*choice, *token));
                continue;
            }
            Event::Token { choice, token, logprobs: Some(found), .. } => {
                Told::Scored(*choice, *token, (&**found).into())
            }
            Event::PromptLogprobs(_, PromptLogprobs { first, entries }) => {
                Told::Prompt(*first, entries.iter().map(Score::from).collect())
            }
            Event::ChoiceEnd { choice, reason, .. } => Told::Ended(*choice, (*reason).into()),
            Event::End(_, usage) => Told::Done(usage.into()),
            Event::Refused(_, why, usage) => Told::Refused(why.into(), usage.into()),
        };
        if !tokens.is_empty() {
            line(&Told::Tokens(std::mem::take(&mut tokens)), out);
        }
        line(&told, out);
    }
    if !tokens.is_empty() {
        line(&Told::Tokens(tokens), out);
    }
}

/// Writes a value and its end.
pub(super) fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    // Numbers, texts and lists of them: there is nothing that could fail.
    if serde_json::to_writer(&mut *out, value).is_ok() {
        out.push(b'\n');
    }
}

/// What a gateway has to know of a model to do its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// What it is.
    pub fingerprint: String,
    /// When it was loaded.
    pub created: u64,
    /// Longest sequence in tokens.
    pub context: usize,
    /// The author's sampling.
    pub defaults: Draw,
    /// New tokens where nobody says.
    pub max_tokens_default: Option<u32>,
    /// Ids that end a sequence.
    pub eos: Vec<u32>,
    /// Which prompts share pages.
    pub prefix: Prefix,
    /// How it writes calls.
    pub tool_format: Option<String>,
    /// Tokenizer and templates: see [`text::TextModel::to_portable`].
    pub text: String,
}

impl Card {
    pub(super) fn defaults(sampling: &Sampling) -> Draw {
        Draw::of(sampling)
    }
}

/// [`engine::spec::PrefixRule`], by its name in the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefix {
    /// All share.
    Any,
    /// Long ones among themselves.
    Split(usize),
    /// Long ones with those of their own length.
    Length(usize),
}

/// A node that names itself to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Where it answers; `None`: where this comes from.
    pub host: Option<String>,
    /// The port there.
    pub port: u16,
    /// It speaks TLS there.
    pub tls: bool,
}
