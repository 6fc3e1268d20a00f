//! What a layer of the tree lets its requests do. Each layer narrows what the layers above allow:
//! a request must pass all of them, and the first that says no is named.

pub mod check;
pub mod dry;
pub mod label;
pub mod network;
pub mod pattern;
pub mod times;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use label::Label;
pub use network::Network;
pub use times::Hours;

/// The rules of one layer; an empty one narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Patterns of the models that may be asked (`*` any letters, `?` one). `None`: all.
    pub models: Option<Vec<String>>,
    /// Patterns of the providers that may be sent a request, whatever model it asks for. `None`:
    /// all; an empty list: none, only models of this server and of its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
    /// Most new tokens of a request, over all its choices; asking for more is refused, saying
    /// nothing means this many.
    pub max_tokens: Option<u32>,
    /// Most tokens of prompt and answer together.
    pub max_context: Option<u32>,
    /// Patterns of the tools that may be offered to a model. `None`: all; an empty list: none.
    pub tools: Option<Vec<String>>,
    /// How secret what comes from here is. Labels join upward: the highest of all layers counts.
    pub label: Option<Label>,
    /// Networks that requests may come from (`10.0.0.0/8`); empty: all.
    #[schema(value_type = Vec<String>)]
    pub networks: Vec<Network>,
    /// Times at which requests are taken; empty: always.
    pub hours: Vec<Hours>,
    /// How much at once and per minute.
    pub rates: Vec<Rates>,
    /// Whether what is said is recorded; the most demanding layer counts.
    #[serde(skip_serializing_if = "Recording::is_none")]
    pub record: Recording,
    /// Only what is so secret is recorded; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub record_labels: Vec<Label>,
}

/// What is kept of what is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recording {
    /// Nothing.
    #[default]
    None,
    /// The texts of request and answer, sealed.
    Full,
}

impl Recording {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Bounds per minute and at once, for the layer as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Only requests to models of this pattern; all where nothing is said.
    pub model: Option<String>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute, of prompts and answers.
    pub tokens_per_minute: Option<u32>,
    /// Requests at once.
    pub concurrent: Option<u32>,
}

/// Most entries of each list of a policy: every request walks them all.
const ENTRIES_MAX: usize = 1000;

impl Policy {
    /// Whether it asks that what is so secret be recorded.
    #[must_use]
    pub fn records(&self, label: Label) -> bool {
        let Self { record, record_labels, .. } = self;
        *record == Recording::Full && (record_labels.is_empty() || record_labels.contains(&label))
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        let lists =
            [("models", &self.models), ("providers", &self.providers), ("tools", &self.tools)];
        for (field, list) in lists {
            let patterns = list.as_deref().unwrap_or_default();
            few(field, patterns.len())?;
            each(field, patterns, |text| pattern::check(text))?;
        }
        for (field, bound) in [("max_tokens", self.max_tokens), ("max_context", self.max_context)] {
            above_zero(field, bound)?;
        }
        few("networks", self.networks.len())?;
        few("hours", self.hours.len())?;
        each("hours", &self.hours, Hours::check)?;
        few("record_labels", self.record_labels.len())?;
        few("rates", self.rates.len())?;
        each("rates", &self.rates, Rates::check)
    }
}

impl Rates {
    /// What is wrong with them, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        if let Some(text) = &self.model {
            pattern::check(text).map_err(|why| format!("model: {why}"))?;
        }
        let bounds = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent", self.concurrent),
        ];
        if bounds.iter().all(|(_, bound)| bound.is_none()) {
            return Err("bound nothing; say requests_per_minute, tokens_per_minute or concurrent"
                .to_owned());
        }
        bounds.into_iter().try_for_each(|(field, bound)| above_zero(field, bound))
    }
}

fn few(field: &str, entries: usize) -> Result<(), String> {
    if entries > ENTRIES_MAX {
        return Err(format!("{field}: {entries} entries are too many: at most {ENTRIES_MAX}"));
    }
    Ok(())
}

fn each<T>(
    field: &str,
    list: &[T],
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<(), String> {
    list.iter()
        .enumerate()
        .try_for_each(|(at, one)| check(one).map_err(|why| format!("{field}[{at}]: {why}")))
}

/// A bound of 0 would be a lock without a reason; an empty list of models says it plainly.
fn above_zero(field: &str, bound: Option<u32>) -> Result<(), String> {
    if bound == Some(0) {
        return Err(format!("{field} is 0; write `models: []` to let nothing through"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let check = |json: &str, named: &str| {
            let policy: Policy = serde_json::from_str(json).expect(json);
            let said = policy.check().expect_err(json);
            assert!(said.contains(named), "{json}: {said}");
        };
        check(r#"{"models": ["a", ""]}"#, "models[1]");
        check(r#"{"tools": [""]}"#, "tools[0]");
        check(r#"{"max_tokens": 0}"#, "max_tokens is 0");
        check(r#"{"max_context": 0}"#, "max_context is 0");
        check(r#"{"hours": [{"from": "9", "to": "10:00", "time_zone": "UTC"}]}"#, "hours[0]: from");
        check(r#"{"rates": [{}]}"#, "rates[0]");
        check(r#"{"rates": [{"model": "", "concurrent": 1}]}"#, "rates[0]: model");
        check(r#"{"rates": [{"concurrent": 1}, {"concurrent": 0}]}"#, "rates[1]: concurrent is 0");
        let many = vec!["a".to_owned(); ENTRIES_MAX + 1];
        let said = Policy { models: Some(many), ..Policy::default() }.check();
        assert!(said.is_err_and(|said| said.contains("models: 1001")));
        let fine = r#"{"models": [], "tools": ["get_*"], "networks": ["10.0.0.0/8"],
            "rates": [{"model": "qwen*", "tokens_per_minute": 1000}]}"#;
        let fine: Policy = serde_json::from_str(fine).expect("a policy");
        assert_eq!(fine.check(), Ok(()));
        assert_eq!(Policy::default().check(), Ok(()));
    }
}
