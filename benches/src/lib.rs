//! Benchmarks: kernels, scheduler, runner, loading, governance, speculation, the gateway beside
//! nginx, and the engine beside llama.cpp.
//! Each also runs tiny in the tests, so that it cannot rot; full runs append one line to
//! `benches/results`.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for people: nothing here is near 2^53"
)]

pub mod demo;
pub mod engine;
pub mod formats;
pub mod gateway;
pub mod govern;
pub mod grammar;
pub mod kernels;
pub mod load;
mod null_gpu;
pub mod overhead;
pub mod peer;
pub mod random_model;
pub mod record;
pub mod runner;
pub mod scheduler;
pub mod speculation;
