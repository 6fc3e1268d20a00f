//! Google's routes: `/v1beta/models`, where the model and what is asked of it are in the path.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use wire::gemini::{self, Framing, Method};
use wire::{ApiError, ErrorKind};

use super::envelope::Caller;
use super::error::Failure;
use super::generate::{self, json};
use super::surface::Surface;
use super::{App, count, known, prepare, routes, unknown};

/// New tokens that a model is said to make at most, where it has no bound of its own.
const OUTPUT_MAX: usize = 8192;

/// `POST /v1beta/models/{model}:{method}`, and the same under `/v1`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Path(end): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let Some((model, method)) = gemini::route(&end) else {
        return Err(routes::not_found(request).await);
    };
    let query = request.uri().query().unwrap_or_default();
    let framing = if query.split('&').any(|pair| pair == "alt=sse") {
        Framing::Events
    } else {
        Framing::Array
    };
    let model = model.to_owned();
    if method == Method::Count {
        let (_, answer) = prepare::read(&app, request, move |app, body, caller| {
            count::gemini(app, &model, body, caller)
        })
        .await?;
        return Ok(json(answer));
    }
    let stream = method == Method::Stream;
    generate::generate(app, request, Surface::Gemini { model, stream, framing }).await
}

/// `GET /v1beta/models`
pub(super) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    let caller = request.extensions().get::<Caller>();
    let models = app.models.offered();
    let own = models.iter().map(|model| (&*model.id, Some(model.context)));
    let cards: Vec<_> = own
        .chain(routes::chat_pools(&app))
        .filter(|(id, _)| caller.is_none_or(|caller| caller.sees(id)))
        .map(|(id, context)| gemini::model(id, context, OUTPUT_MAX))
        .chain(
            known::all(&app, caller)
                .filter(|known| known.chats)
                .map(|known| gemini::model(&known.id, known.reads, OUTPUT_MAX)),
        )
        .collect();
    json(gemini::models(&cards).to_string())
}

/// `GET /v1beta/models/{model}`
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let caller = request.extensions().get::<Caller>();
    unknown::may_know(&app, caller, &model)?;
    if let Some((name, context)) = routes::chat_pools(&app).find(|(pool, _)| *pool == model) {
        return Ok(json(gemini::model(name, context, OUTPUT_MAX).to_string()));
    }
    if let Some(known) = known::one(&app, caller, &model).filter(|known| known.chats) {
        return Ok(json(gemini::model(&known.id, known.reads, OUTPUT_MAX).to_string()));
    }
    let model = prepare::model(&app, &model).map_err(|failure| {
        let error = ApiError { param: None, ..failure.error };
        Failure::from(ApiError { kind: ErrorKind::NotFound, ..error })
    })?;
    Ok(json(gemini::model(&model.id, Some(model.context), OUTPUT_MAX).to_string()))
}
