//! What describes the API. Neither says anything of anybody's data, so a key is all they need.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};

use super::answer::{Answer, JSON};
use super::table::routes;
use super::{openapi, page};

static PAGE: LazyLock<String> = LazyLock::new(|| page::html(&routes()));
static OPENAPI: LazyLock<String> = LazyLock::new(|| openapi::document(&routes()));

/// `GET /admin/v1`
pub(super) async fn page() -> Response {
    Answer::text("text/html; charset=utf-8", PAGE.clone()).into_response()
}

/// `GET /admin/v1/openapi.json`
pub(super) async fn openapi() -> Response {
    Answer::text(JSON, OPENAPI.clone()).into_response()
}
