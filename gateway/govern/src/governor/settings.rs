//! What a governor is opened with.

use std::path::PathBuf;

use super::Clock;
use crate::journal::JournalError;
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
}
