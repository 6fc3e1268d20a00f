//! Sums of usage.

use std::cmp::Reverse;
use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::buckets::{Stretch, stretches};
use super::pieces::{Piece, Pieces};
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
    check(query)?;
    let zone = zone(&query.time_zone).map_err(ReportError::Zone)?;
    let stretches = match query.bucket {
        Some(bucket) => stretches(bucket, query.from, query.to, &zone)?,
        None => vec![Stretch { start: query.from, from: query.from, to: query.to }],
    };
    let Pieces { days, quarters } = Pieces::of(&stretches);
    let tables = [("days", "day", days), ("quarters", "quarter", quarters)];
    let tables = tables.into_iter().filter(|(_, _, pieces)| !pieces.is_empty());
    let tables: Vec<(&str, &str, Vec<Piece>)> = tables.collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let mut columns: Vec<&str> = query.group_by.iter().map(|by| by.column()).collect();
    columns.extend(query.bucket.map(|_| "start_at"));
    let mut sql = Sql::default();
    let mut word = "WITH ";
    for (table, _, pieces) in &tables {
        sql.push(word).push(table).push("_pieces (start_at, from_at, to_at, sign) AS (VALUES ");
        sql.push(&pieces.iter().map(value).collect::<Vec<_>>().join(", ")).push(")");
        word = ", ";
    }
    select(&mut sql, &columns, "");
    word = " FROM (";
    for (table, time, _) in &tables {
        sql.push(word);
        select(&mut sql, &columns, " * sign");
        // SQLite takes the tables of a cross join in their order: sums are found by piece.
        sql.push(&format!(" FROM {table}_pieces CROSS JOIN {table}"));
        sql.push(&format!(" WHERE {time} >= from_at AND {time} < to_at"));
        sql.filters(query.organisation.as_ref(), &query.filters)?;
        group(&mut sql, &columns);
        word = " UNION ALL ";
    }
    sql.push(") AS parts");
    group(&mut sql, &columns);
    // Where all of a sum was taken off again there was nothing, and a sum over nothing is a row.
    sql.push(&format!(" HAVING SUM(requests) > 0 LIMIT {}", ROWS_MAX + 1));
    Ok(Some(sql))
}

fn check(query: &Query) -> Result<(), ReportError> {
    for (name, time) in [("from", query.from), ("to", query.to)] {
        if time.rem_euclid(QUARTER_MS) != 0 {
            return Err(ReportError::Quarter(name));
        }
    }
    if query.from < 0 || query.to < query.from || query.to > TO_MAX {
        return Err(ReportError::Range);
    }
    let mut seen = HashSet::new();
    match query.group_by.iter().find(|dimension| !seen.insert(**dimension)) {
        Some(twice) => Err(ReportError::Twice(*twice)),
        None => Ok(()),
    }
}

fn value(Piece { start, from, to, sign }: &Piece) -> String {
    format!("({start}, {from}, {to}, {sign})")
}

const NUMBERS: [&str; 5] =
    ["requests", "input_tokens", "cache_read_tokens", "output_tokens", "cost_nano_usd"];

/// The columns, and the sums of the numbers times something.
fn select(sql: &mut Sql, columns: &[&str], times: &str) {
    sql.push(" SELECT ");
    for column in columns {
        match *column {
            "start_at" => sql.push("CAST(start_at AS BIGINT) AS start_at, "),
            other => sql.push(other).push(", "),
        };
    }
    let sums = NUMBERS.map(|name| format!("CAST(SUM({name}{times}) AS BIGINT) AS {name}"));
    sql.push(&sums.join(", "));
}

fn group(sql: &mut Sql, columns: &[&str]) {
    if !columns.is_empty() {
        sql.push(" GROUP BY ").push(&columns.join(", "));
    }
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
