//! Pure planning: which sequences run in the next step, and which KV pages they own.
//!
//! The scheduler is a function of its inputs: `tick(now, inbox, outbox)` reads no clock, starts no
//! thread, does no I/O and iterates no hash map, so that a seed replays any run exactly.
#![forbid(unsafe_code)]

mod admit;
mod config;
mod core;
mod cost;
mod fault;
mod inbox;
mod lookup;
mod pages;
mod plan;
mod prefix;
mod request;
mod sequence;
mod settle;
mod slab;
mod speculate;
mod stats;
mod tenants;
mod tick;
pub mod types;
mod watch;

pub use config::{CHOICES_MAX, Config, DRAFTS_MAX, LOGIT_BIAS_MAX, LOGPROBS_MAX, STOP_TOKENS_MAX};
pub use prefix::prefix_hashes;
pub use request::choice_seed;
pub use stats::{CostCoefficients, Stats};
pub use tick::{Progress, Scheduler};
pub use types::*;
pub use watch::{PAGE_CHANGES_MAX, PageChange};
