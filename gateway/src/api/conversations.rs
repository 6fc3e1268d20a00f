//! Conversations: lists of items that the server keeps and that requests of Responses add to.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use govern::kept::{Kind, Range, Sheet};
use govern::policy::Label;
use serde_json::{Map, Value};
use wire::responses::{self, conversations as dialect};
use wire::{ApiError, ErrorKind};

use super::envelope::Caller;
use super::error::Failure;
use super::generate::json as answer;
use super::kept::{self, Listing, Owner, failed, id_of, unknown};
use super::surface::responses_id;
use super::{App, ids, prepare};

/// The note by which a caller says how secret a conversation is.
const LABEL: &str = "hearth_label";

/// The label that a conversation's notes ask for.
fn asked(metadata: &Map<String, Value>) -> Result<Option<Label>, Failure> {
    let Some(name) = metadata.get(LABEL).and_then(Value::as_str) else { return Ok(None) };
    let wrong = |_| {
        let all = Label::ALL.map(Label::name).join("', '");
        let field = format!("metadata.{LABEL}");
        let message = format!("Invalid value for '{field}': expected one of '{all}'.");
        ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field)
    };
    Ok(Some(name.parse().map_err(wrong)?))
}

/// A conversation as its caller reads it.
fn shown(sheet: &Sheet) -> Result<Response, Failure> {
    let metadata: Map<String, Value> = kept::read(sheet)?;
    let created = u64::try_from(sheet.at / 1000).unwrap_or(0);
    Ok(answer(dialect::answer(&sheet.id, created, &metadata)))
}

async fn conversation(app: &App, caller: &Caller, id: &str) -> Result<Sheet, Failure> {
    let found = app.kept.kept(&Owner::of(caller), (Kind::Conversation, "", id)).await;
    found.map_err(|error| failed("conversation", &error))
}

/// Puts items at the end of a conversation.
async fn add(
    app: &App,
    caller: &Caller,
    (whole, items): (&Sheet, &[Value]),
) -> Result<(), Failure> {
    let label = kept::label(caller).join(whole.label);
    let sheets = items.iter().map(|item| Sheet {
        parent: whole.id.clone(),
        ..kept::sheet(Kind::Item, id_of(item), label, item)
    });
    let kept = app.kept.keep(&Owner::of(caller), sheets.collect(), Some(&whole.id)).await;
    kept.map_err(|error| failed("conversation", &error))
}

/// `POST /v1/conversations`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let (caller, dialect::Create { metadata, items }) =
        prepare::read(&app, request, |app, body, _| {
            Ok(dialect::parse_create(body, &app.limits.request, &mut responses_id)?)
        })
        .await?;
    let label = asked(&metadata)?.unwrap_or_default().max(kept::label(&caller));
    let (id, content) = (ids::named("conv_"), Value::Object(metadata));
    let whole = kept::sheet(Kind::Conversation, &id, label, &content);
    let made = app.kept.keep(&Owner::of(&caller), vec![whole.clone()], None).await;
    made.map_err(|error| failed("conversation", &error))?;
    if !items.is_empty() {
        add(&app, &caller, (&whole, &items)).await?;
    }
    shown(&whole)
}

/// `GET /v1/conversations/{id}`
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    shown(&conversation(&app, &prepare::caller(&request)?, &id).await?)
}

/// `POST /v1/conversations/{id}`: other metadata.
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (caller, metadata) =
        prepare::read(&app, request, |_, body, _| Ok(dialect::parse_update(body)?)).await?;
    let before = conversation(&app, &caller, &id).await?;
    let label = asked(&metadata)?.unwrap_or_default().max(before.label);
    let made = kept::sheet(Kind::Conversation, &id, label, &Value::Object(metadata));
    let made = Sheet { at: before.at, ..made };
    let kept = app.kept.keep_over(&Owner::of(&caller), made.clone()).await;
    kept.map_err(|error| failed("conversation", &error))?;
    shown(&made)
}

/// `DELETE /v1/conversations/{id}`, with all of its items.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let owner = Owner::of(&prepare::caller(&request)?);
    let gone = app.kept.forget(&owner, (Kind::Conversation, "", &id)).await;
    gone.map_err(|error| failed("conversation", &error))?;
    Ok(answer(dialect::deleted(&id)))
}

/// `POST /v1/conversations/{id}/items`
pub(super) async fn create_items(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let include = kept::include(&request);
    let (caller, mut items) = prepare::read(&app, request, |app, body, _| {
        Ok(dialect::parse_items(body, &app.limits.request, &mut responses_id)?)
    })
    .await?;
    let whole = conversation(&app, &caller, &id).await?;
    add(&app, &caller, (&whole, &items)).await?;
    items.iter_mut().for_each(|item| responses::shown_item(item, include));
    Ok(answer(responses::item_list(&items, false)))
}

/// `GET /v1/conversations/{id}/items`
pub(super) async fn items(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    listing: Result<Query<Listing>, QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let (listing, limit, ascending) = Listing::of(listing)?;
    let caller = prepare::caller(&request)?;
    let (owner, include) = (Owner::of(&caller), kept::include(&request));
    conversation(&app, &caller, &id).await?;
    let after = match &listing.after {
        None => None,
        Some(after) => {
            let found = app.kept.kept(&owner, (Kind::Item, &id, after)).await;
            Some(found.map_err(|error| failed("item", &error))?.place)
        }
    };
    let range = Range { after, ascending, limit: limit + 1 };
    let found = app.kept.items(&owner, &id, range).await;
    let found = found.map_err(|error| failed("conversation", &error))?;
    let mut page = found.iter().take(limit).map(kept::read).collect::<Result<Vec<Value>, _>>()?;
    page.iter_mut().for_each(|item| responses::shown_item(item, include));
    Ok(answer(responses::item_list(&page, found.len() > limit)))
}

/// `GET /v1/conversations/{id}/items/{item}`
pub(super) async fn get_item(
    State(app): State<Arc<App>>,
    Path((id, item)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let caller = prepare::caller(&request)?;
    conversation(&app, &caller, &id).await?;
    let found = app.kept.kept(&Owner::of(&caller), (Kind::Item, &id, &item)).await;
    let mut found: Value = kept::read(&found.map_err(|error| failed("item", &error))?)?;
    responses::shown_item(&mut found, kept::include(&request));
    Ok(answer(found.to_string()))
}

/// `DELETE /v1/conversations/{id}/items/{item}`
pub(super) async fn delete_item(
    State(app): State<Arc<App>>,
    Path((id, item)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let caller = prepare::caller(&request)?;
    let whole = conversation(&app, &caller, &id).await?;
    if item.is_empty() {
        return Err(unknown("item", &item));
    }
    let gone = app.kept.forget(&Owner::of(&caller), (Kind::Item, &id, &item)).await;
    gone.map_err(|error| failed("item", &error))?;
    shown(&whole)
}
