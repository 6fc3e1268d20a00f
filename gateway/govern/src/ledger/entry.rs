//! One line of the ledger.

use std::sync::Arc;

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

/// One line of the ledger. Texts are empty where there is nothing to say; they are shared with
/// whatever they were taken from, and with the statement that adds the line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// What it belongs to: retries of one operation share it.
    #[schema(value_type = String)]
    pub operation: Id,
    /// Which attempt, from 1.
    pub attempt: i64,
    /// The gateway that wrote it.
    #[schema(value_type = String)]
    pub gateway: Arc<str>,
    /// When it was let in, which is the time that windows count it in; milliseconds since 1970.
    pub admitted_at: Millis,
    /// When it ended; milliseconds since 1970.
    pub settled_at: Millis,
    /// Whose it is.
    #[schema(value_type = String)]
    pub organisation: Arc<str>,
    /// Whose it is.
    #[schema(value_type = String)]
    pub team: Arc<str>,
    /// Whose it is.
    #[schema(value_type = String)]
    pub project: Arc<str>,
    /// Whose it is.
    #[schema(value_type = String)]
    pub user: Arc<str>,
    /// The key that was shown.
    #[schema(value_type = String)]
    pub key: Arc<str>,
    /// The model that answered.
    #[schema(value_type = String)]
    pub model: Arc<str>,
    /// What served it: `local`, or a provider's name.
    #[schema(value_type = String)]
    pub backend: Arc<str>,
    /// The route's word.
    #[schema(value_type = String)]
    pub surface: Arc<str>,
    /// How secret it was.
    pub label: Label,
    /// The price sheet.
    #[schema(value_type = String)]
    pub price: Arc<str>,
    /// What was used.
    pub tokens: Tokens,
    /// Nano-dollars.
    #[schema(value_type = i64)]
    pub cost: Money,
    /// How it ended.
    pub outcome: Outcome,
    /// The request's id.
    #[schema(value_type = String)]
    pub request_id: Arc<str>,
    /// Where it came from.
    #[schema(value_type = String)]
    pub source: Arc<str>,
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
    /// The arm of an experiment that its target stood for.
    #[serde(default)]
    #[schema(value_type = String)]
    pub arm: Arc<str>,
}

/// A field with all that stands before its value, as one text.
macro_rules! text {
    ($line:ident, $before:literal, $name:literal, $text:expr) => {
        $line.text(concat!($before, "\"", $name, "\":\""), $text)
    };
}

macro_rules! number {
    ($line:ident, $before:literal, $name:literal, $number:expr) => {
        $line.number(concat!($before, "\"", $name, "\":"), $number)
    };
}

impl Entry {
    /// As it stands in the audit: what serde writes, in a third of the time.
    pub(crate) fn json(&self) -> String {
        let Self { tokens, .. } = self;
        let mut line = Line(String::with_capacity(1024));
        text!(line, "{", "operation", self.operation.as_str());
        number!(line, ",", "attempt", self.attempt);
        text!(line, ",", "gateway", &self.gateway);
        number!(line, ",", "admitted_at", self.admitted_at);
        number!(line, ",", "settled_at", self.settled_at);
        text!(line, ",", "organisation", &self.organisation);
        text!(line, ",", "team", &self.team);
        text!(line, ",", "project", &self.project);
        text!(line, ",", "user", &self.user);
        text!(line, ",", "key", &self.key);
        text!(line, ",", "model", &self.model);
        text!(line, ",", "backend", &self.backend);
        text!(line, ",", "surface", &self.surface);
        text!(line, ",", "label", self.label.name());
        text!(line, ",", "price", &self.price);
        number!(line, r#","tokens":{"#, "input", tokens.input);
        number!(line, ",", "cache_read", tokens.cache_read);
        number!(line, ",", "cache_write", tokens.cache_write);
        number!(line, ",", "output", tokens.output);
        number!(line, ",", "reasoning", tokens.reasoning);
        number!(line, "},", "cost", self.cost.0);
        text!(line, ",", "outcome", self.outcome.name());
        text!(line, ",", "request_id", &self.request_id);
        text!(line, ",", "source", &self.source);
        number!(line, ",", "first_token_ms", self.first_token_ms);
        number!(line, ",", "duration_ms", self.duration_ms);
        number!(line, ",", "device_us", self.device_us);
        text!(line, ",", "service_tier", self.service_tier.name());
        text!(line, ",", "arm", &self.arm);
        line.0.push('}');
        line.0
    }
}

/// JSON under way.
struct Line(String);

impl Line {
    /// A text behind a name and its quote.
    fn text(&mut self, name: &str, text: &str) {
        self.0.push_str(name);
        let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // All of it is looked at, which goes faster than to stop at the first.
        if text.bytes().fold(false, |any, byte| any | escaped(byte)) {
            self.0.pop();
            self.0.push_str(&serde_json::Value::from(text).to_string());
        } else {
            self.0.push_str(text);
            self.0.push('"');
        }
    }

    fn number(&mut self, name: &str, number: impl itoa::Integer) {
        self.0.push_str(name);
        self.0.push_str(itoa::Buffer::new().format(number));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn entries()(
            texts in prop::array::uniform13(any::<String>().prop_map(Arc::<str>::from)),
            signed in prop::array::uniform6(any::<i64>()),
            counts in prop::array::uniform6(any::<u64>()),
            (label, outcome, flex) in (0..Label::ALL.len(), 0..Outcome::ALL.len(), any::<bool>()),
        ) -> Entry {
            let [gateway, organisation, team, project, user, key, rest @ ..] = texts;
            let [model, backend, surface, price, request_id, source, arm] = rest;
            let [attempt, admitted_at, settled_at, cost, first_token_ms, duration_ms] = signed;
            let [input, cache_read, cache_write, output, reasoning, device_us] = counts;
            Entry {
                operation: Id::of("op_1").expect("an id"),
                tokens: Tokens { input, cache_read, cache_write, output, reasoning },
                label: Label::ALL[label],
                outcome: Outcome::ALL[outcome],
                service_tier: ServiceTier::ALL[usize::from(flex)],
                cost: Money(cost),
                attempt, gateway, admitted_at, settled_at, organisation, team, project, user, key,
                model, backend, surface, price, request_id, source, first_token_ms, duration_ms,
                device_us, arm,
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_is_what_serde_writes(entry in entries()) {
            prop_assert_eq!(entry.json(), serde_json::to_string(&entry).expect("JSON"));
        }
    }
}
