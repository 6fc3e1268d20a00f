//! Routes of responses that are kept.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use govern::kept::{KeptError, Kind, Sheet};
use serde::Deserialize;
use serde_json::Value;
use wire::responses;
use wire::{ApiError, ErrorKind};

use super::super::error::Failure;
use super::super::generate::json;
use super::super::{App, background, prepare};
use super::{Kept, Owner, failed, id_of, read, unknown};

/// Items of one page, and of one where nothing is said.
const PAGE: (usize, usize) = (100, 20);

/// What a list of items may be asked.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Listing {
    pub(in super::super) after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

impl Listing {
    /// How many at most, and whether the first come first.
    pub(in super::super) fn of(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<(Self, usize, bool), Failure> {
        let wrong = |field: &str, why: &str| {
            let message = format!("Invalid value for '{field}': {why}.");
            let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
            Failure::from(error.with_param(field))
        };
        let Query(listing) = query.map_err(|why| wrong("limit", &why.body_text()))?;
        let limit = listing.limit.unwrap_or(PAGE.1);
        if !(1..=PAGE.0).contains(&limit) {
            return Err(wrong("limit", "expected 1 to 100"));
        }
        let ascending = match listing.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(wrong("order", "expected 'asc' or 'desc'")),
        };
        Ok((listing, limit, ascending))
    }
}

/// What a reader asked to see beside the usual.
pub(in super::super) fn include(request: &Request) -> &'static [&'static str] {
    let query = request.uri().query().unwrap_or_default();
    let sealed = query.contains("reasoning.encrypted_content");
    if sealed { &["reasoning.encrypted_content"] } else { &[] }
}

async fn sheet(app: &App, id: &str, owner: &Owner) -> Result<Sheet, Failure> {
    let found = app.kept.kept(owner, (Kind::Response, "", id)).await;
    found.map_err(|error| failed("response", &error))
}

/// `GET /v1/responses/{id}`
pub(in super::super) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (owner, include) = (Owner::of(&prepare::caller(&request)?), include(&request));
    let follows = follows(request.uri().query().unwrap_or_default())?;
    let response = shown(&sheet(&app, &id, &owner).await?, include)?;
    let Some(after) = follows else { return Ok(json(response.to_string())) };
    let feed = app.background.feed(&owner, &id).filter(|feed| feed.is_whole());
    let feed = feed.ok_or_else(|| {
        let message = "The events of this response are not here, or not any more; ask for it \
                       without 'stream'.";
        let error = ApiError::new(ErrorKind::Invalid, "not_a_stream", message);
        Failure::from(error.with_param("stream"))
    })?;
    Ok(feed.stream(after))
}

/// Whether the events are asked for, and after which one.
fn follows(query: &str) -> Result<Option<Option<u64>>, Failure> {
    let find =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if find("stream") != Some("true") {
        return Ok(None);
    }
    let number = |text: &str| {
        let wrong = || {
            let message = "Invalid value for 'starting_after': expected a whole number.";
            let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
            Failure::from(error.with_param("starting_after"))
        };
        text.parse::<u64>().map_err(|_| wrong())
    };
    Ok(Some(find("starting_after").map(number).transpose()?))
}

/// A response as its caller reads it.
fn shown(sheet: &Sheet, include: &[&str]) -> Result<Value, Failure> {
    let Kept { mut response, .. } = read(sheet)?;
    if background::is_lost(sheet.lost_at) {
        background::lost(&mut response);
    }
    responses::shown(&mut response, include);
    Ok(response)
}

/// `DELETE /v1/responses/{id}`
pub(in super::super) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let owner = Owner::of(&prepare::caller(&request)?);
    let gone = app.kept.forget(&owner, (Kind::Response, "", &id)).await;
    gone.map_err(|error| failed("response", &error))?;
    if let Some(feed) = app.background.feed(&owner, &id) {
        feed.stop();
    }
    Ok(json(responses::deleted(&id)))
}

/// `POST /v1/responses/{id}/cancel`
pub(in super::super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let owner = Owner::of(&prepare::caller(&request)?);
    let mut found = sheet(&app, &id, &owner).await?;
    if found.lost_at != 0 && !background::is_lost(found.lost_at) {
        background::cancel(&app, &owner, &id).await?;
        found = sheet(&app, &id, &owner).await?;
    }
    let response = shown(&found, &[])?;
    if response["background"] == true {
        return Ok(json(response.to_string()));
    }
    let message = "Only responses that are made in the background can be cancelled.";
    Err(Failure::new(ErrorKind::Invalid, "not_in_background", message))
}

/// `GET /v1/responses/{id}/input_items`: those of earlier requests and responses too, as far as
/// they are kept.
pub(in super::super) async fn items(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    listing: Result<Query<Listing>, QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let (listing, limit, ascending) = Listing::of(listing)?;
    let (owner, include) = (Owner::of(&prepare::caller(&request)?), include(&request));
    let chain = match app.kept.chain(&owner, &id).await {
        Err(KeptError::Missing(other)) if other != id => vec![sheet(&app, &id, &owner).await?],
        chain => chain.map_err(|error| failed("response", &error))?,
    };
    let mut all: Vec<Value> = Vec::new();
    for (at, sheet) in chain.iter().enumerate() {
        let Kept { mut input, mut response, .. } = read(sheet)?;
        input.iter_mut().for_each(|item| responses::shown_item(item, include));
        all.extend(input);
        if at + 1 < chain.len() {
            responses::shown(&mut response, include);
            all.extend(super::outputs(&response).cloned());
        }
    }
    if !ascending {
        all.reverse();
    }
    let from = match &listing.after {
        None => 0,
        Some(after) => {
            let at = all.iter().position(|item| id_of(item) == after);
            at.ok_or_else(|| unknown("item", after))? + 1
        }
    };
    let page = &all[from..all.len().min(from + limit)];
    Ok(json(responses::item_list(page, from + limit < all.len())))
}
