//! What the writer commits together: entries of the ledger, their sums, records of the audit.
//! Writing a batch twice writes it once, so a commit whose answer was lost is simply tried again.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::columns::AUDIT;
use super::rows::{self, Entries, Through};
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

impl Batch {
    /// Rows are added, and nothing else changes.
    fn is_plain(&self) -> bool {
        let Self { edits, revision, member, lost, rewrap, .. } = self;
        let none = revision.is_none() && member.is_none() && lost.is_none() && rewrap.is_none();
        edits.is_empty() && none
    }
}

impl Store {
    /// Writes a batch, all of it or nothing.
    pub(crate) async fn commit(&self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        // As a rule all entries are new, and to be told which are costs half of what adding does.
        let all = match self.lite.as_ref().filter(|_| batch.is_plain()) {
            Some(lite) => {
                // Nobody else writes meanwhile.
                let _turn = self.write().acquire().await?;
                let (lite, batch) = (Arc::clone(lite), Arc::clone(batch));
                let written = tokio::task::spawn_blocking(move || lite.commit(&batch)).await;
                written.map_err(|_| sqlx::Error::WorkerCrashed)??
            }
            None => self.try_commit(batch, Entries::New).await?,
        };
        if !all {
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
        let through = Through { connection: &mut transaction, kind: self.kind() };
        let Some(new) = add(through, batch, are).await? else { return Ok(false) };
        if let Some(member) = batch.member.as_ref().filter(|_| !batch.draws.is_empty()) {
            let new: HashSet<&Id> = new.iter().map(|entry| &entry.operation).collect();
            let draws = batch.draws.iter().filter(|(operation, _)| new.contains(operation));
            let draws = draws.map(|(_, draw)| draw);
            slices::draw(&mut transaction, member, draws).await?;
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
        for ids in pieces(&ids, self.kind()) {
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

/// Adds entries, their sums and records; which entries are new. `None`: not all are, though they
/// are meant to be.
async fn add<'e>(
    mut through: Through<'_>,
    batch: &'e Batch,
    are: Entries,
) -> Result<Option<Vec<&'e Entry>>, StoreError> {
    let mut new = Vec::with_capacity(batch.entries.len());
    for entries in pieces(&batch.entries, through.kind) {
        match rows::insert_entries(&mut through, entries, are).await? {
            Some(found) => new.extend(found),
            None => return Ok(None),
        }
    }
    rows::insert_sums(&mut through, &new).await?;
    for records in pieces(&batch.records, through.kind) {
        rows::insert_records(&mut through, records).await?;
    }
    Ok(Some(new))
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

/// Rows in lots of one statement each: of the most, of half of that, ... of 1. So few statements
/// differ that all of them stay prepared. SQLite has no way to a server to save, so that large ones
/// would only take memory.
pub(super) fn pieces<T>(mut rows: &[T], kind: Kind) -> impl Iterator<Item = &[T]> {
    let rows_max = match kind {
        Kind::Sqlite => 64,
        // Which takes 65,535 parameters.
        Kind::Postgres => 512,
    };
    std::iter::from_fn(move || {
        let most = rows.len().checked_ilog2()?;
        let (piece, rest) = rows.split_at((1 << most).min(rows_max));
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
