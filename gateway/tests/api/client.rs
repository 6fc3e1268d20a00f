//! Asks the router without a socket, or a server over one.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use hearth_tests::http::is_as_long_as_it_says;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let service = TowerToHyperService::new(router.clone());
    let response = service.call(request).await.expect("a router does not fail");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let said = parts.headers.get("content-length").map(HeaderValue::as_bytes);
    is_as_long_as_it_says(said, body.len());
    let body = String::from_utf8(body.to_vec()).expect("answers are UTF-8");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(path).body(body.into()).expect("a request");
    send(router, request).await
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).expect("a request")).await
}

/// The head of an answer, its body unread.
pub(crate) async fn open(router: &Router, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::post(path).body(body.into()).expect("a request");
    let service = TowerToHyperService::new(router.clone());
    service.call(request).await.expect("a router does not fail")
}
