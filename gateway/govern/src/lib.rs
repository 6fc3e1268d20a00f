//! Who may use what, and what it costs.
//!
//! [`Governor`] is the door: it resolves a key, judges a request, reserves money before a token
//! is made and settles what was made, exactly once. It decides from memory; a database
//! (SQLite or PostgreSQL) keeps what was decided. It knows no HTTP and no engine: a surface tells
//! it how many tokens went in and came out.
//!
//! Time comes in as milliseconds since 1970 wherever a decision depends on it, so that a test can
//! make clocks jump.

pub mod ask;
pub mod audit;
pub mod backup;
pub mod bodies;
pub mod budget;
pub mod cache;
pub mod deliver;
pub mod denied;
pub mod directory;
pub mod entity;
pub mod figures;
pub mod governor;
pub mod id;
pub mod identity;
pub mod journal;
pub mod kept;
pub mod ledger;
pub mod limit;
pub mod money;
pub mod policy;
pub mod price;
pub mod report;
pub mod role;
pub mod secret;
pub mod store;

pub use ask::Ask;
pub use denied::{Class, Denied, Rule};
pub use entity::Scope;
pub use governor::{Fsync, Governor, Settings, Sharing};
pub use id::Id;
pub use identity::Principal;
pub use ledger::operation::{Operation, Receipt};
pub use money::Money;

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// A map that every request looks into. Its hash is as hard to aim at as the usual one, and faster.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;
