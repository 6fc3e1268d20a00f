//! The HTTP routes: bytes of a dialect in, a request to a model, bytes of the dialect out.
//!
//! A request walks `envelope` (id, key, place) -> `body` -> `wire` (parse) -> `prepare` (model,
//! template, tokens, bounds) -> `Model::submit` -> `run` (events to text) -> `sse` or one answer.
//! Handlers know models as [`crate::backend::Model`] and nothing of what serves them.

mod adapters;
pub mod auth;
mod bill;
mod body;
mod choice;
pub mod door;
mod embeddings;
mod envelope;
mod error;
mod generate;
mod ids;
pub mod limits;
mod plan;
mod pool;
mod prepare;
mod prompt;
mod rerank;
mod routes;
mod run;
mod shape;
mod sse;
mod tell;
mod voice;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::admin;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::signin;

pub use auth::Keys;
pub use door::Door;
pub use error::Failure;
pub use limits::Limits;

/// What all handlers share.
pub struct App {
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    door: Door,
    limits: Limits,
    /// Where adapters may be loaded from while serving.
    adapters_folder: Option<PathBuf>,
    /// Room for requests at once.
    places: Arc<Semaphore>,
    /// Room for prompts that are prepared off the runtime's threads.
    heavy: Arc<Semaphore>,
    /// Room for the bytes of all bodies that are read or wait to be prepared.
    bodies: Arc<Semaphore>,
}

impl App {
    /// Handlers' state.
    ///
    /// # Panics
    /// The limits contradict each other.
    #[must_use]
    pub fn new(
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        door: impl Into<Door>,
        limits: Limits,
        adapters_folder: Option<PathBuf>,
    ) -> Arc<Self> {
        limits.check();
        let places = Arc::new(Semaphore::new(limits.requests_max));
        let heavy = Arc::new(Semaphore::new(limits.heavy_max));
        let bodies = Arc::new(Semaphore::new(limits.bodies_bytes_max.min(Semaphore::MAX_PERMITS)));
        let door = door.into();
        Arc::new(Self { models, metrics, door, limits, adapters_folder, places, heavy, bodies })
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let governor = app.door.governor();
    let governed = governor
        .map(|governor| admin::router(governor.clone()).merge(admin::own_usage(governor.clone())));
    Router::new()
        .merge(governed.unwrap_or_default())
        .merge(app.door.signin().map(signin::router).unwrap_or_default().with_state(()))
        .route("/", get(routes::index))
        .route("/health", get(routes::health))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/v1/models", get(routes::models))
        .route("/v1/models/{*id}", get(routes::model))
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completion))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/v2/rerank", post(rerank::rerank))
        .route("/rerank", post(rerank::rerank))
        .route("/v1/score", post(rerank::score))
        .route("/tokenize", post(routes::tokenize))
        .route("/detokenize", post(routes::detokenize))
        .route("/v1/tokenize", post(routes::tokenize))
        .route("/v1/detokenize", post(routes::detokenize))
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), envelope::layer))
        .with_state(app)
}
