//! Loading and unloading low-rank adapters while their base serves: here, or at the nodes that have
//! it.
//!
//! A caller names a folder below the one that the operator set aside for adapters; nothing else
//! of the disk can be reached. Without such a folder the routes refuse. Each node has its own.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use wire::openai::{AdapterRequest, parse_load_adapter, parse_unload_adapter};
use wire::{ApiError, ErrorKind};

use super::error::Failure;
use super::{App, body, generate, prepare};
use crate::backend::adapters::{AdapterError, below};
use crate::backend::{Engine, Model};
use crate::cluster::{ClusterEngine, Placed};

/// `POST /v1/load_lora_adapter`
pub(super) async fn load(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body::read(request, &app).await?;
    let asked = parse_load_adapter(&body)?;
    let base = prepare::model_or_first(&app, asked.model.as_deref())?;
    if let Engine::Cluster(engine) = &base.engine {
        let known = |id: &str| known(&app, id);
        let AdapterRequest { name, path, .. } = &asked;
        let node = asked.node.as_deref().map(bare);
        check_far(&base, engine, node)?;
        let placed = engine.load_adapter((name, path.as_deref()), node, known).await;
        return answer(&base, &asked, (placed, true));
    }
    check_here(&asked)?;
    let folder = folder(&app, asked.path.as_deref().unwrap_or(&asked.name))?;
    // Reads files and waits for the engine's thread.
    let task = tokio::task::spawn_blocking(move || {
        let Some(adapters) = &base.adapters else { return Err(takes_none(&base)) };
        let id = format!("{}:{}", base.id, asked.name);
        if app.models.get(&id).is_some() {
            return Err(failure(&AdapterError::Taken(asked.name)));
        }
        let model = adapters.load(&base, &asked.name, &folder).map_err(|e| failure(&e))?;
        // Two requests for one name may have come here; the second one lets its load go again.
        if !app.models.add_new(model) {
            return Err(failure(&AdapterError::Taken(asked.name)));
        }
        tracing::info!(model = %id, folder = %folder.display(), "adapter loaded");
        Ok(generate::json(json!({"id": id, "object": "model", "loaded": true}).to_string()))
    });
    task.await.map_err(|error| {
        tracing::error!(%error, "loading an adapter failed");
        Failure::new(ErrorKind::Internal, "internal_error", "The server failed.")
    })?
}

/// `POST /v1/unload_lora_adapter`
pub(super) async fn unload(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body::read(request, &app).await?;
    let asked = parse_unload_adapter(&body)?;
    let base = prepare::model_or_first(&app, asked.model.as_deref())?;
    if let Engine::Cluster(engine) = &base.engine {
        let known = |id: &str| known(&app, id);
        let node = asked.node.as_deref().map(bare);
        check_far(&base, engine, node)?;
        let placed = engine.unload_adapter(&asked.name, node, known).await;
        return answer(&base, &asked, (placed, false));
    }
    check_here(&asked)?;
    folder(&app, &asked.name)?;
    let id = format!("{}:{}", base.id, asked.name);
    if !app.models.remove_adapter(&id) {
        return Err(failure(&AdapterError::Unknown(asked.name)));
    }
    tracing::info!(model = %id, "adapter unloaded");
    Ok(generate::json(json!({"id": id, "object": "model", "loaded": false}).to_string()))
}

/// What this gateway takes a model of the cluster for.
fn known(app: &App, id: &str) -> Option<String> {
    let model = app.models.get(id)?;
    match &model.engine {
        Engine::Cluster(engine) => Some(engine.fingerprint().to_owned()),
        Engine::Local(_) => None,
    }
}

/// A node's address, as answers name it, also where it stands as in the configuration.
fn bare(node: &str) -> &str {
    node.split_once("://").map_or(node, |(_, rest)| rest).trim_end_matches('/')
}

/// The base may have adapters, and the node that is named has the base.
fn check_far(base: &Model, engine: &ClusterEngine, node: Option<&str>) -> Result<(), Failure> {
    if !engine.takes_adapters() {
        return Err(takes_none(base));
    }
    let holders = engine.holders();
    let named = |node: &str| holders.iter().any(|holder| holder == node);
    let message = match node {
        _ if holders.is_empty() => {
            let message = format!("No node that serves '{}' is there.", base.id);
            return Err(Failure::new(ErrorKind::Unavailable, "unavailable", message));
        }
        Some(node) if !named(node) => format!(
            "No node '{node}' that serves '{}' is there; it is served by {}.",
            base.id,
            holders.join(", ")
        ),
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param("node").into())
}

fn check_here(asked: &AdapterRequest) -> Result<(), Failure> {
    if asked.node.is_none() {
        return Ok(());
    }
    let message = "'node' is for models that nodes serve; this one is served here.";
    let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
    Err(error.with_param("node").into())
}

fn takes_none(base: &Model) -> Failure {
    let message = format!("The model '{}' takes no adapters.", base.id);
    Failure::new(ErrorKind::Invalid, "adapters_not_supported", message)
}

/// What came of it at the nodes. One that failed makes it a failure, which also says what was done:
/// nothing is taken back, so that the rest can be asked for by its node.
fn answer(
    base: &Model,
    asked: &AdapterRequest,
    (placed, loads): (Placed, bool),
) -> Result<Response, Failure> {
    let id = format!("{}:{}", base.id, asked.name);
    let Placed { done, failed } = placed;
    if done.is_empty() && failed.is_empty() {
        return Err(failure(&AdapterError::Unknown(asked.name.clone())));
    }
    let what = if loads { "loaded" } else { "unloaded" };
    tracing::info!(model = %id, ?done, ?failed, "adapter {what} at nodes");
    if failed.is_empty() {
        let said = json!({"id": id, "object": "model", "loaded": loads, "nodes": done});
        return Ok(generate::json(said.to_string()));
    }
    let each: Vec<String> = failed.iter().map(|(node, _, why)| format!("{node}: {why}")).collect();
    let mut message = format!("The adapter '{id}' was not {what} at {}.", each.join("; "));
    if !done.is_empty() {
        message += &format!(" It was {what} at {}.", done.join(", "));
    }
    let all = |status: u16| failed.iter().all(|(_, said, _)| *said == Some(status));
    let theirs = |said: &Option<u16>| said.is_some_and(|status| (400..500).contains(&status));
    let (kind, code) = if all(404) {
        (ErrorKind::NotFound, "model_not_found")
    } else if failed.iter().all(|(_, said, _)| theirs(said)) {
        (ErrorKind::Invalid, "adapter_refused")
    } else {
        (ErrorKind::Unavailable, "unavailable")
    };
    Err(ApiError::new(kind, code, message).with_param("lora_name").into())
}

/// A folder below the adapters' own.
fn folder(app: &App, path: &str) -> Result<PathBuf, Failure> {
    let Some(top) = &app.adapters_folder else {
        let message = "This server loads no adapters: it was started without --adapters-folder.";
        return Err(Failure::new(ErrorKind::Invalid, "adapters_not_supported", message));
    };
    below(top, path).ok_or_else(|| {
        let message = "'lora_path' must name a folder below the server's folder of adapters.";
        let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
        error.with_param("lora_path").into()
    })
}

fn failure(error: &AdapterError) -> Failure {
    let (kind, code) = match error {
        AdapterError::Unknown(_) => (ErrorKind::NotFound, "model_not_found"),
        AdapterError::Name | AdapterError::Taken(_) => (ErrorKind::Invalid, "invalid_value"),
        AdapterError::Full(_) => (ErrorKind::Invalid, "too_many_adapters"),
        AdapterError::Refused(_) => (ErrorKind::Invalid, "adapter_refused"),
    };
    ApiError::new(kind, code, format!("{error}.")).with_param("lora_name").into()
}
