//! The database: SQLite in a file, or PostgreSQL. One schema and one set of statements serve both;
//! [`batch`] and [`documents`] hold the statements.
//!
//! Whatever must be atomic happens in one transaction of the writer (`crate::ledger::writer`),
//! which is the only one to write. Readers have connections of their own.

pub mod batch;
pub(crate) mod bodies;
pub(crate) mod columns;
pub mod deliveries;
pub mod documents;
pub mod idempotency;
pub(crate) mod kept;
mod lite;
mod rows;
pub(crate) mod slices;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{AnyConnection, AnyPool, Connection, Executor};

use lite::Lite;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    kind: Kind,
    /// SQLite's file.
    file: Option<PathBuf>,
    read: AnyPool,
    write: AnyPool,
    /// Another connection for writing, by SQLite's own library. Only for whoever holds `write`.
    lite: Option<Arc<Lite>>,
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, for one gateway.
    Sqlite,
    /// A server, for several gateways.
    Postgres,
}

/// What went wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not an address of a database that is known here.
    #[error("`{0}` is not a database: write a path, sqlite:PATH or postgres://USER@HOST/NAME")]
    Address(String),
    /// Two things of one parent would have one name.
    #[error("the name is taken")]
    Taken,
    /// The database cannot be reached, or fails.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The same, of SQLite's file.
    #[error("the database: {0}")]
    File(#[from] rusqlite::Error),
    /// The schema cannot be brought up to date.
    #[error("the database's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// It failed while it committed: what was to be written may be there or not.
    #[error("the database, at the end of a transaction: {0}")]
    Unsure(#[source] sqlx::Error),
    /// Another process has it.
    #[error("another process uses the database {0}")]
    InUse(String),
    /// Two gateways would have one name.
    #[error(
        "another gateway called `{0}` uses the database, or ended a moment ago without its journal; \
         two that share a database differ in their names"
    )]
    NameTaken(String),
    /// Another gateway has changed what this was judged on.
    #[error("another gateway has made a change meanwhile; try again")]
    Moved,
    /// What lies in it cannot be read.
    #[error("the database holds what cannot be read: {0}")]
    Content(String),
}

/// What makes the schema, and brings an older one up to date.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The number of the last migration.
pub(crate) fn schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Connections that read.
const READERS_MAX: u32 = 4;

/// Longest wait for a connection: after that the database counts as gone.
const ACQUIRE: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// It cannot be reached or is none.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let file = path(url)?.map(PathBuf::from);
        let (kind, url) = address(url)?;
        let options = AnyConnectOptions::from_str(&url)?;
        let pool = |connections: u32| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE)
                .after_connect(move |connection, _| Box::pin(prepare(connection, kind)))
                .before_acquire(move |connection, _| Box::pin(is_whole(connection, kind)))
        };
        let write = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&write).await?;
        let read = pool(READERS_MAX).connect_with(options).await?;
        let lite = file.as_deref().map(Lite::open).transpose()?.map(Arc::new);
        Ok(Self { kind, file, read, write, lite })
    }

    /// Takes SQLite's file for this process alone, until what is returned is dropped: money that
    /// two processes grant is granted twice. Whoever only reads needs no such word. Gateways that
    /// share a server come in by [`Store::come_in`].
    pub(crate) fn alone(&self) -> Result<Option<File>, StoreError> {
        self.file.as_deref().map(lock).transpose()
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Connections for reading.
    #[must_use]
    pub fn read(&self) -> &AnyPool {
        &self.read
    }

    /// The one connection for writing.
    #[must_use]
    pub fn write(&self) -> &AnyPool {
        &self.write
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.read.close().await;
        if let Some(lite) = &self.lite {
            lite.close();
        }
        self.write.close().await;
    }
}

/// See [`Store::alone`].
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    // A file beside it: to close the database's own would undo SQLite's locks on it.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = File::create(beside).map_err(sqlx::Error::Io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(StoreError::InUse(path.display().to_string())),
    }
}

/// A file's path, or a URL.
pub(crate) fn address(url: &str) -> Result<(Kind, String), StoreError> {
    let Some(path) = path(url)? else { return Ok((Kind::Postgres, url.to_owned())) };
    // What means something in a URL may stand in a path.
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok((Kind::Sqlite, format!("sqlite://{path}?mode=rwc")))
}

/// SQLite's file; `None` for a server.
pub(crate) fn path(url: &str) -> Result<Option<&str>, StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(None);
    }
    match url.split_once(':') {
        Some(("sqlite", path)) => Ok(Some(path.strip_prefix("//").unwrap_or(path))),
        Some((scheme, rest)) if rest.starts_with("//") => {
            Err(StoreError::Address(format!("{scheme}://...")))
        }
        _ => Ok(Some(url)),
    }
}

/// Of every connection of SQLite: readers beside the writer, nothing lost with the power, no
/// waiting for ever. PostgreSQL does all of that by itself.
///
/// A new file has larger pages than usual: rows are added at the end, and the usual 4096 bytes take
/// four times as many writes.
const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA page_size = 16384; \
                       PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";

/// Makes a connection what all are.
pub(crate) async fn prepare(connection: &mut AnyConnection, kind: Kind) -> Result<(), sqlx::Error> {
    if kind == Kind::Sqlite {
        connection.execute(PRAGMAS).await?;
    }
    Ok(())
}

/// `false`: a transaction has failed on a connection of SQLite, in a way that has ended it behind
/// the driver's back (a full disk does). The driver would begin the next one within it, and what
/// is committed there is committed to nothing.
async fn is_whole(connection: &mut AnyConnection, kind: Kind) -> Result<bool, sqlx::Error> {
    Ok(kind == Kind::Postgres || !connection.is_in_transaction())
}

impl Kind {
    /// `(?,?),(?,?)` for so many rows of so many columns, or `($1,$2),($3,$4)`, which SQLite knows
    /// too: but it looks parameters that have a name up one by one, in quadratic time.
    pub(crate) fn rows(self, rows: usize, columns: usize) -> String {
        use std::fmt::Write as _;
        let mut out = String::with_capacity(rows * columns * 6);
        for row in 0..rows {
            out.push_str(if row == 0 { "(" } else { ",(" });
            for column in 0..columns {
                if column > 0 {
                    out.push(',');
                }
                let _ = match self {
                    Self::Sqlite => out.write_char('?'),
                    Self::Postgres => write!(out, "${}", row * columns + column + 1),
                };
            }
            out.push(')');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |url: &str, expect: Option<(Kind, &str)>| {
            let found = address(url).ok();
            let found = found.as_ref().map(|(kind, url)| (*kind, url.as_str()));
            assert_eq!(found, expect, "{url}");
        };
        check("data/hearth.db", Some((Kind::Sqlite, "sqlite://data/hearth.db?mode=rwc")));
        check("sqlite:/a?b.db", Some((Kind::Sqlite, "sqlite:///a%3fb.db?mode=rwc")));
        check("sqlite:///a.db", Some((Kind::Sqlite, "sqlite:///a.db?mode=rwc")));
        check("postgres://u@h/n", Some((Kind::Postgres, "postgres://u@h/n")));
        check("mysql://u@h/n", None);
        assert_eq!(Kind::Postgres.rows(2, 2), "($1,$2),($3,$4)");
        assert_eq!(Kind::Sqlite.rows(2, 2), "(?,?),(?,?)");
    }
}
