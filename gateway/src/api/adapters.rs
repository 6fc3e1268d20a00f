//! Loading and unloading low-rank adapters while their base serves.
//!
//! A caller names a folder below the one that the operator set aside for adapters; nothing else
//! of the disk can be reached. Without such a folder the routes refuse.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use wire::openai::{parse_load_adapter, parse_unload_adapter};
use wire::{ApiError, ErrorKind};

use super::error::Failure;
use super::{App, body, generate, prepare};
use crate::backend::adapters::AdapterError;

/// `POST /v1/load_lora_adapter`
pub(super) async fn load(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let body = body::read(request, &app).await?;
    let asked = parse_load_adapter(&body)?;
    let folder = below(&app, asked.path.as_deref().unwrap_or(&asked.name))?;
    // Reads files and waits for the engine's thread.
    let task = tokio::task::spawn_blocking(move || {
        let base = prepare::model_or_first(&app, asked.model.as_deref())?;
        let Some(adapters) = &base.adapters else {
            let message = format!("The model '{}' takes no adapters.", base.id);
            return Err(Failure::new(ErrorKind::Invalid, "adapters_not_supported", message));
        };
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
    below(&app, &asked.name)?;
    let base = prepare::model_or_first(&app, asked.model.as_deref())?;
    let id = format!("{}:{}", base.id, asked.name);
    if !app.models.remove_adapter(&id) {
        return Err(failure(&AdapterError::Unknown(asked.name)));
    }
    tracing::info!(model = %id, "adapter unloaded");
    Ok(generate::json(json!({"id": id, "object": "model", "loaded": false}).to_string()))
}

/// A folder below the adapters' own.
fn below(app: &App, path: &str) -> Result<PathBuf, Failure> {
    let Some(top) = &app.adapters_folder else {
        let message = "This server loads no adapters: it was started without --adapters-folder.";
        return Err(Failure::new(ErrorKind::Invalid, "adapters_not_supported", message));
    };
    let wrong = || {
        let message = "'lora_path' must name a folder below the server's folder of adapters.";
        let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
        Failure::from(error.with_param("lora_path"))
    };
    let plain = |part| matches!(part, Component::Normal(_));
    if path.is_empty() || path.len() > 1024 || !Path::new(path).components().all(plain) {
        return Err(wrong());
    }
    let folder = top.join(path);
    // A link may point out of it.
    match (folder.canonicalize(), top.canonicalize()) {
        (Ok(folder), Ok(top)) if folder.starts_with(&top) => Ok(folder),
        (Err(_), _) => Ok(folder),
        _ => Err(wrong()),
    }
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
