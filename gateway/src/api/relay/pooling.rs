//! Embeddings, rankings and scores that a provider makes. Where it speaks the caller's dialect the
//! bytes go through with the model's name exchanged, and the answer comes back as it was written.
//! The two dialects of ranking are translated into each other; nothing else is.

use axum::http::HeaderValue;
use axum::response::Response;
use wire::cohere;
use wire::openai::{Flavor, render_rerank};
use wire::relay as pass;
use wire::{ApiError, Broken, Dialect, ErrorKind, Lost, RerankRequest};

use super::super::App;
use super::super::error::Failure;
use super::super::forward::Inbound;
use super::super::pooled::Pooled;
use super::super::rerank;
use super::{Asked, DROPPED, begin, gather, of_request, outgoing, settled, unfit};
use crate::route::Open;
use crate::upstream::{Call, Provider, Trouble};

/// What is sent.
struct Outgoing {
    dialect: Dialect,
    body: Vec<u8>,
    /// What was asked, where the answer is to be written anew.
    anew: Option<RerankRequest>,
    dropped: Option<HeaderValue>,
}

/// Asks a provider.
pub(super) async fn ask(
    app: &App,
    (surface, inbound): (Pooled, &Inbound),
    asked: Asked<'_>,
    open: Open,
) -> Result<Response, Trouble> {
    let who = (&**asked.provider, asked.model);
    let outgoing = request(app, (surface, inbound), who)?;
    let Outgoing { dialect, body, anew, dropped } = outgoing;
    let call = Call { dialect, model: asked.model, stream: false, body, headers: &[] };
    let (mut about, source) = begin(asked, open, call).await?;
    let all = gather(&mut about, source).await?;
    let usage = pass::whole(dialect, &all).map_err(|why| about.broken(why))?.usage;
    let body = match anew {
        None => all,
        Some(request) => {
            let scores = cohere::read_answer(&all, request.documents.len())
                .map_err(|Broken(why)| about.broken(&why))?;
            let estimate = inbound.glance.input_estimate;
            let tokens = usage.map_or(estimate, |usage| usage.prompt_tokens);
            rerank::answer(surface, &request, &inbound.glance.model, (scores, tokens)).into()
        }
    };
    let mut response = settled(about, usage, body).await;
    response.headers_mut().extend(dropped.map(|dropped| (DROPPED, dropped)));
    Ok(response)
}

/// The request as this provider gets it.
fn request(
    app: &App,
    (surface, inbound): (Pooled, &Inbound),
    (provider, model): (&Provider, &str),
) -> Result<Outgoing, Trouble> {
    let own = surface.dialect();
    if provider.kind.path(own).is_some() {
        let body = inbound.glance.rewrite(&inbound.body, model, false, None);
        return Ok(Outgoing { dialect: own, body, anew: None, dropped: None });
    }
    let other = match own {
        Dialect::Rerank => Some(Dialect::Cohere),
        Dialect::Cohere => Some(Dialect::Rerank),
        _ => None,
    };
    let Some(dialect) = other.filter(|other| provider.kind.path(*other).is_some()) else {
        return Err(unfit(silent(provider, own)));
    };
    let mut asked = rerank::parse(surface, &inbound.body, app).map_err(of_request)?;
    let name = std::mem::replace(&mut asked.model, model.to_owned());
    let mut lost = Lost::default();
    let value = match dialect {
        Dialect::Cohere => cohere::render(&asked, &mut lost),
        _ => render_rerank(&asked, provider.kind.flavor == Flavor::Extended, &mut lost),
    };
    asked.model = name;
    let dropped = outgoing::dropped(provider, &lost).map_err(unfit)?;
    Ok(Outgoing { dialect, body: value.to_string().into_bytes(), anew: Some(asked), dropped })
}

/// It has no such route.
fn silent(provider: &Provider, dialect: Dialect) -> Failure {
    let speaks: Vec<&str> = provider.kind.speaks.iter().map(|(own, _)| own.name()).collect();
    let message = format!(
        "The provider '{}' does not serve {dialect}; it serves {}.",
        provider.name,
        speaks.join(", ")
    );
    ApiError::new(ErrorKind::Invalid, "wrong_endpoint", message).with_param("model").into()
}
