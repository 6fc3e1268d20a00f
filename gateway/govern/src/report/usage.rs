//! Sums of usage.

use std::cmp::Reverse;
use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::buckets::stretches;
use super::{Bucket, Dimension, ROWS_MAX, ReportError, Sql};
use crate::budget::window::zone;
use crate::store::Store;
use crate::store::batch::QUARTER_MS;
use crate::{Id, Millis, Money};

/// The last time that a report may reach: 9999-01-01.
const TO_MAX: Millis = 253_370_764_800_000;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this one's; `None`: everybody's.
    pub organisation: Option<Id>,
    /// Values of one dimension ask for any of them, different dimensions for all.
    pub filters: Vec<(Dimension, String)>,
    /// What rows are told apart by; none: one row.
    pub group_by: Vec<Dimension>,
    /// The first millisecond; falls on a quarter of an hour.
    pub from: Millis,
    /// The first millisecond after it; falls on a quarter of an hour.
    pub to: Millis,
    /// The stretches that rows are cut into; `None`: the whole range is one.
    pub bucket: Option<Bucket>,
    /// IANA name of the zone whose calendar the stretches follow.
    pub time_zone: String,
}

/// What was used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Values of the dimensions, in the order of [`Query::group_by`].
    pub about: Vec<String>,
    /// When its stretch of the calendar begins, which may lie before the range does. `None`: no
    /// stretches were asked for.
    pub start: Option<Millis>,
    /// Attempts to serve a request.
    pub requests: i64,
    /// Tokens of prompts, those from a cache among them.
    pub input_tokens: i64,
    /// Of these, read from a cache.
    pub cache_read_tokens: i64,
    /// Tokens of answers.
    pub output_tokens: i64,
    /// Nano-dollars.
    pub cost: Money,
}

/// Sums usage: by stretch, in a stretch the dearest first. Where nothing was used there is no row.
///
/// # Errors
/// The query cannot be answered, or the database fails.
pub async fn usage(store: &Store, query: &Query) -> Result<Vec<Row>, ReportError> {
    let Some(sql) = statement(query)? else { return Ok(Vec::new()) };
    let rows = sql.statement().fetch_all(store.read()).await?;
    if rows.len() > ROWS_MAX {
        return Err(ReportError::Rows);
    }
    let read = |row| read(row, query.group_by.len(), query.bucket.is_some());
    let mut rows = rows.iter().map(read).collect::<Result<Vec<Row>, sqlx::Error>>()?;
    // Here, because databases do not agree on the order of texts.
    rows.sort_by(|a, b| {
        (a.start, Reverse(a.cost), &a.about).cmp(&(b.start, Reverse(b.cost), &b.about))
    });
    Ok(rows)
}

/// `None`: the range is empty. Stretches go into the statement, so that the database hands out a
/// row for each sum instead of one for each quarter.
fn statement(query: &Query) -> Result<Option<Sql>, ReportError> {
    for (name, time) in [("from", query.from), ("to", query.to)] {
        if time.rem_euclid(QUARTER_MS) != 0 {
            return Err(ReportError::Quarter(name));
        }
    }
    if query.from < 0 || query.to < query.from || query.to > TO_MAX {
        return Err(ReportError::Range);
    }
    let mut seen = HashSet::new();
    if let Some(twice) = query.group_by.iter().find(|dimension| !seen.insert(**dimension)) {
        return Err(ReportError::Twice(*twice));
    }
    let zone = zone(&query.time_zone).map_err(ReportError::Zone)?;
    let mut columns: Vec<&str> = query.group_by.iter().map(|by| by.column()).collect();
    let mut sql = Sql::default();
    let mut tables = "quarters";
    if let Some(bucket) = query.bucket {
        let all = stretches(bucket, query.from, query.to, &zone)?;
        let value = |part: &super::buckets::Stretch| {
            format!("({}, {}, {})", part.start, part.from, part.to)
        };
        let values: Vec<String> = all.iter().map(value).collect();
        sql.push("WITH stretches (start_at, from_at, to_at) AS (VALUES ");
        sql.push(&values.join(", ")).push(") ");
        // SQLite takes the tables of a cross join in their order: quarters are found by stretch.
        tables = "stretches CROSS JOIN quarters";
        columns.push("CAST(start_at AS BIGINT)");
    }
    if query.from == query.to {
        return Ok(None);
    }
    sql.push("SELECT ");
    for column in &columns {
        sql.push(column).push(", ");
    }
    let sums = ["requests", "input_tokens", "cache_read_tokens", "output_tokens", "cost_nano_usd"]
        .map(|number| format!("CAST(SUM({number}) AS BIGINT)"));
    sql.push(&sums.join(", ")).push(" FROM ").push(tables);
    if query.bucket.is_some() {
        sql.push(" WHERE quarter >= from_at AND quarter < to_at");
    } else {
        sql.push(" WHERE quarter >= ").number(query.from);
        sql.push(" AND quarter < ").number(query.to);
    }
    sql.filters(query.organisation.as_ref(), &query.filters)?;
    if !columns.is_empty() {
        sql.push(" GROUP BY ").push(&columns.join(", "));
    }
    // A sum over nothing would be a row.
    sql.push(&format!(" HAVING COUNT(*) > 0 LIMIT {}", ROWS_MAX + 1));
    Ok(Some(sql))
}

fn read(row: &AnyRow, dimensions: usize, has_start: bool) -> Result<Row, sqlx::Error> {
    let about = (0..dimensions).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
    let start = if has_start { Some(row.try_get(dimensions)?) } else { None };
    let number = |at: usize| row.try_get(dimensions + usize::from(has_start) + at);
    Ok(Row {
        about,
        start,
        requests: number(0)?,
        input_tokens: number(1)?,
        cache_read_tokens: number(2)?,
        output_tokens: number(3)?,
        cost: Money(number(4)?),
    })
}
