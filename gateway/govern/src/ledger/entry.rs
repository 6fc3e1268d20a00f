//! One line of the ledger.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::Label;
use crate::{Id, Millis, Money};

/// Tokens of one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// Of the prompt, those from a cache among them.
    pub input: u64,
    /// Of these, read from a cache.
    pub cache_read: u64,
    /// Of these, written into a cache where that has a price.
    pub cache_write: u64,
    /// Of the answers, thoughts among them.
    pub output: u64,
    /// Of these, thoughts.
    pub reasoning: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It came to its own end.
    #[default]
    Done,
    /// The client left, or cancelled it.
    Cancelled,
    /// The engine or provider failed.
    Failed,
    /// The budget was used up on the way.
    BudgetStop,
    /// The process died; settled when it came back, with what had been handed out.
    Recovered,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Done, Self::Cancelled, Self::Failed, Self::BudgetStop, Self::Recovered];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::BudgetStop => "budget_stop",
            Self::Recovered => "recovered",
        }
    }
}

/// How a request is served, under OpenAI's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// As any.
    #[default]
    Default,
    /// Behind all others, at the prices of a batch.
    Flex,
}

impl ServiceTier {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Default, Self::Flex];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
        }
    }
}

/// One line of the ledger. Texts are empty where there is nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// What it belongs to: retries of one operation share it.
    #[schema(value_type = String)]
    pub operation: Id,
    /// Which attempt, from 1.
    pub attempt: i64,
    /// The gateway that wrote it.
    pub gateway: String,
    /// When it was let in, which is the time that windows count it in; milliseconds since 1970.
    pub admitted_at: Millis,
    /// When it ended; milliseconds since 1970.
    pub settled_at: Millis,
    /// Whose it is.
    pub organisation: String,
    /// Whose it is.
    pub team: String,
    /// Whose it is.
    pub project: String,
    /// Whose it is.
    pub user: String,
    /// The key that was shown.
    pub key: String,
    /// The model that answered.
    pub model: String,
    /// What served it: `local`, or a provider's name.
    pub backend: String,
    /// The route's word.
    pub surface: String,
    /// How secret it was.
    pub label: Label,
    /// The price sheet.
    pub price: String,
    /// What was used.
    pub tokens: Tokens,
    /// Nano-dollars.
    #[schema(value_type = i64)]
    pub cost: Money,
    /// How it ended.
    pub outcome: Outcome,
    /// The request's id.
    pub request_id: String,
    /// Where it came from.
    pub source: String,
    /// From its arrival to its first token, milliseconds; 0 where there was none.
    pub first_token_ms: i64,
    /// From its arrival to its end, milliseconds.
    pub duration_ms: i64,
    /// From its first step on the device to its end, microseconds; 0 where nobody measured it.
    #[serde(default)]
    pub device_us: u64,
    /// How it was served.
    #[serde(default)]
    pub service_tier: ServiceTier,
}
