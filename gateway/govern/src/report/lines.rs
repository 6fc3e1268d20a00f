//! Single lines of the ledger and of the audit, page by page.

use std::ops::ControlFlow;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Cursor, Dimension, LIMIT_MAX, ReportError, Sql};
use crate::audit::Record;
use crate::ledger::{Entry, Outcome, ServiceTier, Tokens};
use crate::store::batch::record;
use crate::store::columns::{AUDIT, LEDGER};
use crate::store::{Store, StoreError};
use crate::{Id, Millis, Money};

/// Records read at a time when a whole chain is.
const CHAIN_PAGE: i64 = 1000;

/// Which lines of the ledger are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryQuery {
    /// Only this one's; `None`: everybody's.
    pub organisation: Option<Id>,
    /// Values of one dimension ask for any of them, different dimensions for all.
    pub filters: Vec<(Dimension, String)>,
    /// Admitted then or later; milliseconds since 1970.
    pub from: Millis,
    /// Admitted before; milliseconds since 1970.
    pub to: Millis,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Lines of a page, from 1 to [`LIMIT_MAX`].
    pub limit: u32,
}

/// Which records of the audit are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordQuery {
    /// Only this one's; `None`: everybody's, and the deployment's own.
    pub organisation: Option<Id>,
    /// Only records of this kind.
    pub kind: Option<String>,
    /// Made then or later; milliseconds since 1970.
    pub from: Millis,
    /// Made before; milliseconds since 1970.
    pub to: Millis,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Records of a page, from 1 to [`LIMIT_MAX`].
    pub limit: u32,
}

/// Lines of the ledger, the newest first, and where the next page begins; `None`: there is none.
///
/// # Errors
/// The query cannot be answered, or the database fails.
pub async fn entries(
    store: &Store,
    query: &EntryQuery,
) -> Result<(Vec<Entry>, Option<Cursor>), ReportError> {
    let mut sql = Sql::of(format!("SELECT {} FROM ledger", LEDGER.join(", ")));
    range(&mut sql, "admitted_at", query.from, query.to);
    sql.filters(query.organisation.as_ref(), &query.filters)?;
    let order = ["admitted_at", "operation", "attempt"];
    page(&mut sql, order, query.after.as_ref(), query.limit)?;
    let rows = sql.statement().fetch_all(store.read()).await?;
    let all = rows.iter().map(entry).collect::<Result<Vec<Entry>, StoreError>>()?;
    Ok(cut(all, query.limit, |last| Cursor {
        time: last.admitted_at,
        name: last.operation.to_string(),
        number: last.attempt,
    }))
}

/// Records of the audit of all chains, the newest first, and where the next page begins; `None`:
/// there is none.
///
/// # Errors
/// The query cannot be answered, or the database fails.
pub async fn records(
    store: &Store,
    query: &RecordQuery,
) -> Result<(Vec<Record>, Option<Cursor>), ReportError> {
    let mut sql = Sql::of(format!("SELECT {} FROM audit", AUDIT.join(", ")));
    range(&mut sql, "at", query.from, query.to);
    sql.filters(query.organisation.as_ref(), &[])?;
    if let Some(kind) = &query.kind {
        sql.push(" AND kind = ").text(kind);
    }
    page(&mut sql, ["at", "chain", "number"], query.after.as_ref(), query.limit)?;
    let rows = sql.statement().fetch_all(store.read()).await?;
    let all = rows.iter().map(record).collect::<Result<Vec<Record>, StoreError>>()?;
    Ok(cut(all, query.limit, |last| Cursor {
        time: last.at,
        name: last.chain.clone(),
        number: last.number,
    }))
}

/// The chains that there are: one for each gateway that ever wrote.
///
/// # Errors
/// The database fails.
pub async fn chains(store: &Store) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query("SELECT chain FROM audit GROUP BY chain ORDER BY chain")
        .fetch_all(store.read())
        .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Reads a chain from its first record on, in the order of its numbers, with as little memory as a
/// page takes, until there is no more or `take` breaks off; returns what it broke off with.
///
/// # Errors
/// The database fails.
pub async fn stream_chain<B>(
    store: &Store,
    chain: &str,
    mut take: impl FnMut(Record) -> ControlFlow<B>,
) -> Result<Option<B>, StoreError> {
    let sql = format!(
        "SELECT {} FROM audit WHERE chain = $1 AND number > $2 ORDER BY number LIMIT {CHAIN_PAGE}",
        AUDIT.join(", ")
    );
    // Numbers begin at 1, but whoever forges a record may write others.
    let mut last = i64::MIN;
    loop {
        let statement = sqlx::query(sqlx::AssertSqlSafe(sql.as_str())).bind(chain).bind(last);
        let rows = statement.fetch_all(store.read()).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        for row in &rows {
            let record = record(row)?;
            last = record.number;
            if let ControlFlow::Break(with) = take(record) {
                return Ok(Some(with));
            }
        }
    }
}

fn range(sql: &mut Sql, time: &str, from: Millis, to: Millis) {
    sql.push(&format!(" WHERE {time} >= ")).number(from);
    sql.push(&format!(" AND {time} < ")).number(to);
}

/// One line more than the page holds, to know whether there is another page.
pub(crate) fn page(
    sql: &mut Sql,
    order: [&str; 3],
    after: Option<&Cursor>,
    limit: u32,
) -> Result<(), ReportError> {
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ReportError::Limit);
    }
    if let Some(Cursor { time, name, number }) = after {
        sql.push(&format!(" AND ({}) < (", order.join(", ")));
        sql.number(*time).push(", ").text(name).push(", ").number(*number).push(")");
    }
    let [time, name, number] = order;
    sql.push(&format!(" ORDER BY {time} DESC, {name} DESC, {number} DESC LIMIT {}", limit + 1));
    Ok(())
}

pub(crate) fn cut<T>(
    mut all: Vec<T>,
    limit: u32,
    cursor: impl Fn(&T) -> Cursor,
) -> (Vec<T>, Option<Cursor>) {
    let limit = limit as usize;
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(cursor);
    (all, next)
}

fn entry(row: &AnyRow) -> Result<Entry, StoreError> {
    let wrong = |what: String| StoreError::Content(format!("a line of the ledger with {what}"));
    let text = |column: &str| row.try_get::<String, _>(column);
    let shared = |column: &str| text(column).map(Arc::<str>::from);
    let count = |column: &str| {
        let number: i64 = row.try_get(column)?;
        u64::try_from(number).map_err(|_| wrong(format!("{number} {column}")))
    };
    let (operation, label, outcome) = (text("operation")?, text("label")?, text("outcome")?);
    let known = Outcome::ALL.into_iter().find(|known| known.name() == outcome);
    let tier = text("service_tier")?;
    let served = ServiceTier::ALL.into_iter().find(|served| served.name() == tier);
    Ok(Entry {
        operation: Id::of(&operation).ok_or_else(|| wrong(format!("operation {operation:?}")))?,
        attempt: row.try_get("attempt")?,
        gateway: shared("gateway")?,
        admitted_at: row.try_get("admitted_at")?,
        settled_at: row.try_get("settled_at")?,
        organisation: shared("organisation")?,
        team: shared("team")?,
        project: shared("project")?,
        user: shared("user_id")?,
        key: shared("key_id")?,
        model: shared("model")?,
        backend: shared("backend")?,
        surface: shared("surface")?,
        label: label.parse().map_err(|_| wrong(format!("label {label:?}")))?,
        price: shared("price")?,
        tokens: Tokens {
            input: count("input_tokens")?,
            cache_read: count("cache_read_tokens")?,
            cache_write: count("cache_write_tokens")?,
            output: count("output_tokens")?,
            reasoning: count("reasoning_tokens")?,
        },
        cost: Money(row.try_get("cost_nano_usd")?),
        outcome: known.ok_or_else(|| wrong(format!("outcome {outcome:?}")))?,
        request_id: shared("request_id")?,
        source: shared("source")?,
        first_token_ms: row.try_get("first_token_ms")?,
        duration_ms: row.try_get("duration_ms")?,
        device_us: count("device_us")?,
        service_tier: served.ok_or_else(|| wrong(format!("service tier {tier:?}")))?,
        arm: shared("arm")?,
    })
}
