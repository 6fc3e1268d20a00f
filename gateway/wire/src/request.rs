//! The internal request model: what a caller wants, in no dialect's words. Plain data; ranges
//! were checked by the dialect that parsed it. `None` is "the caller said nothing".

mod reasoning;
mod structured;
mod tools;
pub(crate) mod verbosity;

pub use reasoning::{Effort, Reasoning, Seal, Summary, Thought};
pub use structured::{Form, Structured, Tag};
pub use tools::{Tool, ToolCall, ToolChoice};

use serde_json::{Map, Value};

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The application, in OpenAI's newer word for `System`.
    Developer,
    /// The application.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
    /// A function's result (the older word for `Tool`).
    Function,
}

impl Role {
    /// All roles, in the order of the API reference.
    pub const ALL: [Self; 6] =
        [Self::Developer, Self::System, Self::User, Self::Assistant, Self::Tool, Self::Function];

    /// Its name on the wire and in templates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Function => "function",
        }
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Content {
    /// Nothing: an assistant's message that only calls tools.
    #[default]
    Absent,
    /// One text.
    Text(String),
    /// Parts. Kept apart because some templates iterate over them.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A text.
    Text(String),
    /// An image, for models that can look at one.
    Image(Image),
}

/// An image in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// A `data:` URL with the image itself, or where it lies.
    pub url: String,
    /// How closely it is looked at.
    pub detail: Detail,
}

/// How closely a model looks at an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// As the model sees fit.
    #[default]
    Auto,
    /// Few tokens.
    Low,
    /// Many.
    High,
}

impl Detail {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Low, Self::High];

    /// As a request spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The speaker's or function's name.
    pub name: Option<String>,
    /// Calls made in this turn.
    pub tool_calls: Vec<ToolCall>,
    /// Which call this answers.
    pub tool_call_id: Option<String>,
    /// Thoughts of an earlier turn, replayed, in their order.
    pub thoughts: Vec<Thought>,
}

impl Message {
    /// A message that only says a text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Content::Text(text.into()),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            thoughts: Vec::new(),
        }
    }
}

/// How messages become a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Variables for the template beside the standard ones.
    pub kwargs: Map<String, Value>,
    /// Documents for templates that cite.
    pub documents: Vec<Value>,
    /// Ends the prompt with the start of an assistant turn.
    pub add_generation_prompt: bool,
    /// Leaves the last message open, so that the model goes on with it.
    pub continue_final_message: bool,
    /// Adds the tokenizer's own special tokens to the rendered text.
    pub add_special_tokens: bool,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            kwargs: Map::new(),
            documents: Vec::new(),
            add_generation_prompt: true,
            continue_final_message: false,
            add_special_tokens: false,
        }
    }
}

/// What a stream carries beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// A last chunk with the usage of the whole request.
    pub include_usage: bool,
    /// The usage so far in every chunk.
    pub continuous_usage: bool,
}

/// How tokens are drawn, when they end and what is reported about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    /// Choices per prompt.
    pub choices: u32,
    /// Most tokens per choice. 0 only where a caller wants the prompt's scores alone.
    pub max_tokens: Option<u32>,
    /// No end before this many tokens.
    pub min_tokens: u32,
    /// 0..=2; 0 is greedy.
    pub temperature: Option<f64>,
    /// 0..=1.
    pub top_p: Option<f64>,
    /// 0 keeps all.
    pub top_k: Option<u32>,
    /// 0..=1.
    pub min_p: Option<f64>,
    /// 0..=1.
    pub typical_p: Option<f64>,
    /// Above 0; 1 is off.
    pub repetition_penalty: Option<f64>,
    /// -2..=2.
    pub presence_penalty: Option<f64>,
    /// -2..=2.
    pub frequency_penalty: Option<f64>,
    /// Token id and what is added to its logit, -100..=100.
    pub logit_bias: Vec<(u32, f64)>,
    /// Same seed, same request, same model: same answer.
    pub seed: Option<i64>,
    /// Texts that end a choice.
    pub stop: Vec<String>,
    /// Tokens that end a choice.
    pub stop_token_ids: Vec<u32>,
    /// Leaves the stop string in the answer.
    pub include_stop: bool,
    /// Leaves special tokens out of the text.
    pub skip_special_tokens: bool,
    /// The model's own end tokens do not end a choice.
    pub ignore_eos: bool,
    /// Log-probabilities of the answer, with this many alternatives.
    pub logprobs: Option<u32>,
    /// Log-probabilities of the prompt, with this many alternatives.
    pub prompt_logprobs: Option<u32>,
    /// Token ids beside the text.
    pub return_token_ids: bool,
    /// Smaller is more urgent, 0 is usual.
    pub priority: i8,
    /// It may wait behind all others, at the prices of a batch (OpenAI's service tier "flex").
    pub flex: bool,
    /// Prefixes are shared only between requests with the same salt.
    pub cache_salt: Option<String>,
    /// The shape that each choice is held to. Never together with `ignore_eos`.
    pub structured: Option<Structured>,
    /// `Some`: the answer is a stream.
    pub stream: Option<StreamOptions>,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            choices: 1,
            max_tokens: None,
            min_tokens: 0,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            typical_p: None,
            repetition_penalty: None,
            presence_penalty: None,
            frequency_penalty: None,
            logit_bias: Vec::new(),
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            include_stop: false,
            skip_special_tokens: true,
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            return_token_ids: false,
            priority: 0,
            flex: false,
            cache_salt: None,
            structured: None,
            stream: None,
        }
    }
}

/// A chat to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The model's name.
    pub model: String,
    /// The turns so far, at least one. Every call in them is answered before the next turn.
    pub messages: Vec<Message>,
    /// Tools on offer.
    pub tools: Vec<Tool>,
    /// Which of them may or must be called.
    pub tool_choice: ToolChoice,
    /// One turn may hold several calls.
    pub parallel_tool_calls: bool,
    /// Thoughts before the answer.
    pub reasoning: Reasoning,
    /// How the prompt is rendered.
    pub template: Template,
    /// How the answer is made.
    pub decoding: Decoding,
    /// Whom the caller asks for, in its own words.
    pub user: Option<String>,
    /// The caller's notes on the request: names to texts, where it follows the rules.
    pub metadata: Map<String, Value>,
    /// Fields of the caller's dialect that this model has no word for. Only a request that is
    /// passed on has some: one that is answered here was refused for them.
    pub extra: Map<String, Value>,
}

/// A prompt as text or as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// To be tokenized.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Plain prompts to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The model's name.
    pub model: String,
    /// At least one.
    pub prompts: Vec<Prompt>,
    /// Repeats the prompt in front of the answer.
    pub echo: bool,
    /// Adds the tokenizer's own special tokens to text prompts.
    pub add_special_tokens: bool,
    /// How the answers are made.
    pub decoding: Decoding,
}

/// What is to be turned into tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizeInput {
    /// A plain text.
    Text {
        /// The text.
        prompt: String,
        /// Adds the tokenizer's own special tokens.
        add_special_tokens: bool,
    },
    /// A chat, rendered first.
    Chat {
        /// The turns.
        messages: Vec<Message>,
        /// Tools for the template.
        tools: Vec<Tool>,
        /// How it is rendered.
        template: Box<Template>,
    },
}

/// Text to tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeRequest {
    /// The model's name; the server's first model where absent.
    pub model: Option<String>,
    /// What is counted.
    pub input: TokenizeInput,
    /// Also each token's text.
    pub return_token_strs: bool,
}

/// Tokens to text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetokenizeRequest {
    /// The model's name; the server's first model where absent.
    pub model: Option<String>,
    /// The tokens.
    pub tokens: Vec<u32>,
}
