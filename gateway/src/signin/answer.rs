//! Bodies in, answers out: a form is answered with a page or a redirect, JSON with JSON.

use std::net::IpAddr;

use axum::extract::{Form, FromRequest as _, Json, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::ErrorKind;

use super::page;
use crate::api::Failure;
use crate::server::Peer;

/// Of a request's head what handlers need: a whole request cannot wait beside others.
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    pub(super) source: Option<IpAddr>,
    pub(super) manner: Manner,
}

impl Head {
    pub(super) fn of(request: &Request) -> Self {
        let headers = request.headers().clone();
        let source = request.extensions().get::<Peer>().map(|peer| peer.0);
        let manner = manner(&headers);
        Self { headers, source, manner }
    }
}

/// How somebody asks, and wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// A form in a page.
    Page,
    /// A program, or a script in a page.
    Json,
}

/// Reads a body: JSON, or a form.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let wrong = |why: String| Failure::new(ErrorKind::Invalid, "invalid_body", why);
    match manner(request.headers()) {
        Manner::Page => {
            let form = Form::<T>::from_request(request, &()).await;
            form.map(|Form(body)| body).map_err(|error| wrong(error.body_text()))
        }
        Manner::Json => {
            let json = Json::<T>::from_request(request, &()).await;
            json.map(|Json(body)| body).map_err(|error| wrong(error.body_text()))
        }
    }
}

/// How a request is to be answered.
fn manner(headers: &HeaderMap) -> Manner {
    let form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if form { Manner::Page } else { Manner::Json }
}

/// Done: on to another page, or some JSON.
pub(super) fn done(manner: Manner, to: &str, body: Value) -> Response {
    match manner {
        Manner::Page => Redirect::to(to).into_response(),
        Manner::Json => Json(body).into_response(),
    }
}

/// What became of a request, as whoever asked can read it.
pub(super) fn told(manner: Manner, result: Result<Response, Failure>) -> Response {
    let failure = match result {
        Ok(response) => return response,
        Err(failure) => failure,
    };
    let message = failure.error.message.clone();
    let mut response = failure.into_response();
    if manner == Manner::Page {
        let page = Html(page::message("Not signed in", &message)).into_response();
        let (parts, body) = page.into_parts();
        *response.body_mut() = body;
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
    }
    response
}

/// What all answers have: nobody keeps them, frames them, or runs anything in them. Pages of ours
/// see where their forms come from (`Origin`), others do not see our addresses.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (VARY, "cookie"),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
