//! Both ends of a copy: a database as it was at one moment, and one that is filled in a single
//! transaction.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tokio::time::{sleep, timeout};

use super::tables::{Cell, RUNNING};
use super::{BackupError, Rows, Sink, TABLES, Table};
use crate::store::batch::DAY_MS;
use crate::store::columns::{DAYS, QUARTERS, QUARTERS_ABOUT};
use crate::store::{self, Kind, StoreError};

/// Longest wait for a server that does not answer.
const CONNECT: Duration = Duration::from_secs(10);

/// How often a database's sessions are looked at, and how long in between: those of a server that
/// has just ended go a moment after it.
const LOOKS: usize = 40;
const LOOK: Duration = Duration::from_millis(50);

/// Rows in one statement, and about their bytes.
const ROWS_MAX: usize = 500;
const BYTES_MAX: usize = 1 << 20;

/// One connection. What was begun on it and not committed is gone with it.
pub(super) struct Database {
    connection: AnyConnection,
    kind: Kind,
    path: Option<PathBuf>,
    /// SQLite's file is ours alone while this is open.
    lock: Option<File>,
}

impl Database {
    /// Opens what is there, with the schema that it has.
    pub(super) async fn existing(url: &str) -> Result<Self, BackupError> {
        match store::path(url)? {
            Some(path) if !std::path::Path::new(path).is_file() => {
                Err(BackupError::Missing(path.to_owned()))
            }
            _ => Self::connect(url).await,
        }
    }

    /// Takes a database for this process alone, makes it where there is none, and brings its
    /// schema up to date.
    pub(super) async fn to_fill(url: &str) -> Result<Self, BackupError> {
        let mut database = Self::connect(url).await?;
        database.take().await?;
        store::MIGRATIONS.run(&mut database.connection).await.map_err(StoreError::from)?;
        Ok(database)
    }

    async fn connect(url: &str) -> Result<Self, BackupError> {
        sqlx::any::install_default_drivers();
        let path = store::path(url)?.map(PathBuf::from);
        let (kind, url) = store::address(url)?;
        let connected = timeout(CONNECT, AnyConnection::connect(&url)).await;
        let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
        store::prepare(&mut connection, kind).await?;
        Ok(Self { connection, kind, path, lock: None })
    }

    /// Makes sure that no gateway uses it, and none begins to with SQLite's file.
    pub(super) async fn take(&mut self) -> Result<(), BackupError> {
        if let Some(path) = &self.path {
            self.lock = Some(store::lock(path).map_err(|error| match error {
                StoreError::InUse(path) => {
                    BackupError::InUse(format!("a server uses the database {path}: stop it first"))
                }
                other => other.into(),
            })?);
            return Ok(());
        }
        for _ in 0..LOOKS {
            if self.others().await? == 0 {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        self.rests().await
    }

    /// Sessions of our user in this database beside our own: gateways, most likely.
    async fn others(&mut self) -> Result<i64, BackupError> {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND usename = current_user AND pid <> pg_backend_pid()";
        Ok(sqlx::query(sql).fetch_one(&mut self.connection).await?.try_get(0)?)
    }

    async fn rests(&mut self) -> Result<(), BackupError> {
        match self.others().await? {
            0 => Ok(()),
            count => Err(BackupError::InUse(format!(
                "other sessions use the database ({count}): stop every gateway that does, first"
            ))),
        }
    }

    /// Begins a transaction of PostgreSQL that has every table for itself. A gateway that starts
    /// now waits for its end, and begins with what is there then.
    async fn begin_alone(&mut self) -> Result<(), BackupError> {
        self.connection.execute("BEGIN").await?;
        self.connection.execute("SET LOCAL lock_timeout = '5s'").await?;
        let all: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", all.join(", "));
        self.connection.execute(AssertSqlSafe(lock)).await?;
        self.rests().await
    }

    /// Whether a statement returns a row.
    async fn any(&mut self, sql: String) -> Result<bool, BackupError> {
        let found = sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut self.connection).await?;
        Ok(found.is_some())
    }

    async fn count(&mut self, table: &Table) -> Result<u64, BackupError> {
        let sql = format!("SELECT COUNT(*) FROM {}", table.name);
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }
}

/// A database as it was when this was opened.
pub(super) struct Snapshot {
    database: Database,
    /// The last migration that it has seen.
    pub(super) schema: i64,
    /// What it holds.
    pub(super) rows: Rows,
}

impl Snapshot {
    pub(super) async fn open(mut database: Database) -> Result<Self, BackupError> {
        let begin = match database.kind {
            // Without a word more SQLite's readers see one state, beside the writer.
            Kind::Sqlite => "BEGIN",
            Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        database.connection.execute(begin).await?;
        let schema = schema(&mut database.connection).await?;
        let mut rows = Rows::new();
        for table in TABLES {
            rows.insert(table.name.to_owned(), database.count(table).await?);
        }
        Ok(Self { database, schema, rows })
    }

    /// Passes all rows of some tables on.
    pub(super) async fn pour(
        &mut self,
        tables: &'static [Table],
        sink: &mut impl Sink,
    ) -> Result<(), BackupError> {
        for table in tables {
            sink.table(table, table.columns.to_vec()).await?;
            let sql = format!("SELECT {} FROM {}", table.columns.join(", "), table.name);
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut self.database.connection);
            while let Some(row) = rows.try_next().await? {
                sink.row(table.cells(&row)?).await?;
            }
        }
        Ok(())
    }
}

/// The last migration of a database, which has to be this version's.
async fn schema(connection: &mut AnyConnection) -> Result<i64, BackupError> {
    let sql = "SELECT MAX(version) FROM _sqlx_migrations";
    let found: Option<i64> = match sqlx::query(sql).fetch_one(connection).await {
        Ok(row) => row.try_get(0)?,
        // The table is not there.
        Err(sqlx::Error::Database(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let ours = store::schema();
    let why = match found {
        Some(found) if found == ours => return Ok(found),
        Some(found) if found > ours => format!(
            "the database has schema {found}, and this version knows {ours}: use the version that \
             runs on it"
        ),
        Some(found) => format!(
            "the database has schema {found}, and this version's is {ours}: use the version that \
             runs on it, or start this one's server once"
        ),
        None => "the database is none of Hearth's".to_owned(),
    };
    Err(BackupError::Schema(why))
}

/// A database that is being filled. Without [`Filler::finish`] nothing of it stays.
pub(super) struct Filler {
    database: Database,
    /// Where rows go, and into which columns.
    table: Option<(&'static Table, Vec<&'static str>)>,
    waiting: Vec<Vec<Cell>>,
    bytes: usize,
}

impl Filler {
    /// Begins, with every one of these tables empty.
    pub(super) async fn open(
        mut database: Database,
        tables: &[&'static [Table]],
        replace: bool,
    ) -> Result<Self, BackupError> {
        match database.kind {
            Kind::Sqlite => {
                database.connection.execute("BEGIN IMMEDIATE").await?;
            }
            Kind::Postgres => database.begin_alone().await?,
        }
        for table in tables.iter().copied().flatten() {
            let Table { name, begins_with, .. } = table;
            let sql = format!("SELECT 1 FROM {name} LIMIT 1 OFFSET {begins_with}");
            if !replace && database.any(sql).await? {
                return Err(BackupError::NotEmpty(name));
            }
            let sql = format!("DELETE FROM {name}");
            database.connection.execute(AssertSqlSafe(sql)).await?;
        }
        for name in RUNNING {
            let sql = format!("DELETE FROM {name}");
            database.connection.execute(AssertSqlSafe(sql)).await?;
        }
        Ok(Self { database, table: None, waiting: Vec::new(), bytes: 0 })
    }

    /// Makes the sums over days of those over quarters: an older backup has none.
    pub(super) async fn sum_up_days(&mut self) -> Result<(), BackupError> {
        self.flush().await?;
        let (about, numbers) = QUARTERS.split_at(QUARTERS_ABOUT);
        let about = about[1..].join(", ");
        let sums = numbers.iter().map(|name| format!("CAST(SUM({name}) AS BIGINT)"));
        let sums = sums.collect::<Vec<_>>().join(", ");
        let day = format!("quarter - (quarter % {DAY_MS} + {DAY_MS}) % {DAY_MS}");
        let sql = format!(
            "INSERT INTO days ({}) SELECT {day}, {about}, {sums} FROM quarters GROUP BY {day}, \
             {about}",
            DAYS.join(", ")
        );
        self.database.connection.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<(), BackupError> {
        self.flush().await?;
        let committed = self.database.connection.execute("COMMIT").await;
        committed.map_err(StoreError::Unsure)?;
        Ok(self.database.connection.close().await?)
    }

    async fn flush(&mut self) -> Result<(), BackupError> {
        let Some((table, columns)) = self.table.as_ref().filter(|_| !self.waiting.is_empty())
        else {
            return Ok(());
        };
        let sql = format!(
            "INSERT INTO {} ({}) VALUES {}",
            table.name,
            columns.join(", "),
            self.database.kind.rows(self.waiting.len(), columns.len())
        );
        // A connection keeps statements that come again; each of these takes a megabyte.
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(self.waiting.len() == ROWS_MAX);
        for cell in self.waiting.drain(..).flatten() {
            query = match cell {
                Cell::Text(text) => query.bind(text),
                Cell::Number(number) => query.bind(number),
            };
        }
        self.bytes = 0;
        match query.execute(&mut self.database.connection).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(BackupError::Twice(table.name))
            }
            other => other.map(drop).map_err(Into::into),
        }
    }
}

impl Sink for Filler {
    async fn table(
        &mut self,
        table: &'static Table,
        columns: Vec<&'static str>,
    ) -> Result<(), BackupError> {
        self.flush().await?;
        self.table = Some((table, columns));
        Ok(())
    }

    async fn row(&mut self, row: Vec<Cell>) -> Result<(), BackupError> {
        self.bytes += row.iter().map(Cell::bytes).sum::<usize>();
        self.waiting.push(row);
        if self.waiting.len() == ROWS_MAX || self.bytes >= BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }
}
