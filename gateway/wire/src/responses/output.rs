//! Items of a response's output: what the model thought, said and called.

use serde_json::{Map, Value};

use super::echo::Echo;
use super::{seal, tools};
use crate::answer::TokenLogprob;
use crate::json::{list, put};
use crate::openai::answer::logprob_entry;
use crate::request::Seal;

/// What words of thoughts are called, in the item's content and in its summary.
const THOUGHT: &[u8] = b"reasoning_text";
const SUMMARY: &[u8] = b"summary_text";

/// An item under way or finished.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Begun,
    Whole,
    /// It was cut off.
    Cut,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Thoughts {
        text: String,
        seal: Option<Seal>,
    },
    Message(Vec<Part>),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
    /// A whole item as somebody else has written it.
    Given(Map<String, Value>),
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Log-probabilities are kept as they are written, with commas between.
    Text {
        text: String,
        logprobs: Vec<u8>,
    },
    Refusal(String),
    /// Of thoughts.
    Thought(String),
    /// Of their summary.
    Summary(String),
}

/// For whom items are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The caller, who sees what it asked for.
    Caller,
    /// The store, which needs what the next turn needs.
    Store,
}

impl Body {
    /// What ids of such items begin with.
    pub(super) fn prefix(&self, echo: &Echo) -> &'static str {
        match self {
            Self::Thoughts { .. } => "rs",
            Self::Message(_) | Self::Given(_) => "msg",
            Self::Call { name, .. } if echo.is_custom(name) => "ctc",
            Self::Call { .. } => "fc",
        }
    }
}

impl Echo {
    pub(super) fn is_custom(&self, function: &str) -> bool {
        self.names.get(function).is_some_and(|named| named.custom)
    }
}

impl Item {
    pub(super) fn write(&self, out: &mut Vec<u8>, echo: &Echo, reader: Reader) {
        if let Body::Given(item) = &self.body {
            return put(out, item);
        }
        out.extend_from_slice(b"{\"id\":");
        put(out, &self.id);
        out.extend_from_slice(match self.state {
            State::Begun => b",\"status\":\"in_progress\"",
            State::Whole => b",\"status\":\"completed\"",
            State::Cut => b",\"status\":\"incomplete\"",
        });
        match &self.body {
            Body::Thoughts { text, seal } => self.thoughts(out, echo, reader, text, seal.as_ref()),
            Body::Message(parts) => {
                out.extend_from_slice(b",\"type\":\"message\",\"content\":");
                list(out, parts, |out, part| part.write(out));
                out.extend_from_slice(b",\"role\":\"assistant\"");
            }
            Body::Call { id, name, arguments } => self.call(out, echo, id, name, arguments),
            Body::Given(_) => {}
        }
        out.push(b'}');
    }

    /// Words are shown as they are: where a summary was asked for, as their own.
    fn thoughts(
        &self,
        out: &mut Vec<u8>,
        echo: &Echo,
        reader: Reader,
        text: &str,
        seal: Option<&Seal>,
    ) {
        out.extend_from_slice(b",\"type\":\"reasoning\",\"summary\":[");
        if echo.summary && !text.is_empty() {
            write_words(out, SUMMARY, text);
        }
        out.extend_from_slice(b"],\"content\":[");
        if !echo.summary && !text.is_empty() {
            write_words(out, THOUGHT, text);
        }
        out.push(b']');
        let wanted = echo.encrypted || (reader == Reader::Store && seal.is_some());
        if wanted && self.state != State::Begun {
            out.extend_from_slice(b",\"encrypted_content\":");
            put(out, &seal::close(&self.id, text, seal));
        }
    }

    /// As what the caller offered: a function, one of a namespace, or a custom tool.
    fn call(&self, out: &mut Vec<u8>, echo: &Echo, id: &str, name: &str, arguments: &str) {
        let named = echo.names.get(name);
        if named.is_some_and(|named| named.custom) {
            out.extend_from_slice(b",\"type\":\"custom_tool_call\",\"input\":");
            let begun = self.state == State::Begun;
            put(out, &*if begun { "".into() } else { tools::custom_input(arguments) });
        } else {
            out.extend_from_slice(b",\"type\":\"function_call\",\"arguments\":");
            put(out, if self.state == State::Begun { "" } else { arguments });
        }
        out.extend_from_slice(b",\"call_id\":");
        put(out, id);
        out.extend_from_slice(b",\"name\":");
        put(out, named.map_or(name, |named| &named.name));
        if let Some(namespace) = named.and_then(|named| named.namespace.as_ref()) {
            out.extend_from_slice(b",\"namespace\":");
            put(out, namespace);
        }
    }
}

impl Part {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), logprobs: Vec::new() }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text { text, logprobs } => {
                let head = b"{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[";
                out.extend_from_slice(head);
                out.extend_from_slice(logprobs);
                out.extend_from_slice(b"],\"text\":");
                put(out, text);
            }
            Self::Refusal(text) => {
                out.extend_from_slice(b"{\"type\":\"refusal\",\"refusal\":");
                put(out, text);
            }
            Self::Thought(text) => return write_words(out, THOUGHT, text),
            Self::Summary(text) => return write_words(out, SUMMARY, text),
        }
        out.push(b'}');
    }
}

fn write_words(out: &mut Vec<u8>, kind: &[u8], text: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind);
    out.extend_from_slice(b"\",\"text\":");
    put(out, text);
    out.push(b'}');
}

/// Appends log-probabilities, with commas between.
pub(super) fn write_logprobs(out: &mut Vec<u8>, entries: &[TokenLogprob]) {
    for entry in entries {
        if !out.is_empty() {
            out.push(b',');
        }
        logprob_entry(out, entry);
    }
}
