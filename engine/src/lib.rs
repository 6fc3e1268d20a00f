//! Model files to weights, families to [`spec::ModelSpec`], one transformer for all of them, and
//! the runner that implements `scheduler::Engine` with it.
//!
//! The engine knows models and batches. It does not know requests, users, HTTP or text formats
//! beyond what a model's files define.

pub mod adapter;
pub mod bench;
mod config;
pub mod cuda;
mod demo;
pub mod embed;
pub mod export;
mod families;
mod generation;
pub mod model;
pub mod open;
pub mod plan;
pub mod runner;
pub mod spec;
pub mod start;
pub mod transformer;
pub mod weights;

pub use adapter::AdapterBase;
pub use demo::open_demo;
pub use families::{FamilyNames, families};
pub use kernels::{CacheElement, Compute};
pub use model::ModelFiles;
pub use open::open;
pub use runner::Runner;
pub use start::{CpuRunner, StartError, scheduler_config, start_cpu};
pub use weights::LoadError;
