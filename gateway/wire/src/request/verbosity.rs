//! How long an answer is to be. Models here have no such dial of their own: a wish for less or for
//! more is said to them in the system message. To a provider that has the word it goes as it came.

use super::{ChatRequest, Content, Message, Part, Role};
use crate::fields::{Fault, Fields, Parsed};

/// Names under which a request that is passed on keeps it: that of chat, and that of Responses.
const FIELDS: [&str; 2] = ["verbosity", "text.verbosity"];

/// A length that is not the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Low,
    High,
}

impl Verbosity {
    /// What the field `verbosity` of an object says; `None`: nothing, or the usual.
    pub(crate) fn of(fields: Fields<'_>) -> Parsed<Option<Self>> {
        match fields.string("verbosity")? {
            None | Some("medium") => Ok(None),
            Some("low") => Ok(Some(Self::Low)),
            Some("high") => Ok(Some(Self::High)),
            Some(_) => Err(Fault::value("verbosity", "expected 'low', 'medium' or 'high'")),
        }
    }

    /// As a request spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }

    /// Says it to the model: behind what the application says first, or in front of all.
    pub(crate) fn say(self, messages: &mut Vec<Message>) {
        let words = match self {
            Self::Low => "Keep your answers short: say what is needed, and no more.",
            Self::High => "Answer at length: go into detail, and explain what you say.",
        };
        let first = messages.first_mut();
        let first = first.filter(|m| matches!(m.role, Role::System | Role::Developer));
        match first.map(|message| &mut message.content) {
            Some(Content::Text(text)) => {
                text.push_str("\n\n");
                text.push_str(words);
            }
            Some(Content::Parts(parts)) => parts.push(Part::Text(format!("\n\n{words}"))),
            Some(content @ Content::Absent) => *content = Content::Text(words.into()),
            None => messages.insert(0, Message::text(Role::System, words)),
        }
    }
}

/// What a request that is passed on says of it: the field, and its value.
pub(crate) fn kept(request: &ChatRequest) -> Option<(&'static str, &str)> {
    FIELDS.iter().find_map(|field| Some((*field, request.extra.get(*field)?.as_str()?)))
}
