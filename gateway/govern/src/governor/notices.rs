//! What people are to be told, until somebody has taken it to where it is durable.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Governor, Shared};
use crate::budget::books::Alert;
use crate::deliver::notice::scope_name;
use crate::deliver::{Notice, Reached};

/// Alerts that wait. More come up only while the database is away for very long.
const WAITING_MAX: usize = 2000;

/// Ids that are remembered, so that a budget that refuses a thousand requests is one alert. The
/// database knows all of them; this spares asking it.
const KNOWN_MAX: usize = 20_000;

/// Alerts that wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Notice>,
    known: HashSet<String>,
}

impl Notices {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `true`: nobody has told it yet, and from now on it counts as told.
    fn is_new(&self, id: &str) -> bool {
        let mut state = self.state();
        if state.known.contains(id) {
            return false;
        }
        if state.known.len() >= KNOWN_MAX {
            state.known.clear();
        }
        state.known.insert(id.to_owned())
    }

    fn push(&self, notice: Notice) {
        tracing::warn!(id = %notice.id, kind = notice.kind, "{}", notice.title);
        let mut state = self.state();
        if state.waiting.len() >= WAITING_MAX {
            tracing::error!(id = %notice.id, "too many alerts wait: this one is not sent");
            return;
        }
        state.waiting.push_back(notice);
        drop(state);
        self.came.notify_one();
    }
}

impl Shared {
    /// Spending has reached shares of limits.
    pub(crate) fn alert(&self, alerts: &[Alert]) {
        for alert in alerts {
            self.reached(&Reached {
                budget: &alert.budget,
                limit: alert.limit,
                percent: alert.percent,
                allowed: alert.allowed,
                spent: alert.spent,
                held: None,
                resets_at: alert.resets_at,
            });
        }
    }

    /// Spending has come to a limit.
    pub(super) fn reached(&self, reached: &Reached<'_>) {
        if self.notices.is_new(&reached.id()) {
            let scope = scope_name(&self.directory(), reached.budget);
            let notice = reached.notice(&self.gateway, scope.as_deref(), self.clock.now());
            self.notices.push(notice);
        }
    }
}

impl Governor {
    /// Has people told something. Of one id only the first counts.
    pub fn tell(&self, notice: Notice) {
        if self.shared.notices.is_new(&notice.id) {
            self.shared.notices.push(notice);
        }
    }

    /// The first of the alerts that wait. They go on waiting until they are [`Governor::taken`].
    #[must_use]
    pub fn notices(&self, count_max: usize) -> Vec<Notice> {
        self.shared.notices.state().waiting.iter().take(count_max).cloned().collect()
    }

    /// The first of the alerts that wait are where nothing is lost.
    pub fn taken(&self, count: usize) {
        let mut state = self.shared.notices.state();
        let count = count.min(state.waiting.len());
        state.waiting.drain(..count);
    }

    /// Returns when an alert has come since the last call.
    pub async fn notice_came(&self) {
        self.shared.notices.came.notified().await;
    }
}
