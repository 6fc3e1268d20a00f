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

impl Entry {
    /// As it stands in the journal and in the audit: what serde writes, in a third of the time. It
    /// is written twice for each request.
    pub(crate) fn json(&self) -> String {
        let Self { tokens, .. } = self;
        let mut line = Line(String::with_capacity(1024));
        line.open();
        line.text("operation", self.operation.as_str());
        line.number("attempt", self.attempt);
        line.text("gateway", &self.gateway);
        line.number("admitted_at", self.admitted_at);
        line.number("settled_at", self.settled_at);
        line.text("organisation", &self.organisation);
        line.text("team", &self.team);
        line.text("project", &self.project);
        line.text("user", &self.user);
        line.text("key", &self.key);
        line.text("model", &self.model);
        line.text("backend", &self.backend);
        line.text("surface", &self.surface);
        line.text("label", self.label.name());
        line.text("price", &self.price);
        line.name("tokens");
        line.open();
        line.number("input", tokens.input);
        line.number("cache_read", tokens.cache_read);
        line.number("cache_write", tokens.cache_write);
        line.number("output", tokens.output);
        line.number("reasoning", tokens.reasoning);
        line.close();
        line.number("cost", self.cost.0);
        line.text("outcome", self.outcome.name());
        line.text("request_id", &self.request_id);
        line.text("source", &self.source);
        line.number("first_token_ms", self.first_token_ms);
        line.number("duration_ms", self.duration_ms);
        line.number("device_us", self.device_us);
        line.text("service_tier", self.service_tier.name());
        line.close();
        line.0
    }
}

/// JSON under way.
struct Line(String);

impl Line {
    fn open(&mut self) {
        self.0.push('{');
    }

    fn close(&mut self) {
        self.0.push('}');
    }

    fn name(&mut self, name: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn number(&mut self, name: &str, number: impl itoa::Integer) {
        self.name(name);
        self.0.push_str(itoa::Buffer::new().format(number));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // All of it is looked at, which goes faster than to stop at the first.
        if text.bytes().fold(false, |any, byte| any | escaped(byte)) {
            self.0.push_str(&serde_json::Value::from(text).to_string());
        } else {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn entries()(
            texts in prop::array::uniform12(any::<String>()),
            signed in prop::array::uniform6(any::<i64>()),
            counts in prop::array::uniform6(any::<u64>()),
            (label, outcome, flex) in (0..Label::ALL.len(), 0..Outcome::ALL.len(), any::<bool>()),
        ) -> Entry {
            let [gateway, organisation, team, project, user, key, rest @ ..] = texts;
            let [model, backend, surface, price, request_id, source] = rest;
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
                device_us,
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
