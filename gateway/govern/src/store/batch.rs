//! What the writer commits together: entries of the ledger, their sums, records of the audit.
//! Writing a batch twice writes it once, so a commit whose answer was lost is simply tried again.

use std::collections::{BTreeMap, HashSet};

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::{Kind, Store, StoreError, documents};
use crate::Scope;
use crate::audit::Record;
use crate::budget::window::Window;
use crate::ledger::Entry;
use crate::{Id, Millis, Money};

/// Milliseconds of a quarter of an hour.
pub const QUARTER_MS: i64 = 15 * 60 * 1000;

/// Rows in one statement: SQLite takes 32,766 parameters, PostgreSQL twice that.
const ROWS_MAX: usize = 512;

type Bound<'q> = Query<'q, Any, AnyArguments>;

/// What is written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) records: Vec<Record>,
    pub(crate) edits: Vec<documents::Edit>,
}

impl Store {
    /// Writes a batch, all of it or nothing.
    pub(crate) async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut transaction = self.write().begin().await?;
        documents::write(&mut transaction, &batch.edits).await?;
        let mut new = Vec::with_capacity(batch.entries.len());
        for entries in pieces(&batch.entries) {
            new.extend(insert_entries(&mut transaction, self.kind(), entries).await?);
        }
        let sums: Vec<_> = sums(&new).into_iter().collect();
        for sums in pieces(&sums) {
            insert_sums(&mut transaction, self.kind(), sums).await?;
        }
        for records in pieces(&batch.records) {
            insert_records(&mut transaction, self.kind(), records).await?;
        }
        transaction.commit().await.map_err(StoreError::Unsure)
    }

    /// What was spent in a scope on models of a pattern in a window.
    ///
    /// # Errors
    /// The database fails.
    pub async fn spent(
        &self,
        scope: &Scope,
        model: Option<&str>,
        window: Window,
    ) -> Result<Money, StoreError> {
        let (column, id) = match scope {
            Scope::Everything => ("''", ""),
            Scope::Organisation(id) => ("organisation", id.as_str()),
            Scope::Team(id) => ("team", id.as_str()),
            Scope::Project(id) => ("project", id.as_str()),
            Scope::User(id) => ("user_id", id.as_str()),
            Scope::Key(id) => ("key_id", id.as_str()),
        };
        let sql = format!(
            "SELECT model, CAST(SUM(cost_nano_usd) AS BIGINT) AS cost FROM quarters \
             WHERE {column} = $1 AND quarter >= $2 AND quarter < $3 GROUP BY model"
        );
        let end = window.end.unwrap_or(i64::MAX);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(window.start).bind(end);
        let rows = query.fetch_all(self.write()).await?;
        let mut sum = Money::ZERO;
        for row in &rows {
            let name: String = row.try_get("model")?;
            if model.is_none_or(|pattern| crate::policy::pattern::matches(pattern, &name)) {
                sum = sum.plus(Money(row.try_get("cost")?));
            }
        }
        Ok(sum)
    }

    /// The latest quarter of an hour that anything was booked in; `i64::MIN` where nothing was.
    pub(crate) async fn latest(&self) -> Result<Millis, StoreError> {
        let row = sqlx::query("SELECT MAX(quarter) FROM quarters").fetch_one(self.write()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(Millis::MIN))
    }

    /// Which operations of these entries are in the ledger.
    pub(crate) async fn written(
        &self,
        entries: impl Iterator<Item = &Entry>,
    ) -> Result<HashSet<Id>, StoreError> {
        let ids: Vec<&Id> = entries.map(|entry| &entry.operation).collect();
        let mut written = HashSet::new();
        for ids in ids.chunks(ROWS_MAX) {
            let places = self.kind().rows(1, ids.len());
            let sql = format!("SELECT operation FROM ledger WHERE operation IN {places}");
            let query = ids
                .iter()
                .fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id.as_str()));
            for row in query.fetch_all(self.write()).await? {
                written.extend(Id::of(&row.try_get::<String, _>(0)?));
            }
        }
        Ok(written)
    }

    /// The last record of a chain.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_record(&self, chain: &str) -> Result<Option<Record>, StoreError> {
        let sql = "SELECT chain, number, at, kind, organisation, body, previous, hash FROM audit \
                   WHERE chain = $1 ORDER BY number DESC LIMIT 1";
        let row = sqlx::query(sql).bind(chain).fetch_optional(self.write()).await?;
        row.as_ref().map(record).transpose()
    }
}

/// Rows in lots of 512, 256, 128 ... 1: so few statements differ that all of them stay prepared.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let most = rows.len().checked_ilog2()?;
        let (piece, rest) = rows.split_at((1 << most).min(ROWS_MAX));
        rows = rest;
        Some(piece)
    })
}

/// A row of the audit.
pub(crate) fn record(row: &AnyRow) -> Result<Record, StoreError> {
    Ok(Record {
        chain: row.try_get("chain")?,
        number: row.try_get("number")?,
        at: row.try_get("at")?,
        kind: row.try_get("kind")?,
        organisation: row.try_get("organisation")?,
        body: row.try_get("body")?,
        previous: row.try_get("previous")?,
        hash: row.try_get("hash")?,
    })
}

/// Columns of the ledger, in the order of [`bind_entry`].
pub(crate) const LEDGER: &[&str] = &[
    "operation",
    "attempt",
    "gateway",
    "admitted_at",
    "settled_at",
    "organisation",
    "team",
    "project",
    "user_id",
    "key_id",
    "model",
    "backend",
    "surface",
    "label",
    "price",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "outcome",
    "request_id",
    "source",
    "first_token_ms",
    "duration_ms",
];

fn bind_entry<'q>(query: Bound<'q>, entry: &'q Entry) -> Bound<'q> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    query
        .bind(entry.operation.as_str())
        .bind(entry.attempt)
        .bind(&entry.gateway)
        .bind(entry.admitted_at)
        .bind(entry.settled_at)
        .bind(&entry.organisation)
        .bind(&entry.team)
        .bind(&entry.project)
        .bind(&entry.user)
        .bind(&entry.key)
        .bind(&entry.model)
        .bind(&entry.backend)
        .bind(&entry.surface)
        .bind(entry.label.name())
        .bind(&entry.price)
        .bind(count(entry.tokens.input))
        .bind(count(entry.tokens.cache_read))
        .bind(count(entry.tokens.cache_write))
        .bind(count(entry.tokens.output))
        .bind(count(entry.tokens.reasoning))
        .bind(entry.cost.0)
        .bind(entry.outcome.name())
        .bind(&entry.request_id)
        .bind(&entry.source)
        .bind(entry.first_token_ms)
        .bind(entry.duration_ms)
}

/// Adds what is not there yet, and says what that was.
async fn insert_entries<'e>(
    connection: &mut AnyConnection,
    kind: Kind,
    entries: &'e [Entry],
) -> Result<Vec<&'e Entry>, StoreError> {
    let sql = format!(
        "INSERT INTO ledger ({}) VALUES {} ON CONFLICT (operation, attempt) DO NOTHING \
         RETURNING operation, attempt",
        LEDGER.join(", "),
        kind.rows(entries.len(), LEDGER.len())
    );
    let query = entries.iter().fold(sqlx::query(AssertSqlSafe(sql)), bind_entry);
    let mut new = HashSet::with_capacity(entries.len());
    for row in query.fetch_all(connection).await? {
        new.insert((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?));
    }
    // Taken out, so that a line that stands twice in a batch is counted once.
    let mut is_new = |entry: &&Entry| new.remove(&(entry.operation.to_string(), entry.attempt));
    Ok(entries.iter().filter(|entry| is_new(entry)).collect())
}

/// What a row of the sums is about: a quarter of an hour, and whose spending.
type About<'e> = (i64, [&'e str; 7]);

fn sums<'e>(entries: &[&'e Entry]) -> BTreeMap<About<'e>, [i64; 5]> {
    let mut sums = BTreeMap::<_, [i64; 5]>::new();
    for entry in entries {
        let quarter = entry.admitted_at.div_euclid(QUARTER_MS) * QUARTER_MS;
        let about = [
            entry.organisation.as_str(),
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
        let sum = sums.entry((quarter, about)).or_default();
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
    }
    sums
}

async fn insert_sums(
    connection: &mut AnyConnection,
    kind: Kind,
    sums: &[(About<'_>, [i64; 5])],
) -> Result<(), StoreError> {
    let numbers =
        ["requests", "input_tokens", "cache_read_tokens", "output_tokens", "cost_nano_usd"];
    let add = numbers.map(|name| format!("{name} = quarters.{name} + excluded.{name}"));
    let sql = format!(
        "INSERT INTO quarters (quarter, organisation, team, project, user_id, key_id, model, \
         label, {}) VALUES {} ON CONFLICT (quarter, organisation, team, project, user_id, \
         key_id, model, label) DO UPDATE SET {}",
        numbers.join(", "),
        kind.rows(sums.len(), 13),
        add.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for ((quarter, about), numbers) in sums {
        query = query.bind(*quarter);
        query = about.iter().fold(query, |query, text| query.bind(*text));
        query = numbers.iter().fold(query, |query, number| query.bind(*number));
    }
    query.execute(connection).await?;
    Ok(())
}

async fn insert_records(
    connection: &mut AnyConnection,
    kind: Kind,
    records: &[Record],
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO audit (chain, number, at, kind, organisation, body, previous, hash) \
         VALUES {} ON CONFLICT (chain, number) DO NOTHING",
        kind.rows(records.len(), 8)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for record in records {
        query = query
            .bind(&record.chain)
            .bind(record.number)
            .bind(record.at)
            .bind(&record.kind)
            .bind(&record.organisation)
            .bind(&record.body)
            .bind(&record.previous)
            .bind(&record.hash);
    }
    let written = query.execute(&mut *connection).await?.rows_affected();
    if usize::try_from(written) == Ok(records.len()) {
        return Ok(());
    }
    for record in records {
        let sql = "SELECT hash FROM audit WHERE chain = $1 AND number = $2";
        let row = sqlx::query(sql).bind(&record.chain).bind(record.number);
        let hash: String = row.fetch_one(&mut *connection).await?.try_get(0)?;
        if hash != record.hash {
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
