//! The HTTP routes: bytes of a dialect in, a request to a model, bytes of the dialect out.
//!
//! A request walks `envelope` (id, key, place) -> `body` -> `wire` (parse) -> `prepare` (model,
//! template, tokens, bounds) -> `Model::submit` -> `run` (events to text) -> `sse` or one answer.
//! Handlers know models as [`crate::backend::Model`] and nothing of what serves them.

mod adapters;
pub mod auth;
mod background;
mod bill;
mod body;
pub mod cache;
mod choice;
mod conversations;
mod count;
mod cut;
pub mod door;
mod embeddings;
mod envelope;
mod error;
mod explain;
mod forward;
mod generate;
mod google;
mod ids;
mod kept;
mod known;
pub mod limits;
mod mirror;
mod plan;
mod pool;
mod pooled;
mod prepare;
mod prompt;
mod relay;
mod rerank;
mod routes;
mod run;
mod said;
mod shape;
mod sse;
mod surface;
mod tell;
mod turn;
mod unknown;
mod voice;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::admin;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::route::{Pool, Routes};
use crate::scim;
use crate::server;
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
    /// Who else may answer.
    routes: Routes,
    /// Answers that may be given again, where that is asked for.
    cache: Option<Arc<cache::Cache>>,
    /// Responses that are made while nobody waits.
    background: background::Background,
    /// Responses that later requests may go on with.
    kept: Arc<kept::Shelf>,
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
        Self::routed(models, metrics, door, limits, adapters_folder, Routes::default())
    }

    /// As [`App::new`], with others who may answer.
    ///
    /// # Panics
    /// The limits contradict each other.
    #[must_use]
    pub fn routed(
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        door: impl Into<Door>,
        limits: Limits,
        adapters_folder: Option<PathBuf>,
        routes: Routes,
    ) -> Arc<Self> {
        Self::caching(models, metrics, door, limits, (adapters_folder, routes), None)
    }

    /// As [`App::routed`], with answers that are given again.
    ///
    /// # Panics
    /// The limits contradict each other.
    #[must_use]
    pub fn caching(
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        door: impl Into<Door>,
        limits: Limits,
        (adapters_folder, routes): (Option<PathBuf>, Routes),
        cache: Option<cache::Settings>,
    ) -> Arc<Self> {
        limits.check();
        routes.count(metrics.routes());
        let places = Arc::new(Semaphore::new(limits.requests_max));
        let heavy = Arc::new(Semaphore::new(limits.heavy_max));
        let bodies = Arc::new(Semaphore::new(limits.bodies_bytes_max.min(Semaphore::MAX_PERMITS)));
        let door = door.into();
        if let Some(governor) = door.governor() {
            metrics.books(governor.figures());
        }
        let kept = kept::Shelf::new(door.governor(), limits.kept_days);
        let cached = |settings| cache::Cache::new(settings, door.governor(), metrics.cache());
        let cache = cache.map(|settings| Arc::new(cached(settings)));
        Arc::new(Self {
            models,
            metrics,
            door,
            limits,
            routes,
            cache,
            background: background::Background::default(),
            kept: Arc::new(kept),
            adapters_folder,
            places,
            heavy,
            bodies,
        })
    }
}

impl App {
    /// The pool, or the provider, that answers to a name. What this process itself serves comes
    /// before a provider's model that is called alike.
    fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        let here = || self.models.get(name).is_some() || self.models.pool(name).is_some();
        if !self.routes.has_pool(name) && here() {
            return None;
        }
        self.routes.find(name)
    }

    /// What an operator should know of the routes, as things are now.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warning = |pool: &str| {
            format!(
                "[pools.{pool}]: strategy = \"cost\", and no price is known of any of its targets: \
                 they are asked in their order until a price sheet names them (store.data, and \
                 hearth admin prices set)"
            )
        };
        forward::unpriced(self).map(warning).collect()
    }
}

fn conversation_routes() -> Router<Arc<App>> {
    use conversations as c;
    Router::new()
        .route("/v1/conversations", post(c::create))
        .route("/v1/conversations/{id}", get(c::get).post(c::update).delete(c::delete))
        .route("/v1/conversations/{id}/items", get(c::items).post(c::create_items))
        .route("/v1/conversations/{id}/items/{item}", get(c::get_item).delete(c::delete_item))
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback_service(front(app))
}

/// All routes and others beside them, with a short way to those of models.
pub fn served(app: Arc<App>, beside: Router) -> Served {
    let front = front(app);
    let router = Router::new().fallback_service(front.clone()).merge(beside);
    Served { front, router }
}

/// See [`served`].
#[derive(Clone)]
pub struct Served {
    front: envelope::Front,
    router: Router,
}

impl server::Routes for Served {
    fn answer(self, request: Request) -> server::Answer {
        match envelope::surface(request.uri().path()) {
            None => self.router.answer(request),
            Some(_) => Box::pin(self.front.answer(request)),
        }
    }
}

fn front(app: Arc<App>) -> envelope::Front {
    let governor = app.door.governor();
    let rules = Arc::new(app.door.signin().map(signin::SignIn::rules).unwrap_or_default());
    let governed = governor.map(|governor| {
        admin::router(governor.clone())
            .merge(admin::own_usage(governor.clone()))
            .merge(scim::router(governor.clone(), rules))
    });
    let routes = Router::new()
        .merge(governed.unwrap_or_default())
        .merge(app.door.signin().map(signin::router).unwrap_or_default().with_state(()))
        .route("/", get(routes::index))
        .route("/health", get(routes::health))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/v1/models", get(routes::models))
        .route("/v1/models/{*id}", get(routes::model).post(google::post))
        .route("/v1/messages/count_tokens", post(count::messages))
        .route("/v1/responses/{id}", get(kept::get).delete(kept::delete))
        .route("/v1/responses/{id}/cancel", post(kept::cancel))
        .route("/v1/responses/{id}/input_items", get(kept::items))
        .route("/v1/responses/input_tokens", post(count::responses))
        .merge(conversation_routes())
        .route("/v1beta/models", get(google::list))
        .route("/v1beta/models/{*end}", get(google::get).post(google::post))
        .route("/v1/route/explain", post(explain::explain))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/v1/embeddings", post(pooled::embeddings))
        .route("/v1/rerank", post(pooled::rerank))
        .route("/v2/rerank", post(pooled::cohere))
        .route("/rerank", post(pooled::rerank))
        .route("/v1/score", post(pooled::score))
        .route("/tokenize", post(routes::tokenize))
        .route("/detokenize", post(routes::detokenize))
        .route("/v1/tokenize", post(routes::tokenize))
        .route("/v1/detokenize", post(routes::detokenize))
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::wrong_method)
        .with_state(Arc::clone(&app));
    envelope::Front { app, routes }
}
