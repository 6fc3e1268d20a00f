//! What the writer commits together: entries of the ledger, their sums, records of the audit.
//! Writing a batch twice writes it once, so a commit whose answer was lost is simply tried again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::columns::{AUDIT, DAYS, LEDGER, QUARTERS, QUARTERS_ABOUT};
use super::slices::{self, Lost, Member};
use super::{Kind, Store, StoreError, bodies, documents};
use crate::Scope;
use crate::audit::Record;
use crate::budget::books::Draw;
use crate::budget::window::Window;
use crate::ledger::Entry;
use crate::{Id, Millis, Money};

/// Milliseconds of a quarter of an hour.
pub const QUARTER_MS: i64 = 15 * 60 * 1000;

/// Milliseconds of a day of UTC.
pub const DAY_MS: i64 = 96 * QUARTER_MS;

/// Rows in one statement: SQLite takes 32,766 parameters, PostgreSQL twice that.
const ROWS_MAX: usize = 512;

type Bound<'q> = Query<'q, Any, AnyArguments>;

/// What is written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) records: Vec<Record>,
    pub(crate) edits: Vec<documents::Edit>,
    /// The revision that the edits were judged on, where another gateway may edit too.
    pub(crate) revision: Option<i64>,
    /// What entries have spent of slices.
    pub(crate) draws: Vec<(Id, Draw)>,
    /// Who writes, where gateways share the database.
    pub(crate) member: Option<Member>,
    /// A gateway that is taken for lost.
    pub(crate) lost: Option<Lost>,
    /// Another master key, for all keys of recorded texts.
    pub(crate) rewrap: Option<bodies::Rewrap>,
}

impl Store {
    /// Writes a batch, all of it or nothing.
    pub(crate) async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        // As a rule all entries are new, and to be told which are costs half of what adding does.
        if !self.try_commit(batch, Entries::New).await? {
            self.try_commit(batch, Entries::Told).await?;
        }
        Ok(())
    }

    /// `false`: not all entries are new, and nothing was written.
    async fn try_commit(&self, batch: &Batch, are: Entries) -> Result<bool, StoreError> {
        let mut transaction = self.write().begin().await?;
        if let Some(member) = &batch.member {
            slices::fence(&mut transaction, member).await?;
        }
        documents::write(&mut transaction, &batch.edits, batch.revision).await?;
        if batch.revision.is_some() {
            slices::notify(&mut transaction).await?;
        }
        if let Some(lost) = &batch.lost
            && !slices::settle_lost(&mut transaction, lost).await?
        {
            return Err(StoreError::Moved);
        }
        if let Some(rewrap) = &batch.rewrap {
            bodies::rewrap(&mut transaction, rewrap).await?;
        }
        let mut new = Vec::with_capacity(batch.entries.len());
        for entries in pieces(&batch.entries) {
            match insert_entries(&mut transaction, self.kind(), entries, are).await? {
                Some(found) => new.extend(found),
                None => return Ok(false),
            }
        }
        if let Some(member) = batch.member.as_ref().filter(|_| !batch.draws.is_empty()) {
            let new: HashSet<&Id> = new.iter().map(|entry| &entry.operation).collect();
            let draws = batch.draws.iter().filter(|(operation, _)| new.contains(operation));
            let draws = draws.map(|(_, draw)| draw);
            slices::draw(&mut transaction, member, draws).await?;
        }
        for (table, columns, stretch_ms) in SUMS {
            let sums: Vec<_> = sums(&new, stretch_ms).into_iter().collect();
            for sums in pieces(&sums) {
                insert_sums(&mut transaction, self.kind(), (table, columns), sums).await?;
            }
        }
        for records in pieces(&batch.records) {
            insert_records(&mut transaction, self.kind(), records).await?;
        }
        transaction.commit().await.map_err(StoreError::Unsure)?;
        Ok(true)
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
        let mut connection = self.write().acquire().await?;
        spent_of(&mut connection, scope, model, window).await
    }

    /// The latest quarter of an hour that anything was booked in; `i64::MIN` where nothing was.
    pub(crate) async fn latest(&self) -> Result<Millis, StoreError> {
        let row = sqlx::query("SELECT MAX(quarter) FROM quarters").fetch_one(self.write()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(Millis::MIN))
    }

    /// Which of these entries are in the ledger: their operations and attempts.
    pub(crate) async fn written(
        &self,
        entries: impl Iterator<Item = &Entry>,
    ) -> Result<HashSet<(Id, i64)>, StoreError> {
        let ids: Vec<&Id> = entries.map(|entry| &entry.operation).collect();
        let mut written = HashSet::new();
        for ids in pieces(&ids) {
            let places = self.kind().rows(1, ids.len());
            let sql = format!("SELECT operation, attempt FROM ledger WHERE operation IN {places}");
            let query = ids
                .iter()
                .fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id.as_str()));
            for row in query.fetch_all(self.write()).await? {
                let (id, attempt): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                written.extend(Id::of(&id).map(|id| (id, attempt)));
            }
        }
        Ok(written)
    }

    /// The last record of a chain.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_record(&self, chain: &str) -> Result<Option<Record>, StoreError> {
        let columns = AUDIT.join(", ");
        let sql =
            format!("SELECT {columns} FROM audit WHERE chain = $1 ORDER BY number DESC LIMIT 1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(chain).fetch_optional(self.write()).await?;
        row.as_ref().map(record).transpose()
    }
}

/// See [`Store::spent`].
pub(super) async fn spent_of(
    connection: &mut AnyConnection,
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
    let mut sum = Money::ZERO;
    for row in &query.fetch_all(connection).await? {
        let name: String = row.try_get("model")?;
        if model.is_none_or(|pattern| crate::policy::pattern::matches(pattern, &name)) {
            sum = sum.plus(Money(row.try_get("cost")?));
        }
    }
    Ok(sum)
}

/// Rows in lots of 512, 256, 128 ... 1: so few statements differ that all of them stay prepared.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
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

/// In the order of [`LEDGER`].
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
        .bind(count(entry.device_us))
        .bind(entry.service_tier.name())
}

/// What is known of entries that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entries {
    /// They are not there yet.
    New,
    /// Some may be: the database tells which are not.
    Told,
}

/// Adds what is not there yet, and says what that was; `None` where not all is new though it is
/// meant to be.
async fn insert_entries<'e>(
    connection: &mut AnyConnection,
    kind: Kind,
    entries: &'e [Arc<Entry>],
    are: Entries,
) -> Result<Option<Vec<&'e Entry>>, StoreError> {
    let returning = match are {
        Entries::New => "",
        Entries::Told => "RETURNING operation, attempt",
    };
    let sql = format!(
        "INSERT INTO ledger ({}) VALUES {} ON CONFLICT (operation, attempt) DO NOTHING {returning}",
        LEDGER.join(", "),
        kind.rows(entries.len(), LEDGER.len())
    );
    let query =
        entries.iter().fold(sqlx::query(AssertSqlSafe(sql)), |q, entry| bind_entry(q, entry));
    if are == Entries::New {
        let added = query.execute(connection).await?.rows_affected();
        let all = usize::try_from(added) == Ok(entries.len());
        return Ok(all.then(|| entries.iter().map(Arc::as_ref).collect()));
    }
    let mut new = HashSet::with_capacity(entries.len());
    for row in query.fetch_all(connection).await? {
        new.insert((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?));
    }
    // Taken out, so that a line that stands twice in a batch is counted once.
    let mut is_new = |entry: &&Entry| new.remove(&(entry.operation.to_string(), entry.attempt));
    Ok(Some(entries.iter().map(Arc::as_ref).filter(|entry| is_new(entry)).collect()))
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
        let sum = sums.entry((start, about)).or_default();
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
    }
    sums
}

async fn insert_sums(
    connection: &mut AnyConnection,
    kind: Kind,
    (table, columns): (&str, &[&str]),
    sums: &[(About<'_>, [i64; 5])],
) -> Result<(), StoreError> {
    let (about, numbers) = columns.split_at(QUARTERS_ABOUT);
    let add = |name: &&str| format!("{name} = {table}.{name} + excluded.{name}");
    let sql = format!(
        "INSERT INTO {table} ({}) VALUES {} ON CONFLICT ({}) DO UPDATE SET {}",
        columns.join(", "),
        kind.rows(sums.len(), columns.len()),
        about.join(", "),
        numbers.iter().map(add).collect::<Vec<_>>().join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for ((start, about), numbers) in sums {
        query = query.bind(*start);
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
        "INSERT INTO audit ({}) VALUES {} ON CONFLICT (chain, number) DO NOTHING",
        AUDIT.join(", "),
        kind.rows(records.len(), AUDIT.len())
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
