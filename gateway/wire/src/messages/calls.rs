//! Calls and their results: each call of a turn has one result in the next. A model that reads a
//! call without a result, or a result without a call, makes things up.

use std::collections::BTreeMap;

use crate::fields::{Fault, Parsed, short};

/// Calls of the nearest turn of the assistant, and whether each has its result.
#[derive(Default)]
pub(super) struct Calls {
    /// Where that turn stands in the request.
    message: usize,
    answered: BTreeMap<String, bool>,
}

impl Calls {
    /// A turn of the assistant begins.
    pub(super) fn begin(&mut self, message: usize) -> Parsed<()> {
        self.all_answered()?;
        *self = Self { message, answered: BTreeMap::new() };
        Ok(())
    }

    /// The turn has a call.
    pub(super) fn call(&mut self, id: &str) -> Parsed<()> {
        if self.answered.insert(id.to_owned(), false).is_some() {
            let why = format!("two calls of the turn have the id '{}'", short(id));
            return Err(Fault::value("id", why));
        }
        Ok(())
    }

    /// A call has a result.
    pub(super) fn answer(&mut self, id: &str) -> Parsed<()> {
        let why = match self.answered.get_mut(id) {
            Some(answered) if !*answered => {
                *answered = true;
                return Ok(());
            }
            Some(_) => format!("the call '{}' has a result already", short(id)),
            None => format!("the turn of the assistant before it has no call '{}'", short(id)),
        };
        Err(Fault::value("tool_use_id", why))
    }

    /// Whoever speaks next speaks after all results.
    pub(super) fn all_answered(&self) -> Parsed<()> {
        let Some((id, _)) = self.answered.iter().find(|(_, answered)| !**answered) else {
            return Ok(());
        };
        let why = format!(
            "the call '{}' has no result; a 'tool_result' must stand first in the next turn",
            short(id)
        );
        Err(Fault::value("", why).at("messages", self.message))
    }
}
