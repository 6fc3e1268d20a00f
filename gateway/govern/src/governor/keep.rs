//! Keeping what later requests go on with.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Governor, Shared};
use crate::bodies;
use crate::kept::{BYTES_MAX, KeptError, Kind, Range, Row, Sheet, Tenant};
use crate::secret::Keyring;
use crate::store::Kind as Database;
use crate::{Id, Millis};

/// How long the keys of what was deleted may lie in PostgreSQL's files: to take them out holds up
/// whoever keeps something.
const LET_GO: Duration = Duration::from_secs(60);

impl Governor {
    /// Keeps them, all or none, for so many days or for what the organisation says of their label.
    /// Items go to the end of the conversation `into`.
    ///
    /// # Errors
    /// The database fails, there is no master key or no such conversation, or one is too long.
    pub async fn keep(
        &self,
        tenant: &Tenant,
        sheets: Vec<Sheet>,
        (into, days): (Option<&str>, u32),
    ) -> Result<(), KeptError> {
        let keyring = self.keyring()?;
        if sheets.iter().any(|sheet| sheet.content.expose().len() > BYTES_MAX) {
            return Err(KeptError::TooLong);
        }
        let now = self.now();
        let seal = |sheet: Sheet| {
            let row_id = Id::new("kept", now).to_string();
            let expires = self.kept_until(tenant, &sheet, days);
            Row::seal(&keyring, tenant, row_id, (sheet, expires))
        };
        let rows: Vec<Row> = sheets.into_iter().map(seal).collect();
        self.shared.store.keep(tenant, &rows, into).await
    }

    /// Writes another content over one; it is kept anew from now on, and its label may only rise.
    ///
    /// # Errors
    /// As [`Governor::keep`]; it is not there.
    pub async fn keep_over(
        &self,
        tenant: &Tenant,
        sheet: Sheet,
        days: u32,
    ) -> Result<(), KeptError> {
        let keyring = self.keyring()?;
        if sheet.content.expose().len() > BYTES_MAX {
            return Err(KeptError::TooLong);
        }
        let missing = || KeptError::Missing(sheet.id.clone());
        let name = (sheet.kind, &*sheet.parent, &*sheet.id);
        let before = self.shared.store.kept(tenant, name, self.now()).await?;
        let before = before.ok_or_else(missing)?;
        // What it stands under stays: its content opens there alone.
        let label = sheet.label.join(before.sheet.label);
        let sheet = Sheet { label, at: before.sheet.at, parent: before.sheet.parent, ..sheet };
        let expires = self.kept_until(tenant, &sheet, days);
        let id = sheet.id.clone();
        let row = Row::seal(&keyring, tenant, before.row_id, (sheet, expires));
        let there = self.shared.store.rewrite(&row).await?;
        if there { Ok(()) } else { Err(KeptError::Missing(id)) }
    }

    /// One that is kept: by its kind, its conversation where it is an item (else empty), its name.
    ///
    /// # Errors
    /// The database fails, its key was erased, or it was altered.
    pub async fn kept(
        &self,
        tenant: &Tenant,
        name: (Kind, &str, &str),
    ) -> Result<Option<Sheet>, KeptError> {
        let row = self.shared.store.kept(tenant, name, self.now()).await?;
        row.map(|row| row.open(&*self.keyring()?, tenant)).transpose()
    }

    /// Those of a kind that have one of these names; the newest, where several have one.
    ///
    /// # Errors
    /// As [`Governor::kept`].
    pub async fn all_kept(
        &self,
        tenant: &Tenant,
        kind: Kind,
        ids: &[&str],
    ) -> Result<Vec<Sheet>, KeptError> {
        let rows = self.shared.store.all_kept(tenant, kind, ids, self.now()).await?;
        let keyring = self.keyring()?;
        rows.into_iter().map(|row| row.open(&keyring, tenant)).collect()
    }

    /// A response and all that it goes on with, the oldest first.
    ///
    /// # Errors
    /// As [`Governor::kept`]; one of them is not kept any more.
    pub async fn kept_chain(&self, tenant: &Tenant, id: &str) -> Result<Vec<Sheet>, KeptError> {
        let rows = self.shared.store.chain(tenant, id, self.now()).await?;
        let first = rows.first().map(|row| &*row.sheet.parent);
        match first {
            None => return Err(KeptError::Missing(id.to_owned())),
            Some("") => {}
            Some(before) => return Err(KeptError::Missing(before.to_owned())),
        }
        let keyring = self.keyring()?;
        rows.into_iter().map(|row| row.open(&keyring, tenant)).collect()
    }

    /// Items of a conversation.
    ///
    /// # Errors
    /// As [`Governor::kept`].
    pub async fn kept_items(
        &self,
        tenant: &Tenant,
        conversation: &str,
        range: Range,
    ) -> Result<Vec<Sheet>, KeptError> {
        let rows = self.shared.store.items(tenant, conversation, range, self.now()).await?;
        let keyring = self.keyring()?;
        rows.into_iter().map(|row| row.open(&keyring, tenant)).collect()
    }

    /// Deletes one for good, and a conversation with its items. `false`: it was not there.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget(
        &self,
        tenant: &Tenant,
        name: (Kind, &str, &str),
    ) -> Result<bool, KeptError> {
        let there = self.shared.store.delete_kept(tenant, name).await?;
        let Shared { store, letting_go, .. } = &*self.shared;
        let waits = there && store.kind() == Database::Postgres;
        if waits && !letting_go.swap(true, Ordering::Relaxed) {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::time::sleep(LET_GO).await;
                shared.letting_go.store(false, Ordering::Relaxed);
                if let Err(error) = shared.store.let_go().await {
                    tracing::warn!(%error, "deleted keys may still lie in the database's files");
                }
            });
        }
        Ok(there)
    }

    /// Whoever makes a response says that they live, for so long; whether somebody asks them to
    /// stop. `None`: it was deleted.
    ///
    /// # Errors
    /// The database fails.
    pub async fn still_making(
        &self,
        tenant: &Tenant,
        id: &str,
        lease: Millis,
    ) -> Result<Option<bool>, KeptError> {
        let lost_at = self.now().saturating_add(lease);
        Ok(self.shared.store.still_making(tenant, id, lost_at).await?)
    }

    /// Asks whoever makes a response to stop.
    ///
    /// # Errors
    /// The database fails.
    pub async fn stop_making(&self, tenant: &Tenant, id: &str) -> Result<(), KeptError> {
        Ok(self.shared.store.stop_making(tenant, id).await?)
    }

    /// Seals something that is kept elsewhere, for a place there; `None`: there is no master key.
    #[must_use]
    pub fn seal(&self, what: &[u8], place: &str) -> Option<String> {
        self.shared.bodies.keyring().map(|keyring| keyring.seal(what, place))
    }

    /// Opens what [`Governor::seal`] has sealed for this place; `None`: it was not, or was altered.
    #[must_use]
    pub fn unseal(&self, sealed: &str, place: &str) -> Option<Vec<u8>> {
        let opened = self.shared.bodies.keyring()?.open(sealed, place).ok()?;
        Some(opened.expose().clone())
    }

    fn keyring(&self) -> Result<Arc<Keyring>, KeptError> {
        self.shared.bodies.keyring().cloned().ok_or(KeptError::NoKey)
    }

    fn kept_until(&self, tenant: &Tenant, sheet: &Sheet, days: u32) -> Millis {
        let directory = self.directory();
        let organisation = directory.organisation(&tenant.organisation);
        let own = organisation.and_then(|own| own.retention_days.get(&sheet.label).copied());
        bodies::expires(self.now(), own.unwrap_or(days))
    }
}
