//! Reading and changing documents.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Store, StoreError, slices};
use crate::Id;
use crate::directory::Change;
use crate::entity::Entity;

/// One change of the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The document's kind.
    pub kind: &'static str,
    /// Its name for machines.
    pub id: Id,
    /// What it belongs to.
    pub parent: String,
    /// Its name for people.
    pub name: String,
    /// JSON; `None` deletes it.
    pub body: Option<String>,
}

impl Edit {
    /// Makes or replaces a document.
    ///
    /// # Panics
    /// It cannot be written as JSON; all of ours can.
    #[must_use]
    pub fn put<E: Entity>(entity: &E) -> Self {
        let body = serde_json::to_string(entity).expect("documents are plain data");
        Self { body: Some(body), ..Self::delete(entity) }
    }

    /// Deletes a document.
    #[must_use]
    pub fn delete<E: Entity>(entity: &E) -> Self {
        Self {
            kind: E::KIND,
            id: entity.id().clone(),
            parent: entity.parent().to_owned(),
            name: entity.name().to_owned(),
            body: None,
        }
    }

    /// What the directory is to hear of it.
    #[must_use]
    pub fn change(&self) -> Change {
        Change { kind: self.kind.to_owned(), id: self.id.clone(), body: self.body.clone() }
    }
}

impl Store {
    /// What has changed after a revision, in order, and the last revision.
    ///
    /// # Errors
    /// The database fails.
    pub async fn documents_since(&self, revision: i64) -> Result<(Vec<Change>, i64), StoreError> {
        let rows = sqlx::query(
            "SELECT kind, id, revision, deleted, body FROM documents WHERE revision > $1 \
             ORDER BY revision",
        )
        .bind(revision)
        .fetch_all(self.read())
        .await?;
        let last = rows.last().map(|row| row.try_get("revision")).transpose()?;
        let changes = rows.iter().map(change).collect::<Result<_, StoreError>>()?;
        Ok((changes, last.unwrap_or(revision)))
    }

    /// The last revision that there is.
    pub(crate) async fn revision(&self) -> Result<i64, StoreError> {
        let sql = "SELECT value FROM counters WHERE name = 'revision'";
        Ok(sqlx::query(sql).fetch_one(self.read()).await?.try_get(0)?)
    }
}

fn change(row: &AnyRow) -> Result<Change, StoreError> {
    let id: String = row.try_get("id")?;
    let deleted: i64 = row.try_get("deleted")?;
    let body: String = row.try_get("body")?;
    Ok(Change {
        kind: row.try_get("kind")?,
        id: Id::of(&id).ok_or_else(|| StoreError::Content(format!("a document called {id:?}")))?,
        body: (deleted == 0).then_some(body),
    })
}

/// Writes edits within a transaction. The counter's row is locked until its end, so revisions
/// become visible in their order. `after`: the revision that they were judged on, where another
/// gateway may have made one since.
pub(crate) async fn write(
    connection: &mut AnyConnection,
    edits: &[Edit],
    after: Option<i64>,
) -> Result<(), StoreError> {
    for (count, edit) in (1..).zip(edits) {
        let revision: i64 = sqlx::query(
            "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value",
        )
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
        if after.is_some_and(|after| revision != after + count) {
            return Err(StoreError::Moved);
        }
        let result = sqlx::query(
            "INSERT INTO documents (kind, id, parent, name, revision, deleted, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, id) DO UPDATE SET \
             parent = excluded.parent, name = excluded.name, revision = excluded.revision, \
             deleted = excluded.deleted, body = excluded.body",
        )
        .bind(edit.kind)
        .bind(edit.id.as_str())
        .bind(&edit.parent)
        .bind(&edit.name)
        .bind(revision)
        .bind(i64::from(edit.body.is_none()))
        .bind(edit.body.as_deref().unwrap_or(""))
        .execute(&mut *connection)
        .await;
        match result {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(StoreError::Taken);
            }
            other => {
                other?;
            }
        }
        if after.is_some() {
            slices::shaped(connection, edit, revision).await?;
        }
    }
    Ok(())
}
