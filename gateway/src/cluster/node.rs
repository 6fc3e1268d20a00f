//! A node: the engines of this process, for gateways of the cluster. It is asked what it is
//! (`state`, and a card for each model), for tokens (`generate`), and to have texts read (`read`).
//! Whoever asks shows the cluster's token, or a certificate that the server has verified.

mod adapters;
mod generate;
mod read;
mod state;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use scheduler::types::PAGE_TOKENS;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::protocol::{self, ADAPTERS_MAX, Adapter, Card, Prefix, ReaderCard, SIZE_MAX};
use crate::api::Keys;
use crate::backend::local::{EngineState, PrefixRule};
use crate::backend::{Model, PoolModel};
use crate::metrics::{CONTENT_TYPE as METRICS_TYPE, GpuReading, Metrics};
use crate::models::Models;
use crate::tls::ClientNames;

pub use adapters::AdapterFolder;

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

    /// Whether a node may name itself as answering at this host: whoever has the token may, and by
    /// a certificate whoever it was made out to.
    pub(super) fn admits(&self, names: Option<&ClientNames>, host: &str) -> bool {
        let is_own = |name: &String| name.strip_prefix("dns:").is_some_and(|own| own == host);
        !self.certificates || names.is_some_and(|names| names.0.iter().any(is_own))
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
    readers: RwLock<Vec<Arc<Reader>>>,
    /// Counts up when something that is offered comes or goes.
    changes: AtomicU64,
    /// Where adapters may be loaded from while it serves; `None`: nowhere.
    adapter_folder: Option<AdapterFolder>,
    loading: Mutex<()>,
    /// As they were read last.
    gpus: RwLock<Arc<[GpuReading]>>,
    /// The log has it that a gateway is too old for some of this.
    told_older: AtomicBool,
}

/// A model that gateways may ask for.
struct Offered {
    model: Arc<Model>,
    card: Arc<Card>,
    adapters: Adapters,
}

/// What is offered beside a model, each as gateways hear of it.
type Adapters = Vec<(Arc<Model>, Adapter)>;

/// A model that gateways may have texts read by.
struct Reader {
    model: Arc<PoolModel>,
    card: ReaderCard,
}

impl Node {
    /// A node without a model; `adapter_folder` is where adapters may be loaded from later.
    #[must_use]
    pub fn new(
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        door: Door,
        adapter_folder: Option<AdapterFolder>,
    ) -> Arc<Self> {
        let (offered, readers) = (RwLock::default(), RwLock::default());
        let gpus = RwLock::new(Arc::default());
        let (told_older, changes) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self {
            models,
            metrics,
            door,
            offered,
            readers,
            changes,
            adapter_folder,
            loading: Mutex::default(),
            gpus,
            told_older,
        })
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
        let card = Arc::new(card(model, weights)?);
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
        drop(all);
        self.changed();
        Ok(())
    }

    /// Offers a model of this process that reads and does not write.
    ///
    /// # Errors
    /// It cannot be described to others.
    pub fn offer_reader(&self, model: &Arc<PoolModel>, weights: &str) -> Result<(), String> {
        let card = reader_card(model, weights)?;
        let fingerprint = &card.fingerprint;
        tracing::info!(model = model.id, fingerprint, "offered to the cluster");
        let mut all = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::new(Reader { model: Arc::clone(model), card }));
        drop(all);
        self.changed();
        Ok(())
    }

    /// What its GPUs do now, for all gateways.
    pub fn tell_gpus(&self, readings: Vec<GpuReading>) {
        *self.gpus.write().unwrap_or_else(PoisonError::into_inner) = readings.into();
    }

    fn gpus(&self) -> Arc<[GpuReading]> {
        Arc::clone(&self.gpus.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whoever follows its state is told all of it again.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn list(&self) -> Vec<Arc<Offered>> {
        self.offered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Some gateway does not know what is served here. It asks again and again.
    fn older_gateway(&self, why: &str) {
        if !self.told_older.swap(true, Ordering::Relaxed) {
            tracing::warn!("{why}");
        }
    }

    /// It takes no requests any more: one of its engines does not.
    fn drains(&self) -> bool {
        let ready = |state: EngineState| state == EngineState::Ready;
        let writes = self.list().iter().all(|one| ready(one.model.engine.state()));
        !writes || !self.readers().iter().all(|one| ready(one.model.engine.state()))
    }

    fn readers(&self) -> Vec<Arc<Reader>> {
        self.readers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reader(&self, name: &str) -> Option<Arc<Reader>> {
        self.readers().into_iter().find(|reader| reader.model.id == name)
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
            .route(&format!("{}{{*name}}", protocol::READER), get(described_reader))
            .route(protocol::GENERATE, post(generate::generate))
            .route(protocol::READ, post(read::read))
            .route(protocol::LOAD_ADAPTER, post(adapters::load))
            .route(protocol::UNLOAD_ADAPTER, post(adapters::unload))
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
async fn described(State(node): State<Arc<Node>>, name: Path<String>) -> Response {
    let Some(offered) = node.get(&name) else {
        return said(StatusCode::NOT_FOUND, "no such model here");
    };
    written(move || serde_json::to_vec(&*offered.card)).await
}

/// The same of one that reads and does not write.
async fn described_reader(State(node): State<Arc<Node>>, name: Path<String>) -> Response {
    let Some(reader) = node.reader(&name) else {
        return said(StatusCode::NOT_FOUND, "no such model here");
    };
    written(move || serde_json::to_vec(&reader.card)).await
}

/// A description: its tokenizer has megabytes.
async fn written(write: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(body)) => Body::from(body).into_response(),
        _ => said(StatusCode::INTERNAL_SERVER_ERROR, "the model cannot be described"),
    }
}

fn card(model: &Model, weights: &str) -> Result<Card, String> {
    let text = portable(&model.text)?;
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
    card.fingerprint = fingerprint(&card, weights)?;
    card.created = model.created;
    Ok(card)
}

fn reader_card(model: &PoolModel, weights: &str) -> Result<ReaderCard, String> {
    if model.size > SIZE_MAX {
        return Err(format!("{}: its vectors have more than {SIZE_MAX} numbers", model.id));
    }
    let reads = model.reads.clone();
    let mut card = ReaderCard {
        name: model.id.clone(),
        fingerprint: String::new(),
        created: 0,
        task: model.task.into(),
        context: model.context,
        size: model.size,
        normalises: model.normalises,
        prompts: reads.prompts,
        default_prompt: reads.default_prompt,
        include_prompt: reads.include_prompt,
        lower_case: reads.lower_case,
        pair: reads.pair,
        text: portable(&model.text)?,
    };
    card.fingerprint = fingerprint(&card, weights)?;
    card.created = model.created;
    Ok(card)
}

fn portable(text: &text::TextModel) -> Result<String, String> {
    let text = text.to_portable().map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// Of a card that has none yet: whatever makes an answer, and the pages that it is found by.
fn fingerprint(card: &impl Serialize, weights: &str) -> Result<String, String> {
    let all = serde_json::to_vec(card).map_err(|error| error.to_string())?;
    let mut digest = Sha256::new();
    digest.update(weights.as_bytes());
    digest.update(PAGE_TOKENS.to_le_bytes());
    digest.update(&all);
    Ok(hex::encode(&digest.finalize()[..16]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_own_host_alone() {
        let names = |names: &[&str]| ClientNames(names.iter().map(|n| (*n).to_owned()).collect());
        let alice = names(&["uri:spiffe://a/alice", "dns:alice.lan"]);
        let door = Door::new(None, true);
        assert!(door.admits(Some(&alice), "alice.lan"));
        assert!(!door.admits(Some(&alice), "gpu-1.lan") && !door.admits(None, "gpu-1.lan"));
        assert!(Door::new(Some("token"), false).admits(Some(&alice), "gpu-1.lan"));
    }
}
