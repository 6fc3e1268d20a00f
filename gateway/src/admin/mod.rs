//! The admin API: who may use what, and what it costs, over HTTP.
//!
//! One table ([`routes`]) says what routes there are and which permission each asks for, in which
//! place of the tree; the router, the OpenAPI document, the readable page and the tests are made
//! of it. A request walks `serve` (caller, body, permission) -> `idempotency` -> its handler, and
//! every change is judged once more against the directory that it changes.
//!
//! It decides nothing by itself: whether somebody may, and what a thing means, is `govern`'s. What
//! lies outside the places of a caller's grants does not exist for that caller: it answers as to
//! an unknown id, with the same words.

mod answer;
mod asked;
mod audit;
mod bodies;
mod caller;
mod check;
mod documents;
mod dry;
mod explain;
mod idempotency;
mod openapi;
mod page;
mod query;
mod refusal;
mod resource;
mod resources;
mod serve;
mod table;
mod usage;

pub use serve::{own_usage, router};
pub use table::{Method, Place, Route, routes};

/// Where the routes begin.
pub const BASE: &str = "/admin/v1";
