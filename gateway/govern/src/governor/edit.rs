//! Making an administrator's changes: first in the database, then in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{EditError, Governor};
use crate::budget::window;
use crate::directory::Change;
use crate::entity::{Budget, Entity, Organisation};
use crate::ledger::writer::{Job, Note};
use crate::store::StoreError;
use crate::store::bodies::Rewrap;
use crate::store::documents::Edit;

/// Longest wait for the writer to begin: behind entries that the database does not take it may
/// stand for hours.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn gone() -> EditError {
    EditError::Wrong("the writer is gone".to_owned())
}

impl Governor {
    /// Writes changes down, with another master key for recorded texts or without, and takes them
    /// over.
    pub(super) async fn make(
        &self,
        edits: Vec<Edit>,
        rewrap: Option<Rewrap>,
        note: Note,
    ) -> Result<(), EditError> {
        let changes: Vec<Change> = edits.iter().map(Edit::change).collect();
        changes.iter().try_for_each(zones).map_err(EditError::Wrong)?;
        let (done, mut written) = oneshot::channel();
        let edits = Arc::new(Mutex::new(Some(edits)));
        let revision = self.judged_on();
        self.shared.push(Job::Edit { edits: Arc::clone(&edits), note, rewrap, revision, done });
        let made = match timeout(PATIENCE, &mut written).await {
            Ok(made) => made,
            Err(_) if edits.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() => {
                return Err(StoreError::Database(sqlx::Error::PoolTimedOut).into());
            }
            // The writer is at it.
            Err(_) => written.await,
        };
        made.map_err(|_| gone())??;
        for change in &changes {
            self.take_over(change).await?;
        }
        self.edited(changes.len());
        Ok(())
    }

    pub(super) async fn take_over(&self, change: &Change) -> Result<(), EditError> {
        let budget = read::<Budget>(change);
        // A budget's account is there before anybody sees the budget.
        if let Some(budget) = budget {
            self.reopen(Arc::new(budget)).await;
        }
        {
            let mut directory =
                self.shared.directory.write().unwrap_or_else(PoisonError::into_inner);
            let applied = directory.apply(change);
            applied.map_err(|error| EditError::Wrong(error.to_string()))?;
        }
        if change.kind == Budget::KIND && change.body.is_none() {
            self.shared.books.close(&change.id);
        }
        if change.kind == Organisation::KIND {
            // Its days may begin at another time now.
            let all: Vec<Arc<Budget>> = self.directory().budgets().cloned().collect();
            for budget in all.into_iter().filter(|budget| budget.organisation == change.id) {
                self.reopen(budget).await;
            }
        }
        Ok(())
    }

    /// The database has the change, so memory takes it over whether the sums can be had or not.
    async fn reopen(&self, budget: Arc<Budget>) {
        if let Err(error) = self.open_budget(&budget).await {
            tracing::error!(%error, budget = %budget.name, "what was spent is not known yet");
        }
    }
}

fn read<E: Entity>(change: &Change) -> Option<E> {
    let body = change.body.as_deref().filter(|_| change.kind == E::KIND)?;
    serde_json::from_str(body).ok()
}

/// Time zones are known: without them no window could be told.
fn zones(change: &Change) -> Result<(), String> {
    let of_budget = read::<Budget>(change).and_then(|budget| budget.time_zone);
    let of_organisation = read::<Organisation>(change).map(|found| found.time_zone);
    of_budget.into_iter().chain(of_organisation).try_for_each(|zone| window::zone(&zone).map(drop))
}
