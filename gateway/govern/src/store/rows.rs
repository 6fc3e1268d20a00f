//! Adding rows to the ledger, its sums and the audit: most of what is ever written. What a row
//! holds is said once, for the driver of any database and for SQLite's own ([`super::lite`]).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sqlx::any::AnyArguments;
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe};

use super::batch::{DAY_MS, QUARTER_MS, pieces};
use super::columns::{AUDIT, DAYS, LEDGER, QUARTERS, QUARTERS_ABOUT};
use super::{Kind, StoreError};
use crate::audit::Record;
use crate::ledger::Entry;

/// A connection, and to which kind of database.
pub(super) struct Through<'c> {
    pub(super) connection: &'c mut AnyConnection,
    pub(super) kind: Kind,
}

/// What stands in the places of a statement, in their order.
pub(super) trait Values {
    fn text(&mut self, text: &str);
    fn number(&mut self, number: i64);

    fn count(&mut self, count: u64) {
        self.number(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Why no value can be refused.
const PLAIN: &str = "texts and numbers are values of every database";

impl Values for AnyArguments {
    fn text(&mut self, text: &str) {
        self.add(text.to_owned()).expect(PLAIN);
    }

    fn number(&mut self, number: i64) {
        self.add(number).expect(PLAIN);
    }
}

impl Through<'_> {
    /// How many rows a statement has added or changed.
    async fn execute(
        &mut self,
        sql: String,
        fill: impl Fn(&mut AnyArguments),
    ) -> Result<u64, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(sql), filled(fill));
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    /// What a statement finds or returns.
    async fn fetch(
        &mut self,
        sql: String,
        fill: impl Fn(&mut AnyArguments),
    ) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let query = sqlx::query_as_with(AssertSqlSafe(sql), filled(fill));
        query.fetch_all(&mut *self.connection).await
    }
}

fn filled(fill: impl Fn(&mut AnyArguments)) -> AnyArguments {
    let mut values = AnyArguments::default();
    fill(&mut values);
    values
}

/// The statement that adds entries which are not there yet.
pub(super) fn entries_sql(kind: Kind, entries: usize) -> String {
    format!(
        "INSERT INTO ledger ({}) VALUES {} ON CONFLICT (operation, attempt) DO NOTHING",
        LEDGER.join(", "),
        kind.rows(entries, LEDGER.len())
    )
}

/// The statement that adds records which are not there yet.
pub(super) fn records_sql(kind: Kind, records: usize) -> String {
    format!(
        "INSERT INTO audit ({}) VALUES {} ON CONFLICT (chain, number) DO NOTHING",
        AUDIT.join(", "),
        kind.rows(records, AUDIT.len())
    )
}

/// What is known of entries that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// They are not there yet.
    New,
    /// Some may be: the database tells which are not.
    Told,
}

/// Adds what is not there yet, and says what that was; `None` where not all is new though it is
/// meant to be.
pub(super) async fn insert_entries<'e>(
    through: &mut Through<'_>,
    entries: &'e [Arc<Entry>],
    are: Entries,
) -> Result<Option<Vec<&'e Entry>>, StoreError> {
    let sql = entries_sql(through.kind, entries.len());
    let fill = |values: &mut AnyArguments| {
        entries.iter().for_each(|entry| fill_entry(values, entry));
    };
    if are == Entries::New {
        let added = through.execute(sql, fill).await?;
        let all = usize::try_from(added) == Ok(entries.len());
        return Ok(all.then(|| entries.iter().map(Arc::as_ref).collect()));
    }
    let added = through.fetch(format!("{sql} RETURNING operation, attempt"), fill).await?;
    let mut new: HashSet<_> = added.into_iter().collect();
    // Taken out, so that a line that stands twice in a batch is counted once.
    let mut is_new = |entry: &&Entry| new.remove(&(entry.operation.to_string(), entry.attempt));
    Ok(Some(entries.iter().map(Arc::as_ref).filter(|entry| is_new(entry)).collect()))
}

/// In the order of [`LEDGER`].
pub(super) fn fill_entry(values: &mut impl Values, entry: &Entry) {
    values.text(entry.operation.as_str());
    values.number(entry.attempt);
    values.text(&entry.gateway);
    values.number(entry.admitted_at);
    values.number(entry.settled_at);
    values.text(&entry.organisation);
    values.text(&entry.team);
    values.text(&entry.project);
    values.text(&entry.user);
    values.text(&entry.key);
    values.text(&entry.model);
    values.text(&entry.backend);
    values.text(&entry.surface);
    values.text(entry.label.name());
    values.text(&entry.price);
    values.count(entry.tokens.input);
    values.count(entry.tokens.cache_read);
    values.count(entry.tokens.cache_write);
    values.count(entry.tokens.output);
    values.count(entry.tokens.reasoning);
    values.number(entry.cost.0);
    values.text(entry.outcome.name());
    values.text(&entry.request_id);
    values.text(&entry.source);
    values.number(entry.first_token_ms);
    values.number(entry.duration_ms);
    values.count(entry.device_us);
    values.text(entry.service_tier.name());
    values.text(&entry.arm);
}

/// The tables of sums, and the stretches that they sum over.
const SUMS: [(&str, &[&str], i64); 2] =
    [("quarters", QUARTERS, QUARTER_MS), ("days", DAYS, DAY_MS)];

/// What a row of the sums is about: the start of a stretch, and whose spending.
type About<'e> = (i64, [&'e str; 7]);

fn sums<'e>(entries: &[&'e Entry], stretch_ms: i64) -> BTreeMap<About<'e>, [i64; 5]> {
    let mut sums = BTreeMap::<_, [i64; 5]>::new();
    for entry in entries {
        let start = entry.admitted_at.div_euclid(stretch_ms) * stretch_ms;
        let about = [
            &*entry.organisation,
            &entry.team,
            &entry.project,
            &entry.user,
            &entry.key,
            &entry.model,
            entry.label.name(),
        ];
        let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        let tokens = entry.tokens;
        let numbers =
            [1, count(tokens.input), count(tokens.cache_read), count(tokens.output), entry.cost.0];
        let sum = sums.entry((start, about)).or_default();
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
    }
    sums
}

/// What is added to the sums for entries, and by which statement for so many rows of it.
pub(super) struct Sums<'e> {
    rows: Vec<(About<'e>, [i64; 5])>,
    table: &'static str,
    columns: &'static [&'static str],
}

impl<'e> Sums<'e> {
    /// Of every table of sums.
    pub(super) fn of(entries: &[&'e Entry]) -> impl Iterator<Item = Self> {
        SUMS.into_iter().map(|(table, columns, stretch_ms)| Self {
            rows: sums(entries, stretch_ms).into_iter().collect(),
            table,
            columns,
        })
    }

    pub(super) fn sql(&self, kind: Kind, rows: usize) -> String {
        let Self { table, columns, .. } = self;
        let (about, numbers) = columns.split_at(QUARTERS_ABOUT);
        let add = |name: &&str| format!("{name} = {table}.{name} + excluded.{name}");
        format!(
            "INSERT INTO {table} ({}) VALUES {} ON CONFLICT ({}) DO UPDATE SET {}",
            columns.join(", "),
            kind.rows(rows, columns.len()),
            about.join(", "),
            numbers.iter().map(add).collect::<Vec<_>>().join(", ")
        )
    }

    pub(super) fn rows(&self) -> &[(About<'e>, [i64; 5])] {
        &self.rows
    }
}

pub(super) fn fill_sum(values: &mut impl Values, row: &(About<'_>, [i64; 5])) {
    let ((start, about), numbers) = row;
    values.number(*start);
    about.iter().for_each(|text| values.text(text));
    numbers.iter().for_each(|number| values.number(*number));
}

/// Adds entries to the sums.
pub(super) async fn insert_sums(
    through: &mut Through<'_>,
    entries: &[&Entry],
) -> Result<(), StoreError> {
    let kind = through.kind;
    for sums in Sums::of(entries) {
        for rows in pieces(sums.rows(), kind) {
            let fill =
                |values: &mut AnyArguments| rows.iter().for_each(|row| fill_sum(values, row));
            through.execute(sums.sql(kind, rows.len()), fill).await?;
        }
    }
    Ok(())
}

/// In the order of [`AUDIT`].
pub(super) fn fill_record(values: &mut impl Values, record: &Record) {
    values.text(&record.chain);
    values.number(record.number);
    values.number(record.at);
    values.text(&record.kind);
    values.text(&record.organisation);
    values.text(&record.body);
    values.text(&record.previous);
    values.text(&record.hash);
}

/// Adds records; those that are there already must be the same.
pub(super) async fn insert_records(
    through: &mut Through<'_>,
    records: &[Record],
) -> Result<(), StoreError> {
    let fill = |values: &mut AnyArguments| {
        records.iter().for_each(|record| fill_record(values, record));
    };
    let written = through.execute(records_sql(through.kind, records.len()), fill).await?;
    if usize::try_from(written) == Ok(records.len()) {
        return Ok(());
    }
    for record in records {
        let sql = "SELECT hash, number FROM audit WHERE chain = $1 AND number = $2";
        let fill = |values: &mut AnyArguments| {
            values.text(&record.chain);
            values.number(record.number);
        };
        let there = through.fetch(sql.to_owned(), fill).await?;
        if there.iter().all(|(hash, _)| *hash != record.hash) {
            let Record { chain, number, .. } = record;
            let why = format!(
                "record {number} of the audit chain {chain} is not ours; two \
                               gateways must not have one name"
            );
            return Err(StoreError::Content(why));
        }
    }
    Ok(())
}
