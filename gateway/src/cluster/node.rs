//! A node: the engines of this process, for gateways of the cluster. Two things are asked of it,
//! what it is (`state`, and a card for each model) and tokens (`generate`). Whoever asks shows the
//! cluster's token, or a certificate that the server has verified.

mod generate;
mod state;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use scheduler::types::PAGE_TOKENS;
use sha2::{Digest, Sha256};

use super::protocol::{self, ADAPTERS_MAX, Adapter, Card, Prefix};
use crate::api::Keys;
use crate::backend::Model;
use crate::backend::local::PrefixRule;
use crate::metrics::{CONTENT_TYPE as METRICS_TYPE, GpuReading, Metrics};
use crate::models::Models;
use crate::tls::ClientNames;

/// Who may ask.
#[derive(Clone)]
pub struct Door {
    keys: Keys,
    /// A certificate that the server has verified is as good.
    certificates: bool,
}

impl Door {
    /// Whoever shows this token; `certificates`: or a certificate that was verified. Without a
    /// token and without certificates, whoever asks from this machine.
    #[must_use]
    pub fn new(token: Option<&str>, certificates: bool) -> Self {
        Self { keys: Keys::new(token), certificates }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// What the caller is told.
    pub(super) fn enter(&self, request: &Request) -> Result<(), StatusCode> {
        if self.certificates && request.extensions().get::<ClientNames>().is_some() {
            return Ok(());
        }
        if self.certificates && self.keys.is_empty() {
            return Err(StatusCode::UNAUTHORIZED);
        }
        self.keys.check(request.headers()).map(drop).map_err(|_| StatusCode::UNAUTHORIZED)
    }
}

/// See the module.
pub struct Node {
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    door: Door,
    offered: RwLock<Vec<Arc<Offered>>>,
    /// As they were read last.
    gpus: RwLock<Arc<[GpuReading]>>,
}

/// A model that gateways may ask for.
struct Offered {
    model: Arc<Model>,
    card: Card,
    adapters: Vec<(Arc<Model>, Adapter)>,
}

impl Node {
    /// A node without a model.
    #[must_use]
    pub fn new(models: Arc<Models>, metrics: Arc<Metrics>, door: Door) -> Arc<Self> {
        let (offered, gpus) = (RwLock::default(), RwLock::new(Arc::default()));
        Arc::new(Self { models, metrics, door, offered, gpus })
    }

    /// Offers a model of this process and adapters of it. `weights` is a digest of its weights;
    /// each adapter comes with a digest of its files.
    ///
    /// # Errors
    /// It cannot be described to others, or there are more adapters than a node may have.
    pub fn offer(
        &self,
        model: &Arc<Model>,
        weights: &str,
        adapters: &[(Arc<Model>, String)],
    ) -> Result<(), String> {
        let card = card(model, weights)?;
        let fingerprint = &card.fingerprint;
        tracing::info!(model = model.id, fingerprint, "offered to the cluster");
        let named = |(model, files): &(Arc<Model>, String)| {
            let told = beside(&card, model, files)?;
            tracing::info!(model = model.id, fingerprint = told.fingerprint, "and its adapter");
            Ok((Arc::clone(model), told))
        };
        let adapters: Vec<_> = adapters.iter().map(named).collect::<Result<_, String>>()?;
        let mut all = self.offered.write().unwrap_or_else(PoisonError::into_inner);
        let before: usize = all.iter().map(|offered| offered.adapters.len()).sum();
        if before + adapters.len() > ADAPTERS_MAX {
            return Err(format!("a node has at most {ADAPTERS_MAX} adapters"));
        }
        all.push(Arc::new(Offered { model: Arc::clone(model), card, adapters }));
        Ok(())
    }

    /// What its GPUs do now, for all gateways.
    pub fn tell_gpus(&self, readings: Vec<GpuReading>) {
        *self.gpus.write().unwrap_or_else(PoisonError::into_inner) = readings.into();
    }

    fn gpus(&self) -> Arc<[GpuReading]> {
        Arc::clone(&self.gpus.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn list(&self) -> Vec<Arc<Offered>> {
        self.offered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn get(&self, name: &str) -> Option<Arc<Offered>> {
        self.list().into_iter().find(|offered| offered.model.id == name)
    }

    /// The model or the adapter of this name, and what it is.
    fn find(&self, name: &str) -> Option<(Arc<Model>, String)> {
        let all = self.list();
        let mut own = all.iter().map(|offered| (&offered.model, &offered.card.fingerprint));
        let mut beside = all
            .iter()
            .flat_map(|offered| &offered.adapters)
            .map(|(model, told)| (model, &told.fingerprint));
        let found = own.find(|(model, _)| model.id == name);
        let found = found.or_else(|| beside.find(|(model, _)| model.id == name));
        found.map(|(model, fingerprint)| (Arc::clone(model), fingerprint.clone()))
    }

    /// All routes of a node.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route(protocol::STATE, get(state::state))
            .route(&format!("{}{{*name}}", protocol::MODEL), get(described))
            .route(protocol::GENERATE, post(generate::generate))
            .route("/metrics", get(metrics))
            .layer(from_fn_with_state(Arc::clone(self), enter))
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .with_state(Arc::clone(self))
    }
}

async fn enter(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    match node.door.enter(&request) {
        Ok(()) => next.run(request).await,
        Err(status) => said(status, "the cluster's token is missing or wrong"),
    }
}

/// An answer in plain words.
fn said(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    match node.models.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => said(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    let text = tokio::task::spawn_blocking(move || node.metrics.render()).await;
    ([(CONTENT_TYPE, METRICS_TYPE)], text.unwrap_or_default()).into_response()
}

/// What a gateway has to know of a model.
async fn described(State(node): State<Arc<Node>>, name: Path<String>, _: HeaderMap) -> Response {
    let Some(offered) = node.get(&name) else {
        return said(StatusCode::NOT_FOUND, "no such model here");
    };
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&offered.card)).await;
    match written {
        Ok(Ok(body)) => Body::from(body).into_response(),
        _ => said(StatusCode::INTERNAL_SERVER_ERROR, "the model cannot be described"),
    }
}

fn card(model: &Model, weights: &str) -> Result<Card, String> {
    let text = model.text.to_portable().map_err(|error| error.to_string())?;
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    let prefix = match model.prefix {
        PrefixRule::Any => Prefix::Any,
        PrefixRule::Split { limit } => Prefix::Split(limit),
        PrefixRule::Length { limit } => Prefix::Length(limit),
    };
    let mut card = Card {
        name: model.id.clone(),
        fingerprint: String::new(),
        created: 0,
        context: model.context,
        defaults: Card::defaults(&model.defaults),
        max_tokens_default: model.max_tokens_default,
        eos: model.eos.clone(),
        prefix,
        tool_format: model.answering.format.map(|format| format.name.to_owned()),
        text,
    };
    // Whatever makes an answer, and the pages that it is found by.
    let all = serde_json::to_vec(&card).map_err(|error| error.to_string())?;
    let mut digest = Sha256::new();
    digest.update(weights.as_bytes());
    digest.update(PAGE_TOKENS.to_le_bytes());
    digest.update(&all);
    card.fingerprint = hex::encode(&digest.finalize()[..16]);
    card.created = model.created;
    Ok(card)
}

/// An adapter as gateways hear of it. Its name is part of what it is: two names for the same files
/// are two adapters, which share no pages.
fn beside(base: &Card, model: &Model, files: &str) -> Result<Adapter, String> {
    let adapter = model.adapter.as_ref().ok_or_else(|| format!("{} is no adapter", model.id))?;
    let mut digest = Sha256::new();
    for part in [&base.fingerprint, &adapter.name, files] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    let fingerprint = hex::encode(&digest.finalize()[..16]);
    Ok(Adapter { name: adapter.name.clone(), fingerprint })
}
