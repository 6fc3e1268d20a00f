//! Sessions of people who have signed in: 256 random bits in a cookie, their SHA-256 in the
//! database. A session ends twelve hours after it began, an hour after it was last used, at
//! sign-out, and with its account. Beside them lie the links by which passwords are set, and the
//! last steps of one-time codes.
//!
//! Every use asks the database, so that what one gateway ends is over at all of them. What a cookie
//! looks like is not known here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use sqlx::Row as _;

use super::key::hash;
use super::same;
use crate::id::random;
use crate::store::{Store, StoreError};
use crate::{Id, Millis};

/// A session ends at this age, however busy it is.
pub const LIFE_MS: Millis = 12 * 3_600_000;
/// A session that is not used for so long is over.
pub const IDLE_MS: Millis = 3_600_000;
/// A link to set a password ends at this age.
pub const LINK_MS: Millis = 24 * 3_600_000;

/// Uses nearer to each other are not written down.
const TOUCH_MS: Millis = 60_000;
/// Sessions of one person; the oldest makes room.
const SESSIONS_MAX: i64 = 20;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Letters of a token.
const TOKEN_LETTERS: usize = 43;

/// What is shown once, and kept as a hash.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Token {
    fn new() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>()))
    }

    /// For its owner's eyes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether this can be a token at all; nothing else is looked up.
fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == TOKEN_LETTERS && text.bytes().all(plain)
}

/// What whoever acts in a session's name must show beside its cookie: another site's page can have
/// a browser send the cookie, but cannot read this.
#[must_use]
pub fn csrf(token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"hearth csrf"))
}

/// Whether that is what was shown.
#[must_use]
pub fn csrf_fits(token: &str, shown: &str) -> bool {
    same(csrf(token).as_bytes(), shown.as_bytes())
}

/// Somebody who has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user: Id,
    /// How: `password`, or `oidc:` and the provider's name.
    pub way: String,
    /// Since when; milliseconds since 1970.
    pub created_at: Millis,
}

/// The sessions of a database.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
}

impl Sessions {
    /// Those of this one.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Begins one, under a token that nobody has seen before.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin(&self, user: &Id, way: &str, now: Millis) -> Result<Token, StoreError> {
        let token = Token::new();
        let db = self.store.write();
        sqlx::query("DELETE FROM sessions WHERE created_at <= $1 OR seen_at <= $2")
            .bind(now.saturating_sub(LIFE_MS))
            .bind(now.saturating_sub(IDLE_MS))
            .execute(db)
            .await?;
        let insert = "INSERT INTO sessions (hash, user_id, way, created_at, seen_at) \
                      VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(insert)
            .bind(hash(token.expose()))
            .bind(user.as_str())
            .bind(way)
            .bind(now)
            .bind(now)
            .execute(db)
            .await?;
        let oldest = "DELETE FROM sessions WHERE user_id = $1 AND hash NOT IN (SELECT hash FROM \
                      sessions WHERE user_id = $2 ORDER BY created_at DESC, hash LIMIT $3)";
        sqlx::query(oldest)
            .bind(user.as_str())
            .bind(user.as_str())
            .bind(SESSIONS_MAX)
            .execute(db)
            .await?;
        Ok(token)
    }

    /// The session of a token, which is used now.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find(&self, token: &str, now: Millis) -> Result<Option<Session>, StoreError> {
        if !is_token(token) {
            return Ok(None);
        }
        let hash = hash(token);
        let select = "SELECT user_id, way, created_at, seen_at FROM sessions WHERE hash = $1";
        let row = sqlx::query(select).bind(&hash).fetch_optional(self.store.read()).await?;
        let Some(row) = row else { return Ok(None) };
        let (created_at, seen_at): (Millis, Millis) =
            (row.try_get("created_at")?, row.try_get("seen_at")?);
        let over =
            now.saturating_sub(created_at) >= LIFE_MS || now.saturating_sub(seen_at) >= IDLE_MS;
        let user: String = row.try_get("user_id")?;
        let Some(user) = Id::of(&user).filter(|_| !over) else { return Ok(None) };
        if now.saturating_sub(seen_at) >= TOUCH_MS {
            let update = "UPDATE sessions SET seen_at = $1 WHERE hash = $2 AND seen_at < $3";
            let update = sqlx::query(update).bind(now).bind(&hash).bind(now);
            update.execute(self.store.write()).await?;
        }
        Ok(Some(Session { user, way: row.try_get("way")?, created_at }))
    }

    /// Ends one.
    ///
    /// # Errors
    /// The database fails: it may go on.
    pub async fn end(&self, token: &str) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(hash(token));
        delete.execute(self.store.write()).await?;
        Ok(())
    }

    /// Ends all of a person's sessions, and their links: they were disabled, or have a new
    /// password.
    ///
    /// # Errors
    /// The database fails: they may go on.
    pub async fn end_all(&self, user: &Id) -> Result<(), StoreError> {
        for delete in
            ["DELETE FROM sessions WHERE user_id = $1", "DELETE FROM links WHERE user_id = $1"]
        {
            sqlx::query(delete).bind(user.as_str()).execute(self.store.write()).await?;
        }
        Ok(())
    }

    /// A link by which this person may set a password, once. Earlier ones are void.
    ///
    /// # Errors
    /// The database fails.
    pub async fn link(&self, user: &Id, now: Millis) -> Result<Token, StoreError> {
        let token = Token::new();
        let delete = "DELETE FROM links WHERE user_id = $1 OR expires_at <= $2";
        sqlx::query(delete).bind(user.as_str()).bind(now).execute(self.store.write()).await?;
        sqlx::query("INSERT INTO links (hash, user_id, expires_at) VALUES ($1, $2, $3)")
            .bind(hash(token.expose()))
            .bind(user.as_str())
            .bind(now.saturating_add(LINK_MS))
            .execute(self.store.write())
            .await?;
        Ok(token)
    }

    /// Whose link this is. It stays good.
    ///
    /// # Errors
    /// The database fails.
    pub async fn linked(&self, token: &str, now: Millis) -> Result<Option<Id>, StoreError> {
        let select = "SELECT user_id FROM links WHERE hash = $1 AND expires_at > $2";
        self.link_row(select, self.store.read(), token, now).await
    }

    /// Whose link this is. It is good no more: of two who use it at once, one is told.
    ///
    /// # Errors
    /// The database fails.
    pub async fn use_link(&self, token: &str, now: Millis) -> Result<Option<Id>, StoreError> {
        let delete = "DELETE FROM links WHERE hash = $1 AND expires_at > $2 RETURNING user_id";
        self.link_row(delete, self.store.write(), token, now).await
    }

    async fn link_row(
        &self,
        sql: &'static str,
        pool: &sqlx::AnyPool,
        token: &str,
        now: Millis,
    ) -> Result<Option<Id>, StoreError> {
        if !is_token(token) {
            return Ok(None);
        }
        let row = sqlx::query(sql).bind(hash(token)).bind(now).fetch_optional(pool).await?;
        let user: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
        Ok(user.as_deref().and_then(Id::of))
    }

    /// The step of a person's last one-time code.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_step(&self, user: &Id) -> Result<Option<u64>, StoreError> {
        let select = sqlx::query("SELECT step FROM steps WHERE user_id = $1").bind(user.as_str());
        let row = select.fetch_optional(self.store.read()).await?;
        let step: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
        Ok(step.and_then(|step| u64::try_from(step).ok()))
    }

    /// Takes a step as used. `false`: it was used before, or a later one was.
    ///
    /// # Errors
    /// The database fails.
    pub async fn use_step(&self, user: &Id, step: u64) -> Result<bool, StoreError> {
        let upsert = "INSERT INTO steps (user_id, step) VALUES ($1, $2) ON CONFLICT (user_id) \
                      DO UPDATE SET step = excluded.step WHERE steps.step < excluded.step";
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let upsert = sqlx::query(upsert).bind(user.as_str()).bind(step);
        Ok(upsert.execute(self.store.write()).await?.rows_affected() == 1)
    }
}

/// Where the sealed secret of a person's one-time codes belongs, for the keyring.
#[must_use]
pub fn totp_place(user: &Id) -> String {
    format!("user/{user}/totp")
}
