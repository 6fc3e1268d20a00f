//! The gateway: HTTP in front of the engine, the command line, metrics.
//!
//! Handlers parse with `wire`, make tokens with `text`, hand requests to a backend and write
//! events back in the caller's dialect. Only `backend/local.rs` and `wiring.rs` know the engine.

pub mod admin;
pub mod allocator;
pub mod api;
pub mod backend;
mod breaker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod deliver;
mod digest;
mod governing;
mod held;
mod local_wakes;
pub mod machine;
pub mod metrics;
pub mod models;
mod outbound;
pub mod pull;
pub mod route;
pub mod scim;
pub mod server;
pub mod signin;
pub mod sigv4;
pub mod tls;
pub mod upstream;
mod vault;
pub mod wiring;
