//! A request that goes to a provider of this dialect as it came, and whose response is kept
//! elsewhere than there. Only what says where something is kept is taken out of it: the provider
//! is told all that the request goes on with, and to keep nothing.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::items::{is_reference, normalise, prefix};
use super::keeping::Keeping;
use super::passed::Passed;
use super::{Ids, seal};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;

/// What an answer has to show so that its thoughts can be gone on with.
const SEALED: &str = "reasoning.encrypted_content";

/// The request.
#[derive(Debug, Clone)]
pub struct Passing {
    /// All fields but the input.
    fields: Map<String, Value>,
    /// The input as it came.
    said: Option<Value>,
    /// Where it and its response are kept.
    pub keeping: Keeping,
    /// The input as it is kept and listed: each item has a kind and an id.
    pub input: Vec<Value>,
    /// The caller wants to see sealed thoughts.
    sealed: bool,
}

/// Which thoughts a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seals {
    /// Those alone that it sealed itself; `thinks`: the model is one that thinks. One that does not
    /// refuses to be asked for thoughts, and to be shown any.
    Own {
        /// See there.
        thinks: bool,
    },
    /// All of them: it is a server like this.
    All,
    /// In words alone.
    Words,
}

/// Whom it goes to.
#[derive(Debug, Clone, Copy)]
pub struct Whom<'a> {
    /// Its name, which stands with the thoughts that it sealed.
    pub provider: &'a str,
    /// Its own word for the model.
    pub model: &'a str,
    /// The thoughts that it takes.
    pub seals: Seals,
    /// It may make no more new tokens, in place of what the caller says.
    pub most: Option<u32>,
}

/// What stands before a request, and what it refers to.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Items that it goes on with.
    pub history: &'a [Value],
    /// Other items that it names.
    pub others: &'a [Value],
}

impl Passing {
    /// Reads a request. `ids` makes the ids of items that have none.
    ///
    /// # Errors
    /// A field that says what is kept, or its input, is wrong.
    pub fn parse(body: &[u8], limits: &Limits, ids: &mut Ids<'_>) -> Result<Self, ApiError> {
        let value = json::parse(body)?;
        let mut request = read(Fields::of(&value)?, limits, ids)?;
        let Value::Object(mut fields) = value else { return Err(Fault::missing("model").into()) };
        request.said = fields.shift_remove("input");
        request.fields = fields;
        Ok(request)
    }

    /// Puts the seals back on thoughts that came without: their caller was not shown them, or
    /// trusts the server to know them.
    pub fn seal(&mut self, before: Before<'_>) {
        let bare = |item: &Value| kind(item) == "reasoning" && sealed(item).is_none();
        if !self.input.iter().any(bare) {
            return;
        }
        let known = before.history.iter().chain(before.others).filter_map(|item| {
            let id = item.get("id")?.as_str()?;
            Some((id, sealed(item).filter(|_| kind(item) == "reasoning")?))
        });
        let known: HashMap<&str, &str> = known.collect();
        let said = self.said.as_mut().and_then(Value::as_array_mut).into_iter().flatten();
        for item in self.input.iter_mut().chain(said).filter(|item| bare(item)) {
            let seal = item.get("id").and_then(Value::as_str).and_then(|id| known.get(id));
            if let Some(seal) = seal {
                item["encrypted_content"] = json!(seal);
            }
        }
    }

    /// The request as its provider gets it, once.
    pub fn body(&mut self, history: &[Value], whom: Whom<'_>) -> Vec<u8> {
        let thinks = self.thinks(whom);
        let mut fields = std::mem::take(&mut self.fields);
        for name in ["previous_response_id", "conversation", "background"] {
            fields.shift_remove(name);
        }
        fields.insert("model".into(), json!(whom.model));
        fields.insert("store".into(), json!(false));
        if let Some(most) = whom.most {
            fields.insert("max_output_tokens".into(), json!(most));
        }
        // Thoughts of a response that nobody keeps can be gone on with only if they are sealed.
        if thinks && !self.sealed {
            match fields.get_mut("include") {
                Some(Value::Array(all)) => all.push(json!(SEALED)),
                None | Some(Value::Null) => drop(fields.insert("include".into(), json!([SEALED]))),
                // What it is instead its provider will say.
                Some(_) => {}
            }
        }
        match self.said.take() {
            Some(said @ (Value::String(_) | Value::Null)) if history.is_empty() => {
                fields.insert("input".into(), said);
            }
            None if history.is_empty() => {}
            said => drop(fields.insert("input".into(), self.items(said, history, (whom, thinks)))),
        }
        Value::Object(fields).to_string().into_bytes()
    }

    /// Whether thoughts can be asked for. Who says how much is to be thought, asks one that thinks.
    fn thinks(&self, whom: Whom<'_>) -> bool {
        let effort = self.fields.get("reasoning").and_then(|said| said.get("effort"));
        let asks = effort.and_then(Value::as_str).map(|effort| effort != "none");
        match whom.seals {
            Seals::Own { thinks } => asks.unwrap_or(thinks),
            Seals::All => asks.unwrap_or(true),
            Seals::Words => false,
        }
    }

    /// All items: those before it, then its own as they came.
    fn items(
        &self,
        said: Option<Value>,
        history: &[Value],
        (whom, thinks): (Whom<'_>, bool),
    ) -> Value {
        let strict = matches!(whom.seals, Seals::Own { .. });
        let named_well = |item: &Value| {
            let mut item = item.clone();
            if strict && !is_named_well(&item) {
                item.as_object_mut().map(|item| item.shift_remove("id"));
            }
            item
        };
        let earlier = history.iter().map(named_well);
        let mut as_they_came = match said {
            Some(Value::Array(items)) => items.into_iter(),
            _ => Vec::new().into_iter(),
        };
        let mut there: Option<HashSet<&str>> = None;
        let own = self.input.iter().filter_map(|item| match as_they_came.next() {
            Some(said) if !is_reference(&said) => Some(said),
            Some(said) => {
                // What stands before the request already does not stand there twice.
                let ids = || history.iter().filter_map(|item| item.get("id")?.as_str()).collect();
                let id = said.get("id").and_then(Value::as_str).unwrap_or_default();
                (!there.get_or_insert_with(ids).contains(id)).then(|| named_well(item))
            }
            None => Some(item.clone()),
        });
        earlier.chain(own).filter_map(|item| thought(item, whom, thinks)).collect()
    }

    /// How its answer is shown and kept: under this name.
    #[must_use]
    pub fn answer(&self, id: &str, provider: &str) -> Passed {
        let Keeping { store, previous, conversation, background } = &self.keeping;
        let conversation = conversation.as_ref();
        let says = [
            ("id", json!(id)),
            ("store", json!(store)),
            ("background", json!(background)),
            ("previous_response_id", json!(previous)),
            ("conversation", conversation.map_or(Value::Null, |id| json!({ "id": id }))),
        ];
        Passed::new(says, provider, (self.sealed, *store))
    }
}

fn read(fields: Fields<'_>, limits: &Limits, ids: &mut Ids<'_>) -> Parsed<Passing> {
    let include = fields.get("include").and_then(Value::as_array);
    Ok(Passing {
        fields: Map::new(),
        said: None,
        keeping: Keeping::read(fields)?,
        input: normalise(fields, limits, ids)?,
        sealed: include.is_some_and(|all| all.iter().any(|name| name == SEALED)),
    })
}

fn kind(item: &Value) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn sealed(item: &Value) -> Option<&str> {
    item.get("encrypted_content").and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Whether OpenAI takes the name of an earlier item: of some kinds it says how they begin, and
/// others were made here, of which it takes none.
fn is_named_well(item: &Value) -> bool {
    let id = item.get("id").and_then(Value::as_str).unwrap_or_default();
    match kind(item) {
        kind @ ("message" | "function_call" | "custom_tool_call" | "reasoning") => {
            id.starts_with(prefix(kind))
        }
        _ => !["item_", "fco_", "ctco_"].iter().any(|ours| id.starts_with(ours)),
    }
}

/// An item as this provider reads it: of thoughts, those that it takes. `None`: it takes none.
fn thought(mut item: Value, whom: Whom<'_>, thinks: bool) -> Option<Value> {
    if kind(&item) != "reasoning" {
        return Some(item);
    }
    let own = sealed(&item).and_then(|text| match (seal::sealed_by(text), whom.seals) {
        (_, Seals::Words) => None,
        (Some((by, id, content)), _) if by == whom.provider => Some((Some(id), content.to_owned())),
        (_, Seals::All) => Some((None, text.to_owned())),
        // As its caller has it, who may have it from there.
        (None, _) if !seal::is_ours(text) => Some((None, text.to_owned())),
        _ => None,
    });
    let fields = item.as_object_mut()?;
    match own {
        Some((id, content)) if thinks || whom.seals == Seals::All => {
            fields.extend(id.map(|id| ("id".to_owned(), json!(id))));
            fields.insert("encrypted_content".into(), json!(content));
        }
        _ if matches!(whom.seals, Seals::Own { .. }) => return None,
        _ => drop(fields.shift_remove("encrypted_content")),
    }
    Some(item)
}
