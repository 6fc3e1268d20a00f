//! The order of a chat's turns: each call of a tool has one result, and before the next turn.
//! Templates print what they are given, and a model that reads a call without a result, or a
//! result without a call, makes things up.

use std::collections::BTreeMap;

use crate::fields::{Fault, Parsed, short};
use crate::request::{Message, Role};

/// Calls of the nearest assistant's message, and whether each has its result.
#[derive(Default)]
struct Calls<'a> {
    message: usize,
    answered: BTreeMap<&'a str, bool>,
}

impl<'a> Calls<'a> {
    fn of(at: usize, message: &'a Message) -> Parsed<Self> {
        let mut calls = Self { message: at, answered: BTreeMap::new() };
        for call in &message.tool_calls {
            if calls.answered.insert(&call.id, false).is_some() {
                let why = format!("two calls have the id '{}'", short(&call.id));
                return Err(Fault::value("tool_calls", why).at("messages", at));
            }
        }
        Ok(calls)
    }

    fn answer(&mut self, id: &str) -> Parsed<()> {
        let why = match self.answered.get_mut(id) {
            Some(answered) if !*answered => {
                *answered = true;
                return Ok(());
            }
            Some(_) => format!("the call '{}' has a result already", short(id)),
            None => format!("the assistant's message before it has no call '{}'", short(id)),
        };
        Err(Fault::value("tool_call_id", why))
    }

    fn all_answered(&self) -> Parsed<()> {
        let Some((id, _)) = self.answered.iter().find(|(_, answered)| !**answered) else {
            return Ok(());
        };
        let why = format!("the call '{}' has no result; a 'tool' message must follow", short(id));
        Err(Fault::value("tool_calls", why).at("messages", self.message))
    }
}

/// Refuses a result without a call, a second result, and a call without a result.
pub(crate) fn check(messages: &[Message]) -> Parsed<()> {
    let mut calls = Calls::default();
    for (at, message) in messages.iter().enumerate() {
        match message.role {
            Role::User => calls.all_answered()?,
            Role::Assistant => {
                calls.all_answered()?;
                calls = Calls::of(at, message)?;
            }
            Role::Tool => {
                let id = message.tool_call_id.as_deref().unwrap_or_default();
                calls.answer(id).map_err(|fault| fault.at("messages", at))?;
            }
            Role::Developer | Role::System | Role::Function => {}
        }
    }
    calls.all_answered()
}
