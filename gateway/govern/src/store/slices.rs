//! Money that gateways of one PostgreSQL have leased, and who they are. The database is where this
//! holds, of each window of a hard limit: what the ledger has of it and all slices together are no
//! more than what the budget allows.
//!
//! A slice grows only here, under the lock of its budget's row. It shrinks when its owner gives
//! back, in the transaction that adds what was spent of it to the ledger, and when its owner is
//! taken for lost. Times are the database's own: gateways' clocks may differ.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::batch::spent_of;
use super::documents::Edit;
use super::{Kind, Store, StoreError};
use crate::budget::books::{Draw, Granted, Keep, More, SliceKey, shape};
use crate::budget::window::Window;
use crate::entity::{Budget, Entity, Organisation};
use crate::{Id, Millis, Money};

/// What gateways tell each other by: that something has changed.
pub(crate) const CHANNEL: &str = "hearth";

/// The word for a gateway that goes short; any other says that something has changed.
pub(crate) const WISH: &str = "wish";

/// The numbers of advisory locks: to come in as a gateway, and to make an edit.
const COMING_IN: i64 = 0x4865_6172_7468;
const EDITING: i64 = 0x4865_6172_7469;

/// Longest wait for another gateway's edit.
const EDIT_WAIT: &str = "SET LOCAL lock_timeout = '5s'";

/// Milliseconds by the database's clock, which every gateway reads alike.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

const KEY: &str = "budget = $1 AND shape = $2 AND part = $3 AND window_start = $4";

/// A gateway, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its journal's.
    pub(crate) id: String,
    /// In the ledger and the audit.
    pub(crate) name: String,
    /// This process's.
    pub(crate) token: String,
    /// How long its word holds.
    pub(crate) lease: Duration,
}

/// What is asked for, and by whom.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// The budget as the asker knows it, in its zone.
    pub(crate) budget: &'a Budget,
    /// The time by the asker's clock: raises are given from one to another.
    pub(crate) now: Millis,
    /// Every change up to this revision is known to the asker.
    pub(crate) revision: i64,
    /// The windows.
    pub(crate) windows: &'a [(usize, Window)],
    /// What is wanted in some of them.
    pub(crate) more: &'a [More],
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Sums of all windows, and what is granted where something was wanted.
    Granted(Vec<(Money, Option<Granted>)>),
    /// Another gateway does not know of the budget yet: what it holds is not counted.
    NotYet,
    /// The asker does not know the budget as it is.
    Stale,
    /// The asker is no member any more.
    Lost,
}

/// What others have done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The last revision of the documents.
    pub(crate) revision: i64,
    /// The time of the last wish.
    pub(crate) wished: Millis,
    /// Other gateways that live.
    pub(crate) others: bool,
    /// One of them has not been heard of for so long that it is taken for lost.
    pub(crate) lost: bool,
}

/// A gateway that is taken for lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Its journal's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// When its word ended.
    pub(crate) until: Millis,
    /// Its slices, and the money in them.
    pub(crate) slices: i64,
    pub(crate) granted: Money,
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

async fn lock(connection: &mut AnyConnection, number: i64) -> Result<(), sqlx::Error> {
    let sql = "SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)";
    sqlx::query(sql).bind(number).fetch_one(connection).await.map(drop)
}

/// Tells all gateways, when the transaction commits, that something has changed.
pub(super) async fn notify(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    say(connection, "").await
}

async fn say(connection: &mut AnyConnection, word: &str) -> Result<(), sqlx::Error> {
    let sql = "SELECT CAST(pg_notify($1, $2) AS TEXT)";
    sqlx::query(sql).bind(CHANNEL).bind(word).fetch_one(connection).await.map(drop)
}

impl Store {
    /// Comes in as a gateway. `again`: as one that was in before, in this process. `true`: others
    /// know it, and its slices are as it left them.
    ///
    /// # Errors
    /// Another one of this name lives; the database fails.
    pub(crate) async fn come_in(&self, member: &Member, again: bool) -> Result<bool, StoreError> {
        let mut transaction = self.write().begin().await?;
        lock(&mut transaction, COMING_IN).await?;
        // A process that begins with somebody's journal has locked it: the one before is dead.
        let sql = format!(
            "SELECT id FROM gateways WHERE until > {NOW} AND token <> $1 \
             AND ((name = $2 AND id <> $3) OR (id = $3 AND 1 = $4))"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&member.token).bind(&member.name);
        let query = query.bind(&member.id).bind(i64::from(again));
        if query.fetch_optional(&mut *transaction).await?.is_some() {
            return Err(StoreError::NameTaken(member.name.clone()));
        }
        let sql = "SELECT 1 FROM gateways WHERE id = $1";
        let known = sqlx::query(sql).bind(&member.id).fetch_optional(&mut *transaction).await?;
        // Until it has read the documents it holds nothing, and nobody has to wait for it.
        let sql = format!(
            "INSERT INTO gateways (id, name, token, until, revision) \
             VALUES ($1, $2, $3, {NOW} + $4, $5) ON CONFLICT (id) DO UPDATE SET \
             name = excluded.name, token = excluded.token, until = excluded.until, \
             revision = excluded.revision"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&member.id).bind(&member.name);
        let query = query.bind(&member.token).bind(millis(member.lease)).bind(i64::MAX);
        query.execute(&mut *transaction).await?;
        transaction.commit().await.map_err(StoreError::Unsure)?;
        Ok(known.is_some())
    }

    /// Gives all slices back: nothing of them is held or on its way to the ledger.
    pub(crate) async fn settle_slices(&self, member: &Member) -> Result<(), StoreError> {
        let sql = "DELETE FROM slices WHERE gateway = $1 AND EXISTS \
                   (SELECT 1 FROM gateways WHERE id = $1 AND token = $2)";
        let query = sqlx::query(sql).bind(&member.id).bind(&member.token);
        query.execute(self.write()).await?;
        Ok(())
    }

    /// Leaves, with nothing open.
    pub(crate) async fn leave(&self, member: &Member) -> Result<(), StoreError> {
        self.settle_slices(member).await?;
        let mut transaction = self.write().begin().await?;
        let sql = "DELETE FROM gateways WHERE id = $1 AND token = $2";
        let query = sqlx::query(sql).bind(&member.id).bind(&member.token);
        query.execute(&mut *transaction).await?;
        notify(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::Unsure)
    }

    /// Says that it lives, knows the documents up to a revision, and keeps these slices and no
    /// others. What requests hold is set aside even where nobody granted it: a budget that was made
    /// while they ran counts them. `false`: it is no member any more.
    pub(crate) async fn renew(
        &self,
        member: &Member,
        revision: i64,
        keeps: &[(SliceKey, Keep)],
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().begin().await?;
        let sql = format!(
            "UPDATE gateways AS g SET until = {NOW} + $1, revision = $2 FROM gateways AS o \
             WHERE o.id = g.id AND g.id = $3 AND g.token = $4 RETURNING o.revision"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(millis(member.lease)).bind(revision);
        let query = query.bind(&member.id).bind(&member.token);
        let Some(row) = query.fetch_optional(&mut *transaction).await? else { return Ok(false) };
        let mut news = row.try_get::<i64, _>(0)? != revision;
        let mut ours = BTreeMap::new();
        let sql =
            "SELECT budget, shape, part, window_start, granted FROM slices WHERE gateway = $1";
        for row in sqlx::query(sql).bind(&member.id).fetch_all(&mut *transaction).await? {
            ours.insert(key_of(&row)?, Money(row.try_get("granted")?));
        }
        for (key, keep) in keeps {
            let granted = ours.remove(key).unwrap_or(Money::ZERO);
            let wanted = granted.min(keep.most).max(keep.held);
            if wanted != granted {
                put(&mut transaction, member, key, wanted, 0).await?;
                news |= wanted < granted;
            }
        }
        for (key, granted) in &ours {
            let sql = format!("DELETE FROM slices WHERE {KEY} AND gateway = $5");
            let query = bind(sqlx::query(AssertSqlSafe(sql)), key).bind(&member.id);
            query.execute(&mut *transaction).await?;
            news |= *granted > Money::ZERO;
        }
        if news {
            notify(&mut transaction).await?;
        }
        transaction.commit().await.map_err(StoreError::Unsure)?;
        Ok(true)
    }

    /// Sums up windows, and grants more of them.
    pub(crate) async fn grant(
        &self,
        member: &Member,
        wish: &Wish<'_>,
    ) -> Result<Answer, StoreError> {
        let mut transaction = self.write().begin().await?;
        let Some((budget, shape)) = locked(&mut transaction, wish.budget).await? else {
            return Ok(Answer::Stale);
        };
        match agreed(&mut transaction, member, wish, &shape).await? {
            Agreed::Yes { living } => {
                let mut sums = Vec::with_capacity(wish.windows.len());
                let mut short = false;
                for (limit, window) in wish.windows {
                    let more = wish
                        .more
                        .iter()
                        .find(|more| more.limit == *limit && more.key.start == window.start);
                    let Some(more) = more else {
                        let sum = sum(&mut transaction, &budget, *window).await?;
                        sums.push((sum, None));
                        continue;
                    };
                    let allowed = budget
                        .limits
                        .get(*limit)
                        .map_or(Money::ZERO, |limit| limit.allowed(wish.now));
                    let at = (*window, allowed, living);
                    let (sum, granted) = slice(&mut transaction, member, &budget, at, more).await?;
                    short |= granted.short && more.urgent && granted.others > Money::ZERO;
                    sums.push((sum, Some(granted)));
                }
                if short {
                    say(&mut transaction, WISH).await?;
                }
                transaction.commit().await.map_err(StoreError::Unsure)?;
                Ok(Answer::Granted(sums))
            }
            Agreed::NotYet => {
                transaction.commit().await.map_err(StoreError::Unsure)?;
                Ok(Answer::NotYet)
            }
            Agreed::Stale => Ok(Answer::Stale),
            Agreed::Lost => Ok(Answer::Lost),
        }
    }

    /// What others have done. `lost`: after what time one that says nothing is lost.
    pub(crate) async fn news(&self, member: &Member, lost: Duration) -> Result<News, StoreError> {
        let sql = format!(
            "SELECT (SELECT value FROM counters WHERE name = 'revision') AS revision, \
             (SELECT COALESCE(MAX(wished), 0) FROM slices WHERE gateway <> $1) AS wished, \
             (SELECT COUNT(*) FROM gateways WHERE id <> $1 AND until > {NOW}) AS others, \
             (SELECT COUNT(*) FROM gateways WHERE id <> $1 AND until + $2 < {NOW}) AS lost"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&member.id).bind(millis(lost));
        let row = query.fetch_one(self.read()).await?;
        Ok(News {
            revision: row.try_get("revision")?,
            wished: row.try_get("wished")?,
            others: row.try_get::<i64, _>("others")? > 0,
            lost: row.try_get::<i64, _>("lost")? > 0,
        })
    }

    /// Which slices others went short of after a time.
    pub(crate) async fn wishes(
        &self,
        member: &Member,
        after: Millis,
    ) -> Result<Vec<SliceKey>, StoreError> {
        let sql = "SELECT budget, shape, part, window_start FROM slices \
                   WHERE wished > $1 AND gateway <> $2";
        let rows = sqlx::query(sql).bind(after).bind(&member.id).fetch_all(self.read()).await?;
        rows.iter().map(key_of).collect()
    }

    /// Gateways that are lost.
    pub(crate) async fn lost(
        &self,
        member: &Member,
        lost: Duration,
    ) -> Result<Vec<Lost>, StoreError> {
        let sql = format!(
            "SELECT id, name, until, (SELECT COUNT(*) FROM slices WHERE gateway = id) AS slices, \
             CAST((SELECT COALESCE(SUM(granted), 0) FROM slices WHERE gateway = id) AS BIGINT) \
             AS granted FROM gateways WHERE id <> $1 AND until + $2 < {NOW}"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&member.id).bind(millis(lost));
        let rows = query.fetch_all(self.write()).await?;
        let lost = rows.iter().map(|row| {
            Ok(Lost {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                until: row.try_get("until")?,
                slices: row.try_get("slices")?,
                granted: Money(row.try_get("granted")?),
            })
        });
        lost.collect()
    }

    /// Takes the right to edit, which one gateway has at a time, until what is returned is dropped.
    pub(crate) async fn turn(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, StoreError> {
        let mut transaction = self.read().begin().await?;
        sqlx::query(EDIT_WAIT).execute(&mut *transaction).await?;
        lock(&mut transaction, EDITING).await?;
        Ok(transaction)
    }
}

/// Lets nothing be written by a process whose journal another one has taken over: that one settles
/// what is in it. It comes in only when what is being written here is there.
pub(super) async fn fence(
    connection: &mut AnyConnection,
    member: &Member,
) -> Result<(), StoreError> {
    let sql = "SELECT token FROM gateways WHERE id = $1 FOR SHARE";
    let row = sqlx::query(sql).bind(&member.id).fetch_optional(connection).await?;
    match row.map(|row| row.try_get::<String, _>(0)).transpose()? {
        Some(token) if token != member.token => Err(StoreError::NameTaken(member.name.clone())),
        _ => Ok(()),
    }
}

/// Notes that a budget counts other things from an edit on: nobody is granted anything of it until
/// all gateways know, even if it has counted the same at some time before.
pub(super) async fn shaped(
    connection: &mut AnyConnection,
    edit: &Edit,
    revision: i64,
) -> Result<(), StoreError> {
    let query = match (edit.kind, &edit.body) {
        (Budget::KIND, Some(body)) => {
            let budget: Budget =
                serde_json::from_str(body).map_err(|why| StoreError::Content(why.to_string()))?;
            let sql = "INSERT INTO shapes (budget, shape, revision) VALUES ($1, $2, $3) \
                       ON CONFLICT (budget) DO UPDATE SET shape = excluded.shape, \
                       revision = excluded.revision WHERE shapes.shape <> excluded.shape";
            sqlx::query(sql).bind(edit.id.as_str()).bind(shape(&budget)).bind(revision)
        }
        (Budget::KIND, None) => {
            sqlx::query("DELETE FROM shapes WHERE budget = $1").bind(edit.id.as_str())
        }
        // Its budgets' days may begin at another time.
        (Organisation::KIND, _) => sqlx::query("UPDATE shapes SET revision = $1").bind(revision),
        _ => return Ok(()),
    };
    query.execute(connection).await?;
    Ok(())
}

/// Removes a gateway that is lost. `false`: another one has, or it is back.
pub(super) async fn settle_lost(
    connection: &mut AnyConnection,
    lost: &Lost,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM gateways WHERE id = $1 AND until = $2";
    let query = sqlx::query(sql).bind(&lost.id).bind(lost.until);
    if query.execute(&mut *connection).await?.rows_affected() != 1 {
        return Ok(false);
    }
    let sql = "DELETE FROM slices WHERE gateway = $1";
    sqlx::query(sql).bind(&lost.id).execute(&mut *connection).await?;
    notify(connection).await?;
    Ok(true)
}

/// Takes out of a gateway's slices what the ledger has now.
pub(super) async fn draw(
    connection: &mut AnyConnection,
    member: &Member,
    draws: impl Iterator<Item = &Draw>,
) -> Result<(), StoreError> {
    let mut sums = BTreeMap::<&SliceKey, Money>::new();
    for draw in draws {
        let sum = sums.entry(&draw.key).or_insert(Money::ZERO);
        *sum = sum.plus(draw.cost);
    }
    let sums: Vec<_> = sums.into_iter().collect();
    for sums in super::batch::pieces(&sums, Kind::Postgres) {
        let sql = format!(
            "UPDATE slices SET granted = GREATEST(slices.granted - v.cost, 0) \
             FROM (VALUES {}) AS v (budget, shape, part, window_start, cost, gateway, token) \
             JOIN gateways AS g ON g.id = v.gateway AND g.token = v.token \
             WHERE slices.budget = v.budget AND slices.shape = v.shape AND slices.part = v.part \
             AND slices.window_start = v.window_start AND slices.gateway = v.gateway",
            Kind::Postgres.rows(sums.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (key, cost) in sums {
            query = bind(query, key).bind(cost.0).bind(&member.id).bind(&member.token);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

type Bound<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Bound<'q>, key: &'q SliceKey) -> Bound<'q> {
    query.bind(key.budget.as_str()).bind(&key.shape).bind(key.part).bind(key.start)
}

fn key_of(row: &AnyRow) -> Result<SliceKey, StoreError> {
    let budget: String = row.try_get("budget")?;
    Ok(SliceKey {
        budget: Id::of(&budget).ok_or_else(|| StoreError::Content(format!("budget {budget:?}")))?,
        shape: row.try_get("shape")?,
        part: row.try_get("part")?,
        start: row.try_get("window_start")?,
    })
}

/// Locks a budget, and reads it as it is now: in the zone that the asker knows, and its shape as it
/// is written. `None`: it counts other spending than the asker's does.
async fn locked(
    connection: &mut AnyConnection,
    known: &Budget,
) -> Result<Option<(Budget, String)>, StoreError> {
    let sql = "SELECT body FROM documents WHERE kind = $1 AND id = $2 AND deleted = 0 FOR UPDATE";
    let query = sqlx::query(sql).bind(Budget::KIND).bind(known.id.as_str());
    let row = query.fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let body: String = row.try_get(0)?;
    let mut budget: Budget =
        serde_json::from_str(&body).map_err(|why| StoreError::Content(why.to_string()))?;
    let written = shape(&budget);
    if budget.time_zone.is_none() {
        budget.time_zone.clone_from(&known.time_zone);
    }
    let same = shape(&budget) == shape(known);
    Ok(same.then_some((budget, written)))
}

enum Agreed {
    /// All gateways know what the budget counts; so many live.
    Yes {
        living: i64,
    },
    NotYet,
    Stale,
    Lost,
}

/// Whether all gateways know what a budget counts. Where that has changed, each has to say first
/// what its running requests hold of it.
async fn agreed(
    connection: &mut AnyConnection,
    member: &Member,
    wish: &Wish<'_>,
    shape: &str,
) -> Result<Agreed, StoreError> {
    let sql = "SELECT 1 FROM gateways WHERE id = $1 AND token = $2";
    let query = sqlx::query(sql).bind(&member.id).bind(&member.token);
    if query.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(Agreed::Lost);
    }
    let budget = wish.budget.id.as_str();
    let sql = "SELECT shape, revision FROM shapes WHERE budget = $1";
    let found = sqlx::query(sql).bind(budget).fetch_optional(&mut *connection).await?;
    let found = match found {
        Some(row) => Some((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?)),
        None => None,
    };
    let revision = match found {
        Some((known, revision)) if known == shape => revision,
        // Made before gateways shared this database.
        _ => {
            let sql = "INSERT INTO shapes (budget, shape, revision) SELECT $1, $2, value \
                       FROM counters WHERE name = 'revision' ON CONFLICT (budget) DO UPDATE SET \
                       shape = excluded.shape, revision = excluded.revision RETURNING revision";
            let query = sqlx::query(sql).bind(budget).bind(shape);
            query.fetch_one(&mut *connection).await?.try_get(0)?
        }
    };
    if wish.revision < revision {
        // In another zone, it may be, and its own requests in other windows.
        return Ok(Agreed::Stale);
    }
    let sql = format!(
        "SELECT COUNT(*), COALESCE(MIN(CASE WHEN id = $1 THEN {} ELSE revision END), 0) \
         FROM gateways WHERE until > {NOW} OR id = $1",
        i64::MAX
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(&member.id).fetch_one(connection).await?;
    let (living, least): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(if least < revision { Agreed::NotYet } else { Agreed::Yes { living } })
}

async fn sum(
    connection: &mut AnyConnection,
    budget: &Budget,
    window: Window,
) -> Result<Money, StoreError> {
    spent_of(connection, &budget.scope, budget.model.as_deref(), window).await
}

/// What a window has spent, and a larger slice of it. Slices are read before the ledger: what goes
/// from one to the other meanwhile counts twice here, and never not at all.
async fn slice(
    connection: &mut AnyConnection,
    member: &Member,
    budget: &Budget,
    (window, allowed, living): (Window, Money, i64),
    more: &More,
) -> Result<(Money, Granted), StoreError> {
    let sql = format!("SELECT gateway, granted FROM slices WHERE {KEY}");
    let rows = bind(sqlx::query(AssertSqlSafe(sql)), &more.key).fetch_all(&mut *connection).await?;
    let (mut ours, mut others) = (Money::ZERO, Money::ZERO);
    for row in &rows {
        let granted = Money(row.try_get("granted")?);
        if row.try_get::<String, _>("gateway")? == member.id {
            ours = granted;
        } else {
            others = others.plus(granted);
        }
    }
    let base = ours.min(more.granted).max(more.held);
    let spent = sum(connection, budget, window).await?;
    let room = allowed.minus(spent).minus(others).minus(base);
    let free = room.max(Money::ZERO);
    let share = Money(free.0 / (2 * living.max(1)));
    // Too little for one request may be enough for the next.
    let extra = more.gap.max(share).min(free);
    let (granted, short) = (base.plus(extra), extra < more.gap);
    let wished = i64::from(short && more.urgent && others > Money::ZERO);
    put(connection, member, &more.key, granted, wished).await?;
    // Requests may hold more than the budget allows, which was made or lowered while they ran. What
    // they give back is not this gateway's to spend.
    let granted = granted.plus(room.min(Money::ZERO));
    Ok((spent, Granted { granted, allowed, short, others }))
}

/// Sets what a gateway has of a slice. `wished`: 1 where it wants more.
async fn put(
    connection: &mut AnyConnection,
    member: &Member,
    key: &SliceKey,
    granted: Money,
    wished: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO slices (budget, shape, part, window_start, gateway, granted, wished) \
         VALUES ($1, $2, $3, $4, $5, $6, $7 * {NOW}) \
         ON CONFLICT (budget, shape, part, window_start, gateway) \
         DO UPDATE SET granted = excluded.granted, wished = excluded.wished"
    );
    let query = bind(sqlx::query(AssertSqlSafe(sql)), key).bind(&member.id);
    query.bind(granted.0).bind(wished).execute(connection).await?;
    Ok(())
}
