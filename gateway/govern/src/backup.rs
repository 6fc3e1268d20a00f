//! Backup, restore and the move from one database to another: everything that the schema holds, as
//! it was at one moment, while gateways go on writing.
//!
//! A backup is text, one JSON value a line, so that any tool can read it and none is needed:
//!
//! ```text
//! {"hearth_backup":1,"schema":3,"made_at":1795276800000,"rows":{"documents":12,...}}
//! {"table":"documents","columns":["kind","id",...]}
//! ["key","key_0k3v8w2n5q7r1s4t6x9z",...]
//! ...
//! {"sha256":"..."}
//! ```
//!
//! The last line has the SHA-256 of all bytes before it: it finds accidents. Whoever alters a
//! backup on purpose can compute it anew, so keep backups where nobody can. What is sealed in the
//! database is sealed in the backup; hashes, names and the audit are in clear. The keys of recorded
//! texts are in no backup: what is erased would come back with one. They move with `migrate`.
//!
//! All three pass rows from one place to another, a batch at a time: memory does not grow with
//! what there is. Nothing here knows what a row means.

mod database;
mod lines;
mod tables;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use database::{Database, Filler, Snapshot};
use lines::{Lines, Reader};
use tables::Cell;

use crate::Millis;
use crate::store::StoreError;

pub use tables::{NOT_BACKED_UP, RUNNING, TABLES, Table};

/// What was copied: rows by table.
pub type Rows = BTreeMap<String, u64>;

/// Why there is no copy. A database that was to be filled is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing is there to be copied.
    #[error("there is no database {0}")]
    Missing(String),
    /// A database of something else, or of another version.
    #[error("{0}")]
    Schema(String),
    /// A server of ours, or somebody else, uses a database that must rest.
    #[error("{0}")]
    InUse(String),
    /// There is something already in the database that was to be filled.
    #[error("there are {0} in that database already")]
    NotEmpty(&'static str),
    /// The backup cannot be written.
    #[error("the backup cannot be written: {0}")]
    Write(#[source] std::io::Error),
    /// The backup cannot be read.
    #[error("the backup cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// It is no backup.
    #[error("this is not a backup of Hearth")]
    NotABackup,
    /// A later version made it.
    #[error("a later version of Hearth made this backup ({0}); restore it with that one")]
    Newer(String),
    /// It was cut or altered.
    #[error("the backup is damaged, line {line}: {why}")]
    Damaged {
        /// Where; from 1.
        line: u64,
        /// What is wrong there.
        why: String,
    },
    /// Rows that cannot be told apart.
    #[error("two rows for {0} would be one")]
    Twice(&'static str),
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

/// Where rows go, table after table.
trait Sink {
    /// The rows of a table follow, with these of its columns.
    async fn table(
        &mut self,
        table: &'static Table,
        columns: Vec<&'static str>,
    ) -> Result<(), BackupError>;

    /// A row.
    async fn row(&mut self, row: Vec<Cell>) -> Result<(), BackupError>;
}

/// Writes all that the database holds, as of one moment. Gateways may go on.
///
/// # Errors
/// There is no database of this version's schema, it fails, or `out` does.
pub async fn backup(url: &str, now: Millis, out: impl Write) -> Result<Rows, BackupError> {
    let mut snapshot = Snapshot::open(Database::existing(url).await?).await?;
    let mut lines = Lines::begin(out, snapshot.schema, now, &snapshot.rows)?;
    snapshot.pour(TABLES, &mut lines).await?;
    lines.finish()?;
    Ok(snapshot.rows)
}

/// Fills a database from a backup: all of it or nothing. `replace`: what is there goes. No gateway
/// may use the database.
///
/// # Errors
/// The backup is cut, altered or of a later version; the database is in use, fails, or holds
/// something that is not to be replaced.
pub async fn restore(input: impl BufRead, url: &str, replace: bool) -> Result<Rows, BackupError> {
    let mut reader = Reader::open(input)?;
    // Keys that were erased since stay erased, and those that were not stay.
    let mut filler = Filler::open(Database::to_fill(url).await?, &[TABLES], replace).await?;
    reader.pour(&mut filler).await?;
    if !reader.rows.contains_key("days") {
        filler.sum_up_days().await?;
    }
    filler.finish().await?;
    Ok(reader.rows)
}

/// Copies one database into another: all of it or nothing. `replace`: what is there goes. No
/// gateway may use either: what it wrote after this would be lost.
///
/// # Errors
/// Either is in use, fails, or is none of this version's; or `to` holds something that is not to
/// be replaced.
pub async fn migrate(from: &str, to: &str, replace: bool) -> Result<Rows, BackupError> {
    let mut source = Database::existing(from).await?;
    source.take().await?;
    let mut snapshot = Snapshot::open(source).await?;
    let all = [TABLES, NOT_BACKED_UP];
    let mut filler = Filler::open(Database::to_fill(to).await?, &all, replace).await?;
    for tables in all {
        snapshot.pour(tables, &mut filler).await?;
    }
    filler.finish().await?;
    Ok(snapshot.rows)
}
