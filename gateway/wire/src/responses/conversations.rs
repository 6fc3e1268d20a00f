//! Conversations: what their routes are sent and what they answer.
//! Source: OpenAI's API reference.

use serde_json::{Map, Value, json};

use super::beyond::Beyond;
use super::{Ids, items, request};
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json;
use crate::limits::Limits;

/// Items that are added at once, as OpenAI documents it.
const ITEMS_MAX: usize = 20;

/// `POST /v1/conversations`
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    /// Texts under names.
    pub metadata: Map<String, Value>,
    /// What it begins with; each item has a kind and an id.
    pub items: Vec<Value>,
}

/// Parses what a conversation begins with. `ids` makes the ids of items that have none.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse_create(body: &[u8], limits: &Limits, ids: &mut Ids<'_>) -> Result<Create, ApiError> {
    let value = if body.is_empty() { json!({}) } else { json::parse(body)? };
    let fields = Fields::of(&value)?;
    fields.only(&["items", "metadata"])?;
    let metadata = request::metadata(fields)?;
    Ok(Create { metadata, items: listed(fields, limits, ids)? })
}

/// Parses `POST /v1/conversations/{id}`: the metadata that it has from now on.
///
/// # Errors
/// As [`parse_create`].
pub fn parse_update(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    fields.only(&["metadata"])?;
    Ok(request::metadata(fields)?)
}

/// Parses `POST /v1/conversations/{id}/items`.
///
/// # Errors
/// As [`parse_create`].
pub fn parse_items(
    body: &[u8],
    limits: &Limits,
    ids: &mut Ids<'_>,
) -> Result<Vec<Value>, ApiError> {
    let value = json::parse(body)?;
    let fields = Fields::of(&value)?;
    fields.only(&["items"])?;
    if fields.get("items").is_none() {
        return Err(Fault::missing("items").into());
    }
    listed(fields, limits, ids)
}

fn listed(fields: Fields<'_>, limits: &Limits, ids: &mut Ids<'_>) -> Result<Vec<Value>, ApiError> {
    let most = limits.messages_max.min(ITEMS_MAX);
    let read = |fields: Fields<'_>, ids: &mut Ids<'_>| -> Parsed<Vec<Value>> {
        fields.each("items", most, |item| items::one(item, ids))
    };
    let found = read(fields, ids)?;
    if let Some(at) = found.iter().position(items::is_reference) {
        let why = "a conversation takes items, not references to them";
        return Err(Fault::value("type", why).at("items", at).into());
    }
    let twice = |at: &usize| found[..*at].iter().any(|item| item.get("id") == found[*at].get("id"));
    if let Some(at) = (0..found.len()).find(twice) {
        return Err(Fault::value("id", "two items have it").at("items", at).into());
    }
    // What could never be read again is refused now; what belongs to it may come later.
    let checked = items::messages(&[], &found, false, (None, &mut Beyond::refused()));
    checked.map_err(|fault| named(fault.into()))?;
    Ok(found)
}

/// The field has another name than in a request of Responses.
fn named(error: ApiError) -> ApiError {
    let (param, message) = (error.param.clone(), error.message.replace("'input[", "'items["));
    let error = ApiError { message, ..error };
    match param {
        Some(path) => error.with_param(path.replacen("input[", "items[", 1)),
        None => error,
    }
}

/// A conversation; `created` in seconds since 1970.
#[must_use]
pub fn answer(id: &str, created: u64, metadata: &Map<String, Value>) -> Vec<u8> {
    let body = json!({"id": id, "object": "conversation", "created_at": created,
        "metadata": metadata});
    body.to_string().into_bytes()
}

/// The answer to `DELETE /v1/conversations/{id}`.
#[must_use]
pub fn deleted(id: &str) -> Vec<u8> {
    let body = json!({"id": id, "object": "conversation.deleted", "deleted": true});
    body.to_string().into_bytes()
}
