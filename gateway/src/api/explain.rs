//! `POST /v1/route/explain`: who would answer a request, and why, by what is known now. Nobody is
//! asked and nothing is paid for.

mod body;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use govern::policy::Label;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Dialect, ErrorKind};

use super::envelope::Caller;
use super::error::Failure;
use super::forward::{self, Inbound};
use super::generate::json;
use super::pooled::Pooled;
use super::prepare::Answers;
use super::surface::Surface;
use super::{App, bill, kept, pool, prepare, unknown};
use crate::backend::Task;
use crate::cluster::Seen;
use crate::config::routing::OverflowWhen;
use crate::route::{Finding, Plan, Pool, Pressed};

/// What a request does not say of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beside {
    /// It is at least so secret.
    label: Option<Label>,
    /// By which route it would come, where its body is one of several.
    surface: Option<String>,
}

/// `POST /v1/route/explain?label=LABEL&surface=DIALECT`, with the body of a request.
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    beside: Result<Query<Beside>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let Query(beside) = beside.map_err(|_| wrong_query())?;
    let mut caller = Caller { wonders: true, ..prepare::caller(&request)? };
    let (head, body) = super::body::read_with_head(request, &app).await?;
    let said = beside.surface.as_deref().map(|name| {
        let mut known = body::SURFACES.into_iter();
        known.find(|own| own.name() == name).ok_or_else(wrong_query)
    });
    let surface = body::surface(&body, said.transpose()?)?;
    if surface == Surface::Responses {
        Box::pin(kept::note(&app, &mut caller, &body)).await;
        caller.past = caller.past.transpose()?.map(Ok);
    }
    let inbound = Inbound::new(surface, &head.headers, Arc::new(body))?;
    let name = &inbound.glance.model;
    let mut shown = match app.pool(name) {
        Some(pool) => {
            let asked = forward::asked_of(&app, &caller, (&inbound, &pool), beside.label)?;
            let plan = forward::plan(&app, &pool, &asked);
            let mut shown = decision(&pool, &plan);
            for one in shown["candidates"].as_array_mut().into_iter().flatten() {
                let name = one["target"].as_str().unwrap_or_default().to_owned();
                if one["may"] == true {
                    nodes(&app, &caller, &inbound, &name, one).await;
                }
            }
            shown["label"] = json!(asked.label);
            shown["input_tokens"] = json!(asked.input);
            if let Some(pressed) = forward::pressed(&app, &pool) {
                shown["overflow"] = overflow(&pressed);
            }
            shown
        }
        None => {
            let model = here(&app, &caller, &inbound.surface, name)?;
            let label = bill::label(&app, &caller, || inbound.ask(None))?;
            let message = "a model of this server that is in no pool of this name";
            let mut shown = json!({ "model": model, "order": [model], "reason": message });
            nodes(&app, &caller, &inbound, &model, &mut shown).await;
            shown["label"] = json!(beside.label.map_or(label, |least| least.max(label)));
            shown["input_tokens"] = json!(inbound.input_estimate(&caller));
            shown
        }
    };
    shown["surface"] = inbound.surface.dialect().name().into();
    Ok(json(shown.to_string()))
}

/// Tells of the nodes that a model's request would be chosen among, as they are for its prompt.
/// Where that cannot be read, it is told why, and they are as they are for any other.
async fn nodes(app: &Arc<App>, caller: &Caller, inbound: &Inbound, name: &str, out: &mut Value) {
    let Some(model) = app.models.get(name).filter(|model| model.engine.local().is_none()) else {
        return;
    };
    if matches!(inbound.surface, Surface::Pooled(_)) {
        return;
    }
    let answers = Answers { name: Some(name), ..Answers::default() };
    let asked = (&inbound.surface, &inbound.body);
    let request = match Box::pin(prepare::generation(app, caller, asked, answers)).await {
        Ok(prepared) => prepared.jobs.into_iter().next().map(|job| job.request),
        Err(failure) => {
            out["prompt_unread"] = failure.error.message.into();
            None
        }
    };
    let seen = model.nodes(request.as_ref()).unwrap_or_default();
    out["nodes"] = seen.iter().map(node).collect();
}

fn node(seen: &Seen) -> Value {
    json!({
        "node": seen.node,
        "chosen": seen.chosen,
        "verdict": seen.finding.verdict.to_string(),
        "open": seen.finding.open,
        "queue": seen.waiting,
        "wait_us": seen.finding.wait_us,
        "held_tokens": seen.finding.held,
        "pages_free": seen.pages_free,
        "first_token_us": seen.finding.first_us,
    })
}

fn wrong_query() -> Failure {
    let surfaces = body::SURFACES.map(Dialect::name).join(", ");
    let message = format!(
        "The only parameters are 'label' (public, internal, confidential or restricted) and \
         'surface' (one of {surfaces})."
    );
    Failure::new(ErrorKind::Invalid, "invalid_parameter", message)
}

/// The model of this process that answers to a name.
fn here(app: &App, caller: &Caller, surface: &Surface, name: &str) -> Result<String, Failure> {
    let task = match surface {
        Surface::Pooled(Pooled::Embeddings) => Some(Task::Embed),
        Surface::Pooled(_) => Some(Task::Rerank),
        _ => None,
    };
    let found = match task {
        Some(task) => pool::model(app, name, task).map(|model| model.id.clone()),
        None => prepare::model(app, name).map(|model| model.id.clone()),
    };
    found.map_err(|failure| match failure.error.kind {
        ErrorKind::NotFound => unknown::model(app, Some(caller), name),
        _ => failure,
    })
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
        "weight": finding.weight,
        "open": finding.open,
        "queue": finding.queue.map(|(waiting, _)| waiting),
        "wait_ms": finding.queue.map(|(_, wait)| ms(wait)),
        "first_byte_ms": ms(finding.first_byte),
        "cost_nano_usd": finding.cost,
    })
}

/// The bounds of an overflow, and what the local targets have against them.
fn overflow(pressed: &Pressed) -> Value {
    let numbers = |when: &OverflowWhen| {
        let OverflowWhen { ttft_ms, queue, wait_ms } = when;
        let all = [("ttft_ms", ttft_ms), ("queue", queue), ("wait_ms", wait_ms)];
        let set = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), (*value)?)));
        set.map(|(name, value)| (name, value.into())).collect::<Map<_, _>>()
    };
    let now = pressed.now.iter().map(|(target, pressure, has)| {
        let mut shown = has.as_ref().map(numbers).unwrap_or_default();
        shown.insert("target".to_owned(), target.as_str().into());
        shown.insert("pressure".to_owned(), pressure.name().into());
        Value::Object(shown)
    });
    json!({ "on": pressed.on, "when": numbers(&pressed.when), "now": now.collect::<Vec<_>>() })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
