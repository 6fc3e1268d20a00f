//! How much a model thinks before it answers, and whether the caller sees it.

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
}

impl Default for Reasoning {
    fn default() -> Self {
        Self { effort: None, budget: None, include: true }
    }
}
