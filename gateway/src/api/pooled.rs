//! The routes that make numbers in place of text: embeddings, rankings, scores. A request is
//! answered by a model of this process, or through a pool by whoever it names.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use wire::Dialect;

use super::body::Body;
use super::envelope::Caller;
use super::error::Failure;
use super::generate::Chosen;
use super::surface::Surface;
use super::{App, embeddings, generate, rerank};

/// Such a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooled {
    /// OpenAI's embeddings.
    Embeddings,
    /// Jina's ranking.
    Rerank,
    /// Cohere's ranking.
    Cohere,
    /// vLLM's scores.
    Score,
}

impl Pooled {
    /// Its dialect.
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::Embeddings => Dialect::Embeddings,
            Self::Rerank => Dialect::Rerank,
            Self::Cohere => Dialect::Cohere,
            Self::Score => Dialect::Score,
        }
    }

    /// Its word in the ledger.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Rerank | Self::Cohere => "rerank",
            Self::Score => "score",
        }
    }
}

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate::generate(app, request, Surface::Pooled(Pooled::Embeddings)).await
}

/// `POST /v1/rerank`
pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate::generate(app, request, Surface::Pooled(Pooled::Rerank)).await
}

/// `POST /v2/rerank`
pub(super) async fn cohere(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate::generate(app, request, Surface::Pooled(Pooled::Cohere)).await
}

/// `POST /v1/score`
pub(super) async fn score(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate::generate(app, request, Surface::Pooled(Pooled::Score)).await
}

/// Answers a request with a model of this process: the one that it names, or the chosen one.
pub(super) async fn local(
    app: &Arc<App>,
    caller: &Caller,
    (surface, body): (Pooled, &Arc<Body>),
    chosen: Option<&Chosen<'_>>,
) -> Result<Response, Failure> {
    match surface {
        Pooled::Embeddings => embeddings::local(app, caller, body, chosen).await,
        Pooled::Rerank | Pooled::Cohere => rerank::rank(app, caller, (surface, body), chosen).await,
        Pooled::Score => rerank::score(app, caller, body, chosen).await,
    }
}
