//! Calls of functions and the results that answer them. A call without an id is given one by its
//! place: `call_0`, `call_1`, ... A result belongs to the call with its id, else to the first call
//! of its name that had no id and has no result yet.

use std::collections::BTreeSet;

use serde_json::Value;

use super::seal;
use crate::fields::{Fault, Fields, Parsed, short};

/// A call of the nearest turn of the model.
struct Pending {
    id: String,
    /// The caller gave it the id.
    own_id: bool,
    name: String,
    /// Where it stands: its content and its part.
    at: (usize, usize),
    answered: bool,
}

/// The calls of a chat.
pub(super) struct Calls {
    pending: Vec<Pending>,
    /// Calls so far that had no id.
    nameless: usize,
    /// Ids that the caller gave: none of them is made again.
    given: BTreeSet<String>,
}

impl Calls {
    /// Of a request, whose calls are not read yet.
    pub(super) fn of(request: Fields<'_>) -> Self {
        let contents = request.get("contents").and_then(Value::as_array).into_iter().flatten();
        let parts = contents.filter_map(|content| content.get("parts")?.as_array()).flatten();
        let id = |part: &Value| Some(part.get("functionCall")?.get("id")?.as_str()?.to_owned());
        Self { pending: Vec::new(), nameless: 0, given: parts.filter_map(id).collect() }
    }

    /// The model's next turn begins: each call before it must have its result.
    pub(super) fn begin(&mut self) -> Parsed<()> {
        self.all_answered()?;
        self.pending.clear();
        Ok(())
    }

    /// A call, at its content and part. Gives its id, which carries Google's signature of it.
    pub(super) fn call(
        &mut self,
        id: Option<String>,
        name: &str,
        signature: Option<&str>,
        at: (usize, usize),
    ) -> Parsed<String> {
        let own_id = id.is_some();
        let bare = id.unwrap_or_else(|| self.made());
        if self.pending.iter().any(|call| seal::bare_id(&call.id) == bare) {
            let why = format!("two calls have the id '{}'", short(&bare));
            return Err(Fault::value("functionCall.id", why));
        }
        let id = signature.map_or_else(|| bare.clone(), |signature| seal::join(&bare, signature));
        let name = name.to_owned();
        self.pending.push(Pending { id: id.clone(), own_id, name, at, answered: false });
        Ok(id)
    }

    /// An id that no call has.
    fn made(&mut self) -> String {
        loop {
            let id = format!("call_{}", self.nameless);
            self.nameless += 1;
            if !self.given.contains(&id) {
                return id;
            }
        }
    }

    /// The id of the call that a result answers.
    pub(super) fn answer(&mut self, id: Option<&str>, name: &str) -> Parsed<String> {
        let its = |call: &Pending| id == Some(seal::bare_id(&call.id));
        let fits = |call: &Pending| call.name == name && (id.is_none() || !call.own_id);
        let find = |fits: &dyn Fn(&Pending) -> bool| {
            self.pending.iter().position(|call| !call.answered && fits(call))
        };
        let found = find(&its).or_else(|| find(&fits));
        let Some(call) = found.map(|at| &mut self.pending[at]) else {
            let (field, said) = id.map_or(("name", name), |id| ("id", id));
            let why = format!("no call before it waits for a result of '{}'", short(said));
            return Err(Fault::value(&format!("functionResponse.{field}"), why));
        };
        call.answered = true;
        Ok(call.id.clone())
    }

    /// Refuses a call without a result, by its path in the request.
    pub(super) fn all_answered(&self) -> Parsed<()> {
        let Some(call) = self.pending.iter().find(|call| !call.answered) else { return Ok(()) };
        let why = format!("no 'functionResponse' of '{}' follows it", short(&call.name));
        let fault = Fault::value("functionCall", why).at("parts", call.at.1);
        Err(fault.at("contents", call.at.0))
    }
}
