//! Counting: how many tokens a request has, in three dialects. Clients decide by it when to make
//! their conversations shorter, so it answers for every model: exactly for those of this process,
//! with an estimate on the safe side for all others.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use wire::{ChatRequest, Glance, gemini, messages, responses};

use super::envelope::Caller;
use super::error::Failure;
use super::generate::json;
use super::surface::responses_id;
use super::{App, body, kept, prepare, prompt};

/// `POST /v1/messages/count_tokens`
pub(super) async fn messages(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let (_, answer) = prepare::read(&app, request, |app, body, _| {
        let tokens = match elsewhere(app, body)? {
            Some(estimate) => estimate,
            None => {
                let limits = &app.limits.request;
                let parse = |forward| messages::parse_count(body, limits, forward);
                count(app, &prepare::without_hosted(parse, |chat| chat)?.0)?
            }
        };
        Ok(messages::count_answer(tokens))
    })
    .await?;
    Ok(json(answer))
}

/// `POST /v1/responses/input_tokens`
pub(super) async fn responses(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let mut caller = prepare::caller(&request)?;
    let body = body::read(request, &app).await?;
    Box::pin(kept::note(&app, &mut caller, &body)).await;
    caller.past = caller.past.transpose()?.map(Ok);
    let answer = prepare::run(&app, body.len(), move |app| {
        let tokens = match elsewhere(app, &body)? {
            Some(estimate) => estimate.saturating_add(caller.past_estimate()),
            None => {
                let limits = &app.limits.request;
                let parse =
                    |forward| responses::parse_count(&body, limits, &mut responses_id, forward);
                let (mut request, dropped) = prepare::without_hosted(parse, |own| &mut own.chat)?;
                if !dropped.is_empty() {
                    request.here();
                }
                kept::make_whole(&caller, &mut request)?;
                count(app, &request.chat)?
            }
        };
        Ok(responses::count_answer(tokens))
    });
    Ok(json(answer.await?))
}

/// Google's `:countTokens`.
pub(super) fn gemini(app: &App, model: &str, body: &[u8], _: &Caller) -> Result<Vec<u8>, Failure> {
    let tokens = if app.models.get(model).is_none() && app.pool(model).is_some() {
        wire::glance::estimate(body)
    } else {
        let parse = |forward| gemini::parse_count(model, body, &app.limits.request, forward);
        count(app, &prepare::without_hosted(parse, |chat| chat)?.0)?
    };
    Ok(gemini::count_answer(tokens))
}

/// An estimate, where the model is not of this process.
fn elsewhere(app: &App, body: &[u8]) -> Result<Option<u64>, Failure> {
    if app.routes.is_empty() {
        return Ok(None);
    }
    let glance = Glance::of(body)?;
    let here = app.models.get(&glance.model).is_some();
    let there = !here && app.pool(&glance.model).is_some();
    Ok(there.then_some(glance.input_estimate))
}

/// The tokens of a chat, as a model of this process reads it.
fn count(app: &App, chat: &ChatRequest) -> Result<u64, Failure> {
    let (text, context, tells) = prepare::text(app, Some(&chat.model))?;
    prompt::refuse_images(&chat.messages)?;
    let most = prompt::COUNTED_MAX.max(context);
    let rendered =
        prompt::with_tools(&text, &chat.messages, &chat.tools, tells, &chat.template, most)?;
    Ok(u64::try_from(rendered.tokens.len()).unwrap_or(u64::MAX))
}
