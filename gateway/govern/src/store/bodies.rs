//! Statements about recorded texts and their keys.

use std::sync::Arc;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use super::columns::{BODIES, BODY_KEYS};
use super::{Kind, Store, StoreError};
use crate::bodies::{About, Erase, key_place};
use crate::kept;
use crate::report::{Cursor, ReportError, Sql};
use crate::secret::{Keyring, Master};
use crate::{Id, Millis};

/// A text as it is kept.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) about: About,
    /// Sealed with its key.
    pub(crate) content: String,
    /// The key, sealed; empty: it was erased.
    pub(crate) sealed: String,
}

/// Another master key.
#[derive(Debug)]
pub(crate) struct Rewrap {
    /// It, and those that it replaces.
    pub(crate) keyring: Arc<Keyring>,
    /// How many keys of texts others have sealed.
    pub(crate) texts: usize,
}

impl Store {
    /// Writes texts with their keys, all or none. One that is there already stays.
    pub(crate) async fn keep_bodies(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut transaction = self.write().begin().await?;
        let insert = |table: &str, columns: &[&str]| {
            let places = self.kind().rows(1, columns.len());
            let columns = columns.join(", ");
            format!(
                "INSERT INTO {table} ({columns}) VALUES {places} \
                 ON CONFLICT (operation, attempt) DO NOTHING"
            )
        };
        let (bodies, keys) = (insert("bodies", BODIES), insert("body_keys", BODY_KEYS));
        for Row { about, content, sealed } in rows {
            let query = sqlx::query(AssertSqlSafe(bodies.as_str()))
                .bind(about.operation.as_str())
                .bind(about.attempt)
                .bind(&about.organisation)
                .bind(&about.user)
                .bind(&about.key)
                .bind(about.label.name())
                .bind(about.at)
                .bind(about.expires)
                .bind(i64::try_from(about.bytes).unwrap_or(i64::MAX))
                .bind(content);
            // A text without its own key is none, nor a key that opens another's.
            if query.execute(&mut *transaction).await?.rows_affected() == 1 {
                let query = sqlx::query(AssertSqlSafe(keys.as_str()))
                    .bind(about.operation.as_str())
                    .bind(about.attempt)
                    .bind(&about.organisation)
                    .bind(&about.user)
                    .bind(about.at)
                    .bind(about.expires)
                    .bind(sealed);
                query.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await.map_err(StoreError::Unsure)
    }

    /// The texts of an operation's attempts.
    pub(crate) async fn body(
        &self,
        organisation: &Id,
        operation: &Id,
    ) -> Result<Vec<Row>, StoreError> {
        let columns: Vec<String> = BODIES.iter().map(|name| format!("bodies.{name}")).collect();
        let sql = format!(
            "SELECT {}, COALESCE(sealed, '') AS sealed FROM bodies LEFT JOIN body_keys \
             ON body_keys.operation = bodies.operation AND body_keys.attempt = bodies.attempt \
             WHERE bodies.operation = $1 AND bodies.organisation = $2 ORDER BY bodies.attempt",
            columns.join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql));
        let query = query.bind(operation.as_str()).bind(organisation.as_str());
        let rows = query.fetch_all(self.read()).await?;
        let row = |row: &AnyRow| {
            let (content, sealed) = (row.try_get("content")?, row.try_get("sealed")?);
            Ok(Row { about: about(row)?, content, sealed })
        };
        rows.iter().map(row).collect()
    }

    /// What texts there are, the newest first, and where the next page begins.
    ///
    /// # Errors
    /// The database fails.
    pub async fn bodies(
        &self,
        organisation: &Id,
        user: Option<&Id>,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<(Vec<About>, Option<Cursor>), ReportError> {
        let columns = &BODIES[..BODIES.len() - 1];
        let mut sql = Sql::of(format!("SELECT {} FROM bodies", columns.join(", ")));
        sql.push(" WHERE organisation = ").text(organisation.as_str());
        if let Some(user) = user {
            sql.push(" AND user_id = ").text(user.as_str());
        }
        crate::report::lines::page(&mut sql, ["at", "operation", "attempt"], after, limit)?;
        let rows = sql.statement().fetch_all(self.read()).await?;
        let all = rows.iter().map(about).collect::<Result<Vec<About>, StoreError>>()?;
        Ok(crate::report::lines::cut(all, limit, |last| {
            Cursor::of(last.at, last.operation.as_str(), last.attempt)
        }))
    }

    /// Deletes texts, responses and conversations that are kept, and the keys of all of them; how
    /// many that were, without the keys and the names of parts. What a database leaves of deleted
    /// rows in its files goes too, as far as it lets itself be told.
    pub(crate) async fn erase_bodies(&self, erase: &Erase) -> Result<u64, StoreError> {
        let mut connection = self.write().acquire().await?;
        if self.kind() == Kind::Sqlite {
            connection.execute("PRAGMA secure_delete = ON").await?;
        }
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        let mut count = 0;
        let part = format!(" AND kind = '{}'", kept::Kind::Part.name());
        let uncounted = [("body_keys", "", 0), ("kept", &*part, 0)];
        let counted = [("kept", "", 1), ("bodies", "", 1)];
        for (table, only, counts) in uncounted.into_iter().chain(counted) {
            let mut sql = Sql::of(format!("DELETE FROM {table} WHERE organisation = "));
            sql.text(erase.organisation.as_str()).push(only);
            if let Some(user) = &erase.user {
                sql.push(" AND user_id = ").text(user.as_str());
            }
            if let Some(before) = erase.before {
                sql.push(" AND at < ").number(before);
            }
            let rows = sql.statement().execute(&mut *transaction).await?.rows_affected();
            count += rows * counts;
        }
        transaction.commit().await.map_err(StoreError::Unsure)?;
        clean(&mut connection, self.kind()).await;
        Ok(count)
    }

    /// How many keys of texts another master key than this one has sealed.
    pub(crate) async fn sealed_otherwise(&self, master: &Master) -> Result<usize, StoreError> {
        let sql = "SELECT COUNT(*) FROM body_keys WHERE sealed NOT LIKE $1";
        let theirs = format!("{}%", master.prefix());
        let row = sqlx::query(sql).bind(theirs).fetch_one(self.read()).await?;
        Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }

    /// Deletes texts whose time is over.
    pub(crate) async fn sweep_bodies(&self, now: Millis) -> Result<(), StoreError> {
        for table in ["body_keys", "kept", "bodies"] {
            let sql = format!("DELETE FROM {table} WHERE expires <= $1");
            sqlx::query(AssertSqlSafe(sql)).bind(now).execute(self.write()).await?;
        }
        Ok(())
    }
}

/// Seals the keys of texts with the master key in use, all that are not.
pub(super) async fn rewrap(
    connection: &mut AnyConnection,
    rewrap: &Rewrap,
) -> Result<(), StoreError> {
    let page = "SELECT operation, attempt, sealed FROM body_keys \
                WHERE operation > $1 OR (operation = $1 AND attempt > $2) \
                ORDER BY operation, attempt LIMIT 1000";
    let update = "UPDATE body_keys SET sealed = $1 WHERE operation = $2 AND attempt = $3";
    let (mut last, mut count) = ((String::new(), 0_i64), 0);
    loop {
        let query = sqlx::query(page).bind(&last.0).bind(last.1);
        let rows = query.fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let operation: String = row.try_get("operation")?;
            let (attempt, sealed): (i64, String) =
                (row.try_get("attempt")?, row.try_get("sealed")?);
            let anew = rewrap.keyring.rewrap(&sealed, &key_place(&operation, attempt));
            let anew = anew.map_err(|why| StoreError::Content(format!("{operation}: {why}")))?;
            if let Some(anew) = anew {
                let query = sqlx::query(update).bind(anew).bind(&operation).bind(attempt);
                query.execute(&mut *connection).await?;
                count += 1;
            }
            last = (operation, attempt);
        }
    }
    // Another gateway records: the line of the audit would not be true.
    if count == rewrap.texts { Ok(()) } else { Err(StoreError::Moved) }
}

/// Has the database let go of what deleted rows left behind. They are deleted whether or not it
/// does.
pub(super) async fn clean(connection: &mut AnyConnection, kind: Kind) {
    let cleaned = match kind {
        Kind::Sqlite => connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await,
        Kind::Postgres => connection.execute("VACUUM FULL body_keys").await,
    };
    if let Err(error) = cleaned {
        tracing::warn!(%error, "rows that were erased may still lie in the database's files");
    }
}

fn about(row: &AnyRow) -> Result<About, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let (operation, label) = (text("operation")?, text("label")?);
    let wrong = |what: String| StoreError::Content(format!("a recorded text with {what}"));
    Ok(About {
        operation: Id::of(&operation).ok_or_else(|| wrong(format!("operation {operation:?}")))?,
        attempt: row.try_get("attempt")?,
        organisation: text("organisation")?,
        user: text("user_id")?,
        key: text("key_id")?,
        label: label.parse().map_err(|_| wrong(format!("label {label:?}")))?,
        at: row.try_get("at")?,
        expires: row.try_get("expires")?,
        bytes: row.try_get::<i64, _>("bytes")?.try_into().unwrap_or(0),
    })
}
