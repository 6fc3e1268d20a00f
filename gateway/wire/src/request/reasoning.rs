//! How much a model thinks before it answers, whether the caller sees it, and what it thought.

/// Thoughts of one turn, or a part of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// In words; empty where the provider shows none.
    pub text: String,
    /// What the provider seals them with and wants back unchanged.
    pub seal: Option<Seal>,
}

/// A provider's proof that thoughts are its own. Of no meaning to anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// A signature of the words: Anthropic's thinking blocks, Gemini's thought signatures.
    Signature(String),
    /// The thoughts themselves, unreadable, in place of words: Anthropic's redacted thinking.
    Redacted(String),
    /// The thoughts themselves, unreadable, beside a summary: items of Responses.
    Encrypted {
        /// The item's id.
        id: String,
        /// Its content.
        content: String,
    },
}

impl Thought {
    /// Thoughts in words alone.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), seal: None }
    }

    /// The words of all of them; `None` where there are none.
    #[must_use]
    pub fn words(thoughts: &[Self]) -> Option<String> {
        let words: String = thoughts.iter().map(|thought| &*thought.text).collect();
        (!words.is_empty()).then_some(words)
    }
}

/// How hard a model thinks. What that means is the model family's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as it can.
    Minimal,
    /// Little.
    Low,
    /// As usual.
    Medium,
    /// Much.
    High,
    /// More than that.
    XHigh,
    /// As much as it can.
    Max,
}

impl Effort {
    /// All of them, from the least.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// As a request spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }
}

/// What a caller says about thoughts. `None` is "the caller said nothing".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasoning {
    /// How hard the model thinks.
    pub effort: Option<Effort>,
    /// Most tokens of thoughts; 0: none.
    pub budget: Option<u32>,
    /// Thoughts are part of the answer. They count as tokens either way.
    pub include: bool,
    /// Where they are not, what seals them is: a provider wants it back with the next turn.
    pub seals: bool,
    /// How much of them a provider tells that sums them up. `None`: what it sees fit.
    pub summary: Option<Summary>,
}

/// How much a provider's summary of thoughts says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// Little.
    Concise,
    /// Much.
    Detailed,
}

impl Summary {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Concise, Self::Detailed];

    /// As a request spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concise => "concise",
            Self::Detailed => "detailed",
        }
    }
}

impl Default for Reasoning {
    fn default() -> Self {
        Self { effort: None, budget: None, include: true, seals: true, summary: None }
    }
}
