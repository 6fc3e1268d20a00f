//! `POST /v1/route/explain`: who would answer a request, and why, by what is known now. Nobody is
//! asked and nothing is paid for.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use govern::policy::Label;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use wire::ErrorKind;

use super::envelope::Caller;
use super::error::Failure;
use super::forward::{self, Inbound};
use super::generate::json;
use super::surface::Surface;
use super::{App, body, kept, prepare};
use crate::route::{Finding, Plan, Pool};

/// What a request does not say of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beside {
    /// It is at least so secret.
    label: Option<Label>,
}

/// `POST /v1/route/explain?label=LABEL`, with the body of a request.
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    beside: Result<Query<Beside>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let Query(beside) = beside.map_err(|_| {
        let message =
            "The only parameter is 'label': public, internal, confidential or restricted.";
        Failure::new(ErrorKind::Invalid, "invalid_parameter", message)
    })?;
    let caller = prepare::caller(&request)?;
    let (head, body) = body::read_with_head(request, &app).await?;
    let past = Box::pin(kept::look_up(&app, &caller, &body)).await;
    let caller = Caller { past, ..caller };
    let prompts = serde_json::from_slice::<Prompts>(&body).is_ok_and(|own| own.prompt.is_some());
    let surface = if prompts { Surface::Completion } else { Surface::Chat };
    let inbound = Inbound::new(surface, &head.headers, Arc::new(body))?;
    let name = &inbound.glance.model;
    let Some(pool) = app.routes.find(name) else {
        let model = prepare::model_for(&app, &caller, name)?;
        let message = "a model of this server that is in no pool of this name";
        let shown = json!({ "model": model.id, "order": [model.id], "reason": message });
        return Ok(json(shown.to_string()));
    };
    let asked = forward::asked_of(&app, &caller, (&inbound, &pool), beside.label)?;
    let plan = forward::plan(&app, &pool, &asked);
    let mut shown = decision(&pool, &plan);
    shown["label"] = json!(asked.label);
    shown["input_tokens"] = json!(asked.input);
    Ok(json(shown.to_string()))
}

/// What tells a plain completion from a chat.
#[derive(Deserialize)]
struct Prompts {
    prompt: Option<IgnoredAny>,
}

fn decision(pool: &Pool, plan: &Plan) -> Value {
    let order: Vec<&str> = plan.order.iter().map(|target| &*target.name).collect();
    json!({
        "pool": pool.name,
        "reason": plan.reason,
        "attempts": pool.attempts,
        "order": order,
        "candidates": plan.findings.iter().map(candidate).collect::<Vec<_>>(),
    })
}

fn candidate(finding: &Finding) -> Value {
    json!({
        "target": finding.target,
        "group": finding.group.name(),
        "may": finding.verdict.may(),
        "verdict": finding.verdict.to_string(),
        "open": finding.open,
        "first_byte_ms": u64::try_from(finding.first_byte.as_millis()).unwrap_or(u64::MAX),
        "cost_nano_usd": finding.cost,
    })
}
