//! What a governor is opened with.

use std::path::PathBuf;
use std::time::Duration;

use super::Clock;
use crate::journal::JournalError;
use crate::limit::shared;
use crate::store::StoreError;

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database: a path, `sqlite:PATH` or `postgres://...`.
    pub url: String,
    /// The journal's file, on this machine's disk.
    pub journal: PathBuf,
    /// Name of this gateway; two that share a database differ.
    pub gateway: String,
    /// The clock.
    pub clock: Clock,
    /// What an answer waits for.
    pub fsync: Fsync,
    /// What holds between gateways that share a database.
    pub sharing: Sharing,
}

/// When the journal is brought to the disk. A process that dies loses nothing either way: the
/// kernel has what was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before the last byte of an answer leaves: nothing is lost if the power fails.
    #[default]
    Always,
    /// Once a second: if the power fails, answers of the last second may be in no book.
    EverySecond,
}

/// What holds between gateways that share a database.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// How long a gateway's word holds. One that cannot renew it grants no money of hard budgets
    /// behind five sixths of it.
    pub lease: Duration,
    /// How often it is renewed, and what lies idle given back.
    pub renew: Duration,
    /// How often a gateway looks for what others have changed, where it is not told.
    pub poll: Duration,
    /// A gateway whose word ended so long ago is lost: what it had leased is free for others.
    pub lost: Duration,
    /// Where rates are counted for all of them; `None`: each counts for itself.
    pub rates: Option<shared::Settings>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            renew: Duration::from_secs(5),
            poll: Duration::from_millis(500),
            lost: Duration::from_mins(15),
            rates: None,
        }
    }
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server of shared rates cannot be used.
    #[error("rates cannot be shared: {0}")]
    Rates(String),
}
