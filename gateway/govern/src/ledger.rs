//! What was used and what it cost: one entry for each attempt to serve an operation, never changed
//! once it is written. Sums of entries are what budgets and reports are made of.

pub mod entry;
pub mod operation;
pub mod writer;

pub use entry::{Entry, Outcome, ServiceTier, Tokens};
