//! Answers to requests that must not be done twice. A request claims its name before it begins, so
//! that of two that come together only one is done.

use sqlx::Row;

use super::{Store, StoreError};
use crate::Millis;

/// How long an answer is kept.
const KEPT_MS: Millis = 24 * 3_600_000;

/// What is known of a request's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and the caller's to do; [`Store::answered`] or [`Store::given_up`] ends it.
    Fresh,
    /// It was used for another request.
    Other,
    /// It was begun, and has no answer: it still runs, or its process died.
    Begun,
    /// It was done.
    Done {
        /// The answer's status.
        status: i64,
        /// The answer.
        answer: String,
    },
}

impl Store {
    /// Claims a name for a request. Names of the last 24 hours are known, under one organisation
    /// each; `request` is a digest of all that the request says.
    ///
    /// # Errors
    /// The database fails.
    pub async fn claim(
        &self,
        organisation: &str,
        name: &str,
        request: &str,
        now: Millis,
    ) -> Result<Claim, StoreError> {
        sqlx::query("DELETE FROM idempotency WHERE at <= $1")
            .bind(now.saturating_sub(KEPT_MS))
            .execute(self.write())
            .await?;
        let sql = "INSERT INTO idempotency (organisation, name, request, status, answer, at) \
                   VALUES ($1, $2, $3, 0, '', $4) ON CONFLICT (organisation, name) DO NOTHING";
        let query = sqlx::query(sql).bind(organisation).bind(name).bind(request).bind(now);
        if query.execute(self.write()).await?.rows_affected() == 1 {
            return Ok(Claim::Fresh);
        }
        let sql = "SELECT request, status, answer FROM idempotency \
                   WHERE organisation = $1 AND name = $2";
        let query = sqlx::query(sql).bind(organisation).bind(name);
        // Gone since: whoever had it has given it up just now, and may do so again.
        let Some(row) = query.fetch_optional(self.write()).await? else { return Ok(Claim::Begun) };
        if row.try_get::<String, _>("request")? != request {
            return Ok(Claim::Other);
        }
        let (status, answer) = (row.try_get("status")?, row.try_get("answer")?);
        Ok(if status == 0 { Claim::Begun } else { Claim::Done { status, answer } })
    }

    /// Keeps the answer of a claimed name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn answered(
        &self,
        organisation: &str,
        name: &str,
        status: i64,
        answer: &str,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE idempotency SET status = $1, answer = $2 \
                   WHERE organisation = $3 AND name = $4";
        let query = sqlx::query(sql).bind(status).bind(answer).bind(organisation).bind(name);
        query.execute(self.write()).await?;
        Ok(())
    }

    /// Gives a claimed name back: nothing was done.
    ///
    /// # Errors
    /// The database fails.
    pub async fn given_up(&self, organisation: &str, name: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM idempotency WHERE organisation = $1 AND name = $2";
        sqlx::query(sql).bind(organisation).bind(name).execute(self.write()).await?;
        Ok(())
    }
}
