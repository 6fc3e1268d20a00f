//! Statements about responses, conversations and items that are kept. Each names the project.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use super::bodies::clean;
use super::columns::{BODY_KEYS, KEPT};
use super::{Kind as Database, Store, StoreError};
use crate::Millis;
use crate::kept::{ATTEMPT, CHAIN_MAX, KeptError, Kind, Range, Row, Sheet, Tenant};
use crate::policy::Label;
use crate::report::Sql;
use crate::secret::Secret;

/// Names in one statement.
const NAMES_MAX: usize = 256;

/// Which one: its kind, its conversation where it is an item (else empty), its name.
pub(crate) type Name<'a> = (Kind, &'a str, &'a str);

impl Store {
    /// Writes them, all or none. Items go to the end of their conversation `into`, which is then
    /// kept until they are over.
    pub(crate) async fn keep(
        &self,
        tenant: &Tenant,
        rows: &[Row],
        into: Option<&str>,
    ) -> Result<(), KeptError> {
        let mut transaction = self.write().begin().await?;
        let items = rows.iter().filter(|row| row.sheet.kind == Kind::Item);
        let count = i64::try_from(items.clone().count()).unwrap_or(i64::MAX);
        let mut next = 0;
        if let Some(conversation) = into.filter(|_| count > 0) {
            let of_rows = (rows.iter().map(|row| row.sheet.label).max(), rows[0].expires);
            next = lengthen(&mut transaction, tenant, (conversation, count), of_rows).await?;
            for row in items {
                let name = (Kind::Item, conversation, &*row.sheet.id);
                if named(&mut transaction, tenant, name).await?.is_some() {
                    return Err(KeptError::Twice(row.sheet.id.clone()));
                }
            }
        }
        for row in rows {
            let place = match row.sheet.kind {
                Kind::Item => next,
                _ => row.sheet.place,
            };
            next += i64::from(row.sheet.kind == Kind::Item);
            insert(self.kind(), &mut transaction, tenant, (row, place)).await?;
        }
        Ok(transaction.commit().await.map_err(StoreError::Unsure)?)
    }

    /// Writes another content over one. Its label may only rise.
    pub(crate) async fn rewrite(&self, row: &Row) -> Result<bool, StoreError> {
        let mut transaction = self.write().begin().await?;
        let sql = "UPDATE kept SET content = $1, expires = $2, lost_at = $3, label = $4 \
                   WHERE row_id = $5";
        let query = sqlx::query(sql)
            .bind(&row.content)
            .bind(row.expires)
            .bind(row.sheet.lost_at)
            .bind(row.sheet.label.name())
            .bind(&row.row_id);
        let there = query.execute(&mut *transaction).await?.rows_affected() == 1;
        let sql = "UPDATE body_keys SET sealed = $1, expires = $2 \
                   WHERE operation = $3 AND attempt = $4";
        let query = sqlx::query(sql).bind(&row.sealed).bind(row.expires);
        let query = query.bind(&row.row_id).bind(ATTEMPT);
        query.execute(&mut *transaction).await?;
        transaction.commit().await.map_err(StoreError::Unsure)?;
        Ok(there)
    }

    /// One of them.
    pub(crate) async fn kept(
        &self,
        tenant: &Tenant,
        name: Name<'_>,
        now: Millis,
    ) -> Result<Option<Row>, StoreError> {
        let mut sql = selected(tenant, now);
        narrow(&mut sql, name);
        sql.push(" ORDER BY kept.at DESC LIMIT 1");
        let row = sql.statement().fetch_optional(self.read()).await?;
        row.as_ref().map(read).transpose()
    }

    /// Those of a kind that have one of these names; the newest, where several have one.
    pub(crate) async fn all_kept(
        &self,
        tenant: &Tenant,
        kind: Kind,
        ids: &[&str],
        now: Millis,
    ) -> Result<Vec<Row>, StoreError> {
        let mut found: Vec<Row> = Vec::new();
        for some in ids.chunks(NAMES_MAX) {
            let mut sql = selected(tenant, now);
            sql.push(" AND kept.kind = ").text(kind.name()).push(" AND kept.id IN (");
            for (at, id) in some.iter().enumerate() {
                sql.push(if at > 0 { ", " } else { "" }).text(id);
            }
            sql.push(
                ") AND NOT EXISTS (SELECT 1 FROM kept newer \
                 WHERE newer.organisation = kept.organisation AND newer.project = kept.project \
                 AND newer.kind = kept.kind AND newer.id = kept.id AND newer.at > kept.at) \
                 ORDER BY kept.id",
            );
            let rows = sql.statement().fetch_all(self.read()).await?;
            found.extend(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?);
        }
        found.dedup_by(|next, first| next.sheet.id == first.sheet.id);
        Ok(found)
    }

    /// A response and those that it goes on with, the oldest first.
    pub(crate) async fn chain(
        &self,
        tenant: &Tenant,
        id: &str,
        now: Millis,
    ) -> Result<Vec<Row>, StoreError> {
        let mine = "kept.organisation = $1 AND kept.project = $2 AND kept.kind = 'response' \
                    AND kept.expires > $3";
        let sql = format!(
            "WITH RECURSIVE chain(row_id, parent, depth) AS (\
             SELECT kept.row_id, kept.parent, CAST(1 AS BIGINT) FROM kept \
             WHERE {mine} AND kept.id = $4 \
             UNION ALL SELECT kept.row_id, kept.parent, chain.depth + 1 \
             FROM kept JOIN chain ON kept.id = chain.parent \
             WHERE {mine} AND chain.parent <> '' AND chain.depth < $5) \
             SELECT {} FROM chain JOIN kept ON kept.row_id = chain.row_id \
             LEFT JOIN body_keys ON body_keys.operation = kept.row_id AND body_keys.attempt = 0 \
             ORDER BY chain.depth DESC",
            columns()
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(tenant.organisation.as_str())
            .bind(tenant.project.as_str())
            .bind(now)
            .bind(id)
            .bind(i64::try_from(CHAIN_MAX).unwrap_or(i64::MAX));
        let rows = query.fetch_all(self.read()).await?;
        rows.iter().map(read).collect()
    }

    /// Items of a conversation.
    pub(crate) async fn items(
        &self,
        tenant: &Tenant,
        conversation: &str,
        range: Range,
        now: Millis,
    ) -> Result<Vec<Row>, StoreError> {
        let mut sql = selected(tenant, now);
        sql.push(" AND kept.kind = 'item' AND kept.parent = ").text(conversation);
        if let Some(after) = range.after {
            sql.push(if range.ascending { " AND place > " } else { " AND place < " }).number(after);
        }
        sql.push(if range.ascending { " ORDER BY place" } else { " ORDER BY place DESC" });
        sql.push(" LIMIT ").number(i64::try_from(range.limit).unwrap_or(i64::MAX));
        let rows = sql.statement().fetch_all(self.read()).await?;
        rows.iter().map(read).collect()
    }

    /// Deletes one with its key, a conversation with its items, a response with its parts. `false`:
    /// it was not there.
    pub(crate) async fn delete_kept(
        &self,
        tenant: &Tenant,
        name: Name<'_>,
    ) -> Result<bool, StoreError> {
        let mut connection = self.write().acquire().await?;
        if self.kind() == Database::Sqlite {
            connection.execute("PRAGMA secure_delete = ON").await?;
        }
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        let mut there = false;
        let everything = match name.0 {
            Kind::Conversation => Some((Kind::Item, name.2, "")),
            Kind::Response => Some((Kind::Part, name.2, "")),
            Kind::Item | Kind::Part => None,
        };
        let parts = [everything, Some(name)];
        for part in parts.into_iter().flatten() {
            let mut sql = Sql::of(
                "DELETE FROM body_keys WHERE attempt = 0 AND operation IN (\
                                   SELECT row_id FROM kept WHERE "
                    .to_owned(),
            );
            mine(&mut sql, tenant);
            narrow(&mut sql, part);
            sql.push(")").statement().execute(&mut *transaction).await?;
            let mut sql = Sql::of("DELETE FROM kept WHERE ".to_owned());
            mine(&mut sql, tenant);
            narrow(&mut sql, part);
            there = sql.statement().execute(&mut *transaction).await?.rows_affected() > 0;
        }
        transaction.commit().await.map_err(StoreError::Unsure)?;
        if there && self.kind() == Database::Sqlite {
            clean(&mut connection, Database::Sqlite).await;
        }
        Ok(there)
    }

    /// Has PostgreSQL let go of the keys of what was deleted.
    pub(crate) async fn let_go(&self) -> Result<(), StoreError> {
        let mut connection = self.write().acquire().await?;
        clean(&mut connection, self.kind()).await;
        Ok(())
    }

    /// Whoever makes a response says that they live; whether somebody asks them to stop. `None`:
    /// it was deleted.
    pub(crate) async fn still_making(
        &self,
        tenant: &Tenant,
        id: &str,
        lost_at: Millis,
    ) -> Result<Option<bool>, StoreError> {
        // One that has come to its end meanwhile stays whole.
        let set = "UPDATE kept SET lost_at = CASE WHEN lost_at = 0 THEN lost_at ELSE ";
        let mut sql = Sql::of(set.to_owned());
        sql.number(lost_at).push(" END WHERE ");
        mine(&mut sql, tenant);
        narrow(&mut sql, (Kind::Response, "", id));
        let row = sql.push(" RETURNING stop").statement().fetch_optional(self.write()).await?;
        Ok(row.map(|row| row.try_get::<i64, _>("stop")).transpose()?.map(|stop| stop != 0))
    }

    /// Asks whoever makes a response to stop.
    pub(crate) async fn stop_making(&self, tenant: &Tenant, id: &str) -> Result<(), StoreError> {
        let mut sql = Sql::of("UPDATE kept SET stop = 1 WHERE ".to_owned());
        mine(&mut sql, tenant);
        narrow(&mut sql, (Kind::Response, "", id));
        sql.statement().execute(self.write()).await?;
        Ok(())
    }
}

fn columns() -> String {
    let columns: Vec<String> = KEPT.iter().map(|name| format!("kept.{name} AS {name}")).collect();
    format!("{}, COALESCE(body_keys.sealed, '') AS sealed", columns.join(", "))
}

fn selected(tenant: &Tenant, now: Millis) -> Sql {
    let mut sql = Sql::of(format!(
        "SELECT {} FROM kept LEFT JOIN body_keys \
         ON body_keys.operation = kept.row_id AND body_keys.attempt = 0 WHERE kept.expires > ",
        columns()
    ));
    sql.number(now).push(" AND ");
    mine(&mut sql, tenant);
    sql
}

/// Of this project and of no other.
fn mine(sql: &mut Sql, tenant: &Tenant) {
    sql.push("kept.organisation = ").text(tenant.organisation.as_str());
    sql.push(" AND kept.project = ").text(tenant.project.as_str());
}

/// An item or a part without a name: all of its conversation, or of its response.
fn narrow(sql: &mut Sql, (kind, whole, id): Name<'_>) {
    sql.push(" AND kept.kind = ").text(kind.name());
    let is_inside = matches!(kind, Kind::Item | Kind::Part);
    if is_inside {
        sql.push(" AND kept.parent = ").text(whole);
    }
    if !is_inside || !id.is_empty() {
        sql.push(" AND kept.id = ").text(id);
    }
}

async fn named(
    connection: &mut AnyConnection,
    tenant: &Tenant,
    name: Name<'_>,
) -> Result<Option<AnyRow>, StoreError> {
    let mut sql = Sql::of("SELECT row_id FROM kept WHERE ".to_owned());
    mine(&mut sql, tenant);
    narrow(&mut sql, name);
    Ok(sql.statement().fetch_optional(connection).await?)
}

/// Makes room at the end of a conversation, whose label becomes no lower than that of what comes;
/// where the first of them stands. Two that do so at once wait for each other.
async fn lengthen(
    connection: &mut AnyConnection,
    tenant: &Tenant,
    (conversation, count): (&str, i64),
    (label, expires): (Option<Label>, Millis),
) -> Result<i64, KeptError> {
    let mut sql = Sql::of("UPDATE kept SET place = place + ".to_owned());
    sql.number(count).push(", expires = ").number(expires).push(" WHERE ");
    mine(&mut sql, tenant);
    narrow(&mut sql, (Kind::Conversation, "", conversation));
    let sql = sql.push(" RETURNING row_id, place, label");
    let row = sql.statement().fetch_optional(&mut *connection).await?;
    let row = row.ok_or_else(|| KeptError::Missing(conversation.to_owned()))?;
    let (row_id, place, own) =
        (text(&row, "row_id")?, row.try_get::<i64, _>("place")?, self::label(&row)?);
    let joined = label.unwrap_or(own).join(own);
    sqlx::query("UPDATE kept SET label = $1 WHERE row_id = $2")
        .bind(joined.name())
        .bind(&row_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE body_keys SET expires = $1 WHERE operation = $2 AND attempt = $3")
        .bind(expires)
        .bind(&row_id)
        .bind(ATTEMPT)
        .execute(connection)
        .await?;
    Ok(place - count)
}

async fn insert(
    kind: Database,
    connection: &mut AnyConnection,
    tenant: &Tenant,
    (row, place): (&Row, i64),
) -> Result<(), StoreError> {
    let into = |table: &str, columns: &[&str]| {
        let (names, places) = (columns.join(", "), kind.rows(1, columns.len()));
        format!("INSERT INTO {table} ({names}) VALUES {places}")
    };
    let Row { row_id, sheet, expires, content, sealed } = row;
    sqlx::query(AssertSqlSafe(into("kept", KEPT)))
        .bind(row_id)
        .bind(sheet.kind.name())
        .bind(&sheet.id)
        .bind(tenant.organisation.as_str())
        .bind(tenant.project.as_str())
        .bind(&tenant.user)
        .bind(&sheet.parent)
        .bind(place)
        .bind(sheet.label.name())
        .bind(sheet.at)
        .bind(expires)
        .bind(sheet.lost_at)
        .bind(0_i64)
        .bind(content)
        .execute(&mut *connection)
        .await?;
    sqlx::query(AssertSqlSafe(into("body_keys", BODY_KEYS)))
        .bind(row_id)
        .bind(ATTEMPT)
        .bind(tenant.organisation.as_str())
        .bind(&tenant.user)
        .bind(sheet.at)
        .bind(expires)
        .bind(sealed)
        .execute(connection)
        .await?;
    Ok(())
}

fn text(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

fn label(row: &AnyRow) -> Result<Label, StoreError> {
    let name = text(row, "label")?;
    let wrong = |_| StoreError::Content(format!("something kept with label {name:?}"));
    name.parse().map_err(wrong)
}

fn read(row: &AnyRow) -> Result<Row, StoreError> {
    let kind = text(row, "kind")?;
    let wrong = || StoreError::Content(format!("something kept of kind {kind:?}"));
    Ok(Row {
        row_id: text(row, "row_id")?,
        sheet: Sheet {
            kind: Kind::of(&kind).ok_or_else(wrong)?,
            id: text(row, "id")?,
            parent: text(row, "parent")?,
            place: row.try_get("place")?,
            label: label(row)?,
            at: row.try_get("at")?,
            lost_at: row.try_get("lost_at")?,
            content: Secret::new(Vec::new()),
        },
        expires: row.try_get("expires")?,
        content: text(row, "content")?,
        sealed: text(row, "sealed")?,
    })
}
