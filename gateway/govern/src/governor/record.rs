//! Recording what is said, and reading it back.

use std::sync::Arc;

use super::{Governor, Shared};
use crate::bodies::{self, About, Body, BodyError, Erase, RETENTION_DAYS};
use crate::ledger::Entry;
use crate::secret::Keyring;
use crate::{Id, Millis};

impl Governor {
    /// From now on texts can be recorded, sealed with these keys. Before it, requests that have to
    /// be are refused.
    pub fn record_with(&self, keyring: Arc<Keyring>) {
        let Shared { bodies, store, clock, .. } = &*self.shared;
        bodies.start(store, clock, keyring);
    }

    /// What was said in an operation's attempts; none where nothing is kept.
    ///
    /// # Errors
    /// The database fails, the key was erased or is not at hand, or the text was altered.
    pub async fn bodies_of(
        &self,
        organisation: &Id,
        operation: &Id,
    ) -> Result<Vec<Body>, BodyError> {
        let Shared { bodies, store, .. } = &*self.shared;
        bodies::read(store, bodies.keyring(), (organisation, operation)).await
    }

    /// Erases recorded texts and their keys; how many that were. Requests that still run are
    /// recorded after it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn erase_bodies(&self, erase: Erase) -> Result<u64, BodyError> {
        let Shared { bodies, store, .. } = &*self.shared;
        match bodies.keyring() {
            Some(_) => bodies.erase(erase).await,
            // Nobody writes any.
            None => Ok(store.erase_bodies(&erase).await?),
        }
    }

    /// Waits until all texts recorded so far are in the database.
    pub async fn recorded(&self) {
        self.shared.bodies.flush().await;
    }
}

impl Shared {
    /// Whose text it is that an entry's operation said.
    pub(crate) fn about(&self, entry: &Entry, now: Millis) -> About {
        let days = Id::of(&entry.organisation).and_then(|id| {
            let directory = self.directory();
            directory.organisation(&id)?.retention_days.get(&entry.label).copied()
        });
        About {
            operation: entry.operation.clone(),
            attempt: entry.attempt,
            organisation: entry.organisation.to_string(),
            user: entry.user.to_string(),
            key: entry.key.to_string(),
            label: entry.label,
            at: entry.admitted_at,
            expires: bodies::expires(now, days.unwrap_or(RETENTION_DAYS)),
            bytes: 0,
        }
    }
}
