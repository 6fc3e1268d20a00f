//! The small routes: probes, metrics, models, tokens, and what is said where there is no route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use wire::openai::{self, answer};
use wire::{ErrorKind, TokenizeInput, messages};

use super::envelope::Caller;
use super::error::Failure;
use super::generate::json;
use super::{App, body, known, prepare, prompt, unknown};
use crate::backend::{Model, PoolModel};
use crate::metrics::CONTENT_TYPE as METRICS_TYPE;
use crate::route::{Seat, Target};

/// What Anthropic's clients say in every request.
const ANTHROPIC: &str = "anthropic-version";

const INDEX: &str = "\
Hearth, an inference server

POST /v1/chat/completions    chat, as OpenAI's
POST /v1/completions         plain completions, as OpenAI's
POST /v1/messages            chat, as Anthropic's; with /v1/messages/count_tokens
POST /v1/responses           chat, as OpenAI's Responses; with /v1/responses/input_tokens
POST /v1/conversations       conversations that Responses go on with, as OpenAI's
POST /v1beta/models/{model}:generateContent, :streamGenerateContent, :countTokens, as Google's
POST /v1/embeddings          texts to vectors, as OpenAI's
POST /v1/rerank              documents by how well they answer, as Jina's and Cohere's
POST /v1/score               pairs of texts to scores, as vLLM's
POST /v1/route/explain       who would answer a request, and why
GET  /v1/models              models served here
GET  /v1/models/{id}         one of them
POST /v1/load_lora_adapter   put an adapter beside a model, as vLLM's
POST /v1/unload_lora_adapter take it away
GET  /v1/usage               what your key has used (with --data)
GET  /admin/v1               keys, teams, budgets, usage, audit (with --data)
POST /tokenize               text or messages to tokens
POST /detokenize             tokens to text
GET  /health                 the process is alive
GET  /ready                  models are loaded and take requests
GET  /metrics                figures for Prometheus
";

/// `GET /`
pub(super) async fn index() -> &'static str {
    INDEX
}

/// `GET /health`: alive, even while loading or full.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /ready`
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Failure> {
    app.models
        .ready()
        .map(|()| "ready\n")
        .map_err(|why| Failure::new(ErrorKind::Unavailable, "unavailable", format!("{why}.")))
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    if let Some(governor) = app.door.governor() {
        governor.show();
        governor.rates_are_shared().into_iter().for_each(|is| app.metrics.rates_shared(is));
    }
    app.routes.show(Instant::now());
    // Reads files and asks the driver, which may take a while.
    let text = tokio::task::spawn_blocking(move || app.metrics.render()).await;
    ([(CONTENT_TYPE, METRICS_TYPE)], text.unwrap_or_default())
}

fn card(model: &Model) -> serde_json::Value {
    answer::model(&model.id, model.created, model.context, "generate")
}

fn pool_card(model: &PoolModel) -> serde_json::Value {
    answer::model(&model.id, model.created, model.context, model.task.name())
}

/// `GET /v1/models`
pub(super) async fn models(State(app): State<Arc<App>>, request: Request) -> Response {
    let caller = request.extensions().get::<Caller>();
    let sees = |id: &str| caller.is_none_or(|caller| caller.sees(id));
    let (models, pools) = (app.models.offered(), app.models.offered_pools());
    if request.headers().contains_key(ANTHROPIC) {
        let own = models.iter().map(|model| (&*model.id, model.created, Some(model.context)));
        let cards: Vec<_> = own
            .chain(chat_pools(&app).map(|(name, context)| (name, 0, context)))
            .filter(|(id, ..)| sees(id))
            .map(|(id, created, context)| messages::model_answer(id, created, context))
            .chain(
                known::all(&app, caller)
                    .filter(|known| known.chats)
                    .map(|known| messages::model_answer(&known.id, 0, known.reads)),
            )
            .collect();
        return json(messages::models_answer(&cards, false).to_string());
    }
    let cards = models.iter().map(|model| (&*model.id, card(model)));
    let pool_cards = pools.iter().map(|model| (&*model.id, pool_card(model)));
    let routed = app.routes.pools().map(|pool| (&*pool.name, routed_card(&pool.name)));
    let all: Vec<_> = cards
        .chain(pool_cards)
        .chain(routed)
        .filter(|(id, _)| sees(id))
        .map(|(_, card)| card)
        .chain(known::all(&app, caller).map(|known| known.card()))
        .collect();
    json(answer::models(&all).to_string())
}

/// The pools that answer chats, and how many tokens the one of their targets reads that reads most,
/// as far as is known.
pub(super) fn chat_pools(app: &App) -> impl Iterator<Item = (&str, Option<usize>)> {
    app.routes.pools().filter_map(|pool| {
        let chats = |target: &&Target| match &target.seat {
            Seat::Local(model) => app.models.get(model).is_some(),
            Seat::Provider(provider, _) => provider.kind.chats() && !target.embeds,
        };
        let context = |target: &Target| {
            let set = target.context.and_then(|tokens| usize::try_from(tokens).ok());
            let Seat::Local(model) = &target.seat else { return set };
            set.or_else(|| Some(app.models.get(model)?.context))
        };
        let mut contexts = pool.everybody().filter(chats).map(context).peekable();
        contexts.peek()?;
        Some((&*pool.name, contexts.flatten().max()))
    })
}

/// A name that stands for several.
fn routed_card(name: &str) -> serde_json::Value {
    serde_json::json!({"id": name, "object": "model", "created": 0, "owned_by": "hearth"})
}

/// `GET /v1/models/{id}`; an id may contain slashes.
pub(super) async fn model(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let (headers, caller) = (request.headers(), request.extensions().get::<Caller>());
    // Bytes that are no text name no model.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    unknown::may_know(&app, caller, &id)?;
    if app.routes.has_pool(&id) {
        if headers.contains_key(ANTHROPIC)
            && let Some((name, context)) = chat_pools(&app).find(|(pool, _)| *pool == id)
        {
            return Ok(json(messages::model_answer(name, 0, context).to_string()));
        }
        return Ok(json(routed_card(&id).to_string()));
    }
    // Whoever asks for it is answered by the provider, too.
    let chats = headers.contains_key(ANTHROPIC);
    if let Some(known) = known::one(&app, caller, &id).filter(|known| known.chats || !chats) {
        return Ok(json(match headers.contains_key(ANTHROPIC) {
            true => messages::model_answer(&known.id, 0, known.reads).to_string(),
            false => known.card().to_string(),
        }));
    }
    if let Some(model) = app.models.pool(&id) {
        return Ok(json(pool_card(&model).to_string()));
    }
    if headers.contains_key(ANTHROPIC) {
        let model = prepare::model(&app, &id)?;
        return Ok(json(
            messages::model_answer(&model.id, model.created, Some(model.context)).to_string(),
        ));
    }
    Ok(json(card(&*prepare::model(&app, &id)?).to_string()))
}

/// `POST /tokenize`
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body::read(request, &app).await?;
    let bytes = body.len();
    let work = move |app: &App| {
        let request = openai::parse_tokenize(&body, &app.limits.request)?;
        let (text, context, tells) = prepare::text(app, request.model.as_deref())?;
        let text = &text;
        let most = prompt::COUNTED_MAX.max(context);
        let tokens = match request.input {
            TokenizeInput::Text { prompt, add_special_tokens } => {
                prompt::check_length(text, &prompt, most, "prompt")?;
                prompt::encode(text, &prompt, add_special_tokens)?
            }
            TokenizeInput::Chat { messages, tools, template } => {
                prompt::refuse_images(&messages)?;
                prompt::with_tools(text, &messages, &tools, tells, &template, most)?.tokens
            }
        };
        let strs: Option<Vec<String>> = request
            .return_token_strs
            .then(|| tokens.iter().map(|id| text.token_text(*id)).collect());
        let answer = openai::tokenize_answer(&tokens, context, strs.as_deref());
        Ok(answer.to_string())
    };
    prepare::run(&app, bytes, work).await.map(json)
}

/// `POST /detokenize`
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body::read(request, &app).await?;
    let bytes = body.len();
    let work = move |app: &App| {
        let request = openai::parse_detokenize(&body)?;
        let (text, ..) = prepare::text(app, request.model.as_deref())?;
        prompt::check_ids(&text, &request.tokens, "tokens")?;
        let text = text.decode(&request.tokens, false);
        Ok(openai::detokenize_answer(&text).to_string())
    };
    prepare::run(&app, bytes, work).await.map(json)
}

/// No such route.
pub(super) async fn not_found(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(256).collect();
    let message = format!("There is no route {} {path}. GET / lists the routes.", request.method());
    Failure::new(ErrorKind::NotFound, "unknown_url", message)
}

/// The route has another method.
pub(super) async fn wrong_method(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(256).collect();
    let message = format!("{path} does not answer to {}.", request.method());
    Failure::new(ErrorKind::Method, "method_not_allowed", message)
}
