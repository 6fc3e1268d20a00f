//! Adapters that come and go while the node serves. What is here now is in the node's state, so
//! gateways ask for an adapter as soon as it is loaded, and for none that is gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ADAPTERS_MAX, Node, Offered, beside, said};
use crate::backend::adapters::{AdapterError, below};
use crate::cluster::protocol::{ADAPTER_BYTES_MAX, AdapterDone, LoadAdapter, UnloadAdapter};

/// Where a node finds adapters while it serves.
pub struct AdapterFolder {
    /// Nothing of the disk can be reached beside what lies in it.
    pub top: PathBuf,
    /// A digest of an adapter's files.
    pub digest: fn(&Path) -> std::io::Result<String>,
}

/// Why nothing was done.
type Refused = (StatusCode, String);

/// `POST /v1/load_lora_adapter`
pub(super) async fn load(State(node): State<Arc<Node>>, request: Request) -> Response {
    change(node, request, |node, asked: &LoadAdapter| node.load_adapter(asked)).await
}

/// `POST /v1/unload_lora_adapter`
pub(super) async fn unload(State(node): State<Arc<Node>>, request: Request) -> Response {
    change(node, request, |node, asked: &UnloadAdapter| node.unload_adapter(asked)).await
}

/// Reads a request and does what it says, off the runtime's threads: files are read, and the
/// engine's thread is waited for.
async fn change<A: DeserializeOwned + Send + 'static>(
    node: Arc<Node>,
    request: Request,
    work: fn(&Node, &A) -> Result<AdapterDone, Refused>,
) -> Response {
    let body = Limited::new(request.into_body(), ADAPTER_BYTES_MAX).collect().await;
    let Ok(body) = body else { return said(StatusCode::PAYLOAD_TOO_LARGE, "that is too long") };
    let asked: A = match serde_json::from_slice(&body.to_bytes()) {
        Ok(asked) => asked,
        Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match tokio::task::spawn_blocking(move || work(&node, &asked)).await {
        Ok(Ok(done)) => json(&done),
        Ok(Err((status, why))) => said(status, &why),
        Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, "the node failed at it"),
    }
}

fn json(value: &impl Serialize) -> Response {
    axum::Json(value).into_response()
}

impl Node {
    fn load_adapter(&self, asked: &LoadAdapter) -> Result<AdapterDone, Refused> {
        let LoadAdapter { model, lora_name: name, lora_path } = asked;
        let bad = |why: String| (StatusCode::BAD_REQUEST, why);
        let source = self.source()?;
        let _one = self.one_at_a_time();
        let base = self.base(model.as_deref())?;
        let full: usize = self.list().iter().map(|offered| offered.adapters.len()).sum();
        if full >= ADAPTERS_MAX {
            return Err(bad(format!("a node has at most {ADAPTERS_MAX} adapters")));
        }
        let none = || bad(format!("{} takes no adapters", base.model.id));
        let places = base.model.adapters.as_ref().ok_or_else(none)?;
        let path = lora_path.as_deref().unwrap_or(name);
        let outside = || bad("lora_path must name a folder below the node's folder".to_owned());
        let folder = below(&source.top, path).ok_or_else(outside)?;
        let id = format!("{}:{name}", base.model.id);
        let taken = || refused(&AdapterError::Taken(name.clone()));
        if self.models.get(&id).is_some() {
            return Err(taken());
        }
        let loaded = places.load(&base.model, name, &folder).map_err(|why| refused(&why))?;
        let files = (source.digest)(&folder);
        let files = files.map_err(|error| bad(format!("{}: {error}", folder.display())))?;
        let told = beside(&base.card, &loaded, &files).map_err(bad)?;
        let fingerprint = told.fingerprint.clone();
        if !self.models.add_new(loaded) {
            return Err(taken());
        }
        let model = self.models.get(&id).ok_or_else(taken)?;
        self.offers(&base.model.id, |adapters| adapters.push((model, told)));
        tracing::info!(model = id, folder = %folder.display(), "adapter loaded");
        Ok(AdapterDone { id, loaded: true, fingerprint })
    }

    fn unload_adapter(&self, asked: &UnloadAdapter) -> Result<AdapterDone, Refused> {
        let UnloadAdapter { model, lora_name: name } = asked;
        self.source()?;
        let _one = self.one_at_a_time();
        let base = self.base(model.as_deref())?;
        let id = format!("{}:{name}", base.model.id);
        let mut gone = None;
        self.offers(&base.model.id, |adapters| {
            let at = adapters.iter().position(|(model, _)| model.id == id);
            gone = at.map(|at| adapters.remove(at));
        });
        let Some((_, told)) = gone else {
            return Err(refused(&AdapterError::Unknown(name.clone())));
        };
        self.models.remove_adapter(&id);
        tracing::info!(model = id, "adapter unloaded");
        Ok(AdapterDone { id, loaded: false, fingerprint: told.fingerprint })
    }

    /// Without a folder nothing comes and nothing goes.
    fn source(&self) -> Result<&AdapterFolder, Refused> {
        self.adapter_folder.as_ref().ok_or_else(|| {
            let why = "this node loads no adapters: it was started without --adapters-folder";
            (StatusCode::BAD_REQUEST, why.to_owned())
        })
    }

    /// Whoever loads or unloads sees what the one before has done.
    fn one_at_a_time(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model that adapters come beside.
    fn base(&self, name: Option<&str>) -> Result<Arc<Offered>, Refused> {
        let mut all = self.list().into_iter();
        let found = all.find(|offered| name.is_none_or(|name| offered.model.id == name));
        found.ok_or_else(|| {
            let name = name.unwrap_or("that writes");
            (StatusCode::NOT_FOUND, format!("there is no model {name} here"))
        })
    }

    /// Changes the adapters that are offered beside a model; all gateways hear of it.
    fn offers(&self, base: &str, change: impl FnOnce(&mut super::Adapters)) {
        let mut all = self.offered.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = all.iter().position(|offered| offered.model.id == base) else { return };
        let Offered { model, card, adapters } = &*all[at];
        let mut adapters = adapters.clone();
        change(&mut adapters);
        all[at] = Arc::new(Offered { model: Arc::clone(model), card: Arc::clone(card), adapters });
        drop(all);
        self.changed();
    }
}

fn refused(error: &AdapterError) -> Refused {
    let status = match error {
        AdapterError::Unknown(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}
