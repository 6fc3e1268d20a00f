//! Rankings and scores by a model of this process.

use std::sync::Arc;

use axum::response::Response;
use wire::openai::rerank::{Ranked, rerank_answer, score_answer};
use wire::openai::{parse_rerank, parse_score};
use wire::{ErrorKind, RerankRequest, cohere};

use super::body::Body;
use super::envelope::Caller;
use super::error::Failure;
use super::generate::Chosen;
use super::generate::now;
use super::pool::Cut;
use super::pooled::Pooled;
use super::{App, ids, pool, prepare};
use crate::backend::Task;

/// Ranks documents with the model that is asked for, or with the chosen one.
pub(super) async fn rank(
    app: &Arc<App>,
    caller: &Caller,
    (surface, body): (Pooled, &Arc<Body>),
    chosen: Option<&Chosen<'_>>,
) -> Result<Response, Failure> {
    let (own, name) = (Arc::clone(body), chosen.map(|chosen| chosen.model.to_owned()));
    let read = move |app: &App| {
        let request = parse(surface, &own, app)?;
        let model = pool::model(app, name.as_deref().unwrap_or(&request.model), Task::Rerank)?;
        let mut inputs = Vec::with_capacity(request.documents.len());
        let usual = (surface == Pooled::Cohere).then_some(cohere::DOCUMENT_TOKENS);
        let cut = Cut { second: request.document_tokens.or(usual), pair: request.truncate };
        for (index, document) in request.documents.iter().enumerate() {
            let field = || format!("documents[{index}]");
            inputs.push(pool::pair(&model, &request.query, document, cut, &field)?);
        }
        Ok((model, request, inputs))
    };
    let (model, request, inputs) = prepare::run(app, body.len(), read).await?;
    let what = (&*model, surface, &*request.model);
    let (done, head) = pool::run(app, what, inputs, (caller, chosen)).await?;
    let scores = scores(&done.vectors)?.enumerate().collect();
    Ok(head.of(answer(surface, &request, &model.id, (scores, done.tokens))))
}

/// The request, in the dialect of its route.
pub(super) fn parse(surface: Pooled, body: &[u8], app: &App) -> Result<RerankRequest, Failure> {
    let limits = &app.limits.request;
    match surface {
        Pooled::Cohere => Ok(cohere::parse(body, limits)?),
        _ => Ok(parse_rerank(body, limits)?),
    }
}

/// The answer, in the dialect of its route: the best first, equal ones in the order of the
/// request. A score comes with its document's number.
pub(super) fn answer(
    surface: Pooled,
    request: &RerankRequest,
    model: &str,
    (mut scores, tokens): (Vec<(usize, f32)>, u64),
) -> Vec<u8> {
    scores.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    scores.truncate(request.top_n.unwrap_or(usize::MAX));
    let ranked = |(index, score): (usize, f32)| {
        let document = request.documents.get(index).filter(|_| request.return_documents);
        Ranked { index, score, document: document.map(String::as_str) }
    };
    let ranking: Vec<Ranked<'_>> = scores.into_iter().map(ranked).collect();
    let id = ids::named("rerank-");
    match surface {
        Pooled::Cohere => cohere::answer(&id, &ranking, request.documents.len(), tokens),
        _ => rerank_answer(&id, model, &ranking, tokens),
    }
}

/// Scores pairs with the model that is asked for, or with the chosen one.
pub(super) async fn score(
    app: &Arc<App>,
    caller: &Caller,
    body: &Arc<Body>,
    chosen: Option<&Chosen<'_>>,
) -> Result<Response, Failure> {
    let (own, name) = (Arc::clone(body), chosen.map(|chosen| chosen.model.to_owned()));
    let read = move |app: &App| {
        let request = parse_score(&own, &app.limits.request)?;
        let model = pool::model(app, name.as_deref().unwrap_or(&request.model), Task::Rerank)?;
        let mut inputs = Vec::with_capacity(request.pairs.len());
        let cut = Cut { second: None, pair: request.truncate };
        for (index, (a, b)) in request.pairs.iter().enumerate() {
            let field = || format!("text_2[{index}]");
            inputs.push(pool::pair(&model, a, b, cut, &field)?);
        }
        Ok((model, request.model, inputs))
    };
    let (model, asked, inputs) = prepare::run(app, body.len(), read).await?;
    let what = (&*model, Pooled::Score, &*asked);
    let (done, answer) = pool::run(app, what, inputs, (caller, chosen)).await?;
    let scores: Vec<f32> = scores(&done.vectors)?.collect();
    let head = now(ids::named("score-"), &model.id);
    Ok(answer.of(score_answer(&head, &scores, done.tokens)))
}

/// The one number of each vector.
fn scores(vectors: &[Vec<f32>]) -> Result<impl Iterator<Item = f32>, Failure> {
    if vectors.iter().any(|vector| vector.len() != 1) {
        let message = "The engine gave something that is no score.";
        return Err(Failure::new(ErrorKind::Internal, "engine_error", message));
    }
    Ok(vectors.iter().flatten().copied())
}
