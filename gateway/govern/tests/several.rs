//! Several gateways on one PostgreSQL: budgets are shared and never exceeded, changes reach all,
//! and what a dead gateway had leased comes back. Each gateway has a runtime of its own, which can
//! end in the middle of anything. `HEARTH_SEED=` replays a random run.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "all numbers of these tests are small"
)]

#[path = "several/death.rs"]
mod death;
#[path = "several/edits.rs"]
mod edits;
#[path = "several/gateway.rs"]
mod gateway;
#[path = "money/ledger.rs"]
mod ledger;
#[path = "several/random.rs"]
mod random;
#[path = "money/records.rs"]
mod records;
#[path = "several/rules.rs"]
mod rules;
#[path = "money/shop.rs"]
mod shop;
#[path = "several/world.rs"]
mod world;
