//! Adding rows to the ledger, its sums and the audit: most of what is ever written. SQLite takes
//! them by its own driver. That for any database would copy each text twice more, on one thread,
//! and free it on another.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sqlx::any::AnyArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe, SqliteConnection};

use super::batch::{DAY_MS, QUARTER_MS, pieces};
use super::columns::{AUDIT, DAYS, LEDGER, QUARTERS, QUARTERS_ABOUT};
use super::{Kind, StoreError};
use crate::audit::Record;
use crate::ledger::Entry;

/// By which driver.
pub(super) enum Through<'c> {
    /// That for any database, of this kind.
    Any(&'c mut AnyConnection, Kind),
    /// SQLite's own.
    Sqlite(&'c mut SqliteConnection),
}

/// What stands in the places of a statement, in their order.
trait Values {
    fn text(&mut self, text: &Arc<str>);
    fn word(&mut self, word: &str);
    fn number(&mut self, number: i64);

    fn count(&mut self, count: u64) {
        self.number(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Why no value can be refused.
const PLAIN: &str = "texts and numbers are values of every database";

impl Values for AnyArguments {
    fn text(&mut self, text: &Arc<str>) {
        self.word(text);
    }

    fn word(&mut self, word: &str) {
        self.add(word.to_owned()).expect(PLAIN);
    }

    fn number(&mut self, number: i64) {
        self.add(number).expect(PLAIN);
    }
}

impl Values for SqliteArguments {
    fn text(&mut self, text: &Arc<str>) {
        self.add(Arc::clone(text)).expect(PLAIN);
    }

    fn word(&mut self, word: &str) {
        self.add(Arc::<str>::from(word)).expect(PLAIN);
    }

    fn number(&mut self, number: i64) {
        self.add(number).expect(PLAIN);
    }
}

impl Through<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Any(_, kind) => *kind,
            Self::Sqlite(_) => Kind::Sqlite,
        }
    }

    /// How many rows a statement has added or changed.
    async fn execute(
        &mut self,
        sql: String,
        fill: impl Fn(&mut dyn Values),
    ) -> Result<u64, sqlx::Error> {
        let sql = AssertSqlSafe(sql);
        Ok(match self {
            Self::Any(connection, _) => {
                let query = sqlx::query_with(sql, filled::<AnyArguments>(fill));
                query.execute(&mut **connection).await?.rows_affected()
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query_with(sql, filled::<SqliteArguments>(fill));
                query.execute(&mut **connection).await?.rows_affected()
            }
        })
    }

    /// What a statement finds or returns.
    async fn fetch(
        &mut self,
        sql: String,
        fill: impl Fn(&mut dyn Values),
    ) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Any(connection, _) => {
                let query = sqlx::query_as_with(sql, filled::<AnyArguments>(fill));
                query.fetch_all(&mut **connection).await
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query_as_with(sql, filled::<SqliteArguments>(fill));
                query.fetch_all(&mut **connection).await
            }
        }
    }
}

/// A text that most rows share with the row before.
#[derive(Default)]
struct Same(Arc<str>);

impl Same {
    fn of(&mut self, text: &str) -> &Arc<str> {
        if *self.0 != *text {
            self.0 = text.into();
        }
        &self.0
    }
}

fn filled<V: Values + Default>(fill: impl Fn(&mut dyn Values)) -> V {
    let mut values = V::default();
    fill(&mut values);
    values
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
    let sql = format!(
        "INSERT INTO ledger ({}) VALUES {} ON CONFLICT (operation, attempt) DO NOTHING",
        LEDGER.join(", "),
        through.kind().rows(entries.len(), LEDGER.len())
    );
    let fill = |values: &mut dyn Values| {
        let mut same = Default::default();
        entries.iter().for_each(|entry| fill_entry(values, entry, &mut same));
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
fn fill_entry(values: &mut dyn Values, entry: &Entry, [label, outcome, tier]: &mut [Same; 3]) {
    values.text(&entry.operation.text());
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
    values.text(label.of(entry.label.name()));
    values.text(&entry.price);
    values.count(entry.tokens.input);
    values.count(entry.tokens.cache_read);
    values.count(entry.tokens.cache_write);
    values.count(entry.tokens.output);
    values.count(entry.tokens.reasoning);
    values.number(entry.cost.0);
    values.text(outcome.of(entry.outcome.name()));
    values.text(&entry.request_id);
    values.text(&entry.source);
    values.number(entry.first_token_ms);
    values.number(entry.duration_ms);
    values.count(entry.device_us);
    values.text(tier.of(entry.service_tier.name()));
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

/// Adds entries to the sums.
pub(super) async fn insert_sums(
    through: &mut Through<'_>,
    entries: &[&Entry],
) -> Result<(), StoreError> {
    let kind = through.kind();
    for (table, columns, stretch_ms) in SUMS {
        let sums: Vec<_> = sums(entries, stretch_ms).into_iter().collect();
        let (about, numbers) = columns.split_at(QUARTERS_ABOUT);
        let add = |name: &&str| format!("{name} = {table}.{name} + excluded.{name}");
        for sums in pieces(&sums, kind) {
            let sql = format!(
                "INSERT INTO {table} ({}) VALUES {} ON CONFLICT ({}) DO UPDATE SET {}",
                columns.join(", "),
                kind.rows(sums.len(), columns.len()),
                about.join(", "),
                numbers.iter().map(add).collect::<Vec<_>>().join(", ")
            );
            let fill = |values: &mut dyn Values| {
                for ((start, about), numbers) in sums {
                    values.number(*start);
                    about.iter().for_each(|text| values.word(text));
                    numbers.iter().for_each(|number| values.number(*number));
                }
            };
            through.execute(sql, fill).await?;
        }
    }
    Ok(())
}

/// Adds records; those that are there already must be the same.
pub(super) async fn insert_records(
    through: &mut Through<'_>,
    records: &[Record],
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO audit ({}) VALUES {} ON CONFLICT (chain, number) DO NOTHING",
        AUDIT.join(", "),
        through.kind().rows(records.len(), AUDIT.len())
    );
    let fill = |values: &mut dyn Values| {
        let [mut chain, mut kind, mut organisation] = <[Same; 3]>::default();
        for record in records {
            values.text(chain.of(&record.chain));
            values.number(record.number);
            values.number(record.at);
            values.text(kind.of(&record.kind));
            values.text(organisation.of(&record.organisation));
            values.word(&record.body);
            values.word(&record.previous);
            values.word(&record.hash);
        }
    };
    let written = through.execute(sql, fill).await?;
    if usize::try_from(written) == Ok(records.len()) {
        return Ok(());
    }
    for record in records {
        let sql = "SELECT hash, number FROM audit WHERE chain = $1 AND number = $2";
        let fill = |values: &mut dyn Values| {
            values.word(&record.chain);
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
