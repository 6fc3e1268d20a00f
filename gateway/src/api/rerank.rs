//! `POST /v1/rerank` and `POST /v1/score`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use wire::openai::rerank::{Ranked, rerank_answer, score_answer};
use wire::openai::{parse_rerank, parse_score};
use wire::{ErrorKind, RerankRequest};

use super::envelope::Caller;
use super::error::Failure;
use super::generate::{json, now, with};
use super::{App, ids, pool, prepare};
use crate::backend::Task;

/// `POST /v1/rerank`
pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let read = |app: &App, body: &[u8], _: &Caller| {
        let request = parse_rerank(body, &app.limits.request)?;
        let model = pool::model(app, &request.model, Task::Rerank)?;
        let mut inputs = Vec::with_capacity(request.documents.len());
        for (index, document) in request.documents.iter().enumerate() {
            let field = || format!("documents[{index}]");
            let RerankRequest { query, truncate, .. } = &request;
            inputs.push(pool::pair(&model, query, document, *truncate, &field)?);
        }
        Ok((model, request, inputs))
    };
    let (caller, (model, request, inputs)) = prepare::read(&app, request, read).await?;
    let (done, headers) = pool::run(&app, (&model, "rerank"), inputs, &caller).await?;
    let mut ranking = Vec::with_capacity(done.vectors.len());
    for (index, (score, document)) in scores(&done.vectors)?.zip(&request.documents).enumerate() {
        let document = request.return_documents.then_some(document.as_str());
        ranking.push(Ranked { index, score, document });
    }
    // Equal scores stay in the order of the request.
    ranking.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranking.truncate(request.top_n.unwrap_or(usize::MAX));
    let answer = rerank_answer(&ids::named("rerank-"), &model.id, &ranking, done.tokens);
    Ok(with(headers, json(answer)))
}

/// `POST /v1/score`
pub(super) async fn score(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let read = |app: &App, body: &[u8], _: &Caller| {
        let request = parse_score(body, &app.limits.request)?;
        let model = pool::model(app, &request.model, Task::Rerank)?;
        let mut inputs = Vec::with_capacity(request.pairs.len());
        for (index, (a, b)) in request.pairs.iter().enumerate() {
            let field = || format!("text_2[{index}]");
            inputs.push(pool::pair(&model, a, b, request.truncate, &field)?);
        }
        Ok((model, inputs))
    };
    let (caller, (model, inputs)) = prepare::read(&app, request, read).await?;
    let (done, headers) = pool::run(&app, (&model, "score"), inputs, &caller).await?;
    let scores: Vec<f32> = scores(&done.vectors)?.collect();
    let head = now(ids::named("score-"), &model.id);
    Ok(with(headers, json(score_answer(&head, &scores, done.tokens))))
}

/// The one number of each vector.
fn scores(vectors: &[Vec<f32>]) -> Result<impl Iterator<Item = f32>, Failure> {
    if vectors.iter().any(|vector| vector.len() != 1) {
        let message = "The engine gave something that is no score.";
        return Err(Failure::new(ErrorKind::Internal, "engine_error", message));
    }
    Ok(vectors.iter().flatten().copied())
}
