//! A request that goes to a provider of this dialect as it came, and whose response is kept
//! elsewhere than there. Only what says where something is kept is taken out of it: the provider
//! is told all that the request goes on with, and to keep nothing.

use serde_json::{Map, Value, json};

use super::items::{is_reference, normalise};
use super::passed::Passed;
use super::request::conversation;
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
    fields: Map<String, Value>,
    /// The response is kept.
    pub store: bool,
    /// `previous_response_id`: the response that this one goes on with.
    pub previous: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// It is made while nobody waits.
    pub background: bool,
    /// The input as it is kept and listed: each item has a kind and an id.
    pub input: Vec<Value>,
    /// The caller wants to see sealed thoughts.
    sealed: bool,
}

/// Whom it goes to.
#[derive(Debug, Clone, Copy)]
pub struct Whom<'a> {
    /// Its name, which stands with the thoughts that it sealed.
    pub provider: &'a str,
    /// Its own word for the model.
    pub model: &'a str,
    /// The model is one that thinks: one that does not refuses to be asked for thoughts.
    pub thinks: bool,
    /// It takes no thoughts but those that it sealed itself.
    pub only_sealed: bool,
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
        let Value::Object(fields) = value else { return Err(Fault::missing("model").into()) };
        request.fields = fields;
        Ok(request)
    }

    /// The request as its provider gets it.
    #[must_use]
    pub fn body(&self, before: Before<'_>, whom: Whom<'_>) -> Vec<u8> {
        let mut fields = self.fields.clone();
        for name in ["previous_response_id", "conversation", "background"] {
            fields.shift_remove(name);
        }
        fields.insert("model".into(), json!(whom.model));
        fields.insert("store".into(), json!(false));
        if let Some(most) = whom.most {
            fields.insert("max_output_tokens".into(), json!(most));
        }
        if self.wants_thoughts(whom) && !self.sealed {
            let include = fields.entry("include").or_insert(Value::Null);
            match include {
                Value::Array(all) => all.push(json!(SEALED)),
                other => *other = json!([SEALED]),
            }
        }
        let items = self.items(before, whom);
        if !matches!(self.fields.get("input"), Some(Value::String(_)) | None)
            || items.len() != self.input.len()
        {
            fields.insert("input".into(), items.into());
        }
        Value::Object(fields).to_string().into_bytes()
    }

    /// Thoughts of a response that nobody keeps can be gone on with only if they are sealed. Who
    /// says how much is to be thought, asks one that thinks.
    fn wants_thoughts(&self, whom: Whom<'_>) -> bool {
        let effort = self.fields.get("reasoning").and_then(|said| said.get("effort"));
        let asks = effort.and_then(Value::as_str).map(|effort| effort != "none");
        asks.unwrap_or(whom.thinks)
    }

    /// All items: those before it, then its own as they came.
    fn items(&self, before: Before<'_>, whom: Whom<'_>) -> Vec<Value> {
        let earlier = before.history.iter().map(|item| {
            let mut item = item.clone();
            // It is ours, or one that its maker has forgotten: no other kind needs none.
            if whom.only_sealed && kind(&item).ends_with("_output") {
                item.as_object_mut().map(|item| item.shift_remove("id"));
            }
            item
        });
        let as_it_came = match self.fields.get("input") {
            Some(Value::Array(items)) => &items[..],
            _ => &[],
        };
        let own = self.input.iter().enumerate().map(|(at, item)| match as_it_came.get(at) {
            Some(said) if !is_reference(said) => said.clone(),
            _ => item.clone(),
        });
        earlier.chain(own).filter_map(|item| thoughts(item, before, whom)).collect()
    }

    /// How its answer is shown and kept: under this name.
    #[must_use]
    pub fn answer(&self, id: &str, provider: &str) -> Passed {
        let conversation = self.conversation.as_ref();
        let says = [
            ("id", json!(id)),
            ("store", json!(self.store)),
            ("background", json!(self.background)),
            ("previous_response_id", json!(self.previous)),
            ("conversation", conversation.map_or(Value::Null, |id| json!({ "id": id }))),
        ];
        Passed::new(says, provider, self.sealed)
    }
}

fn read(fields: Fields<'_>, limits: &Limits, ids: &mut Ids<'_>) -> Parsed<Passing> {
    let include = fields.get("include").and_then(Value::as_array);
    let request = Passing {
        fields: Map::new(),
        store: fields.boolean("store", true)?,
        previous: fields.string("previous_response_id")?.map(str::to_owned),
        conversation: conversation(fields)?,
        background: fields.boolean("background", false)?,
        input: normalise(fields, limits, ids)?,
        sealed: include.is_some_and(|all| all.iter().any(|name| name == SEALED)),
    };
    if request.previous.is_some() && request.conversation.is_some() {
        let why = "it cannot be combined with 'previous_response_id'";
        return Err(Fault::value("conversation", why));
    }
    if request.background && !request.store {
        return Err(Fault::value("background", "it needs 'store': true"));
    }
    Ok(request)
}

fn kind(item: &Value) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn sealed(item: &Value) -> Option<&str> {
    item.get("encrypted_content").and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Whether this is a thought whose seal the caller left out: it was not shown, or is not kept by
/// clients that trust the server to know it.
#[must_use]
pub fn is_bare_thought(item: &Value) -> bool {
    kind(item) == "reasoning" && sealed(item).is_none()
}

/// An item as this provider reads it: of thoughts, its own. `None`: they mean nothing to it.
fn thoughts(mut item: Value, before: Before<'_>, whom: Whom<'_>) -> Option<Value> {
    if kind(&item) != "reasoning" {
        return Some(item);
    }
    let seal = match sealed(&item) {
        Some(own) => Some(own.to_owned()),
        None => {
            let id = item.get("id").filter(|id| id.is_string());
            let known = before.history.iter().chain(before.others);
            let found = known.filter(|other| id.is_some() && other.get("id") == id);
            found.filter_map(sealed).map(str::to_owned).next()
        }
    };
    let fields = item.as_object_mut()?;
    match seal.as_deref().map(|text| (seal::sealed_by(text), text)) {
        Some((Some((by, id, content)), _)) if by == whom.provider => {
            fields.insert("id".into(), json!(id));
            fields.insert("encrypted_content".into(), json!(content));
        }
        // Its own, as it came.
        Some((None, text)) if !(whom.only_sealed && seal::is_ours(text)) => {
            fields.insert("encrypted_content".into(), json!(text));
        }
        _ => {
            fields.shift_remove("encrypted_content");
            if whom.only_sealed {
                return None;
            }
        }
    }
    Some(item)
}
