//! What is on its way out of this machine: alerts to people, and how far other places have got with
//! the audit. Several gateways may do this side by side: whoever changes a row says what it was.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Row as _};

use super::batch::record;
use super::columns::AUDIT;
use super::{Store, StoreError};
use crate::Millis;
use crate::audit::Record;
use crate::deliver::{Notice, Place};

/// How long an alert is tried to be delivered.
const TRIED_MS: Millis = 7 * 24 * 3_600_000;

/// An alert that is to be delivered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its id.
    pub alert: String,
    /// What it says, as JSON.
    pub body: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

impl Store {
    /// Writes alerts down, and that they are to go to some channels. Those that are known already
    /// are left as they are. Returns how many are new.
    ///
    /// # Errors
    /// The database fails.
    pub async fn post(
        &self,
        notices: &[Notice],
        channels: &[String],
        now: Millis,
    ) -> Result<usize, StoreError> {
        let mut transaction = self.write().begin().await?;
        let mut new = 0;
        for notice in notices {
            let sql = "INSERT INTO alerts (id, at, forget_at, body) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (id) DO NOTHING";
            let query = sqlx::query(sql)
                .bind(&notice.id)
                .bind(notice.at)
                .bind(notice.forget_at)
                .bind(notice.body.to_string());
            if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                continue;
            }
            new += 1;
            for channel in channels {
                let sql = "INSERT INTO deliveries (alert, channel, attempts, due_at) \
                           VALUES ($1, $2, 0, $3)";
                let query = sqlx::query(sql).bind(&notice.id).bind(channel).bind(now);
                query.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await.map_err(StoreError::Unsure)?;
        Ok(new)
    }

    /// Takes the delivery of a channel that has been due longest. Until `again` nobody else takes
    /// it: if it is not ended by then, whoever took it has died, and it is due once more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn due(
        &self,
        channel: &str,
        now: Millis,
        again: Millis,
    ) -> Result<Option<Due>, StoreError> {
        let sql = "SELECT deliveries.alert AS alert, attempts, due_at, body FROM deliveries \
                   JOIN alerts ON alerts.id = deliveries.alert \
                   WHERE channel = $1 AND due_at <= $2 ORDER BY due_at, at, alert LIMIT 1";
        let row = sqlx::query(sql).bind(channel).bind(now).fetch_optional(self.read()).await?;
        let Some(row) = row else { return Ok(None) };
        let (alert, attempts): (String, i64) = (row.try_get("alert")?, row.try_get("attempts")?);
        let sql = "UPDATE deliveries SET attempts = attempts + 1, due_at = $1 \
                   WHERE alert = $2 AND channel = $3 AND attempts = $4 AND due_at = $5";
        let query = sqlx::query(sql)
            .bind(again)
            .bind(&alert)
            .bind(channel)
            .bind(attempts)
            .bind(row.try_get::<i64, _>("due_at")?);
        if query.execute(self.write()).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let attempt = u32::try_from(attempts.saturating_add(1)).unwrap_or(u32::MAX);
        Ok(Some(Due { alert, body: row.try_get("body")?, attempt }))
    }

    /// An alert has arrived.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delivered(&self, alert: &str, channel: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM deliveries WHERE alert = $1 AND channel = $2";
        sqlx::query(sql).bind(alert).bind(channel).execute(self.write()).await?;
        Ok(())
    }

    /// An alert did not arrive, and is tried again at a time.
    ///
    /// # Errors
    /// The database fails.
    pub async fn postponed(&self, due: &Due, channel: &str, to: Millis) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET due_at = $1 \
                   WHERE alert = $2 AND channel = $3 AND attempts = $4";
        let query =
            sqlx::query(sql).bind(to).bind(&due.alert).bind(channel).bind(i64::from(due.attempt));
        query.execute(self.write()).await?;
        Ok(())
    }

    /// Makes all deliveries of a channel due.
    ///
    /// # Errors
    /// The database fails.
    pub async fn all_due(&self, channel: &str, now: Millis) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET due_at = $1 WHERE channel = $2 AND due_at > $1";
        sqlx::query(sql).bind(now).bind(channel).execute(self.write()).await?;
        Ok(())
    }

    /// How many alerts are on their way to a channel.
    ///
    /// # Errors
    /// The database fails.
    pub async fn undelivered(&self, channel: &str) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM deliveries WHERE channel = $1";
        let row = sqlx::query(sql).bind(channel).fetch_one(self.read()).await?;
        Ok(row.try_get(0)?)
    }

    /// Forgets alerts whose time is over. Returns how many deliveries were given up: those that
    /// were tried for a week.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget(&self, now: Millis) -> Result<u64, StoreError> {
        let sql = "DELETE FROM deliveries WHERE alert IN (SELECT id FROM alerts WHERE at <= $1)";
        let old = now.saturating_sub(TRIED_MS);
        let given_up = sqlx::query(sql).bind(old).execute(self.write()).await?.rows_affected();
        let sql = "DELETE FROM alerts WHERE forget_at <= $1 AND at <= $2";
        sqlx::query(sql).bind(now).bind(old).execute(self.write()).await?;
        Ok(given_up)
    }

    /// How far a sink has got with a chain.
    ///
    /// # Errors
    /// The database fails.
    pub async fn place(&self, sink: &str, chain: &str) -> Result<Place, StoreError> {
        let sql = "SELECT number, hash FROM exported WHERE sink = $1 AND chain = $2";
        let row = sqlx::query(sql).bind(sink).bind(chain).fetch_optional(self.read()).await?;
        let Some(row) = row else { return Ok(Place::begin(chain)) };
        let (number, hash) = (row.try_get("number")?, row.try_get("hash")?);
        Ok(Place { chain: chain.to_owned(), number, hash })
    }

    /// A sink has taken all up to a place. `false`: it was not at `from`; somebody else has moved
    /// it, and nothing is changed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn advance(&self, sink: &str, from: &Place, to: &Place) -> Result<bool, StoreError> {
        let sql = if from.number == 0 {
            "INSERT INTO exported (number, hash, sink, chain) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (sink, chain) DO NOTHING"
        } else {
            "UPDATE exported SET number = $1, hash = $2 \
             WHERE sink = $3 AND chain = $4 AND number = $5"
        };
        let query = sqlx::query(sql).bind(to.number).bind(&to.hash).bind(sink).bind(&to.chain);
        let query = if from.number == 0 { query } else { query.bind(from.number) };
        Ok(query.execute(self.write()).await?.rows_affected() == 1)
    }

    /// The records of a chain behind a number, in their order: at most so many, and no further one
    /// once their bodies have so many bytes. Beyond that one more record is in memory.
    ///
    /// # Errors
    /// The database fails.
    pub async fn records_behind(
        &self,
        chain: &str,
        number: i64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let sql = format!(
            "SELECT {} FROM audit WHERE chain = $1 AND number > $2 ORDER BY number \
             LIMIT {count_max}",
            AUDIT.join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(chain).bind(number);
        let mut rows = query.fetch(self.read());
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(row) = rows.try_next().await?
        {
            let record = record(&row)?;
            bytes += record.body.len();
            records.push(record);
        }
        Ok(records)
    }

    /// The number of a chain's last record; 0: it has none.
    ///
    /// # Errors
    /// The database fails.
    pub async fn head(&self, chain: &str) -> Result<i64, StoreError> {
        let sql = "SELECT MAX(number) FROM audit WHERE chain = $1";
        let row = sqlx::query(sql).bind(chain).fetch_one(self.read()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
    }
}
