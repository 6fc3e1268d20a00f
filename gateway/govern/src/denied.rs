//! Why somebody may not. One rule, by name, and one sentence for a person: a refusal that does not
//! say which rule it was costs a platform team an afternoon.

/// The rule that said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// No key was shown, or none that is known.
    UnknownKey,
    /// The key was revoked.
    RevokedKey,
    /// The key's time is over.
    ExpiredKey,
    /// The person whose key it is was disabled.
    DisabledUser,
    /// The key belongs to no project, so nobody would pay.
    NoProject,
    /// Requests may not come from there.
    Network,
    /// Requests are not taken at this time.
    Hours,
    /// The model is not allowed.
    Model,
    /// The provider that would answer is not allowed.
    Provider,
    /// More new tokens are asked for than allowed.
    MaxTokens,
    /// Prompt and answer are longer than allowed.
    MaxContext,
    /// A tool is not allowed.
    Tools,
    /// What is said is more secret than this model may see.
    Label,
    /// The role does not allow it.
    Permission,
    /// Too many requests in a minute.
    RequestRate,
    /// Too many tokens in a minute.
    TokenRate,
    /// Too many requests at once.
    Concurrency,
    /// The money is spent, or held by requests that run.
    Budget,
    /// The model has no price, and somebody has to pay.
    Price,
    /// What is needed to decide cannot be had at the moment.
    Unavailable,
}

/// What a rule's refusal is to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Show another key.
    Unauthorized,
    /// Not with this key, or not like this.
    Forbidden,
    /// Later.
    Limited,
    /// When there is money again.
    Broke,
    /// The server's fault: try again.
    Unavailable,
}

impl Rule {
    /// Its name in answers, logs and the audit trail.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownKey => "invalid_api_key",
            Self::RevokedKey => "key_revoked",
            Self::ExpiredKey => "key_expired",
            Self::DisabledUser => "user_disabled",
            Self::NoProject => "key_without_project",
            Self::Network => "network_not_allowed",
            Self::Hours => "outside_hours",
            Self::Model => "model_not_allowed",
            Self::Provider => "provider_not_allowed",
            Self::MaxTokens => "max_tokens_above_policy",
            Self::MaxContext => "context_above_policy",
            Self::Tools => "tool_not_allowed",
            Self::Label => "label_not_allowed",
            Self::Permission => "permission_denied",
            Self::RequestRate => "requests_per_minute",
            Self::TokenRate => "tokens_per_minute",
            Self::Concurrency => "concurrent_requests",
            Self::Budget => "insufficient_quota",
            Self::Price => "model_without_price",
            Self::Unavailable => "governance_unavailable",
        }
    }

    /// What it is to a client.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::UnknownKey | Self::RevokedKey | Self::ExpiredKey | Self::DisabledUser => {
                Class::Unauthorized
            }
            Self::NoProject
            | Self::Network
            | Self::Hours
            | Self::Model
            | Self::Provider
            | Self::MaxTokens
            | Self::MaxContext
            | Self::Tools
            | Self::Label
            | Self::Permission
            | Self::Price => Class::Forbidden,
            Self::RequestRate | Self::TokenRate | Self::Concurrency => Class::Limited,
            Self::Budget => Class::Broke,
            Self::Unavailable => Class::Unavailable,
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// The rule.
    pub rule: Rule,
    /// Which layer's rule it is, and what it says, in a sentence or two.
    pub message: String,
    /// Seconds after which the same request may pass, where that is known.
    pub retry_after_s: Option<u64>,
}

impl Denied {
    /// A refusal that waiting does not change.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), retry_after_s: None }
    }

    /// The same, that waiting may change.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}
