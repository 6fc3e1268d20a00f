//! The gateway: HTTP in front of the engine, the command line, metrics.
//!
//! Handlers parse with `wire`, make tokens with `text`, hand requests to a backend and write
//! events back in the caller's dialect. Only `backend/local.rs` and `wiring.rs` know the engine.

pub mod admin;
pub mod api;
pub mod backend;
pub mod cli;
pub mod config;
mod digest;
mod governing;
mod held;
pub mod machine;
pub mod metrics;
pub mod models;
pub mod pull;
pub mod server;
pub mod signin;
mod vault;
pub mod wiring;
