//! Where it is kept: in the governor's database, or in memory where nobody governs.

use std::time::{Duration, Instant};

use govern::Governor;
use govern::kept::{KeptError, Kind, Range, Sheet, Tenant};

use super::super::envelope::Caller;
use super::memory::Memory;

/// All that is kept.
pub(in super::super) enum Shelf {
    /// In this process.
    Memory(Memory),
    /// In the database, for so many days.
    Store(Governor, u32),
}

/// Whose it is.
#[derive(Debug, Clone)]
pub(in super::super) struct Owner {
    number: u64,
    tenant: Option<Tenant>,
}

impl Owner {
    pub(in super::super) fn of(caller: &Caller) -> Self {
        let tenant = caller.who.as_ref().and_then(|who| Tenant::of(&who.principal));
        Self { number: caller.tenant(), tenant }
    }

    /// Whether both see the same.
    pub(in super::super) fn shares(&self, other: &Self) -> bool {
        let place = |owner: &Self| {
            let tenant = owner.tenant.as_ref();
            tenant.map(|tenant| (tenant.organisation.clone(), tenant.project.clone()))
        };
        self.number == other.number && place(self) == place(other)
    }

    /// Whoever has no project has nothing.
    fn tenant(&self, id: &str) -> Result<&Tenant, KeptError> {
        self.tenant.as_ref().ok_or_else(|| KeptError::Missing(id.to_owned()))
    }
}

impl Shelf {
    pub(in super::super) fn new(governor: Option<&Governor>, days: u32) -> Self {
        match governor {
            Some(governor) => Self::Store(governor.clone(), days),
            None => Self::Memory(Memory::default()),
        }
    }

    /// See [`Governor::keep`].
    pub(in super::super) async fn keep(
        &self,
        owner: &Owner,
        sheets: Vec<Sheet>,
        into: Option<&str>,
    ) -> Result<(), KeptError> {
        match self {
            Self::Memory(memory) => memory.keep(owner.number, sheets, into, Instant::now()),
            Self::Store(governor, days) => {
                governor.keep(owner.tenant("this")?, sheets, (into, *days)).await
            }
        }
    }

    /// See [`Governor::keep_over`].
    pub(in super::super) async fn keep_over(
        &self,
        owner: &Owner,
        sheet: Sheet,
    ) -> Result<(), KeptError> {
        match self {
            Self::Memory(memory) => memory.keep_over(owner.number, sheet, Instant::now()),
            Self::Store(governor, days) => {
                governor.keep_over(owner.tenant(&sheet.id)?, sheet, *days).await
            }
        }
    }

    /// See [`Governor::kept`].
    pub(in super::super) async fn kept(
        &self,
        owner: &Owner,
        name: (Kind, &str, &str),
    ) -> Result<Sheet, KeptError> {
        let found = match self {
            Self::Memory(memory) => memory.kept(owner.number, name, Instant::now()),
            Self::Store(governor, _) => governor.kept(owner.tenant(name.2)?, name).await?,
        };
        found.ok_or_else(|| KeptError::Missing(name.2.to_owned()))
    }

    /// See [`Governor::all_kept`].
    pub(in super::super) async fn all(
        &self,
        owner: &Owner,
        kind: Kind,
        ids: &[&str],
    ) -> Result<Vec<Sheet>, KeptError> {
        match (self, &owner.tenant) {
            (Self::Memory(memory), _) => Ok(memory.all(owner.number, kind, ids, Instant::now())),
            (Self::Store(governor, _), Some(tenant)) => governor.all_kept(tenant, kind, ids).await,
            (Self::Store(..), None) => Ok(Vec::new()),
        }
    }

    /// See [`Governor::kept_chain`].
    pub(in super::super) async fn chain(
        &self,
        owner: &Owner,
        id: &str,
    ) -> Result<Vec<Sheet>, KeptError> {
        match self {
            Self::Memory(memory) => memory.chain(owner.number, id, Instant::now()),
            Self::Store(governor, _) => governor.kept_chain(owner.tenant(id)?, id).await,
        }
    }

    /// See [`Governor::kept_items`].
    pub(in super::super) async fn items(
        &self,
        owner: &Owner,
        conversation: &str,
        range: Range,
    ) -> Result<Vec<Sheet>, KeptError> {
        match self {
            Self::Memory(memory) => {
                Ok(memory.items(owner.number, conversation, range, Instant::now()))
            }
            Self::Store(governor, _) => {
                governor.kept_items(owner.tenant(conversation)?, conversation, range).await
            }
        }
    }

    /// See [`Governor::forget`].
    pub(in super::super) async fn forget(
        &self,
        owner: &Owner,
        name: (Kind, &str, &str),
    ) -> Result<(), KeptError> {
        let there = match self {
            Self::Memory(memory) => memory.forget(owner.number, name, Instant::now()),
            Self::Store(governor, _) => governor.forget(owner.tenant(name.2)?, name).await?,
        };
        if there { Ok(()) } else { Err(KeptError::Missing(name.2.to_owned())) }
    }

    /// See [`Governor::still_making`].
    pub(in super::super) async fn still_making(
        &self,
        owner: &Owner,
        id: &str,
        lease: Duration,
    ) -> Result<Option<bool>, KeptError> {
        match self {
            Self::Memory(memory) => Ok(memory.still_making(owner.number, id, Instant::now())),
            Self::Store(governor, _) => {
                let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
                governor.still_making(owner.tenant(id)?, id, lease).await
            }
        }
    }

    /// See [`Governor::stop_making`].
    pub(in super::super) async fn stop_making(
        &self,
        owner: &Owner,
        id: &str,
    ) -> Result<(), KeptError> {
        match self {
            Self::Memory(memory) => {
                memory.stop_making(owner.number, id, Instant::now());
                Ok(())
            }
            Self::Store(governor, _) => governor.stop_making(owner.tenant(id)?, id).await,
        }
    }
}
