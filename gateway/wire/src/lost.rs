//! What of a request another dialect has no words for.

use std::collections::BTreeSet;

use crate::request::ChatRequest;

/// Fields that a translation cannot carry, in the words of OpenAI's chat where it has some, else
/// by their path in the caller's own request. What happens with them is the operator's choice:
/// the request is refused, or goes without them and the answer's head says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    fields: BTreeSet<String>,
    /// See [`Lost::of_this_turn`].
    turn: BTreeSet<String>,
}

impl Lost {
    /// A field that the target knows nothing of.
    pub fn field(&mut self, name: impl Into<String>) {
        self.fields.insert(name.into());
    }

    /// A field that the target knows, but not behind these turns.
    pub(crate) fn in_this_turn(&mut self, name: &str) {
        self.turn.insert(name.to_owned());
    }

    /// The field, if the request has it.
    pub fn some<T>(&mut self, name: &str, value: Option<&T>) {
        if value.is_some() {
            self.field(name);
        }
    }

    /// What nobody has words for, but these fields.
    pub(crate) fn extra(&mut self, request: &ChatRequest, but: &[&str]) {
        let lost = request.extra.keys().filter(|name| !but.contains(&name.as_str()));
        lost.for_each(|name| self.field(name));
    }

    /// What only engines and servers like ours know, and no provider with a dialect of its own.
    pub(crate) fn of_engines(&mut self, request: &ChatRequest) {
        let decoding = &request.decoding;
        let template = &request.template;
        let is = |value: Option<f64>, off: f64| value.is_none_or(|value| value == off);
        let said = [
            ("min_tokens", decoding.min_tokens != 0),
            ("min_p", !is(decoding.min_p, 0.0)),
            ("typical_p", !is(decoding.typical_p, 1.0)),
            ("repetition_penalty", !is(decoding.repetition_penalty, 1.0)),
            ("logit_bias", !decoding.logit_bias.is_empty()),
            ("stop_token_ids", !decoding.stop_token_ids.is_empty()),
            ("include_stop_str_in_output", decoding.include_stop && !decoding.stop.is_empty()),
            ("skip_special_tokens", !decoding.skip_special_tokens),
            ("ignore_eos", decoding.ignore_eos),
            ("prompt_logprobs", decoding.prompt_logprobs.is_some()),
            ("return_token_ids", decoding.return_token_ids),
            ("priority", decoding.priority != 0),
            ("service_tier", decoding.flex),
            ("cache_salt", decoding.cache_salt.is_some()),
            ("chat_template_kwargs", !template.kwargs.is_empty()),
            ("documents", !template.documents.is_empty()),
            ("add_special_tokens", template.add_special_tokens),
        ];
        said.into_iter().filter(|(_, said)| *said).for_each(|(name, _)| self.field(name));
    }

    /// Nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.turn.is_empty()
    }

    /// Names of fields that the target knows nothing of, sorted, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// Names of fields that this one request goes without because of the turns before it. Nobody
    /// is refused for them: an agent whose first turn was taken would end with its second.
    pub fn of_this_turn(&self) -> impl Iterator<Item = &str> {
        self.turn.iter().map(String::as_str)
    }
}
