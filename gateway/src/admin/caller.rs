//! Whoever asks, as the directory knows them at this moment: an earlier look may be out of date by
//! the time that a change is judged.

use govern::directory::Directory;
use govern::entity::Grant;
use govern::role::{self, Permission};
use govern::{Denied, Id, Millis, Principal, Rule, Scope};

use super::refusal::Refusal;

/// Who asks, and what they may do now.
pub(super) struct Caller<'a> {
    pub(super) directory: &'a Directory,
    pub(super) now: Millis,
    /// Where they belong.
    pub(super) organisation: &'a Id,
    pub(super) user: Option<&'a Id>,
    grants: &'a [Grant],
}

impl<'a> Caller<'a> {
    /// The caller as of now.
    ///
    /// # Errors
    /// Key or person are not what they were when the request came in.
    pub(super) fn of(
        principal: &'a Principal,
        directory: &'a Directory,
        now: Millis,
    ) -> Result<Self, Refusal> {
        let over = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        let gone = || {
            Refusal::from(Denied::new(
                Rule::RevokedKey,
                "The key was revoked, or its owner's account deleted.",
            ))
        };
        let user = principal.user.as_ref().map(|user| &user.id);
        if let Some(id) = user {
            let user = directory.user(id).ok_or_else(gone)?;
            if user.disabled {
                return Err(Denied::new(Rule::DisabledUser, "This account is disabled.").into());
            }
        }
        let grants = match (&principal.key, user) {
            (Some(key), _) => {
                let key = directory.key(&key.id).ok_or_else(gone)?;
                if over(key.revoked_at) || over(key.expires_at) {
                    return Err(gone());
                }
                &key.grants
            }
            (None, Some(id)) => &directory.user(id).ok_or_else(gone)?.grants,
            (None, None) => &principal.grants,
        };
        let organisation = &principal.organisation.id;
        Ok(Self { directory, now, organisation, user, grants })
    }

    /// Whether they may do this there.
    pub(super) fn may(&self, permission: Permission, at: &Scope) -> bool {
        let Some(path) = self.directory.path(at) else { return false };
        self.giving(permission).any(|scope| path.contains(scope))
    }

    /// Whether there is a place in which they may do this.
    pub(super) fn may_somewhere(&self, permission: Permission) -> bool {
        self.giving(permission).any(|scope| self.directory.path(scope).is_some())
    }

    /// Whether a thing exists for them: it lies in a place of one of their grants.
    pub(super) fn sees(&self, thing: &Scope) -> bool {
        let Some(path) = self.directory.path(thing) else { return false };
        self.grants.iter().any(|grant| path.contains(&grant.scope))
    }

    /// Where their roles allow something.
    fn giving(&self, permission: Permission) -> impl Iterator<Item = &Scope> {
        let gives = move |grant: &&Grant| {
            let allowed = self.directory.permissions_of(grant);
            allowed.is_some_and(|allowed| allowed.contains(&permission))
        };
        self.grants.iter().filter(gives).map(|grant| &grant.scope)
    }

    /// Judges a place that the caller named: what they do not see does not exist.
    ///
    /// # Errors
    /// It is hidden, or the permission is lacking.
    pub(super) fn require(&self, permission: Permission, at: &Scope) -> Result<(), Refusal> {
        if self.may(permission, at) {
            return Ok(());
        }
        Err(if self.sees(at) { Refusal::lacking(permission) } else { Refusal::hidden() })
    }

    /// Whether these grants may be given: none is wider than the caller's own.
    ///
    /// # Errors
    /// The first that may not.
    pub(super) fn may_give(&self, param: &str, given: &[Grant]) -> Result<(), Refusal> {
        role::no_wider(self.directory, self.grants, given)
            .map_err(|why| Refusal::wider(param, &why))
    }
}
