//! Another master key: everything that is sealed is sealed anew.

use std::sync::Arc;

use serde_json::json;

use super::edit::gone;
use super::{EditError, Governor};
use crate::Millis;
use crate::directory::Directory;
use crate::entity::User;
use crate::identity::session::totp_place;
use crate::ledger::writer::Note;
use crate::secret::{Keyring, SecretError};
use crate::store::StoreError;
use crate::store::bodies::Rewrap;
use crate::store::documents::Edit;

/// What was sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Secrets of one-time codes.
    pub codes: usize,
    /// Keys of recorded texts.
    pub texts: usize,
}

/// Why nothing was sealed anew.
#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody's secret.
    #[error("{0}: {1}")]
    Secret(String, SecretError),
    /// Memory.
    #[error("{0}")]
    Wrong(String),
}

impl From<EditError> for RewrapError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Store(error) => Self::Store(error),
            EditError::Wrong(why) => Self::Wrong(why),
        }
    }
}

impl Governor {
    /// Seals everything with the key in use that one of the others has sealed, and leaves a line in
    /// the audit: all of it in one transaction.
    ///
    /// # Errors
    /// The database fails, or something is sealed with a key that is not at hand: then nothing is
    /// changed.
    pub async fn rewrap(&self, keyring: &Arc<Keyring>) -> Result<Rewrapped, RewrapError> {
        let turn = Arc::clone(&self.shared.editing).lock_owned().await;
        let theirs = self.turn().await?;
        let texts = self.shared.store.sealed_otherwise(&keyring.current).await?;
        let edits = codes(&self.directory(), keyring)?;
        let done = Rewrapped { codes: edits.len(), texts };
        let note = note(keyring, done, self.now());
        let rewrap = Some(Rewrap { keyring: Arc::clone(keyring), texts });
        // As any edit: a caller who leaves must not leave memory behind the database.
        let governor = self.clone();
        let made = tokio::spawn(async move {
            let _turn = (turn, theirs);
            governor.make(edits, rewrap, note).await
        });
        made.await.map_err(|_| gone())??;
        Ok(done)
    }
}

/// The people whose one-time codes another key has sealed, with them sealed anew.
fn codes(directory: &Directory, keyring: &Keyring) -> Result<Vec<Edit>, RewrapError> {
    let mut edits = Vec::new();
    for user in directory.users() {
        let Some(sealed) = &user.totp else { continue };
        let anew = keyring.rewrap(sealed, &totp_place(&user.id));
        let anew = anew.map_err(|why| RewrapError::Secret(user.email.clone(), why))?;
        if anew.is_some() {
            edits.push(Edit::put(&User { totp: anew, ..User::clone(user) }));
        }
    }
    Ok(edits)
}

fn note(keyring: &Keyring, done: Rewrapped, now: Millis) -> Note {
    let body = json!({
        "action": "secrets.rotate",
        "master_key": keyring.current.id(),
        "codes": done.codes,
        "texts": done.texts,
    });
    Note { at: now, kind: "admin".to_owned(), body: body.to_string(), ..Note::default() }
}
